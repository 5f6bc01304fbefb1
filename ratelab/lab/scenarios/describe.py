"""Written traffic in words: who sends what, and when."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ratelab.lab.scenarios import schema
from ratelab.quota import format_duration as told


def in_words(client: schema.Client) -> str:
    """Say what a client of a scenario sends: `alice: 1/s, evenly; and 20 requests at once at 3s`."""
    name, count = client.name, client.count
    who = (
        _apart(name) if count == 1 else f"{count:,} clients, {_apart(f'{name}-1')} to {_apart(f'{name}-{count}')}, each"
    )
    shared = f" (on the key {_apart(client.key)})" if client.key and client.key != name else ""
    return f"{who}{shared}: {'; and '.join(map(_pattern, client.traffic))}{_costs(client.cost)}"


def _apart(name: str) -> str:
    """Keep a name that may be written from right to left from turning what stands beside it (Unicode's isolates)."""
    return name if name.isascii() else f"\u2068{name}\u2069"


def _pattern(pattern: schema.Pattern) -> str:
    return f"{_flow(pattern)}{''.join(_span(pattern))}"


def _flow(pattern: schema.Pattern) -> str:
    match pattern:
        case schema.Steady():
            return f"{pattern.rate.rate}, evenly"
        case schema.Burst():
            apart = f"{told(pattern.spacing)} apart" if pattern.spacing else "at once"
            return f"{pattern.size:,} requests {apart} at {told(pattern.at)}"
        case schema.Poisson():
            return f"{pattern.rate.rate} on average, at random"
        case schema.Ramp():
            return f"from {pattern.start.rate} to {pattern.finish.rate}, changing evenly"
        case schema.Wave():
            cycle = told(pattern.cycle)
            return f"{pattern.mean.rate}, swinging by {pattern.amplitude.rate} about it once in {cycle}"
        case schema.OnOff():
            return f"{pattern.rate.rate} for {told(pattern.on)}, then nothing for {told(pattern.off)}, in turn"
        case schema.At():
            counts = Counter(pattern.times)
            listed = ", ".join(f"{count} at {told(at)}" for at, count in list(counts.items())[:10])
            return f"{listed}{' and so on' if len(counts) > 10 else ''}"
        case schema.TraceFile():
            return f"what {pattern.file} recorded"


def _span(pattern: schema.Pattern) -> Iterator[str]:
    if pattern.begin:
        yield f", from {told(pattern.begin)} on"
    if pattern.end is not None:
        yield f", until {told(pattern.end)}"


def _costs(weights: dict[int, float]) -> str:
    if len(weights) == 1:
        (cost,) = weights
        return "" if cost == 1 else f"; each request costs {cost:,}"
    whole = sum(weights.values())
    shares = ", ".join(f"{100 * weight / whole:.3g} % cost {cost:,}" for cost, weight in weights.items())
    return f"; of the requests, {shares}"
