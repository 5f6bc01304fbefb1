"""A scenario: traffic written down in YAML, with the quota to hold it to."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from ratelab.errors import InputError
from ratelab.lab.scenarios import arrivals, schema
from ratelab.lab.scenarios.arrivals import MOST_REQUESTS, Span
from ratelab.lab.scenarios.yaml_document import Document, Place
from ratelab.lab.spill import Integers
from ratelab.lab.traces import read_trace
from ratelab.lab.traffic import Traffic
from ratelab.quota import Quota, format_duration


@dataclass(frozen=True, eq=False)
class Scenario:
    """What a scenario file says, its traffic drawn."""

    name: str
    description: str
    seed: int
    quota: Quota
    algorithms: tuple[str, ...]
    traffic: Traffic
    lesson: str | None
    """What there is to learn from it, in a sentence."""
    chart: str
    """The chart that shows it."""
    clients: tuple[schema.Client, ...]
    """Who sends what, as it was written."""
    text: str
    """The file itself."""


def load_scenario(path: str, rate: str | None = None, burst: int | None = None, seed: int | None = None) -> Scenario:
    """Read the scenario file at `path` and draw its traffic; what is given here takes the place of what it says.

    A seed gives the same traffic on every machine, and each client draws from a stream of its own.
    Raises `InputError`, with file, line and path, for whatever is wrong with the file.
    """
    document = Document(path)
    said = schema.read(document)
    if said.duration < 1:
        raise document.error(("duration",), "expected a duration above 0s, got 0s")
    return Scenario(
        name=said.name,
        description=said.description,
        seed=said.seed if seed is None else seed,
        quota=_quota(document, said, rate, burst),
        algorithms=tuple(dict.fromkeys(said.algorithms)),
        traffic=_traffic(document, said, said.seed if seed is None else seed),
        lesson=said.lesson,
        chart=said.chart,
        clients=tuple(said.clients),
        text=document.text,
    )


def _quota(document: Document, said: schema.ScenarioFile, rate: str | None, burst: int | None) -> Quota:
    granted = said.quota.rate if rate is None else Quota.parse(rate)
    try:
        return Quota(granted.limit, granted.period, said.quota.burst or granted.burst if burst is None else burst)
    except InputError as error:
        if rate is None and burst is None:
            raise document.error(("quota",), str(error)) from None
        raise


def _traffic(document: Document, said: schema.ScenarioFile, seed: int) -> Traffic:
    """Draw every client's requests and put them in the order of arrival, equal times in the order of the file."""
    names: dict[str, str] = {}  # each client's name, and its key's
    times: list[Integers] = []
    costs: list[Integers] = []
    drawn = 0
    read = cache(lambda path: read_trace(path).traffic.whole().times)
    for index, client in enumerate(said.clients):
        for number in range(1, client.count + 1):
            name = client.name if client.count == 1 else f"{client.name}-{number}"
            if name in names:
                raise document.error(("clients", index, "name"), f"there is another client called {name!r}")
            names[name] = client.key or name
            own = np.sort(np.concatenate(_arrivals(document, said, index, f"{seed}/{name}", read)), kind="stable")
            drawn += len(own)
            if drawn > MOST_REQUESTS:
                raise document.error(("clients", index), f"the scenario makes more than {MOST_REQUESTS:,} requests")
            times.append(own)
            costs.append(_costs(client.cost, len(own), f"{seed}/{name}/cost"))
    key_numbers = {key: number for number, key in enumerate(dict.fromkeys(names.values()))}
    clients = np.repeat(np.arange(len(times)), [len(own) for own in times])
    order = np.argsort(np.concatenate(times), kind="stable")
    return Traffic(
        times=np.concatenate(times)[order],
        clients=clients[order],
        costs=np.concatenate(costs)[order],
        names=tuple(names),
        keys=np.array([key_numbers[key] for key in names.values()], np.int64),
        duration=said.duration,
    )


def _arrivals(
    document: Document, said: schema.ScenarioFile, client: int, stream: str, read: Callable[[str], Integers]
) -> list[Integers]:
    """Return the times of each of a client's patterns."""
    found = []
    for index, pattern in enumerate(said.clients[client].traffic):
        place: Place = ("clients", client, "traffic", index)
        end = said.duration if pattern.end is None else pattern.end
        if not pattern.begin < end <= said.duration:
            raise document.error(
                place,
                f"expected from < to <= duration, got from {format_duration(pattern.begin)}, "
                f"to {format_duration(end)}, duration {format_duration(said.duration)}",
            )
        try:
            if isinstance(pattern, schema.TraceFile):
                trace = read(os.path.join(Path(document.path).parent, pattern.file))  # noqa: PTH118  ("-" stays "./-")
                found.append(arrivals.listed(pattern.begin + trace, (pattern.begin, end)))
            else:
                found.append(_times(pattern, (pattern.begin, end), f"{stream}/{index}"))
        except InputError as error:
            raise document.error(place, str(error)) from None
    return found


def _times(pattern: schema.DrawnPattern, span: Span, stream: str) -> Integers:
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
            return arrivals.listed(pattern.times, span)


def _costs(weights: dict[int, float], size: int, stream: str) -> Integers:
    """Draw `size` costs, each as often as its weight says."""
    costs = np.array(list(weights), np.int64)
    if len(costs) == 1:
        return np.full(size, costs[0])
    shares = np.cumsum(np.array(list(weights.values())))
    drawn = arrivals.uniform(arrivals.random_bits(stream), size) * shares[-1]
    found: Integers = costs[np.searchsorted(shares, drawn)]
    return found
