"""A comparison at equal protection, beside the usual one at equal quota."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ratelab.lab.comparison import Comparison
from ratelab.lab.equal_protection import Equal, EqualProtection
from ratelab.quota import about
from ratelab.report.summary import counted, listed, queued, seconds
from ratelab.report.tables import MIN_NAME_COLUMNS, TERMINAL_COLUMNS

WHY = (
    "Why the two comparisons differ: the same burst is not the same protection. What an algorithm lets through beyond "
    "the quota it need not deny, so at equal quota the most lenient looks best."
)


EQUAL = ("burst", "peak_in_\nwindow", "denied", "good_\ndenied", "max_\ndelay")
"""The headers of what is told of each algorithm, broken over lines."""


def equal_table(comparison: Comparison, protection: EqualProtection) -> RenderableType:
    """Return what changes for each algorithm from the quota's burst to the one found, and what that shows."""
    sentences = [Text(sentence) for sentence in equal_findings(comparison, protection)]
    if not differs(protection):
        return Group(*sentences)
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("at quota ->\nat equal\nprotection", overflow="fold")
    for header in EQUAL:
        table.add_column(header, justify="right", vertical="bottom", no_wrap=True)
    rows = [equal_cells(comparison, equal) for equal in protection.equals]
    arrow = " -> " if _fit_beside_names(rows) else "\n-> "
    for equal, pairs in zip(protection.equals, rows, strict=True):
        burst, *others = (f"{before}{arrow}{after}" for before, after in pairs)
        cells = [f"{burst}{' ' if equal.fits else '!'}", *others]
        table.add_row(escape(equal.result.algorithm), *cells, style="" if equal.fits else "red")
    fits = all(equal.fits for equal in protection.equals)
    return Group(table, *([] if fits else [Text("! no burst tried fits", style="dim")]), Text(), *sentences)


def _fit_beside_names(rows: Sequence[Sequence[tuple[str, str]]]) -> bool:
    """Say whether there is room for pairs of figures on one line."""
    widths = [max(len(f"{before} -> {after}") for before, after in column) for column in zip(*rows, strict=True)]
    return sum(widths) + len(widths) + 1 <= TERMINAL_COLUMNS - MIN_NAME_COLUMNS


def equal_cells(comparison: Comparison, equal: Equal) -> list[tuple[str, str]]:
    """Return the figures of `EQUAL`, at the quota and at equal protection."""
    before, after = equal.at_quota, equal.result
    return [
        (f"{comparison.quota.burst:,}", f"{equal.burst:,}"),
        (f"{before.peak_in_window:,}", f"{after.peak_in_window:,}"),
        (f"{before.denied:,}", f"{after.denied:,}"),
        (f"{equal.at_quota_good_denied:,}", f"{equal.good_denied:,}"),
        (seconds(before.max_delay), seconds(after.max_delay)),
    ]


def equal_findings(comparison: Comparison, protection: EqualProtection) -> list[str]:
    """Say who turns away fewer at the same protection, whom no burst holds to it, and why that differs."""
    if not differs(protection):
        return ["No algorithm denied anything at the quota, so there is nothing to compare at equal protection."]
    burst, window = comparison.quota.burst, about(comparison.quota.window)
    good = f"{protection.good:,}" if protection.good else "none"
    told = [
        f"Equal protection: no more than {protection.target:,} through within {window}, the sliding log's worst here. "
        f"A request is good if with it the key has asked for no more than {burst:,} within {window}: here {good} of "
        f"{counted(len(comparison.traffic), 'request')}."
    ]
    fitting = [equal for equal in protection.equals if equal.fits]
    told += [_held(fitting, protection, len(comparison.traffic))] if fitting else []
    told += [
        f"No burst tried holds {one.result.algorithm} to that: with 1 it still lets "
        f"{one.result.peak_in_window:,} through."
        for one in protection.equals
        if not one.fits
    ]
    told += [*map(_waits, filter(_waits_longer, fitting)), *_shut_out(fitting, comparison)]
    return [*told, WHY] if any(map(_denies_otherwise, protection.equals)) else told


def _waits_longer(equal: Equal) -> bool:
    """Say whether it denies fewer than at the quota, and lets somebody wait longer for that."""
    before, after = equal.at_quota, equal.result
    return after.denied < before.denied and after.max_delay > before.max_delay


def _waits(equal: Equal) -> str:
    """Say what the longer queue of an algorithm that denies fewer costs."""
    before, after = (seconds(result.max_delay) for result in (equal.at_quota, equal.result))
    return (
        f"{equal.result.algorithm} denies fewer with a burst of {equal.burst:,} only as it makes requests wait: "
        f"up to {after}, where at the quota it is {before}."
    )


def _denies_otherwise(equal: Equal) -> bool:
    """Say whether an algorithm denies more or fewer at equal protection than at the quota."""
    before, after = equal.at_quota, equal.result
    return (before.denied, equal.at_quota_good_denied) != (after.denied, equal.good_denied)


def _shut_out(fitting: Sequence[Equal], comparison: Comparison) -> list[str]:
    """Say with which bursts requests that the quota could serve are denied for ever."""
    traffic, beyond = comparison.traffic, comparison.traffic.count_costlier(comparison.quota.burst)
    names = [one.result.algorithm for one in fitting if traffic.count_costlier(one.burst) > beyond]
    if not names:
        return []
    bursts = "The burst found is" if len(names) == 1 else "The bursts found are"
    return [
        f"{bursts} below the cost of requests that the quota could serve, which {listed(names)} can then never admit."
    ]


def _held(fitting: Sequence[Equal], protection: EqualProtection, offered: int) -> str:
    """Say how many good requests, if there are any, and how many of all are denied at equal protection."""
    denied = _by_count({one.result.algorithm: one.result.denied for one in fitting})
    queues = "".join(queued(one.result) for one in fitting if one.result.delayed)
    if not protection.good:
        return f"So held, of {counted(offered, 'request')} denied: {denied}{queues}."
    good = _by_count({one.result.algorithm: one.good_denied for one in fitting})
    return f"So held, of {counted(protection.good, 'good request')} denied: {good}. Of all: {denied}{queues}."


def differs(protection: EqualProtection) -> bool:
    """Say whether there is anything to compare: somebody was denied something."""
    return any(equal.at_quota.denied for equal in protection.equals)


def _by_count(counts: dict[str, int]) -> str:
    """Write who has which count, the fewest first: `a and b 3, c 5`."""
    if len(counts) > 1 and len({*counts.values()}) == 1:
        count = next(iter(counts.values()))
        return f"{count:,} by each" if count else "none by any"
    return ", ".join(
        f"{listed([name for name, own in counts.items() if own == count])} {f'{count:,}' if count else 'none'}"
        for count in sorted(set(counts.values()))
    )
