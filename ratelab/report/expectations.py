"""Expectations of scenarios, with the values that runs gave, as tables, sentences and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ratelab.lab.metrics import Figure
from ratelab.report.numbers import format_percent
from ratelab.report.tables import FORMATTERS, Cell, Table

if TYPE_CHECKING:
    from ratelab.lab.scenarios.expectations import Check


def build_checks_table(checks: Sequence[Check], figures: Mapping[str, Figure]) -> Table | None:
    """Return a row for each expectation and each row of the results; None without expectations."""
    if not checks:
        return None
    rows = []
    for check in checks:
        names = [Cell(check.label, is_name=True)]
        outcome = Cell("met" if check.passed else "failed", is_name=True)
        rows.append((check.expectation.text, [*names, Cell(_format_value(check, figures)), outcome]))
    return Table("Expectations", ["expectation", "row", "value", "outcome"], rows, key_columns=1)


def describe_failures(checks: Sequence[Check], figures: Mapping[str, Figure]) -> list[str]:
    """Describe each expectation that is not met, with its place in the file."""
    return [
        f"{check.expectation.path}:{check.expectation.line}: expected {check.expectation.text}, "
        f"got {_format_value(check, figures)} ({check.label})"
        for check in checks
        if not check.passed
    ]


def serialize_checks(checks: Sequence[Check]) -> list[dict[str, Any]]:
    """Return expectations and their values for JSON."""
    return [
        {
            "expectation": check.expectation.text,
            "line": check.expectation.line,
            "row": check.label,
            "value": check.value,
            "passed": check.passed,
        }
        for check in checks
    ]


def _format_value(check: Check, figures: Mapping[str, Figure]) -> str:
    if check.value is None:
        return "never" if check.expectation.figure == "recovery_time" else "none"
    if check.expectation.is_percentage:
        return format_percent(check.value)
    return FORMATTERS[figures[check.expectation.figure].unit](check.value)
