"""Two scenarios side by side, as tables, sentences and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from ratelab.errors import InputError
from ratelab.lab.metrics import Figure
from ratelab.report.numbers import join_names
from ratelab.report.runs import BaseRun
from ratelab.report.tables import FORMATTERS, Table, build_column

NOUNS = {
    "goodput_ratio": "goodput",
    "gave_up": "requests given up",
    "wasted": "wasted tries",
    "time_to_success_p50": "median time to success",
    "time_to_success_p99": "99th percentile of the time to success",
    "max_delay": "longest wait",
    "over_admitted": "wrong admissions",
    "over_denied": "wrong denials",
}
"""Figures in sentences; others have their names."""


class Pair(NamedTuple):
    """A row of the first scenario, and that of the second with which it is compared."""

    label: str
    """Their common name, or both names if they differ."""
    first: Any
    second: Any


class Compared(NamedTuple):
    """Runs of two scenarios, their names, and the rows that they have in common."""

    runs: tuple[BaseRun, BaseRun]
    names: tuple[str, str]
    pairs: list[Pair]
    left_out: list[str]
    """Rows that only one of them has, each after the name of the scenario."""

    @property
    def figures(self) -> dict[str, Figure]:
        """The figures that both have, but names."""
        return {name: figure for name, figure in self.runs[0].figures.items() if figure.unit != "name"}


def pair_rows(runs: tuple[BaseRun, BaseRun], names: tuple[str, str]) -> Compared:
    """Pair the rows of two runs by their names; single rows are a pair, whatever their names.

    Raises `InputError` if they have no row in common.
    """
    first, second = ({_name_row(row): row for row in run.comparison.results} for run in runs)
    if len(first) == len(second) == 1:
        ((one, row), (other, another)) = (*first.items(), *second.items())
        label = one if one == other else f"{one} and {other}"
        return Compared(runs, names, [Pair(label, row, another)], [])
    pairs = [Pair(label, row, second[label]) for label, row in first.items() if label in second]
    if not pairs:
        raise InputError(
            f"{names[0]} has rows for {join_names([*first])}, {names[1]} for {join_names([*second])}: "
            "compare scenarios with a common algorithm or variant"
        )
    left_out = [f"{names[0]}: {label}" for label in first if label not in second]
    left_out += [f"{names[1]}: {label}" for label in second if label not in first]
    return Compared(runs, names, pairs, left_out)


def _name_row(row: Any) -> str:
    return str(getattr(row, "label", row.algorithm))


def describe_differences(compared: Compared) -> list[str]:
    """Describe the traffic, limits and clients that only one of the scenarios has, a line for each."""
    first, second = (run.describe() for run in compared.runs)
    lines = [f"{compared.names[0]}: {line}" for line in first if line not in second]
    lines += [f"{compared.names[1]}: {line}" for line in second if line not in first]
    return lines or ["both scenarios have the same traffic, limits and clients"]


def build_pair_table(compared: Compared, pair: Pair, all_figures: bool) -> Table:
    """Return a row for each figure: those that have a column in other tables or differ, or all."""
    rows = []
    for name, figure in compared.figures.items():
        values = [getattr(pair.first, name), getattr(pair.second, name)]
        if all_figures or values[0] != values[1] or (figure.header and values[0]):
            cells = [cell if cell.mark == "best" else replace(cell, mark="") for cell in _build(figure, values)]
            rows.append((name, cells))
    marked = any(cell.mark for _, cells in rows for cell in cells)
    return Table(pair.label, ["figure", *compared.names], rows, note="* better" if marked else "")


def _build(figure: Figure, values: list[Any]) -> Any:
    return build_column(figure, values, with_marks=True)


def summarize(compared: Compared) -> list[str]:
    """Describe in which figures the second scenario is better or worse, a sentence for each pair of rows."""
    return [_summarize_pair(compared, pair) for pair in compared.pairs]


def _summarize_pair(compared: Compared, pair: Pair) -> str:
    clauses = []
    for word, is_better in (("better", True), ("worse", False)):
        found = [text for text, better in _list_changes(compared, pair) if better == is_better]
        if found:
            clauses.append(f"{word} in {join_names(found)}")
    second = compared.names[1]
    return f"{pair.label}: {second} is {', and '.join(clauses) if clauses else 'neither better nor worse'}."


def _list_changes(compared: Compared, pair: Pair) -> Sequence[tuple[str, bool]]:
    """Return each figure with better values that looks different, in words, and whether it is better in the second."""
    same_requests = getattr(pair.first, "first_tries", None) == getattr(pair.second, "first_tries", None)
    skipped = {"success_ratio", "goodput" if same_requests else "goodput_ratio"}  # they repeat another
    changes = []
    for name, figure in compared.figures.items():
        before, after = getattr(pair.first, name), getattr(pair.second, name)
        if figure.better is None or name in skipped or before is None or after is None:
            continue
        limit = max if figure.better == "lower" else min
        was, became = ((value if figure.target is None else limit(value, figure.target)) for value in (before, after))
        texts = [FORMATTERS[figure.unit](value) for value in (before, after)]
        if was != became and texts[0] != texts[1]:
            noun = NOUNS.get(name, name.replace("_", " "))
            changes.append((f"{noun} ({' to '.join(texts)})", (became < was) == (figure.better == "lower")))
    return changes


def serialize(compared: Compared) -> dict[str, Any]:
    """Return both values of every figure for JSON, those of the first scenario first."""
    figures = compared.figures
    return {
        "version": 1,
        "scenarios": list(compared.names),
        "differences": describe_differences(compared),
        "rows": [
            {
                "row": pair.label,
                "figures": {name: [getattr(pair.first, name), getattr(pair.second, name)] for name in figures},
            }
            for pair in compared.pairs
        ],
        "left_out": compared.left_out,
    }
