"""Equal protection as a table and sentences, next to the comparison at equal quota."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ratelab.lab.comparison import Comparison
from ratelab.lab.equal_protection import EqualProtection, EqualResult
from ratelab.lab.metrics import Result, list_figures
from ratelab.quota import about
from ratelab.report.numbers import format_count, format_seconds, join_names, pluralize
from ratelab.report.summary import describe_delays
from ratelab.report.tables import SIGNS, Cell, Table, build_column, make_rows

COLUMNS = ("burst", "peak_in_window", "denied", "good_denied", "max_delay")

EXPLANATION = (
    "Why the two comparisons differ: the same burst is not the same protection. At equal quota, an algorithm that lets "
    "more through than the quota denies less, so the most lenient one looks best."
)


def build_equal_table(comparison: Comparison) -> Table | None:
    """Return each algorithm's figures at the quota and at equal protection; None if there is nothing to compare."""
    protection = comparison.equal_protection
    if protection is None or not _has_denials(protection):
        return None
    equals = protection.results
    figures = {**list_figures(Result), **list_figures(EqualResult)}
    rows = [_read_figures(equal.at_quota, comparison.quota.burst, equal.at_quota_good_denied) for equal in equals]
    rows += [_read_figures(equal.result, equal.burst, equal.good_denied) for equal in equals]
    columns = []
    for name in COLUMNS:
        cells = build_column(figures[name], [row[name] for row in rows])
        columns.append(
            [
                Cell(after.text, before=before.text, mark="worst" if name == "burst" and not equal.fits else "")
                for equal, before, after in zip(equals, cells[: len(equals)], cells[len(equals) :], strict=True)
            ]
        )
    return Table(
        "From equal quota to equal protection",
        ["algorithm", *(figures[name].header.format(window=about(comparison.quota.window)) for name in COLUMNS)],
        make_rows([equal.result.algorithm for equal in equals], columns),
        note="" if all(equal.fits for equal in equals) else f"{SIGNS['worst']} no burst tried fits",
    )


def _read_figures(result: Result, burst: int, good_denied: int) -> dict[str, Any]:
    """Return the values of the columns."""
    return {name: getattr(result, name, None) for name in COLUMNS} | {"burst": burst, "good_denied": good_denied}


def describe_equal_protection(comparison: Comparison, protection: EqualProtection) -> list[str]:
    """Describe which algorithms deny fewer requests at equal protection, and why that differs from equal quota."""
    if not _has_denials(protection):
        return ["No algorithm denied a request at the quota, so there is nothing to compare at equal protection."]
    burst, window, offered = comparison.quota.burst, about(comparison.quota.window), len(comparison.traffic)
    fitting = [equal for equal in protection.results if equal.fits]
    verb = "is" if protection.good < 2 else "are"
    sentences = [
        f"Equal protection: at most {protection.target:,} in any window of {window}, as much as the sliding log lets "
        f"through. A request is good if its key has requested at most {burst:,} in the {window} up to it; "
        f"{format_count(protection.good)} of {pluralize(offered, 'request')} {verb} good."
    ]
    sentences += [_describe_denials(comparison, fitting, protection)] if fitting else []
    sentences += [
        f"No burst tried gives {equal.result.algorithm} this protection: even with a burst of 1, it lets "
        f"{equal.result.peak_in_window:,} through."
        for equal in protection.results
        if not equal.fits
    ]
    sentences += [_describe_longer_delays(equal) for equal in fitting if _has_longer_delays(equal)]
    sentences += _describe_rejected_costs(fitting, comparison)
    return [*sentences, EXPLANATION] if any(map(_denies_differently, protection.results)) else sentences


def _describe_denials(comparison: Comparison, fitting: Sequence[EqualResult], protection: EqualProtection) -> str:
    """Describe how many good requests, if there are any, and how many of all are denied at equal protection."""
    denied = _list_by_count({equal.result.algorithm: equal.result.denied for equal in fitting})
    delays = "".join(describe_delays(comparison, equal.result) for equal in fitting if equal.result.delayed)
    if not protection.good:
        return f"Requests denied at equal protection: {denied}{delays}."
    good = _list_by_count({equal.result.algorithm: equal.good_denied for equal in fitting})
    return f"Good requests denied at equal protection: {good}. All requests denied: {denied}{delays}."


def _list_by_count(counts: dict[str, int]) -> str:
    """List the names with each count, the smallest first: `a and b 3, c 5`."""
    if len(counts) > 1 and len({*counts.values()}) == 1:
        count = next(iter(counts.values()))
        return f"{count:,} by each algorithm" if count else "none by any algorithm"
    return ", ".join(
        f"{join_names([name for name, other in counts.items() if other == count])} {format_count(count)}"
        for count in sorted(set(counts.values()))
    )


def _has_denials(protection: EqualProtection) -> bool:
    """Return whether an algorithm denied a request at the quota."""
    return any(equal.at_quota.denied for equal in protection.results)


def _denies_differently(equal: EqualResult) -> bool:
    """Return whether an algorithm denies more or fewer requests at equal protection than at the quota."""
    before, after = equal.at_quota, equal.result
    return (before.denied, equal.at_quota_good_denied) != (after.denied, equal.good_denied)


def _has_longer_delays(equal: EqualResult) -> bool:
    """Return whether an algorithm denies fewer requests than at the quota, with longer delays."""
    before, after = equal.at_quota, equal.result
    return after.denied < before.denied and after.max_delay > before.max_delay


def _describe_longer_delays(equal: EqualResult) -> str:
    before, after = (format_seconds(result.max_delay) for result in (equal.at_quota, equal.result))
    return (
        f"{equal.result.algorithm} denies fewer requests with a burst of {equal.burst:,} only because it delays them "
        f"longer: by up to {after}, compared with {before} at the quota."
    )


def _describe_rejected_costs(fitting: Sequence[EqualResult], comparison: Comparison) -> list[str]:
    """Describe which bursts are below the cost of requests that the quota allows; nothing if none are."""
    traffic = comparison.traffic
    oversized = traffic.count_costlier(comparison.quota.burst)
    names = [equal.result.algorithm for equal in fitting if traffic.count_costlier(equal.burst) > oversized]
    if not names:
        return []
    bursts = "burst" if len(names) == 1 else "bursts"
    return [
        f"With the {bursts} found, {join_names(names)} can never admit some requests that the quota allows, because "
        "they cost more."
    ]
