"""Strategy for lists of tuples that Hypothesis draws as one string, which takes a fraction of the time of elements."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from hypothesis import strategies as st

LONG_ROWS = 4
"""Rows from which on a list counts as long; half of the lists are."""


def draw_rows(
    *columns: Sequence[Any], min_size: int = 0, max_size: int = 30
) -> st.SearchStrategy[list[tuple[Any, ...]]]:
    """Draw lists of tuples with a value of each column, such as a range; the first values are the simplest."""
    bits = prod(map(len, columns)).bit_length()
    width = bits // 8 + 2  # one more byte than needed, so that all values are about as likely

    def decode(drawn: bytes) -> list[tuple[Any, ...]]:
        return [_decode_row(drawn[begin : begin + width], columns) for begin in range(0, len(drawn) - width + 1, width)]

    short = st.binary(min_size=min_size * width, max_size=max(min_size, LONG_ROWS) * width)
    long = st.binary(min_size=max(min_size, LONG_ROWS) * width, max_size=max_size * width)
    return (short | long).map(decode)


def _decode_row(drawn: bytes, columns: Sequence[Sequence[Any]]) -> tuple[Any, ...]:
    number, row = int.from_bytes(drawn, "big"), []
    for column in columns:
        number, place = divmod(number, len(column))
        row.append(column[place])
    return tuple(row)
