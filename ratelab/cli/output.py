"""Output of commands: comparisons as tables, JSON and files, and the progress of slow work."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os.path import realpath
from threading import Event, Thread
from time import monotonic
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self, TextIO, cast

import click

from ratelab.algorithms import Policy
from ratelab.errors import InputError
from ratelab.lab.comparison import Comparison, compare, with_accuracy, with_equal_protection
from ratelab.lab.decisions import FIGURE_FIELDS, Progress
from ratelab.lab.metrics import Figure
from ratelab.lab.replay import uses_compiler
from ratelab.lab.traffic import Traffic
from ratelab.limiter import ROW_FIELDS
from ratelab.quota import NS_PER_S, about, parse_duration
from ratelab.report.accuracy import (
    build_accuracy_table,
    build_differing_table,
    describe_differences,
    describe_estimate,
    explain_figures,
)
from ratelab.report.equal_protection import build_equal_table, describe_equal_protection
from ratelab.report.expectations import build_checks_table
from ratelab.report.files import check_events_writable, check_writable, write_events, write_rows
from ratelab.report.numbers import wrap_text
from ratelab.report.runs import BaseRun
from ratelab.report.summary import Run
from ratelab.report.tables import Table, render_table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as ProgressBar

    from ratelab.cli.artifacts import Pages, Plots

MIN_COLUMNS = 60
"""Width that tables have even in a narrower terminal."""

PROGRESS_DELAY_S = 1.0
"""Seconds of work before a progress bar or the announcement of long work appears."""

ANNOUNCED_WORK_S = 10.0
"""Seconds of further work from which on a line announces it, without a terminal."""


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


DEFAULT_DIFFERING_CLIENTS = 10
"""The number of clients of a scenario that the accuracy lists."""


def print_run(console: Console, run: BaseRun, output: Output) -> None:
    """Print the tables and sentences on a run."""
    console.print(run.title, style="bold", markup=False)
    for line in run.describe():
        print_text(console, line)
    for note in [*run.notes, *run.list_assumptions()]:
        print_text(console, note, "dim")
    print_table(console, run.build_table(), with_caption=False)
    print_sentences(console, run.summarize())
    for line in run.list_verdict_lines(console.width) if run.verdicts else ():
        console.print(line, markup=False)
    if run.most_denied is not None:
        print_table(console, run.build_clients_table(run.most_denied))
    if output.all_figures:
        print_figures(console, run.build_figures_table(), run.figures)
    if isinstance(run, Run):
        _print_accuracy(console, run, output)
    if output.timeline:
        console.print()
        console.print(run.render_timeline(console.width))
    print_table(console, build_checks_table(run.checks, run.figures) if run.checks else None)


def _print_accuracy(console: Console, run: Run, output: Output) -> None:
    """Print the comparison with the exact log and at equal protection, as far as the options ask for it."""
    comparison = run.comparison
    if output.accuracy:
        print_table(console, build_accuracy_table(comparison))
        for explanation in explain_figures():
            print_text(console, explanation, "dim")
        print_sentences(console, [*describe_differences(comparison), *describe_estimate(comparison)])
        print_table(console, build_differing_table(comparison, run.most_denied or DEFAULT_DIFFERING_CLIENTS))
    if comparison.equal_protection is not None:
        print_table(console, build_equal_table(comparison))
        print_sentences(console, describe_equal_protection(comparison, comparison.equal_protection))


def deliver(runs: Sequence[BaseRun], output: Output) -> None:
    """Write the files of `output`, then print the JSON object, or each run."""
    labels = [dict(list(run.source.items())[:1]) for run in runs]
    if output.plots is not None:
        output.plots.check(runs)
    if output.csv_file is not None:
        rows = [{**label, **row} for label, run in zip(labels, runs, strict=True) for row in run.list_rows()]
        write_rows(output.csv_file, rows)
    if output.events_file is not None:
        with LateProgress("writing events", None):
            _write_events(output.events_file, runs, labels if len(runs) > 1 else [{}])
    if output.plots is not None:
        with LateProgress("drawing", output.plots.count(runs)) as progress:
            output.plots.write(runs, progress)
    if output.pages is not None:
        with LateProgress("drawing", len(runs)) as progress:
            output.pages.write(runs, progress)
    if output.as_json:
        objects = [run.serialize_all() for run in runs]
        click.echo(json.dumps(objects[0] if len(runs) == 1 else {"version": 1, "runs": objects}, ensure_ascii=False))
    else:
        console = create_console()
        for number, run in enumerate(runs):
            if number:
                console.print()
            print_run(console, run, output)


def _write_events(path: str, runs: Sequence[BaseRun], labels: Sequence[dict[str, Any]]) -> None:
    """Write the events of all runs, each after its label."""
    labelled = list(zip(labels, runs, strict=True))
    columns = dict.fromkeys(name for label, run in labelled for name in (*label, *run.event_columns))
    write_events(path, [*columns], ({**label, **event} for label, run in labelled for event in run.list_events()))


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


def print_figures(console: Console, table: Table, figures: Mapping[str, Figure]) -> None:
    """Print a table of figures, and the meaning of each."""
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


# --- progress


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether `stream` is a terminal; unlike `Console.is_terminal`, whatever FORCE_COLOR says."""
    return stream is not None and stream.isatty()


class LateProgress:
    """A progress bar on the terminal's standard error that appears after `PROGRESS_DELAY_S`.

    If standard error is not a terminal, a line announces work that will take more than `ANNOUNCED_WORK_S`. Call it with
    the amount of further work done. Without a `total`, the bar only pulses. A `heading` has a line above the bar.
    """

    def __init__(self, label: str, total: int | None, heading: str = "") -> None:
        self._label, self._total, self._done, self._heading = label, total, 0, heading
        self._first: tuple[float, int] | None = None  # when work was first reported, and how much
        self._bar: ProgressBar | None = None
        self._live: Any = None
        self._ended = Event()
        self._watcher = Thread(target=self._watch, daemon=True)

    def __call__(self, more: int) -> None:
        """Add `more` to the work done."""
        self._done += more
        self._first = self._first or (monotonic(), self._done)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self._done)

    def _watch(self) -> None:
        """Show the progress, or each time the delay has passed, check whether the rest takes long."""
        shown = False
        while not (shown or self._ended.wait(PROGRESS_DELAY_S)):
            shown = self._draw_bar() if is_terminal(sys.stderr) else self._announce()

    def _draw_bar(self) -> bool:
        from rich.console import Console, Group
        from rich.live import Live
        from rich.progress import Progress

        bar = Progress(console=Console(stderr=True))
        bar.add_task(self._label, total=self._total, completed=self._done)
        self._live = Live(Group(*filter(None, [self._heading]), bar), console=bar.console, transient=True)
        self._live.start()
        self._bar = bar
        return True

    def _announce(self) -> bool:
        """Print how long the rest will take, judging by the work since it was first reported; return whether it did."""
        if self._first is None or self._total is None:
            return False
        since, before = self._first
        rest = (self._total - self._done) * (monotonic() - since) / max(1, self._done - before)
        if self._done == before or rest <= ANNOUNCED_WORK_S:
            return False
        click.echo(f"{self._label}: about {about(round(rest) * NS_PER_S)} left", err=True)
        return True

    def __enter__(self) -> Self:
        self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._watcher.join()
        if self._live is not None:
            self._live.stop()
