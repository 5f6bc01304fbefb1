"""`ratelab docs`: the pages of the manual."""

from __future__ import annotations

import sys
from difflib import get_close_matches
from importlib.resources import files
from typing import TYPE_CHECKING, ClassVar, cast

import click

from ratelab.errors import InputError, short_repr

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.resources.abc import Traversable

    from rich.console import Console, ConsoleOptions
    from rich.segment import Segment
    from rich.table import Table

MAX_WIDTH = 100
"""Columns of text on a wide terminal; longer lines are hard to read."""


def manual_pages() -> dict[str, Traversable]:
    """Return the page of each topic, in alphabetical order."""
    folder = files("ratelab") / "docs"
    names = sorted(page.name for page in folder.iterdir())
    return {name.removesuffix(".md"): folder / name for name in names if name.endswith(".md")}


def summary(page: str) -> str:
    """Return the first paragraph of a page, which is one line below its title."""
    return page.split("\n\n", 2)[1]


@click.command()
@click.argument("topic", required=False)
@click.option("--plain", is_flag=True, help="Print the Markdown source; the default if the output is not a terminal.")
def docs(topic: str | None, plain: bool) -> None:
    """Print the manual page about TOPIC. Without TOPIC, list the topics."""
    pages = manual_pages()
    if topic is None:
        _list_topics(pages)
        return
    if topic not in pages:
        near = get_close_matches(topic, pages, 1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(pages)}"
        raise InputError(f"unknown topic {short_repr(topic)}: {hint}")
    text = pages[topic].read_text(encoding="utf-8")
    if plain or sys.stdout is None or not sys.stdout.isatty():
        click.echo(text, nl=False)
        return
    from rich.console import Console

    print_page(text, Console())


def print_page(text: str, console: Console) -> None:
    """Print a page of Markdown; no cell of a table is cut off, and code is not indented, so that it can be copied."""
    from rich.markdown import CodeBlock, Markdown, TableElement
    from rich.measure import measure_renderables
    from rich.syntax import Syntax

    class Code(CodeBlock):
        """A code block whose lines are broken only if the terminal is too narrow."""

        def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
            code = str(self.text).rstrip()
            longest = max(map(len, code.splitlines()), default=0)
            width = min(max(options.max_width, longest), console.width)
            syntax = Syntax(code, self.lexer_name, theme=self.theme, word_wrap=True, padding=(1, 0))
            yield from console.render(syntax, options.update(width=width))

    class WholeCells(TableElement):
        """A table whose words are broken only if the terminal is too narrow, and never cut off."""

        def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
            for table in cast("Iterator[Table]", super().__rich_console__(console, options)):
                columns = [
                    (column, measure_renderables(console, options, [column.header, *column.cells]))
                    for column in table.columns
                ]
                spare = options.max_width - sum(size.minimum + 2 for _, size in columns)
                columns.sort(key=lambda pair: pair[1].span)
                for number, (column, size) in enumerate(columns):
                    column.overflow = "fold"
                    if spare >= 0:  # narrow columns get all that they need, and wide ones the rest
                        extra = min(size.span, spare // (len(columns) - number))
                        column.width = size.minimum + extra
                        spare -= extra
                yield table

    class Page(Markdown):
        elements: ClassVar = {**Markdown.elements, "fence": Code, "table_open": WholeCells}

    console.print(Page(text, hyperlinks=False), width=MAX_WIDTH)  # most links are to other pages


def _list_topics(pages: dict[str, Traversable]) -> None:
    formatter = click.HelpFormatter(max_width=MAX_WIDTH)
    formatter.write("Pages of the manual; `ratelab docs TOPIC` prints one:\n\n")
    with formatter.indentation():
        formatter.write_dl([(topic, summary(page.read_text(encoding="utf-8"))) for topic, page in pages.items()])
    click.echo(formatter.getvalue(), nl=False)
