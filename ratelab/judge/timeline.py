"""Timelines: steps of a trial, the hits that come of them, their rows in a report, and the search for shorter ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ratelab.quota import NS_PER_S

CLIENT = "alice"
"""The client of most timelines."""

MAX_SHRINKING_TRIALS = 120
"""Trials that the search for a shorter timeline may take."""


class TimelineStep(NamedTuple):
    """An action `at_ns` nanoseconds after the start of a timeline: set the clock back, then hit."""

    at_ns: int
    hits: int = 1
    key: str = CLIENT
    back_ns: int = 0


class TimedHit(NamedTuple):
    """A hit and its answer; both times are nanoseconds since the start, and differ if the hit slept."""

    at_ns: int
    done_ns: int
    key: str
    allowed: bool
    retry_after: float | None = None
    note: str = ""
    """What happened just before, or why there is no answer."""


TimelineRow = dict[str, Any]


def list_rows(hits: Sequence[TimedHit]) -> list[TimelineRow]:
    """Return hits as rows: those of one client at one time are one row, and so are single hits with equal answers.

    Times are seconds; `until` is the time of the last hit of a row.
    """
    groups: list[list[TimedHit]] = []
    for hit in hits:
        last = groups[-1][-1] if groups else None
        if last is not None and (last.at_ns, last.key) == (hit.at_ns, hit.key) and not hit.note:
            groups[-1].append(hit)
        else:
            groups.append([hit])
    merged: list[list[TimedHit]] = []
    single = False  # whether the last row consists of single hits
    for group in groups:
        first, last = group[0], merged[-1][-1] if merged else None
        alike = last is not None and (last.key, last.allowed) == (first.key, first.allowed) and not first.note
        if alike and single and len(group) == 1:
            merged[-1].append(first)
        else:
            merged.append([*group])
            single = len(group) == 1
    return [_make_row(group) for group in merged]


def _make_row(group: Sequence[TimedHit]) -> TimelineRow:
    denied = [hit for hit in group if not hit.allowed]
    return {
        "at": group[0].at_ns / NS_PER_S,
        "until": group[-1].done_ns / NS_PER_S,
        "key": group[0].key,
        "hits": len(group),
        "allowed": len(group) - len(denied),
        "retry_after": denied[-1].retry_after if denied else None,
        "note": group[0].note,
    }


def shrink(steps: Sequence[TimelineStep], fails: Callable[[list[TimelineStep]], bool]) -> list[TimelineStep]:
    """Return a short list of steps for which `fails` is still true: first with fewer steps, then with fewer hits."""
    best, trials = list(steps), 0

    def accept(candidate: list[TimelineStep]) -> bool:
        nonlocal best, trials
        trials += 1
        if trials > MAX_SHRINKING_TRIALS or not candidate or not fails(candidate):
            return False
        best = candidate
        return True

    size = len(best) // 2
    while size:
        start = 0
        while start < len(best):
            if not accept(best[:start] + best[start + size :]):
                start += size
        size = min(size, len(best)) // 2
    for place in range(len(best)):
        cut = best[place].hits // 2
        while cut:
            step = best[place]
            smaller = step._replace(hits=step.hits - cut)
            if step.hits <= cut or not accept([*best[:place], smaller, *best[place + 1 :]]):
                cut //= 2
    return best
