"""What there is to say of an algorithm, and the parts that one explanation and several beside each other share."""

from __future__ import annotations

import inspect
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from ratelab.algorithms.outside import blaming
from ratelab.learn.questions import ADVICE
from ratelab.learn.source import parameters, teaching_source
from ratelab.learn.verdict import decided
from ratelab.learn.worked_example import Lesson, Request, Worked, lesson, worked
from ratelab.limiter import NEVER, Algorithm, Decision
from ratelab.quota import Quota, about, format_duration
from ratelab.report.catalogue import Entry, catalogue
from ratelab.report.findings import counted

MOST = 10_000
"""The largest burst that is tried: more would take seconds."""


def greediest(algorithm: Algorithm, quota: Quota) -> int | None:
    """Return the most requests of cost 1 that a greedy client gets out within a window of `quota`; None if not known.

    It is new at the last instant before a window of the clock begins, asks again whenever it may, and once more at the
    last instant of a window from then. It is not known of a burst above `MOST`, of more than one request a nanosecond,
    which no window can be laid around, nor of an algorithm that has it ask too often.
    """
    if quota.burst > MOST or quota.limit > quota.period:
        return None
    now, end = quota.window - 1, 2 * quota.window - 2
    state, left = algorithm.start(now), list[int]()
    for _ in range(5 * quota.burst):
        made = Decision(*algorithm.step(state, now, 1))
        if made.allowed:
            left.append(now + made.delay_ns)
        elif now < end:
            now = min(now + max(1, made.retry_after_ns), end)
        else:
            return max((bisect_left(left, at + quota.window) - place for place, at in enumerate(left)), default=0)
    return None


class Explained(NamedTuple):
    """What there is to say of one algorithm."""

    entry: Entry
    idea: str
    """The second paragraph of its docstring."""
    source: str
    """Those after it, with who described it."""
    at_most: str
    """What it promises of any window, and what a greedy client gets of that, if it is less."""
    choose_when: str
    say: str
    worked: list[Worked]


def explained(algorithm: type[Algorithm], quota: Quota, taught: Lesson) -> Explained:
    """Collect what an algorithm says of itself under `quota`; raise `InputError` if it cannot grant that."""
    _, idea, *source = [*_plain(inspect.getdoc(algorithm) or ""), "", ""]
    with blaming(algorithm):
        at_most = _at_most(algorithm, quota)
        done = worked(algorithm.from_quota(taught.quota), taught.requests)
    choose_when, say = (_plain(text)[0] for text in ADVICE.get(algorithm, ("", "")))
    entry = catalogue(algorithm, quota)
    return Explained(entry, idea, "\n".join(source).strip(), at_most, choose_when, say, done)


def _plain(text: str) -> list[str]:
    """Return the paragraphs of a docstring as plain text, each on one line."""
    return [" ".join(paragraph.split()).replace("`", "") for paragraph in text.split("\n\n")]


def _at_most(algorithm: type[Algorithm], quota: Quota) -> str:
    """Say what a promise comes to under a quota, and what a client gets that takes all it can, where that is less."""
    entry, exact = catalogue(algorithm, quota), algorithm.from_quota(quota)
    at_most: tuple[int, int] | None = getattr(algorithm, "at_most", None)
    if at_most is None:
        return entry.at_most
    most, got = at_most[0] * quota.burst + at_most[1], greediest(exact, quota)
    less = "" if got in (None, most) else f"; a greedy client gets {got:,} by requests of cost 1"
    return f"{entry.at_most} in any {about(quota.window)}: {most:,} where the quota grants {quota.burst:,}{less}"


def heading(text: str) -> RenderableType:
    """Return the heading of a section."""
    return Padding(Rule(Text(text, style="bold"), align="left", characters="-", style="dim"), (1, 0, 1, 0))


def table(gap: int, headed: bool = True) -> Table:
    """Return a table as wide as the terminal."""
    return Table(box=None, padding=(0, gap, 1, 0), pad_edge=False, header_style="bold", expand=True, show_header=headed)


def decision(done: Worked, taught: Lesson) -> Text:
    """Say what was decided, its times in nanoseconds again."""
    allowed, remaining, *times = done.decision
    exact = Decision(allowed, remaining, *(min(NEVER, taught.nanoseconds(time)) for time in times))
    return decided(exact, format_duration)


def facts(told: Sequence[Explained]) -> Table:
    """Return what to know of each, one column for each; of one alone, what has not been said above."""
    columns = table(2, headed=len(told) > 1)
    columns.add_column("", no_wrap=True, style="dim")
    for one in told:
        columns.add_column(one.entry.algorithm, ratio=1)
    rows: list[tuple[str, list[str]]] = [
        *([("meaning", [one.entry.meaning for one in told])] if len(told) > 1 else []),
        *([("idea", [one.idea for one in told])] if len(told) > 1 else []),
        ("at most", [one.at_most for one in told]),
        ("a key costs", [_size(one.entry) for one in told]),
        ("choose when", [one.choose_when for one in told]),
        ("say aloud", [one.say for one in told]),
    ]
    for label, texts in rows:
        if any(texts):
            columns.add_row(label, *(Text(text or "not stated") for text in texts))
    return columns


def _size(entry: Entry) -> str:
    size = entry.state_bytes_per_key or 0
    return f"{counted(size // 8, 'number')}, {size:,} bytes: {entry.remembers}"


def explanation(algorithm: type[Algorithm], quota: Quota) -> RenderableType:
    """Explain one algorithm under `quota`, from its own texts, source and arithmetic; what it lacks is left out.

    Raises `InputError` if it cannot grant `quota`.
    """
    taught = lesson(quota)
    told = explained(algorithm, quota, taught)
    code = teaching_source(algorithm)
    return Group(
        Text(f"{told.entry.algorithm} at {quota}", style="bold"),
        *_paragraphs(told.entry.meaning, told.idea, told.source),
        *([heading("The source"), _highlighted(code)] if code else []),
        heading(f"Worked out, in {taught.unit}"),
        Text(_parameters(algorithm, taught)),
        *(
            part
            for request, done in zip(taught.requests, told.worked, strict=True)
            for part in _step(told.entry.remembers, request, done, taught)
        ),
        heading("What to know"),
        facts([told]),
    )


def _highlighted(code: str) -> Syntax:
    return Syntax(code, "python", theme="ansi_dark", background_color="default", word_wrap=True, line_numbers=True)


def _paragraphs(*texts: str) -> Iterator[RenderableType]:
    yield from (Padding(Text(text), (1, 0, 0, 0)) for text in texts if text)


def _parameters(algorithm: type[Algorithm], taught: Lesson) -> str:
    """Say with which numbers the lesson is worked out."""
    told = [f"{name} {value}" for name, value in parameters(algorithm.from_quota(taught.quota)).items()]
    return f"Times count {taught.unit}{': ' if told else ''}{', '.join(told)}."


def _step(remembers: str, request: Request, done: Worked, taught: Lesson) -> Iterator[RenderableType]:
    """Yield what comes and to see what, and below it the state it meets, the arithmetic and the decision."""
    came = f"{format_duration(taught.nanoseconds(request.at))}, cost {request.cost}"
    yield Padding(Text.assemble((came, "bold"), f": {request.what}, to see {request.shows}"), (1, 0, 0, 0))
    columns = Table.grid(padding=(0, 2), expand=True)
    columns.add_column(width=18)
    columns.add_column(ratio=1)
    columns.add_column(width=15)
    state, arithmetic = "\n".join(_state(remembers, done.before)), "\n".join(done.lines) or "-"
    columns.add_row(Text(state), Text(arithmetic), decision(done, taught))
    yield Padding(columns, (0, 0, 0, 2))


def _state(remembers: str, state: list[int]) -> Iterator[str]:
    """Name the numbers of a state; the last name stands for all that are left."""
    names = remembers.split(", ") if remembers != "not stated" else [""]
    for name, value in zip(names[:-1], state, strict=False):
        yield f"{name} {value}"
    rest = state[len(names) - 1 :]
    numbers = " ".join(map(str, rest if len(rest) <= 6 else [*rest[:2], "..", *rest[-2:]]))
    name = names[-1].rpartition(" ")[2] if len(rest) > 1 else names[-1]  # a ring of so many times: times
    yield f"{name} {numbers}".strip()


LABELS, COLUMN = 13, 22
"""Letters for the labels, and for each algorithm at least."""


def beside(algorithms: Sequence[type[Algorithm]], quota: Quota, width: int) -> RenderableType:
    """Explain several algorithms under one quota on a terminal so wide; what does not fit stands below."""
    taught = lesson(quota)
    told = [explained(algorithm, quota, taught) for algorithm in algorithms]
    rows = _rows(told, max(1, (width - LABELS) // COLUMN))
    return Group(
        Text(f"{', '.join(one.entry.algorithm for one in told)} at {quota}\n", style="bold"),
        *_apart(map(facts, rows)),
        heading("The same requests"),
        *_apart(_decisions(row, told, taught) for row in rows),
    )


def _rows(told: Sequence[Explained], most: int) -> list[Sequence[Explained]]:
    """Cut into as few rows as possible, each about as long as the others."""
    each = -(-len(told) // -(-len(told) // most))
    return [told[start : start + each] for start in range(0, len(told), each)]


def _apart(tables: Iterable[Table]) -> Iterator[RenderableType]:
    for number, one in enumerate(tables):
        if number:
            yield Text()
        yield one


def _decisions(row: Sequence[Explained], told: Sequence[Explained], taught: Lesson) -> Table:
    """Return what each of a row decides; in bold where not all of those told of decide alike."""
    columns = table(2)
    for name in ("time", "cost"):
        columns.add_column(name, justify="right", no_wrap=True)
    columns.add_column("what comes", ratio=1)
    for one in row:
        columns.add_column(one.entry.algorithm, ratio=1)
    for number, request in enumerate(taught.requests):
        decisions = [decision(one.worked[number], taught) for one in row]
        differ = len({one.worked[number].decision.allowed for one in told}) > 1
        at = format_duration(taught.nanoseconds(request.at))
        columns.add_row(at, str(request.cost), request.what, *decisions, style="bold" if differ else None)
    return columns
