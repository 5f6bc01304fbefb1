"""A verdict on an answer: what is wrong, the shortest timeline that shows it, and which promises are kept."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ratelab.learn.decided import moment, telling
from ratelab.learn.verdict import Verdict


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
