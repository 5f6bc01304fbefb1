"""Scenarios: a quota and traffic described in YAML. Loads them, draws their requests and describes their clients."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ratelab.documents import Document, Kind, Place, validate
from ratelab.errors import InputError
from ratelab.lab.scenarios import arrivals, schema
from ratelab.lab.scenarios.arrivals import MAX_REQUESTS, Span
from ratelab.lab.spill import Integers
from ratelab.lab.traces import read_trace
from ratelab.lab.traffic import Traffic
from ratelab.quota import Quota, format_duration, spell_duration

if TYPE_CHECKING:
    from ratelab.lab.scenarios.policies import PolicyScenarioFile, ScenarioPolicies

KIND = Kind("scenario", "`ratelab simulate --help`", "put traffic into a trace file, or use `ratelab replay`")


@dataclass(frozen=True, eq=False)
class Scenario:
    """A scenario file and its traffic."""

    name: str
    description: str
    seed: int
    quota: Quota
    algorithms: tuple[str, ...]
    traffic: Traffic
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


def load_scenario(path: str, rate: str | None = None, burst: int | None = None, seed: int | None = None) -> Scenario:
    """Read the scenario file at `path` and draw its traffic; the other arguments override its values.

    A seed gives the same traffic on every machine. Each client draws from a random stream of its own.
    Raises `InputError` for an invalid file, with the file, the line and the path of the value.
    """
    document = Document(path, KIND)
    if isinstance(document.value, dict) and "policies" in document.value:
        return _load_policies(document, rate, burst, seed)
    file = validate(document, schema.ScenarioFile)
    seed = file.seed if seed is None else seed
    quota = _build_quota(document, file, rate, burst)
    return _create_scenario(document, file, seed, quota, tuple(dict.fromkeys(file.algorithms)))


def _load_policies(document: Document, rate: str | None, burst: int | None, seed: int | None) -> Scenario:
    """Return a scenario with several policies, each of which has its quota and its algorithm."""
    from ratelab.lab.scenarios.policies import PolicyScenarioFile, create_content, create_limits  # only these need them

    if rate is not None or burst is not None:
        raise InputError(f"{document.path} has policies, each with its quota: leave out --rate and --burst")
    file = validate(document, PolicyScenarioFile)
    seed = file.seed if seed is None else seed
    content = create_content(document, file)
    policy = content.policies[0]
    scenario = _create_scenario(document, file, seed, policy.quota, (policy.algorithm.name,))
    return replace(scenario, limits=create_limits(document, file, content, scenario.traffic, seed))


def _create_scenario(
    document: Document,
    file: schema.ScenarioFile | PolicyScenarioFile,
    seed: int,
    quota: Quota,
    algorithms: tuple[str, ...],
) -> Scenario:
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
    )


def _build_quota(document: Document, file: schema.ScenarioFile, rate: str | None, burst: int | None) -> Quota:
    base = file.quota.rate if rate is None else Quota.parse(rate)
    try:
        return Quota.of(base, file.quota.burst if burst is None else burst)
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
    times: list[Integers] = []
    costs: list[Integers] = []
    total = 0
    read = cache(lambda path: read_trace(path).traffic.times)
    for index, client in enumerate(described):
        for number in range(1, client.count + 1):
            name = client.name if client.count == 1 else f"{client.name}-{number}"
            if name in keys:
                raise document.error(("clients", index, "name"), f"duplicate client name {name!r}: rename one")
            keys[name] = client.key or name
            client_times = np.concatenate(_draw_client(document, duration, client, index, f"{seed}/{name}", read))
            total += len(client_times)
            if total > MAX_REQUESTS:
                raise document.error(
                    ("clients", index),
                    f"a scenario may have at most {MAX_REQUESTS:,} requests, got more: lower rates",
                )
            times.append(np.sort(client_times, kind="stable"))
            costs.append(arrivals.draw_costs(client.cost, len(client_times), f"{seed}/{name}/cost"))
    key_numbers = {key: number for number, key in enumerate(dict.fromkeys(keys.values()))}
    clients = np.repeat(np.arange(len(times)), list(map(len, times)))
    order = np.argsort(np.concatenate(times), kind="stable")
    return Traffic(
        times=np.concatenate(times)[order],
        clients=clients[order],
        costs=np.concatenate(costs)[order],
        names=tuple(keys),
        keys=np.array([key_numbers[key] for key in keys.values()], np.int64),
        duration=duration,
    )


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


# --- descriptions


def describe_client(client: schema.Client) -> str:
    """Return the traffic of a client in words, such as `alice: 1/s, evenly; and 20 requests at once at 3s`."""
    subject = _isolate(client.name)
    if client.count > 1:
        first, last = (_isolate(f"{client.name}-{number}") for number in (1, client.count))
        subject = f"{client.count:,} clients, {first} to {last}, each"
    key = f" (on the key {_isolate(client.key)})" if client.key and client.key != client.name else ""
    return f"{subject}{key}: {'; and '.join(map(_describe_pattern, client.traffic))}{_describe_costs(client.cost)}"


def _isolate(name: str) -> str:
    """Enclose a name in Unicode isolates, so that right-to-left text does not reorder the words around it."""
    return name if name.isascii() else f"\u2068{name}\u2069"


def _describe_pattern(pattern: schema.Pattern) -> str:
    begin = f", from {spell_duration(pattern.begin)} on" if pattern.begin else ""
    end = f", until {spell_duration(pattern.end)}" if pattern.end is not None else ""
    return f"{_describe_requests(pattern)}{begin}{end}"


def _describe_requests(pattern: schema.Pattern) -> str:
    match pattern:
        case schema.Steady():
            return f"{pattern.rate.rate}, evenly"
        case schema.Burst():
            spacing = f"{spell_duration(pattern.spacing)} apart" if pattern.spacing else "at once"
            return f"{pattern.size:,} requests {spacing} at {spell_duration(pattern.at)}"
        case schema.Poisson():
            return f"{pattern.rate.rate} on average, at random"
        case schema.Ramp():
            return f"from {pattern.start.rate} to {pattern.finish.rate}, changing evenly"
        case schema.Wave():
            cycle = spell_duration(pattern.cycle)
            return f"{pattern.mean.rate}, varying by {pattern.amplitude.rate} in a cycle of {cycle}"
        case schema.OnOff():
            on, off = spell_duration(pattern.on), spell_duration(pattern.off)
            return f"{pattern.rate.rate} for {on}, then none for {off}, repeatedly"
        case schema.At():
            counts = Counter(pattern.times)
            times = ", ".join(f"{count} at {spell_duration(at)}" for at, count in list(counts.items())[:10])
            return f"{times}{' and so on' if len(counts) > 10 else ''}"
        case schema.TraceFile():
            return f"the requests recorded in {pattern.file}"


def _describe_costs(weights: dict[int, float]) -> str:
    if len(weights) == 1:
        (cost,) = weights
        return "" if cost == 1 else f"; each request costs {cost:,}"
    total = sum(weights.values())
    shares = ", ".join(f"{100 * weight / total:.3g} % cost {cost:,}" for cost, weight in weights.items())
    return f"; of the requests, {shares}"
