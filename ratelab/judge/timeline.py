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
    rows: list[TimelineRow] = []
    for hit in hits:
        row = rows[-1] if rows else None
        at, until = hit.at_ns / NS_PER_S, hit.done_ns / NS_PER_S
        if row is not None and row["key"] == hit.key and not hit.note:
            instant = row["at"] == row["until"] == at == until
            uniform = row["allowed"] in (0, row["hits"]) and bool(row["allowed"]) == hit.allowed
            if instant or (uniform and row["single"] and at > row["until"]) or (uniform and until > at):
                row["single"] = row["single"] and not instant
                row["hits"] += 1
                row["allowed"] += hit.allowed
                row["until"] = until
                row["retry_after"] = None if hit.allowed else hit.retry_after
                continue
        rows.append(
            {
                "at": at,
                "until": until,
                "key": hit.key,
                "hits": 1,
                "allowed": int(hit.allowed),
                "retry_after": None if hit.allowed else hit.retry_after,
                "note": hit.note,
                "single": True,
            }
        )
    return [{name: value for name, value in row.items() if name != "single"} for row in rows]


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
