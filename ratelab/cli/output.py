"""Print and write comparisons, the same way for every command that makes them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from os.path import realpath
from typing import IO, TYPE_CHECKING, Any, cast

import click

from ratelab.cli.artifacts import Pages, Plots
from ratelab.cli.progress import LateProgress
from ratelab.errors import InputError
from ratelab.report.accuracy import card_table, differing_table
from ratelab.report.equal_protection import equal_table
from ratelab.report.files import check_events_writable, check_writable, write_events, write_table
from ratelab.report.serialize import comparison_object
from ratelab.report.summary import Run
from ratelab.report.tables import comparison_table, denied_table, heading, strips

if TYPE_CHECKING:
    from rich.console import Console


class Trimmed:
    """Whatever standard output is at the time, for whole lines of text."""

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stdout, name)

    def write(self, text: str) -> int:
        """Write `text` without the blanks at the end of its lines."""
        return sys.stdout.write(re.sub(" +(?=\n)", "", text))


def check_apart(inputs: Sequence[str], files: Sequence[str | None]) -> None:
    """Raise `InputError` if one of the `files` to write is an input, or another of them."""
    used = {realpath(path) for path in inputs}
    for path in files:
        if path is not None and realpath(path) in used:
            raise InputError(f"{path} would be written over: give each output a file of its own")
        used |= {realpath(path)} if path is not None else set()


@dataclass(frozen=True)
class Output:
    """Where a comparison goes, as `comparison_options` name it; checked before any work is done."""

    inputs: tuple[str, ...]
    """The files that are read, which must not be written over."""
    as_json: bool
    csv_file: str | None
    events_file: str | None
    accuracy: bool
    equalise: str | None
    timeline: bool
    html_target: str | None
    plot: tuple[str, ...]
    chart: tuple[str, ...]
    theme: str | None

    def __post_init__(self) -> None:
        if self.as_json and self.timeline:
            raise InputError("--timeline draws below the tables, and --json prints none: leave out one of them")
        files = (self.csv_file, self.events_file, *self.plots.files, *(self.pages.files if self.pages else ()))
        check_apart(self.inputs, files)
        if self.csv_file is not None:
            check_writable(self.csv_file)
        if self.events_file is not None:
            check_events_writable(self.events_file)

    @cached_property
    def pages(self) -> Pages | None:
        """The pages asked for."""
        return None if self.html_target is None else Pages(self.html_target, len(self.inputs))

    @cached_property
    def plots(self) -> Plots:
        """The charts asked for."""
        return Plots(self.plot, self.chart, self.theme, len(self.inputs))

    @property
    def needs(self) -> dict[str, bool]:
        """What `compare` is to find out beyond the usual figures."""
        return {
            "keep_decisions": bool(self.events_file or self.plot or self.pages) or self.timeline,
            "with_cards": self.accuracy or self.pages is not None,
            "at_equal_protection": self.equalise is not None,
        }

    def work(self, decisions: int) -> int | None:
        """Return how many decisions `compare` takes, of which so many are usual; None if nobody knows."""
        return None if self.equalise else decisions


def deliver(runs: Sequence[Run], output: Output) -> None:
    """Write the files asked for, then print the JSON object or the tables."""
    labels = [dict(list(run.source.items())[:1]) for run in runs]
    comparisons = [run.comparison for run in runs]
    if output.csv_file is not None:
        write_table(output.csv_file, zip(labels, comparisons, strict=True))
    if output.events_file is not None:
        with LateProgress("writing events", None):
            write_events(output.events_file, zip(labels if len(runs) > 1 else [{}], comparisons, strict=True))
    if output.plot:
        output.plots.write([(run.name, run.title, run.comparison) for run in runs])
    if output.pages:
        output.pages.write(runs)
    if output.as_json:
        objects = [comparison_object(run.comparison, run.source, run.most_denied) for run in runs]
        click.echo(json.dumps(objects[0] if len(runs) == 1 else {"version": 1, "runs": objects}, ensure_ascii=False))
    else:
        console = console_of_80()
        for number, run in enumerate(runs):
            if number:
                console.print()
            _print(console, run, output)


def console_of_80(min_width: int = 80) -> Console:
    """Return a console for standard output that is at least `min_width` columns wide, by default for the tables."""
    from rich.console import Console

    console = Console(highlight=False, file=cast("IO[str]", Trimmed()) if sys.stdout else None)
    console.width = max(min_width, console.width)
    return console


def _print(console: Console, run: Run, output: Output) -> None:
    console.print(run.title, style="bold", markup=False)
    console.print(heading(run.comparison), markup=False)
    for note in run.notes:
        console.print(note, style="dim", markup=False)
    console.print()
    console.print(comparison_table(run.comparison, many_clients=run.most_denied is not None))
    if run.most_denied and any(result.denied for result in run.comparison.results):
        console.print()
        console.print(denied_table(run.comparison, run.most_denied))
    if output.accuracy:
        console.print()
        console.print(card_table(run.comparison))
        clients = differing_table(run.comparison, run.most_denied or 10)
        if clients is not None:
            console.print()
            console.print(clients)
    if run.comparison.equalised is not None:
        console.print()
        console.print(equal_table(run.comparison, run.comparison.equalised))
    if output.timeline:
        console.print()
        console.print(strips(run.comparison, console.width))
