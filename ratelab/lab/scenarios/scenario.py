"""Scenarios: a quota and traffic described in YAML. Loads them and draws their requests."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ratelab.documents import Document, Kind, Place, Value, keys_of, validate
from ratelab.errors import InputError
from ratelab.lab.scenarios import arrivals, schema, variants
from ratelab.lab.scenarios.arrivals import MAX_REQUESTS, Span
from ratelab.lab.scenarios.expectations import EXPECT_KEY, Expectation, check_expectations, place_expectations
from ratelab.lab.spill import Integers
from ratelab.lab.traces import read_trace
from ratelab.lab.traffic import Traffic
from ratelab.quota import Quota, format_duration

if TYPE_CHECKING:
    from ratelab.lab.closed_loop.behavior import Population
    from ratelab.lab.scenarios.policies import PolicyScenarioFile, ScenarioPolicies
    from ratelab.lab.scenarios.population import LoopScenarioFile

KIND = Kind("scenario", "`ratelab simulate --help`", "put traffic into a trace file, or use `ratelab replay`")


@dataclass(frozen=True, eq=False)
class Scenario:
    """A scenario file and its traffic."""

    name: str
    description: str
    seed: int
    quota: Quota | None
    """The quota of each key; None without a limiter, which only a closed loop may lack."""
    algorithms: tuple[str, ...]
    traffic: Traffic
    """All requests; in a closed loop, the first tries of the open clients."""
    lesson: str | None
    """The effect that the scenario shows, in a sentence."""
    chart: str
    """The chart that shows it."""
    clients: tuple[schema.Client, ...]
    """The clients as written, for `describe_client`."""
    text: str
    """The content of the file."""
    limits: ScenarioPolicies | None = None
    """The policies, of a scenario that has several; its quota is then that of the first."""
    variant: str | None = None
    """The name of its changes to the file, of a variant."""
    population: Population | None = None
    """The clients of a closed loop, their server and its faults; None if clients do not react to their answers."""
    expectations: tuple[Expectation, ...] = ()
    """Limits for figures of its runs."""

    @property
    def open_loop_quota(self) -> Quota:
        """The quota of a scenario whose requests do not depend on it; raises `InputError` for a closed loop."""
        self.check_open_loop()
        assert self.quota is not None  # noqa: S101  (without a quota, there is a population)
        return self.quota

    def check_open_loop(self) -> None:
        """Raise `InputError` for a closed loop."""
        if self.population is not None:
            raise InputError(
                f"the clients of {self.name} react to their answers, or meet a server or a fault: "
                "only ratelab simulate runs closed loops"
            )


def load_scenario(path: str, rate: str | None = None, burst: int | None = None, seed: int | None = None) -> Scenario:
    """Read the scenario file at `path` and draw its traffic; the other arguments override its values.

    A seed gives the same traffic on every machine. Each client draws from a random stream of its own.
    Raises `InputError` for an invalid file, with the file, the line and the path of the value.
    """
    document = Document(path, KIND)
    if _has_variants(document):
        return _load_document(variants.without_variants(document), rate, burst, seed, is_variant=True)
    return _load_document(document, rate, burst, seed)


def load_variants(
    path: str, rate: str | None = None, burst: int | None = None, seed: int | None = None
) -> list[Scenario]:
    """Read the scenario file at `path` as `load_scenario` does; return its variants, or itself without any."""
    document = Document(path, KIND)
    if not _has_variants(document):
        return [_load_document(document, rate, burst, seed)]
    changed = variants.list_variants(document)
    loaded = [_load_document(each, rate, burst, seed, is_variant=len(changed) > 1) for each in changed.values()]
    return [replace(scenario, variant=name) for name, scenario in zip(changed, loaded, strict=True)]


def _has_variants(document: Document) -> bool:
    return isinstance(document.value, dict) and variants.KEY in document.value


def _load_document(
    document: Document, rate: str | None, burst: int | None, seed: int | None, is_variant: bool = False
) -> Scenario:
    """Return a scenario; variants have the figures of closed loops, whether or not their clients react."""
    if isinstance(document.value, dict) and "policies" in document.value:
        return _load_policies(document, rate, burst, seed)
    is_open = not _find_further_keys(document.value, schema.ScenarioFile, schema.Client)
    scenario = (_load_open_loop if is_open else _load_closed_loop)(document, rate, burst, seed)
    if scenario.expectations:
        check_expectations(
            document,
            scenario.expectations,
            scenario.algorithms,
            is_loop=is_variant or scenario.population is not None,
            has_faults=scenario.population is not None and bool(scenario.population.faults),
        )
    return scenario


def _load_open_loop(document: Document, rate: str | None, burst: int | None, seed: int | None) -> Scenario:
    """Return a scenario whose clients do not react to their answers."""
    file = validate(document, schema.ScenarioFile)
    seed = file.seed if seed is None else seed
    quota = _build_quota(document, file.quota, rate, burst)
    return _create_scenario(document, file, seed, quota, tuple(dict.fromkeys(file.algorithms)))


def _find_further_keys(value: Value, file: type[schema.ScenarioFields], client: type[schema.Client]) -> list[Place]:
    """Return the keys of a file, and of its clients, that two models do not have."""
    if not isinstance(value, dict):
        return []
    clients = value.get("clients")
    further: list[Place] = [(key,) for key in value if key not in keys_of(file)]
    return further + [
        ("clients", number, key)
        for number, each in enumerate(clients if isinstance(clients, list) else [])
        for key in (each if isinstance(each, dict) else ())
        if key not in keys_of(client)
    ]


def _load_closed_loop(document: Document, rate: str | None, burst: int | None, seed: int | None) -> Scenario:
    """Return a scenario whose clients may react to their answers."""
    from ratelab.lab.scenarios import clients, population  # only these need them

    document.value = clients.expand_presets(document.value)
    file = validate(document, population.LoopScenarioFile)
    population.check_file(document, file)
    seed = file.seed if seed is None else seed
    quota = None
    if file.quota is not None or rate is not None:
        quota = _build_quota(document, file.quota, rate, burst)
    elif burst is not None:
        raise InputError(f"{document.path} has no quota: give --rate, or leave out --burst")
    algorithms = () if quota is None else tuple(dict.fromkeys(file.algorithms))
    scenario = _create_scenario(document, file, seed, quota, algorithms)
    return replace(scenario, population=population.create_population(document, file, scenario.traffic, seed))


def _load_policies(document: Document, rate: str | None, burst: int | None, seed: int | None) -> Scenario:
    """Return a scenario with several policies, each of which has its quota and its algorithm."""
    from ratelab.lab.scenarios.policies import (  # only these need them
        PolicyClient,
        PolicyScenarioFile,
        create_content,
        create_limits,
    )

    if rate is not None or burst is not None:
        raise InputError(f"{document.path} has policies, each with its quota: leave out --rate and --burst")
    if isinstance(document.value, dict) and EXPECT_KEY in document.value:
        raise document.error((EXPECT_KEY,), "several policies take no expectations yet: remove expect")
    _reject_closed_loop(document, PolicyScenarioFile, PolicyClient)
    file = validate(document, PolicyScenarioFile)
    seed = file.seed if seed is None else seed
    content = create_content(document, file)
    policy = content.policies[0]
    scenario = _create_scenario(document, file, seed, policy.quota, (policy.algorithm.name,))
    return replace(scenario, limits=create_limits(document, file, content, scenario.traffic, seed))


def _reject_closed_loop(document: Document, file: type[schema.ScenarioFields], client: type[schema.Client]) -> None:
    """Raise `InputError` for a key of a closed loop in a scenario with several policies."""
    further = _find_further_keys(document.value, file, client)
    if further:
        from ratelab.lab.scenarios.clients import LoopClient
        from ratelab.lab.scenarios.population import LoopScenarioFile

        for place in further:
            plain, full = (schema.ScenarioFile, LoopScenarioFile) if len(place) == 1 else (schema.Client, LoopClient)
            if place[-1] in {*keys_of(full)} - {*keys_of(plain)}:
                remedy = f"remove {place[-1]}, or replace policies by a quota"
                raise document.error(place, f"clients that react to answers take no policies yet: {remedy}")


def _create_scenario(
    document: Document,
    file: schema.ScenarioFile | PolicyScenarioFile | LoopScenarioFile,
    seed: int,
    quota: Quota | None,
    algorithms: tuple[str, ...],
) -> Scenario:
    expected = getattr(file, EXPECT_KEY, ())
    return Scenario(
        name=file.name,
        description=file.description,
        seed=seed,
        quota=quota,
        algorithms=algorithms,
        traffic=_draw_traffic(document, file.duration, file.clients, seed),
        lesson=file.lesson,
        chart=file.chart,
        clients=tuple(file.clients),
        text=document.text,
        expectations=place_expectations(document, expected) if expected else (),
    )


def _build_quota(document: Document, fields: schema.QuotaFields | None, rate: str | None, burst: int | None) -> Quota:
    """Return the quota of a file, or that of `rate`, of which there must be one."""
    base = fields.rate if fields is not None and rate is None else Quota.parse(str(rate))
    try:
        return Quota.of(base, fields.burst if fields is not None and burst is None else burst)
    except InputError as error:
        if rate is None and burst is None:
            raise document.error(("quota",), str(error)) from None
        raise


# --- traffic


def _draw_traffic(document: Document, duration: int, described: Sequence[schema.Client], seed: int) -> Traffic:
    """Draw the requests of all clients and sort them by time; requests of one time keep the order of the file.

    Raises `InputError` for a duration of 0 nanoseconds, and for a client that cannot be drawn.
    """
    if duration < 1:
        raise document.error(("duration",), "expected a duration above 0s, got 0s: write one such as 10s")
    keys: dict[str, str] = {}  # by client name
    owners: list[int] = []  # the client of each item of the next two
    times: list[Integers] = [np.empty(0, np.int64)]
    costs: list[Integers] = [np.empty(0, np.int64)]
    total = 0
    read = cache(lambda path: read_trace(path).traffic.times)
    for index, client in enumerate(described):
        names = _name_copies(client)
        if not keys.keys().isdisjoint(names):
            twice = next(name for name in names if name in keys)
            raise document.error(("clients", index, "name"), f"duplicate client name {twice!r}: rename one")
        first = len(keys)
        keys.update(zip(names, names if client.key is None else repeat(client.key), strict=False))
        drawn: Integers | None = None  # the times of the last copy
        for number, name in enumerate(names if client.traffic else ()):
            if drawn is None or any(isinstance(pattern, schema.Poisson) for pattern in client.traffic):
                drawn = np.concatenate(_draw_client(document, duration, client, index, f"{seed}/{name}", read))
                drawn.sort(kind="stable")
            total += len(drawn)
            if total > MAX_REQUESTS:
                raise document.error(
                    ("clients", index),
                    f"a scenario may have at most {MAX_REQUESTS:,} requests, got more: lower rates",
                )
            owners.append(first + number)
            times.append(drawn)
            costs.append(arrivals.draw_costs(client.cost, len(drawn), f"{seed}/{name}/cost"))
    key_numbers = {key: number for number, key in enumerate(dict.fromkeys(keys.values()))}
    clients = np.repeat(np.array(owners, np.int64), list(map(len, times[1:])))
    order = np.argsort(np.concatenate(times), kind="stable")
    return Traffic(
        times=np.concatenate(times)[order],
        clients=clients[order],
        costs=np.concatenate(costs)[order],
        names=tuple(keys),
        keys=np.array([key_numbers[key] for key in keys.values()], np.int64),
        duration=duration,
    )


def _name_copies(client: schema.Client) -> list[str]:
    """Return the names of a client's copies."""
    return [client.name] if client.count == 1 else [f"{client.name}-{number}" for number in range(1, client.count + 1)]


def _draw_client(
    document: Document, duration: int, client: schema.Client, number: int, stream: str, read: Callable[[str], Integers]
) -> list[Integers]:
    """Return the times of each pattern of a client; `read` returns the times of a trace."""
    times = []
    for index, pattern in enumerate(client.traffic):
        place: Place = ("clients", number, "traffic", index)
        end = duration if pattern.end is None else pattern.end
        if not pattern.begin < end <= duration:
            raise document.error(
                place,
                f"expected from < to <= duration, got from {format_duration(pattern.begin)}, "
                f"to {format_duration(end)}, duration {format_duration(duration)}: change one of them",
            )
        try:
            if isinstance(pattern, schema.TraceFile):
                path = os.path.join(Path(document.path).parent, pattern.file)  # noqa: PTH118  ("-" stays "./-")
                times.append(arrivals.sort_times(pattern.begin + read(path), (pattern.begin, end)))
            else:
                times.append(_draw_pattern(pattern, (pattern.begin, end), f"{stream}/{index}"))
        except InputError as error:
            raise document.error(place, str(error)) from None
    return times


def _draw_pattern(pattern: schema.DrawnPattern, span: Span, stream: str) -> Integers:
    match pattern:
        case schema.Steady():
            return arrivals.steady(pattern.rate, span)
        case schema.Burst():
            return arrivals.burst(pattern.at, pattern.size, pattern.spacing, span)
        case schema.Poisson():
            return arrivals.poisson(pattern.rate, span, stream)
        case schema.Ramp():
            return arrivals.ramp(pattern.start, pattern.finish, span)
        case schema.Wave():
            return arrivals.wave(pattern.mean, pattern.amplitude, pattern.cycle, span)
        case schema.OnOff():
            return arrivals.on_off(pattern.rate, pattern.on, pattern.off, span)
        case schema.At():
            return arrivals.sort_times(pattern.times, span)
