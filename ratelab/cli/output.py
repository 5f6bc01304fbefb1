"""Output of commands: comparisons as tables, JSON and files."""

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

from ratelab.algorithms import Policy
from ratelab.cli.progress_bar import LateProgress
from ratelab.errors import InputError
from ratelab.lab.comparison import Comparison, compare, with_accuracy, with_equal_protection
from ratelab.lab.decisions import FIGURE_FIELDS, Progress
from ratelab.lab.metrics import Figure, Result, list_figures
from ratelab.lab.replay import uses_compiler
from ratelab.lab.traffic import Traffic
from ratelab.limiter import ROW_FIELDS
from ratelab.quota import parse_duration
from ratelab.report.accuracy import (
    build_accuracy_table,
    build_differing_table,
    describe_differences,
    describe_estimate,
    explain_figures,
)
from ratelab.report.equal_protection import build_equal_table, describe_equal_protection
from ratelab.report.files import check_events_writable, check_writable, write_events, write_table
from ratelab.report.numbers import wrap_text
from ratelab.report.summary import (
    Run,
    build_clients_table,
    build_comparison_table,
    build_figures_table,
    describe_assumption,
    describe_run,
    summarize,
)
from ratelab.report.tables import Table, render_table
from ratelab.report.timeline import render_lines, render_timeline

if TYPE_CHECKING:
    from rich.console import Console

    from ratelab.cli.artifacts import Pages, Plots
    from ratelab.report.policies import PolicyRun

MIN_COLUMNS = 60
"""Width that tables have even in a narrower terminal."""


@dataclass(frozen=True)
class Output:
    """The outputs that `comparison_options` ask for; checked before any work is done."""

    inputs: tuple[str, ...]
    """The files that are read and must not be overwritten."""
    as_json: bool
    csv_file: str | None
    events_file: str | None
    client_timeout: str
    all_figures: bool
    accuracy: bool
    equalize: str | None
    timeline: bool
    html_target: str | None
    plot: tuple[str, ...]
    chart: tuple[str, ...]
    theme: str | None
    layout: str | None

    def __post_init__(self) -> None:
        if self.as_json and self.timeline:
            raise InputError("--timeline needs the tables, which --json does not print: leave out one of them")
        self.parse_client_timeout()
        files = [self.csv_file, self.events_file]
        files += [*(self.plots.files if self.plots else ()), *(self.pages.files if self.pages else ())]
        check_distinct(self.inputs, files)
        if self.csv_file is not None:
            check_writable(self.csv_file)
        if self.events_file is not None:
            check_events_writable(self.events_file)

    def parse_client_timeout(self) -> int:
        """Return the client timeout in nanoseconds; raise `InputError` if it is not a duration."""
        try:
            return parse_duration(self.client_timeout)
        except InputError as error:
            raise InputError(f"--client-timeout: {error}") from None

    @cached_property
    def pages(self) -> Pages | None:
        """The pages of `--html`."""
        if self.html_target is None:
            return None
        from ratelab.cli.artifacts import Pages

        return Pages(self.html_target, len(self.inputs))

    @cached_property
    def plots(self) -> Plots | None:
        """The charts of `--plot`."""
        if not (self.plot or self.chart or self.theme or self.layout):
            return None
        from ratelab.cli.artifacts import Plots

        return Plots(self.plot, self.chart, self.theme, self.layout, len(self.inputs))

    def compare(
        self, policies: Sequence[Policy], traffic: Traffic, progress: Progress, complete: bool = False
    ) -> Comparison:
        """Replay `traffic` through `policies` and compute all that the outputs show.

        All five fields of each decision are kept if an output needs them or if `complete`.
        """
        tune_compiler(traffic, len(policies) + 1)
        complete = complete or bool(self.events_file or self.plot or self.pages or self.timeline)
        fields = ROW_FIELDS if complete else FIGURE_FIELDS
        comparison = compare(policies, traffic, progress, fields, self.parse_client_timeout())
        if self.accuracy or self.pages is not None:
            comparison = with_accuracy(comparison)
        if self.equalize is not None:
            comparison = with_equal_protection(comparison, progress)
        return comparison

    def total(self, decisions: int) -> int | None:
        """Return the number of decisions that `compare` makes if it usually makes `decisions`; None if unknown."""
        return None if self.equalize else decisions


def tune_compiler(traffic: Traffic, replays: int) -> None:
    """Tune the compiler of this process, if it will compile a replay of `traffic`."""
    if uses_compiler(traffic, replays):
        from ratelab.lab.compiled import tune_process  # Numba takes a while to import

        tune_process()


def deliver(runs: Sequence[Run | PolicyRun], output: Output) -> None:
    """Write the files of `output`, then print the JSON object or the tables."""
    labels = [dict(list(run.source.items())[:1]) for run in runs]
    comparisons = [run.comparison for run in runs]
    if output.plots is not None:
        output.plots.check(runs)
    if output.csv_file is not None:
        write_table(output.csv_file, zip(labels, comparisons, strict=True))
    if output.events_file is not None:
        with LateProgress("writing events", None):
            write_events(output.events_file, zip(labels if len(runs) > 1 else [{}], comparisons, strict=True))
    if output.plots is not None:
        with LateProgress("drawing", output.plots.count(runs)) as progress:
            output.plots.write(runs, progress)
    if output.pages is not None:
        with LateProgress("drawing", len(runs)) as progress:
            output.pages.write(runs, progress)
    if output.as_json:
        objects = [run.serialize() for run in runs]
        click.echo(json.dumps(objects[0] if len(runs) == 1 else {"version": 1, "runs": objects}, ensure_ascii=False))
    else:
        console = create_console()
        for number, run in enumerate(runs):
            if number:
                console.print()
            _print(console, run, output) if isinstance(run, Run) else _print_policies(console, run, output)


def check_distinct(inputs: Sequence[str], files: Sequence[str | None]) -> None:
    """Raise `InputError` if one of the `files` to write is an input, or is named twice."""
    used = {realpath(path) for path in inputs}
    for path in files:
        if path is not None and realpath(path) in used:
            raise InputError(f"{path} would be overwritten: give each output a different file")
        used |= {realpath(path)} if path is not None else set()


def create_console(min_width: int = MIN_COLUMNS) -> Console:
    """Return a console on standard output that is at least `min_width` columns wide."""
    from rich.console import Console

    class StrictConsole(Console):
        def on_broken_pipe(self) -> None:
            raise

    console = StrictConsole(highlight=False, file=cast("IO[str]", TrimmedStdout()) if sys.stdout else None)
    console.width = max(min_width, console.width)
    return console


class TrimmedStdout:
    """A stdout wrapper that strips trailing whitespace from each line."""

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stdout, name)

    def write(self, text: str) -> int:
        """Write `text` without the blanks at the end of its lines."""
        return sys.stdout.write(re.sub(" +(?=\n)", "", text))


DEFAULT_DIFFERING_CLIENTS = 10
"""The number of clients of a scenario that the accuracy lists."""


def _print(console: Console, run: Run, output: Output) -> None:
    comparison, many_clients = run.comparison, run.most_denied is not None
    console.print(run.title, style="bold", markup=False)
    console.print(describe_run(comparison.traffic, comparison.quota), markup=False)
    for note in [*run.notes, *describe_assumption(comparison)]:
        print_text(console, note, "dim")
    print_table(console, build_comparison_table(comparison), with_caption=False)
    print_sentences(console, summarize(comparison, many_clients))
    if run.most_denied is not None:
        print_table(console, build_clients_table(comparison, run.most_denied))
    if output.all_figures:
        _print_figures(console, build_figures_table(comparison), list_figures(Result))
    if output.accuracy:
        print_table(console, build_accuracy_table(comparison))
        for explanation in explain_figures():
            print_text(console, explanation, "dim")
        print_sentences(console, [*describe_differences(comparison), *describe_estimate(comparison)])
        print_table(console, build_differing_table(comparison, run.most_denied or DEFAULT_DIFFERING_CLIENTS))
    if comparison.equal_protection is not None:
        print_table(console, build_equal_table(comparison))
        print_sentences(console, describe_equal_protection(comparison, comparison.equal_protection))
    if output.timeline:
        console.print()
        console.print(render_timeline(comparison, console.width))


def _print_policies(console: Console, run: PolicyRun, output: Output) -> None:
    from ratelab.report import policies, policy_tables

    comparison = run.comparison
    console.print(run.title, style="bold", markup=False)
    for line in policies.describe_policies(comparison):
        print_text(console, line)
    for note in [*run.notes, *policies.describe_policy_assumption(comparison)]:
        print_text(console, note, "dim")
    print_table(console, policy_tables.build_policies_table(comparison), with_caption=False)
    print_sentences(console, policies.summarize_policies(comparison))
    if run.most_denied is not None:
        print_table(console, policy_tables.build_policy_clients_table(comparison, run.most_denied))
    if output.all_figures:
        _print_figures(console, policy_tables.build_policy_figures_table(comparison), policies.FIGURES)
    if output.timeline:
        console.print()
        console.print(render_lines(comparison.traffic, policies.list_timeline_rows(comparison), console.width))


def _print_figures(console: Console, table: Table, figures: dict[str, Figure]) -> None:
    print_table(console, table)
    for name, figure in figures.items():
        print_text(console, f"{name}: {figure.meaning}", "dim")


def print_table(console: Console, table: Table | None, with_caption: bool = True) -> None:
    """Print a table after a blank line, if there is one."""
    if table is not None:
        console.print()
        console.print(render_table(table, console.width, with_caption))


def print_sentences(console: Console, sentences: Sequence[str]) -> None:
    """Print sentences after a blank line, each on a line of its own."""
    for line in ["", *sentences] if sentences else []:
        print_text(console, line)


def print_text(console: Console, text: str, style: str = "") -> None:
    """Print text on lines that do not end between a number and its unit."""
    for line in wrap_text(text, console.width) or [""]:
        console.print(line, style=style, markup=False)
