"""What there is to say of an algorithm, and the parts that one explanation and several beside each other share."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import NamedTuple

from rich.console import RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from ratelab.algorithms.outside import blaming
from ratelab.learn.decided import decided
from ratelab.learn.greed import greediest
from ratelab.learn.lesson import Lesson, worked
from ratelab.learn.questions import ADVICE
from ratelab.learn.worked_example import Worked
from ratelab.limiter import NEVER, Algorithm, Decision
from ratelab.quota import Quota, about, format_duration
from ratelab.report.catalogue import Entry, catalogue
from ratelab.report.findings import counted


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
