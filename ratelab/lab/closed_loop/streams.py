"""Counter-based random streams: the n-th draw of a stream depends on its key and on n alone.

A stream is one 64-bit integer in the row of a client, which each draw moves on. The generator is SplitMix64 (Steele,
Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014). Floats are the same bits on every
machine, in plain Python and compiled, because only `+ - * /`, `frexp` and the square root are used, as in
`scenarios.arrivals`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, MutableSequence, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratelab.lab.spill import Integers

PURPOSES = THINK, RETRY, NETWORK, SERVICE, ERROR, THROTTLE, START, COST = range(8)
"""The streams of a client, in its row of streams."""

STREAMS = len(PURPOSES)
"""Streams of a client."""

GAMMA, FIRST_FACTOR, SECOND_FACTOR = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
MASK = 2**64 - 1
PURPOSE_STEP = 0xD1B54A32D192ED03
"""Separates the streams of a client: a key plus a multiple of this is mixed to begin each."""

DELAY_KINDS = CONSTANT, EXPONENTIAL, NORMAL, SPREAD, PHASES, TABLE = range(6)
"""Distributions of a delay, in the first field of its row."""

DELAY_FIELDS = KIND, MEAN, DEVIATION, CHOICES, CHOICES_END = range(5)
"""Fields of a delay's row. `DEVIATION` of two phases is the mean of the second; `CHOICES` are positions in a table."""


def create_streams(seed: int, names: Iterable[str]) -> NDArray[np.uint64]:
    """Return the streams of all clients at their beginning."""
    digests = b"".join(blake2b(f"{seed}/{name}/loop".encode(), digest_size=8).digest() for name in names)
    keys = np.frombuffer(digests, ">u8").astype(np.uint64)
    steps = np.array([PURPOSE_STEP * (purpose + 1) & MASK for purpose in PURPOSES], np.uint64)
    return mix_all((keys[:, None] + steps).ravel())


def mix_all(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the finalizer of SplitMix64 for each word."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(FIRST_FACTOR)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(SECOND_FACTOR)
    mixed: NDArray[np.uint64] = words ^ (words >> np.uint64(31))
    return mixed


def draw_uniforms(streams: NDArray[np.uint64], places: Integers) -> NDArray[np.float64]:
    """Draw as `draw_uniform` does, once from each of the streams at `places`."""
    drawn = look_ahead(streams, places)
    streams[places] += np.uint64(GAMMA)
    return drawn


def look_ahead(streams: NDArray[np.uint64], places: Integers) -> NDArray[np.float64]:
    """Return what `draw_uniform` will draw from each of the streams at `places`, which do not move on."""
    words = mix_all(streams[places] + np.uint64(GAMMA))
    drawn: NDArray[np.float64] = ((words >> np.uint64(11)) + np.uint64(1)).astype(np.float64) * 2.0**-53
    return drawn


def draw_uniform(streams: MutableSequence[int], stream: int) -> float:
    """Draw from the uniform distribution on (0, 1], in steps of 2**-53."""
    word = streams[stream] = (streams[stream] + GAMMA) & MASK
    word = (word ^ (word >> 30)) * FIRST_FACTOR & MASK
    word = (word ^ (word >> 27)) * SECOND_FACTOR & MASK
    return (((word ^ (word >> 31)) >> 11) + 1) * 2.0**-53


def negative_log(number: float) -> float:
    """Return the negative logarithm of a number in (0, 1], by the series of `arrivals.negative_logs`."""
    mantissa, exponent = math.frexp(number)
    z = (mantissa - 0.7071067811865476) / (mantissa + 0.7071067811865476)
    square = z * z
    series = 1.0 / 21
    series = series * square + 1.0 / 19
    series = series * square + 1.0 / 17
    series = series * square + 1.0 / 15
    series = series * square + 1.0 / 13
    series = series * square + 1.0 / 11
    series = series * square + 1.0 / 9
    series = series * square + 1.0 / 7
    series = series * square + 1.0 / 5
    series = series * square + 1.0 / 3
    series = series * square + 1.0
    result = -(exponent * 0.6931471805599453 - 0.34657359027997264 + 2.0 * (z * series))
    return result if result > 0.0 else 0.0


def draw_exponential(streams: MutableSequence[int], stream: int) -> float:
    """Draw from the exponential distribution of mean 1."""
    return negative_log(draw_uniform(streams, stream))


def draw_normal(streams: MutableSequence[int], stream: int) -> float:
    """Draw from the standard normal distribution by the polar method (Marsaglia and Bray, 1964)."""
    while True:
        first = 2.0 * draw_uniform(streams, stream) - 1.0
        second = 2.0 * draw_uniform(streams, stream) - 1.0
        square = first * first + second * second
        if 0.0 < square < 1.0:
            return first * math.sqrt(2.0 * negative_log(square) / square)


def draw_delay(
    delay: Sequence[int], chances: Sequence[float], values: Sequence[int], streams: MutableSequence[int], stream: int
) -> int:
    """Draw a duration in nanoseconds, given the row of its delay and the table of `chances` and `values`.

    A table has a cumulative weight for each value; two phases have the probability of the first there.
    """
    kind, mean = delay[KIND], delay[MEAN]
    if kind == CONSTANT:
        return mean
    if kind == EXPONENTIAL:
        return int(mean * draw_exponential(streams, stream))
    if kind == NORMAL:
        return int(abs(mean + delay[DEVIATION] * draw_normal(streams, stream)))
    if kind == SPREAD:
        return mean - delay[DEVIATION] + int(delay[DEVIATION] * draw_exponential(streams, stream))
    if kind == PHASES:
        first = draw_uniform(streams, stream) <= chances[delay[CHOICES]]
        return int((mean if first else delay[DEVIATION]) * draw_exponential(streams, stream))
    choice, end = delay[CHOICES], delay[CHOICES_END] - 1
    drawn = draw_uniform(streams, stream) * chances[end]
    while choice < end and chances[choice] < drawn:
        choice += 1
    return values[choice]


def draw_part(most: int, streams: Any, stream: int) -> int:
    """Draw from the uniform distribution on 0 to `most` nanoseconds."""
    return int(most * draw_uniform(streams, stream))
