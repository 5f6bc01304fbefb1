"""An algorithm explained, so that one can explain it: its idea, its source, its arithmetic and what to say of it."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from ratelab.learn.explain import decision, explained, facts, heading
from ratelab.learn.lesson import Lesson, Request, lesson
from ratelab.learn.source import parameters, teaching_source
from ratelab.learn.worked_example import Worked
from ratelab.limiter import Algorithm
from ratelab.quota import Quota, format_duration


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
