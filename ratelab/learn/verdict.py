"""What came of an answer, as values and as the text in which one process tells it to another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from json import dumps, loads
from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ratelab.limiter import NEVER, Decision
from ratelab.quota import about, format_duration


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


def decided(decision: Decision, told: Callable[[int], str] = about) -> Text:
    """Return a decision on two or three short lines, its times written by `told`."""
    if decision.allowed:
        delay = f"\nleaves after {told(decision.delay_ns)}" if decision.delay_ns else ""
        return Text(f"admitted\n{decision.remaining} left{delay}", style="green")
    return Text(f"denied\n{_wait(decision.retry_after_ns, told)}", style="red")


def telling(decision: Decision | None, other: Decision | None) -> list[str]:
    """Return a decision's lines, its times exact; if `other` has the same and yet differs, with what they leave out."""
    if decision is None:
        return ["no decision"]
    lines = decided(decision, format_duration).plain.splitlines()
    if other is None or lines != decided(other, format_duration).plain.splitlines():
        return lines
    return [*lines, *islice(_left_out(decision, other), 1)]


def _left_out(decision: Decision, other: Decision) -> Iterator[str]:
    """Yield the fields that differ and are not among a decision's lines."""
    if decision.remaining != other.remaining:
        yield f"{decision.remaining} left"
    if decision.retry_after_ns != other.retry_after_ns:
        yield _wait(decision.retry_after_ns, format_duration)
    if decision.reset_after_ns != other.reset_after_ns:
        yield f"new after {format_duration(decision.reset_after_ns)}"
    if decision.delay_ns != other.delay_ns:
        yield f"a delay of {format_duration(decision.delay_ns)}"


def moment(at: int) -> str:
    """Write a time exactly, which may lie before 0."""
    return format_duration(at) if at >= 0 else f"-{format_duration(-at)}"


def _wait(retry_after: int, told: Callable[[int], str]) -> str:
    return "no wait helps" if retry_after == NEVER else f"wait {told(retry_after)}"


def graded(verdict: Verdict) -> RenderableType:
    """Return a verdict for the terminal."""
    return Group(*_parts(verdict))


def _parts(verdict: Verdict) -> Iterator[RenderableType]:
    if verdict.right:
        yield Text(f"{verdict.algorithm}: {verdict.words}", style="bold green")
        yield Text("It decides as the exact algorithm does, in every field, and keeps every promise:\n")
    else:
        yield Text(f"{verdict.algorithm}: not yet right", style="bold red")
        yield Text(f"{verdict.words}\n")
    if verdict.rows:
        yield Text(f"The shortest timeline found on which it fails, at {verdict.quota}:\n")
        yield timeline(verdict)
        yield Text()
        if not verdict.rows[0].cost:
            yield Text("The request of cost 0 only looks: with the first one, the key is first seen.\n")
        if verdict.printed:
            yield Text("\n".join(["On these requests it prints:\n", *map(_plain, verdict.printed.splitlines()), ""]))
    promises = Table.grid(padding=(0, 1))
    for words, kept in verdict.promises:
        promises.add_row("+" if kept else "x", Text(words), style="green" if kept else "red")
    yield promises


def _plain(line: str) -> str:
    return line if line.isprintable() else repr(line)[1:-1]


def timeline(verdict: Verdict) -> Table:
    """Return the requests on which an answer fails, with what it decided and what is right."""
    table = Table(box=None, padding=(0, 2, 1, 0), pad_edge=False, header_style="bold")
    for name in ("time", "cost"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("yours")
    table.add_column("right")
    for row in verdict.rows:
        yours, right = (Text("\n".join(telling(*pair))) for pair in ((row.yours, row.exact), (row.exact, row.yours)))
        yours.stylize("red" if row.yours is None or not row.yours.allowed else "green")
        right.stylize("green" if row.exact.allowed else "red")
        table.add_row(moment(row.at), str(row.cost), yours, "the same" if row.yours == row.exact else right)
    return table
