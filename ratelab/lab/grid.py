"""The quotas of a sweep, from text: lists of rates and bursts, and ranges such as 10/min..1000/min."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

from ratelab.errors import InputError, shown
from ratelab.quota import Quota

MOST = 2_000
"""The most quotas that a sweep may try."""


def quotas(rates: str, bursts: str | None, steps: int) -> list[Quota]:
    """Return every rate with every burst, in their order; without bursts, each rate with the one that it names.

    Both are values or ranges with commas between. Of a range, `steps` values are taken from its first to its last, each
    as many times the one before, and rounded: to whole numbers if both ends are, else to three digits. What rounding
    makes equal is tried once. Raises `InputError` for anything else, and for more than `MOST` quotas.
    """
    found = [rate for part in rates.split(",") for rate in _rates(part.strip(), steps)]
    sizes = [None] if bursts is None else [size for part in bursts.split(",") for size in _bursts(part.strip(), steps)]
    if len(found) * len(sizes) > MOST:
        raise InputError(f"a sweep may try at most {MOST:,} quotas, got {len(found) * len(sizes):,}: lower --steps")
    return list(dict.fromkeys(Quota.parse(rate, burst) for rate in found for burst in sizes))


def _rates(text: str, steps: int) -> list[str]:
    first, dots, last = (part.strip() for part in text.partition(".."))
    if not dots:
        Quota.parse(text)
        return [text]
    if not (first and last):
        raise InputError(f"a range of rates must look like 10/min..1000/min, got {shown(text)}")
    low, high = Quota.parse(first), Quota.parse(last)
    count, _, unit = first.partition("/")
    begin = Fraction(count)
    end = begin * Fraction(high.limit, high.period) / Fraction(low.limit, low.period)
    return [f"{value}/{unit}" for value in _spread(begin, end, steps, text)]


def _bursts(text: str, steps: int) -> list[int]:
    first, dots, last = (part.strip() for part in text.partition(".."))
    numbers = (first, last) if dots else (first,)
    if not all(part.isascii() and part.isdigit() and len(part) < 20 and int(part) for part in numbers):
        raise InputError(f"bursts must be whole numbers >= 1, such as 5,10,20 or 5..100, got {shown(text)}")
    if not dots:
        return [int(first)]
    return [int(value) for value in _spread(Fraction(first), Fraction(last), steps, text)]


def _spread(begin: Fraction, end: Fraction, steps: int, text: str) -> list[str]:
    """Return the values of a range, written shortly; its ends as they are."""
    if end <= begin:
        raise InputError(f"a range must go from less to more, got {shown(text)}: turn it round")
    whole = begin.denominator == end.denominator == 1
    factor = float(end / begin)
    inner = (float(begin) * factor ** (step / (steps - 1)) for step in range(1, steps - 1))
    values = (f"{value:.0f}" if whole else _written(f"{value:.3g}") for value in inner)
    return list(dict.fromkeys([_written(f"{float(begin):.12g}"), *values, _written(f"{float(end):.12g}")]))


def _written(number: str) -> str:
    """Write a number without an exponent."""
    return f"{Decimal(number):f}"
