"""`ratelab docs`: the pages of the manual."""

from __future__ import annotations

import sys
from difflib import get_close_matches
from importlib.resources import files
from typing import TYPE_CHECKING

import click

from ratelab.errors import InputError, short_repr

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

MAX_WIDTH = 100
"""Columns of a page on a wide terminal; longer lines are hard to read."""


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
    from rich.markdown import Markdown

    console = Console()
    console.width = min(console.width, MAX_WIDTH)
    console.print(Markdown(text, hyperlinks=False))  # most links are to other pages


def _list_topics(pages: dict[str, Traversable]) -> None:
    formatter = click.HelpFormatter(max_width=MAX_WIDTH)
    formatter.write("Pages of the manual; `ratelab docs TOPIC` prints one:\n\n")
    with formatter.indentation():
        formatter.write_dl([(topic, summary(page.read_text(encoding="utf-8"))) for topic, page in pages.items()])
    click.echo(formatter.getvalue(), nl=False)
