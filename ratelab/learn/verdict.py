"""Verdict on a drill: its values, its JSON form between processes, and its text for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from json import dumps, loads
from typing import NamedTuple

from rich.console import RenderableType, group
from rich.table import Table
from rich.text import Text

from ratelab.limiter import NEVER, Decision
from ratelab.quota import about, format_duration

FAILURE_MARK = "!"
"""First character of the grader's output if the grader itself fails; a traceback follows instead of JSON."""


class GradedRequest(NamedTuple):
    """One request of a timeline on which a submission fails."""

    at: int
    cost: int
    yours: Decision | None
    """The submission's decision; None if it raised an error."""
    exact: Decision
    """The built-in algorithm's decision."""


class Verdict(NamedTuple):
    """The result of grading a submission."""

    algorithm: str
    correct: bool
    message: str
    """The first error found, or `correct`."""
    promises: Sequence[tuple[str, bool]] = ()
    """Each promise and whether it holds; empty if the submission fails before they can be checked."""
    quota: str = ""
    requests: Sequence[GradedRequest] = ()
    """The shortest failing timeline; it ends with the request that fails."""
    printed: str = ""
    """The beginning of the text that the submission prints for these requests."""
    proof: str = ""
    """A sentence if a correct submission is proved to be exact for all times; empty otherwise."""


def serialize_verdict(verdict: Verdict) -> str:
    """Return a verdict as JSON."""
    return dumps(verdict)


def parse_verdict(text: str) -> Verdict:
    """Parse the JSON of `serialize_verdict`; raise `ValueError` if it is malformed."""
    name, correct, message, promises, quota, requests, printed, proof = loads(text)
    kept = [(promise, holds) for promise, holds in promises]
    return Verdict(name, correct, message, kept, quota, list(map(_parse_request, requests)), printed, proof)


def _parse_request(fields: tuple[int, int, list[int] | None, list[int]]) -> GradedRequest:
    at, cost, yours, exact = fields
    return GradedRequest(at, cost, Decision._make(yours) if yours else None, Decision._make(exact))


# --- decisions as text


def decision_text(decision: Decision, format_time: Callable[[int], str] = about) -> Text:
    """Format a decision on two or three short lines, green if admitted and red if denied."""
    if decision.allowed:
        delay = f"\nleaves after {format_time(decision.delay_ns)}" if decision.delay_ns else ""
        return Text(f"admitted\n{decision.remaining} left{delay}", style="green")
    return Text(f"denied\n{_format_wait(decision.retry_after_ns, format_time)}", style="red")


def decision_lines(decision: Decision | None, other: Decision | None) -> list[str]:
    """Format a decision with exact times; if `other` differs but reads the same, add the first field that differs."""
    if decision is None:
        return ["no decision"]
    lines = decision_text(decision, format_duration).plain.splitlines()
    if other is None or lines != decision_text(other, format_duration).plain.splitlines():
        return lines
    return [*lines, *list(_hidden_differences(decision, other))[:1]]


def _hidden_differences(decision: Decision, other: Decision) -> Iterator[str]:
    """Format the fields of `decision` that differ from `other` and that `decision_text` may leave out."""
    if decision.remaining != other.remaining:
        yield f"{decision.remaining} left"
    if decision.retry_after_ns != other.retry_after_ns:
        yield _format_wait(decision.retry_after_ns, format_duration)
    if decision.reset_after_ns != other.reset_after_ns:
        yield f"reset after {format_duration(decision.reset_after_ns)}"
    if decision.delay_ns != other.delay_ns:
        yield f"delay {format_duration(decision.delay_ns)}"


def _format_wait(retry_after_ns: int, format_time: Callable[[int], str]) -> str:
    return "no wait helps" if retry_after_ns == NEVER else f"wait {format_time(retry_after_ns)}"


def format_signed_time(time_ns: int) -> str:
    """Format a time exactly; it is negative if the clock stepped back before 0."""
    return format_duration(time_ns) if time_ns >= 0 else f"-{format_duration(-time_ns)}"


# --- the verdict on a terminal


@group()
def render_verdict(verdict: Verdict) -> Iterator[RenderableType]:
    """Render a verdict for the terminal: the error, the failing timeline and the promises."""
    if verdict.correct:
        yield Text(f"{verdict.algorithm}: {verdict.message}", style="bold green")
        yield Text("Every decision equals that of the exact algorithm in all five fields, and every promise holds:\n")
    else:
        yield Text(f"{verdict.algorithm}: not correct yet", style="bold red")
        yield Text(f"{verdict.message}\n")
    if verdict.requests:
        yield Text(f"The shortest failing timeline found, at {verdict.quota}:\n")
        yield _timeline(verdict)
        yield Text()
        if not verdict.requests[0].cost:
            yield Text("A request of cost 0 only looks. The first one creates the state of the key.\n")
        if verdict.printed:
            yield Text("\n".join(["Printed during these requests:\n", *map(_escape, verdict.printed.splitlines()), ""]))
    promises = Table.grid(padding=(0, 1))
    for words, holds in verdict.promises:
        promises.add_row("+" if holds else "x", Text(words), style="green" if holds else "red")
    yield promises
    if verdict.proof:
        yield Text(f"\n{verdict.proof}", style="bold green")


def _escape(line: str) -> str:
    """Escape control characters, so that the text of a submission cannot change the terminal."""
    return line if line.isprintable() else repr(line)[1:-1]


def _timeline(verdict: Verdict) -> Table:
    """Return the requests of a failing timeline, with the submission's and the exact decisions."""
    table = Table(box=None, padding=(0, 2, 1, 0), pad_edge=False, header_style="bold")
    for name in ("time", "cost"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("yours")
    table.add_column("exact")
    for row in verdict.requests:
        pairs = ((row.yours, row.exact), (row.exact, row.yours))
        yours, exact = (Text("\n".join(decision_lines(*pair))) for pair in pairs)
        yours.stylize("red" if row.yours is None or not row.yours.allowed else "green")
        exact.stylize("green" if row.exact.allowed else "red")
        table.add_row(format_signed_time(row.at), str(row.cost), yours, "same" if row.yours == row.exact else exact)
    return table
