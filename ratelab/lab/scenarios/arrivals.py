"""Arrival times of traffic patterns, in whole nanoseconds, and random costs.

The same seed gives the same times on every machine. Therefore everything here is exact integer arithmetic, or uses only
`+ - * /` and square roots on floats, which IEEE 754 rounds the same way everywhere; `log` and `sin` differ between C
libraries.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from hashlib import blake2b
from itertools import chain, count, pairwise, takewhile

import numpy as np
from numpy.typing import NDArray

from ratelab.errors import InputError
from ratelab.lab.spill import Integers
from ratelab.quota import Quota, format_duration

MAX_REQUESTS = 20_000_000
"""Requests of a pattern, and of a scenario."""

RATE_STEPS = 256
"""A changing rate is constant for this fraction of its ramp or cycle, then takes the next value."""

_SINE = [round(10**9 * math.sin(2 * math.pi * (step + 0.5) / RATE_STEPS)) for step in range(RATE_STEPS)]

Span = tuple[int, int]
"""Begin and end, in nanoseconds: a pattern has requests in `[begin, end)`."""


# --- patterns


def steady(rate: Quota, span: Span) -> Integers:
    """Return one time every `1 / rate`, the first at the start of `span`."""
    _check_expected(rate, span)
    return _collect(_integrate([(*span, _per_ns(rate))]), span)


def burst(at: int, size: int, spacing: int, span: Span) -> Integers:
    """Return `size` times from `at` on, `spacing` nanoseconds apart; raise `InputError` unless all are in `span`."""
    last = at + (size - 1) * spacing
    if at < span[0] or last >= span[1]:
        raise InputError(
            f"a burst must be within {_format_span(span)}, got {format_duration(at)} to {format_duration(last)}: "
            "move it, shorten it or lengthen the span"
        )
    _check_count(size)
    return at + spacing * np.arange(size, dtype=np.int64)


def poisson(rate: Quota, span: Span, seed: str) -> Integers:
    """Return times with independent exponential gaps of mean `1 / rate`, drawn from the stream named `seed`."""
    expected = _check_expected(rate, span)
    bits = random_bits(seed)
    mean_gap = rate.period / rate.limit
    chunk = int(expected + 6 * math.sqrt(expected)) + 16
    times = np.cumsum(exponential(bits, chunk) * mean_gap)
    while times[-1] < span[1] - span[0]:
        times = np.concatenate([times, times[-1] + np.cumsum(exponential(bits, chunk) * mean_gap)])
    return span[0] + times[times < span[1] - span[0]].astype(np.int64)


def ramp(start: Quota, end: Quota, span: Span) -> Integers:
    """Return times at a rate that changes evenly from `start` to `end` over `span`, in `RATE_STEPS` steps."""
    first, last = _per_ns(start), _per_ns(end)
    _check_expected(start if first > last else end, span)
    rates = (first + (last - first) * Fraction(2 * step + 1, 2 * RATE_STEPS) for step in range(RATE_STEPS))
    edges = (span[0] + (span[1] - span[0]) * step // RATE_STEPS for step in range(RATE_STEPS + 1))
    pieces = ((begin, end, rate) for (begin, end), rate in zip(pairwise(edges), rates, strict=True))
    return _collect(_integrate(pieces), span)


def wave(mean: Quota, amplitude: Quota, cycle: int, span: Span) -> Integers:
    """Return times at the rate `mean + amplitude * sin(2 pi t / cycle)`, with t = 0 at the start of `span`.

    `cycle` is in nanoseconds. Raises `InputError` if the amplitude is larger than the mean.
    """
    if _per_ns(amplitude) > _per_ns(mean):
        raise InputError(f"amplitude must be at most the mean of {mean.rate}, got {amplitude.rate}: lower it")
    if cycle < 1:
        raise InputError("cycle must be longer than 0s, got 0s: write one such as 10s")
    if (span[1] - span[0]) // cycle * RATE_STEPS > MAX_REQUESTS:
        raise InputError(f"cycle must be longer, got {format_duration(cycle)}: there are too many cycles to draw")
    _check_expected(mean, span)
    rates = [_per_ns(mean) + _per_ns(amplitude) * Fraction(sine, 10**9) for sine in _SINE]
    edges = (span[0] + cycle * step // RATE_STEPS for step in count())
    steps = takewhile(lambda edge: edge[0] < span[1], pairwise(edges))
    pieces = ((begin, min(end, span[1]), rate) for (begin, end), rate in zip(steps, itertools.cycle(rates)))
    return _collect(_integrate(pieces), span)


def on_off(rate: Quota, on: int, off: int, span: Span) -> Integers:
    """Return `steady` times for `on` nanoseconds, then none for `off`, repeatedly."""
    if on < 1:
        raise InputError("on must be longer than 0s, got 0s: write one such as 10s")
    begins = range(span[0], span[1], on + off)
    _check_count(len(begins) * _check_expected(rate, (0, min(on, span[1] - span[0]))))
    pieces = ([(begin, min(begin + on, span[1]), _per_ns(rate))] for begin in begins)
    return _collect(chain.from_iterable(map(_integrate, pieces)), span)


def sort_times(times: Sequence[int] | Integers, span: Span) -> Integers:
    """Return the listed times in order; raise `InputError` unless all are in `span`."""
    ordered = np.sort(np.array(times, np.int64))
    if ordered[0] < span[0] or ordered[-1] >= span[1]:
        outside = ordered[0] if ordered[0] < span[0] else ordered[-1]
        rule = f"a time must be within {_format_span(span)}, got {format_duration(int(outside))}"
        raise InputError(f"{rule}: move it or lengthen the span")
    return ordered


def _per_ns(rate: Quota) -> Fraction:
    return Fraction(rate.limit, rate.period)


def _integrate(pieces: Iterable[tuple[int, int, Fraction]]) -> Iterator[int]:
    """Yield a time whenever the integral of the rate reaches the next whole number.

    Each piece is `(begin, end, requests per nanosecond)`, with a constant rate.
    """
    due = Fraction(0)  # the fraction of a request still missing at the start of a piece
    for begin, end, rate in pieces:
        requests = rate * (end - begin) - due
        if requests <= 0:
            due = -requests
            continue
        # request k of this piece is at begin + (due + k) / rate, rounded up, all over one denominator
        denominator = rate.numerator * due.denominator
        first = due.numerator * rate.denominator
        step = due.denominator * rate.denominator
        whole_requests = math.ceil(requests)
        for k in range(whole_requests):
            yield begin - (-(first + k * step) // denominator)
        due = whole_requests - requests


def _collect(times: Iterable[int], span: Span) -> Integers:
    """Return the times as a column, without one that rounding up has moved out of `span`."""
    column = np.fromiter(times, np.int64)
    return column[column < span[1]]


# --- random numbers


def random_bits(seed: str) -> np.random.PCG64:
    """Return the stream of random 64-bit integers of a seed, the same in every version of numpy."""
    return np.random.PCG64(int.from_bytes(blake2b(seed.encode(), digest_size=16).digest(), "big"))


def uniform(bits: np.random.PCG64, size: int) -> NDArray[np.float64]:
    """Draw `size` floats from the uniform distribution on (0, 1], in steps of 2**-53."""
    return ((bits.random_raw(size) >> np.uint64(11)) + np.uint64(1)).astype(np.float64) * 2.0**-53


def exponential(bits: np.random.PCG64, size: int) -> NDArray[np.float64]:
    """Draw `size` floats from the exponential distribution of mean 1."""
    return negative_logs(uniform(bits, size))


def negative_logs(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the negative logarithms of numbers in (0, 1], which are exponential if the numbers are uniform.

    ln(m * 2**e) = e ln 2 + ln c + 2 artanh((m - c) / (m + c)), c = sqrt(1/2); the series ends below 2**-53.
    """
    mantissa, exponent = np.frexp(numbers)
    root_half = 0.7071067811865476
    z = (mantissa - root_half) / (mantissa + root_half)
    square = z * z
    series = np.zeros_like(z)
    for power in range(21, 0, -2):
        series = series * square + 1.0 / power
    negative = -(exponent * 0.6931471805599453 - 0.34657359027997264 + 2.0 * (z * series))
    return np.maximum(negative, 0.0)


def draw_costs(weights: dict[int, float], size: int, stream: str) -> Integers:
    """Draw `size` costs by their weights."""
    costs = np.array(list(weights), np.int64)
    if len(costs) == 1:
        return np.full(size, costs[0])
    bounds = np.cumsum(np.array(list(weights.values())))
    choices = np.searchsorted(bounds, uniform(random_bits(stream), size) * bounds[-1])
    drawn: Integers = costs[choices]
    return drawn


# --- limits


def _check_expected(rate: Quota, span: Span) -> int:
    """Return the approximate number of requests of a rate; raise `InputError` if there are too many."""
    return _check_count((span[1] - span[0]) * rate.limit // rate.period + 1)


def _check_count(requests: int) -> int:
    if requests > MAX_REQUESTS:
        raise InputError(
            f"a pattern may have at most {MAX_REQUESTS:,} requests, got {requests:,}: lower the rate or shorten it"
        )
    return requests


def _format_span(span: Span) -> str:
    return f"{format_duration(span[0])} to {format_duration(span[1])} (end excluded)"
