"""An algorithm explained, so that one can explain it: its idea, its source, its arithmetic and what to say of it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from ratelab.algorithms.outside import blaming
from ratelab.learn.lesson import Lesson, lesson, worked
from ratelab.learn.source import parameters, teaching_source
from ratelab.learn.working import Worked
from ratelab.limiter import NEVER, Algorithm, Decision
from ratelab.quota import Quota, about
from ratelab.report.catalogue import Entry, catalogue
from ratelab.report.decided import decided
from ratelab.report.findings import counted


class _Explained(NamedTuple):
    """What there is to say of one algorithm."""

    entry: Entry
    idea: str
    """The second paragraph of its docstring."""
    source: str
    """Those after it, with who described it."""
    choose_when: str
    say: str
    worked: list[Worked]


def explanation(algorithm: type[Algorithm], quota: Quota) -> RenderableType:
    """Explain one algorithm under `quota`, from its own texts, source and arithmetic; what it lacks is left out.

    Raises `InputError` if it cannot grant `quota`.
    """
    taught = lesson(quota)
    told = _explained(algorithm, quota, taught)
    code = teaching_source(algorithm)
    return Group(
        Text(f"{told.entry.algorithm} at {quota}", style="bold"),
        *_paragraphs(told.entry.meaning, told.idea, told.source),
        *([_heading("The source"), Syntax(code, "python", theme="ansi_dark", word_wrap=True)] if code else []),
        _heading(f"Worked out, in {taught.unit}"),
        Text(f"{_parameters(algorithm, taught)}\n"),
        _timeline(told, taught),
        _heading("What to know"),
        _facts([told], quota),
    )


def comparison_of(algorithms: Sequence[type[Algorithm]], quota: Quota) -> RenderableType:
    """Explain several algorithms beside each other, on the same requests under the same quota."""
    taught = lesson(quota)
    told = [_explained(algorithm, quota, taught) for algorithm in algorithms]
    return Group(
        Text(f"{', '.join(one.entry.algorithm for one in told)} at {quota}\n", style="bold"),
        _facts(told, quota),
        _heading("The same requests"),
        _decisions(told, taught),
    )


def _explained(algorithm: type[Algorithm], quota: Quota, taught: Lesson) -> _Explained:
    _, idea, *source = [*_plain(inspect.getdoc(algorithm) or ""), "", ""]
    with blaming(algorithm):
        algorithm.from_quota(quota)
        done = worked(algorithm.from_quota(taught.quota), taught.requests)
    choose_when, say = (_plain(str(getattr(algorithm, name, "")))[0] for name in ("choose_when", "say"))
    return _Explained(catalogue(algorithm, quota), idea, "\n".join(source).strip(), choose_when, say, done)


def _plain(text: str) -> list[str]:
    """Return the paragraphs of a docstring as plain text, each on one line."""
    return [" ".join(paragraph.split()).replace("`", "") for paragraph in text.split("\n\n")]


def _paragraphs(*texts: str) -> Iterator[RenderableType]:
    yield from (Padding(Text(text), (1, 0, 0, 0)) for text in texts if text)


def _heading(text: str) -> RenderableType:
    return Padding(Rule(Text(text, style="bold"), align="left", characters="-", style="dim"), (1, 0, 1, 0))


def _parameters(algorithm: type[Algorithm], taught: Lesson) -> str:
    """Say with which numbers the lesson is worked out."""
    told = [f"{name} {value}" for name, value in parameters(algorithm.from_quota(taught.quota)).items()]
    return f"Times count {taught.unit}{': ' if told else ''}{', '.join(told)}."


def _table(gap: int, headed: bool = True) -> Table:
    return Table(box=None, padding=(0, gap, 1, 0), pad_edge=False, header_style="bold", width=80, show_header=headed)


def _timeline(told: _Explained, taught: Lesson) -> Table:
    table = _table(1)
    for name in ("time", "cost"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("state before", max_width=18)
    table.add_column("arithmetic", ratio=1)
    table.add_column("decision", width=13)
    for request, done in zip(taught.requests, told.worked, strict=True):
        table.add_row(
            about(taught.nanoseconds(request.at)),
            str(request.cost),
            Text("\n".join(_state(told.entry.remembers, done.before))),
            Text("\n".join(done.lines) or "-"),
            _decision(done, taught),
        )
    return table


def _state(remembers: str, state: list[int]) -> Iterator[str]:
    """Name the numbers of a state; the last name stands for all that are left."""
    names = remembers.split(", ") if remembers != "not stated" else [""]
    for name, value in zip(names[:-1], state, strict=False):
        yield f"{name} {value}"
    rest = state[len(names) - 1 :]
    numbers = " ".join(map(str, rest if len(rest) <= 6 else [*rest[:2], "..", *rest[-2:]]))
    name = names[-1].rpartition(" ")[2] if len(rest) > 1 else names[-1]  # a ring of so many times: times
    yield f"{name} {numbers}".strip()


def _decision(done: Worked, taught: Lesson) -> Text:
    """Say what was decided, its times in nanoseconds again."""
    allowed, remaining, *times = done.decision
    return decided(Decision(allowed, remaining, *(min(NEVER, taught.nanoseconds(time)) for time in times)))


def _facts(told: Sequence[_Explained], quota: Quota) -> Table:
    """Return what to know of each, one column for each; of one alone, what has not been said above."""
    table = _table(2, headed=len(told) > 1)
    table.add_column("", no_wrap=True, style="dim")
    for one in told:
        table.add_column(one.entry.algorithm, ratio=1)
    rows: list[tuple[str, list[str]]] = [
        *([("meaning", [one.entry.meaning for one in told])] if len(told) > 1 else []),
        *([("idea", [one.idea for one in told])] if len(told) > 1 else []),
        ("worst case", [_worst(one.entry, quota) for one in told]),
        ("a key costs", [_size(one.entry) for one in told]),
        ("choose when", [one.choose_when for one in told]),
        ("say", [one.say for one in told]),
    ]
    for label, texts in rows:
        if any(texts):
            table.add_row(label, *(Text(text or "not stated") for text in texts))
    return table


def _worst(entry: Entry, quota: Quota) -> str:
    if entry.at_most == "not stated":
        return entry.at_most
    return f"{entry.at_most} in any {about(quota.window)}"


def _size(entry: Entry) -> str:
    size = entry.state_bytes_per_key or 0
    return f"{counted(size // 8, 'number')}, {size:,} bytes: {entry.remembers}"


def _decisions(told: Sequence[_Explained], taught: Lesson) -> Table:
    table = _table(2)
    for name in ("time", "cost"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("what comes", ratio=1)
    for one in told:
        table.add_column(one.entry.algorithm, ratio=1)
    for number, request in enumerate(taught.requests):
        decisions = [_decision(one.worked[number], taught) for one in told]
        differ = len({one.worked[number].decision.allowed for one in told}) > 1
        at = about(taught.nanoseconds(request.at))
        table.add_row(at, str(request.cost), request.why, *decisions, style="bold" if differ else None)
    return table
