"""Figures, their bars and their table."""

from __future__ import annotations

from functools import partial

import pytest
from table import figures_table
from timing import Bar, Figure, median_difference, median_ratio, rate_figure, time_in_turn


def rows_of(*figures: Figure) -> list[list[str]]:
    """Return the cells of a table's rows, as written by rich's markup."""
    return [list(row) for row in zip(*(column.cells for column in figures_table(figures, "here").columns), strict=True)]


@pytest.mark.parametrize(
    ("bar", "text"),
    [
        (Bar("<=", 3), "<= 3x"),
        (Bar("<=", 22, "%"), "<= 22%"),
        (Bar("<=", 260, "bytes"), "<= 260 bytes"),
        (Bar(">=", 0.85), ">= 0.85x"),
        (Bar(">=", 3, baseline="ratelab's"), ">= 3x ratelab's"),
        (Bar(">", 1), "> 1x"),
    ],
)
def test_a_bar_is_written_with_its_unit(bar: Bar, text: str) -> None:
    assert str(bar) == text


@pytest.mark.parametrize(
    ("figure", "missed"),
    [
        (Figure("ratio at its bar", 30, "ns", 10, 3, Bar("<=", 3)), False),
        (Figure("ratio above its bar", 31, "ns", 10, 3.1, Bar("<=", 3)), True),
        (Figure("ratio below its bar", 8, "/s", 10, 0.8, Bar(">=", 0.85)), True),
        (Figure("ratio not above its bar", 10, "/s", 10, 1, Bar(">", 1)), True),
        (Figure("value above its bar", 261, "bytes", bar=Bar("<=", 260, "bytes")), True),
        (Figure("value below its bar", 12, "ns", 1, 12, Bar("<=", 20, "ns")), False),
        (Figure("part above its bar", 2.3, "us", 10, 23, Bar("<=", 22, "%"), "%"), True),
        (Figure("part below its bar", 2.1, "us", 10, 21, Bar("<=", 22, "%"), "%"), False),
        (Figure("not measurable", None, "us", 10, None, Bar("<=", 22, "%"), "%"), False),
        (Figure("no bar", 5, "us", 1, 5), False),
    ],
    ids=lambda value: value.label if isinstance(value, Figure) else None,
)
def test_a_missed_bar_is_marked(figure: Figure, missed: bool) -> None:
    ((*_, bar),) = rows_of(figure)
    assert figure.is_missed is missed
    assert ("MISSED" in bar) is missed
    assert bar.startswith("" if figure.bar is None else str(figure.bar))


def test_values_are_written_to_three_digits_with_their_unit() -> None:
    rows = rows_of(
        Figure("time", 2.345, "us", 1234.5, 0.0019),
        Figure("added", 3.456, "us", 22.1, 15.638, ratio_unit="%"),
        Figure("rate", 45_520.4, "/s"),
    )
    assert rows == [
        ["time", "2.35 us", "1,234 us", "0.00x", ""],
        ["added", "3.46 us", "22.1 us", "15.6%", ""],
        ["rate", "45,520 /s", "", "", ""],
    ]


def test_a_difference_below_zero_is_not_measurable_here() -> None:
    assert median_difference([3, 1, 2], [1, 1, 1]) == 1
    assert median_difference([1, 1, 2], [1, 2, 1]) is None
    (row,) = rows_of(Figure("hidden by noise", median_difference([1], [2]), "ns"))
    assert row == ["hidden by noise", "not measurable here", "", "", ""]


def test_ratios_are_medians_of_the_rounds_and_rates_are_inverted() -> None:
    assert median_ratio([2, 30, 3], [1, 10, 2]) == 2
    figure = rate_figure("work", [2, 2, 4], [1, 1, 1], 100, "/s", None)
    assert (figure.measured, figure.floor, figure.ratio) == (50, 100, 0.5)


def test_work_and_floor_alternate_after_a_round_that_warms_up() -> None:
    calls: list[str] = []
    times = iter(range(100))
    work, floor = partial(calls.append, "work"), partial(calls.append, "floor")
    assert time_in_turn(work, floor, 2, lambda: next(times)) == ([1, 1], [1, 1])
    assert calls == ["work", "floor"] * 3
