"""`ratelab compare`: two scenarios side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ratelab.cli.artifacts import resolve_images, write_image
from ratelab.cli.loop_runs import is_loop, run_variants
from ratelab.cli.options import ALGORITHMS_OPTION, LAYOUT, PLOT, THEME
from ratelab.cli.output import LateProgress, Output, check_distinct, create_console, print_table, print_text
from ratelab.cli.simulate import run_scenarios
from ratelab.errors import InputError
from ratelab.lab import LOOP_CHARTS
from ratelab.lab.scenarios import Scenario, load_variants
from ratelab.report.charts import LAYOUTS, THEME_NAMES, draw
from ratelab.report.compared import (
    Compared,
    build_pair_table,
    describe_differences,
    pair_rows,
    serialize,
    summarize,
)
from ratelab.report.runs import BaseRun

if TYPE_CHECKING:
    from ratelab.lab.closed_loop.figures import LoopComparison


@click.command()
@click.argument("first", metavar="A.yaml")
@click.argument("second", metavar="B.yaml")
@ALGORITHMS_OPTION
@click.option("--all-figures", is_flag=True, help="Print every figure, also those that are equal.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
@PLOT
@click.option("--chart", type=click.Choice(LOOP_CHARTS), help=f"Chart to draw; by default {LOOP_CHARTS[0]}.")
@THEME
@LAYOUT
def compare(
    first: str,
    second: str,
    algorithms: tuple[str, ...],
    all_figures: bool,
    as_json: bool,
    plot: tuple[str, ...],
    chart: str | None,
    theme: str | None,
    layout: str | None,
) -> None:
    """Run two scenarios, and print their figures side by side.

    Rows of the same algorithm or variant are compared; if each scenario has a single row, these are. Both scenarios
    must have clients that react to their answers, or both clients that do not. A chart shows clients that react.
    """
    if chart is not None and not plot:
        raise InputError("--chart needs a file for the chart: add --plot FILE.png")
    chart = chart or LOOP_CHARTS[0]
    images = resolve_images(plot, theme, layout, chart)
    check_distinct((first, second), images)
    compared = _run(first, second, algorithms)
    if images and compared.runs[0].charts != LOOP_CHARTS:
        raise InputError(f"--plot shows clients that react to answers, unlike {compared.names[0]}: leave it out")
    for path in images:
        title = f"{compared.names[0]} and {compared.names[1]}"
        figure = draw(_join(compared), chart, theme or THEME_NAMES[0], title, layout or LAYOUTS[0])
        write_image(path, figure)
    if as_json:
        click.echo(json.dumps(serialize(compared), ensure_ascii=False))
    else:
        _print(compared, all_figures)


def _run(first: str, second: str, algorithms: tuple[str, ...]) -> Compared:
    """Run both scenarios; raise `InputError` if they are of different kinds."""
    with LateProgress("drawing traffic", None):
        files = [load_variants(path) for path in (first, second)]
    for path, variants in zip((first, second), files, strict=True):
        if variants[0].limits is not None:
            raise InputError(f"{path} has several policies: compare scenarios with a quota, or use ratelab diff")
    reacting = [is_loop(variants) for variants in files]
    if reacting[0] != reacting[1]:
        path, unlike = (first, second) if reacting[0] else (second, first)
        raise InputError(
            f"clients of {path} react to answers, or it has variants, unlike {unlike}: compare two of the same kind"
        )
    runs: Sequence[BaseRun]
    if reacting[0]:
        runs = [run_variants(variants, algorithms, keep=False) for variants in files]
    else:
        runs = run_scenarios(files, algorithms, _NO_OUTPUT)
    one, other = runs
    return pair_rows((one, other), _choose_names((first, second), [variants[0] for variants in files]))


def _choose_names(paths: tuple[str, str], scenarios: list[Scenario]) -> tuple[str, str]:
    """Return the names of two scenarios, or what distinguishes their files."""
    names = [(scenario.name for scenario in scenarios), (Path(path).stem for path in paths), paths]
    return next((one, other) for one, other in names if one != other or (one, other) == paths)


_NO_OUTPUT = Output(
    inputs=(),
    as_json=False,
    csv_file=None,
    events_file=None,
    client_timeout="10s",
    all_figures=False,
    accuracy=False,
    equalize=None,
    timeline=False,
    html_target=None,
    plot=(),
    chart=(),
    theme=None,
    layout=None,
)
"""Runs whose figures alone are needed."""


def _join(compared: Compared) -> LoopComparison:
    """Return the compared rows of both scenarios as variants of one."""
    from ratelab.lab.closed_loop.figures import LoopComparison

    cases, results = [], []
    for number, run in enumerate(compared.runs):
        name = compared.names[number]
        for pair in compared.pairs:
            row = pair.second if number else pair.first
            label = name if len(compared.pairs) == 1 else f"{pair.label} ({name})"
            results.append(replace(row, label=label, variant=name))
        cases += [replace(case, variant=name) for case in run.comparison.cases]
    return LoopComparison(tuple(cases), tuple(results), noun="scenario")


def _print(compared: Compared, all_figures: bool) -> None:
    console = create_console()
    console.print(f"{compared.names[0]} and {compared.names[1]}", style="bold", markup=False)
    for line in describe_differences(compared):
        print_text(console, line)
    for pair in compared.pairs:
        print_table(console, build_pair_table(compared, pair, all_figures))
    console.print()
    for sentence in summarize(compared):
        print_text(console, sentence)
    for label in compared.left_out:
        print_text(console, f"only in {label}", "dim")
