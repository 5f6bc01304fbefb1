"""What came of an answer, as values and as the text in which one process tells it to another."""

from __future__ import annotations

from collections.abc import Sequence
from json import dumps, loads
from typing import NamedTuple

from ratelab.limiter import Decision


class Row(NamedTuple):
    """One request of a timeline on which an answer fails."""

    at: int
    cost: int
    yours: Decision | None
    """What the answer decided; None where it did not."""
    exact: Decision
    """What the algorithm decides."""


class Verdict(NamedTuple):
    """What came of an answer."""

    algorithm: str
    right: bool
    words: str
    promises: Sequence[tuple[str, bool]] = ()
    """Every promise and whether it was kept; empty if the answer cannot be asked for so much."""
    quota: str = ""
    rows: Sequence[Row] = ()
    """The shortest timeline on which the answer fails, up to where it does."""
    printed: str = ""
    """What the answer printed on it, or the beginning of that."""


def written(verdict: Verdict) -> str:
    """Return a verdict as JSON."""
    return dumps(verdict)


def read(text: str) -> Verdict:
    """Return the verdict that was `written`; raise `ValueError` if it is none."""
    name, right, words, promises, quota, rows, printed = loads(text)
    kept = [(promise, whether) for promise, whether in promises]
    return Verdict(name, right, words, kept, quota, list(map(_row, rows)), printed)


def _row(told: tuple[int, int, list[int] | None, list[int]]) -> Row:
    at, cost, yours, exact = told
    return Row(at, cost, Decision._make(yours) if yours else None, Decision._make(exact))
