"""`ratelab sweep`: which quota would deny whom."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ratelab.cli import expand_paths, single_value
from ratelab.cli.options import ALGORITHMS_OPTION, PLOT, THEME, trace_options
from ratelab.cli.output import LateProgress, read_with_progress
from ratelab.errors import InputError

if TYPE_CHECKING:
    from ratelab.lab.sweep import Swept
    from ratelab.lab.traces import TraceOptions
    from ratelab.lab.traffic import Asked

SCENARIOS = (".yaml", ".yml")


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SCENARIO|TRACE...")
@click.option(
    "--rate", "rates", required=True, metavar="RATES", help="Such as 10/min..1000/min, or 1/s,5/s; commas between."
)
@click.option("--burst", "bursts", metavar="BURSTS", help="Such as 5,10,20 or 5..500; by default as each rate says.")
@click.option(
    "--steps",
    type=click.IntRange(2, 1000),
    default=10,
    show_default=True,
    help="Values to take from each range, each as many times the one before; whole ones if its ends are.",
)
@ALGORITHMS_OPTION
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
@click.option("--csv", "csv_file", multiple=True, callback=single_value, metavar="FILE", help="Write the table as CSV.")
@PLOT
@THEME
@trace_options()
def sweep(
    sources: tuple[str, ...],
    rates: str,
    bursts: str | None,
    steps: int,
    algorithms: tuple[str, ...],
    as_json: bool,
    csv_file: str | None,
    plot: tuple[str, ...],
    theme: str | None,
    key: str,
    trace_format: str,
    time_field: str | None,
    time_unit: str,
    cost_field: str | None,
    within_second: str,
    strict: bool,
) -> None:
    """Read or draw the traffic once, and replay it under every rate and burst through every algorithm.

    The traffic is a SCENARIO, a .yaml file, or TRACEs as `ratelab replay` takes them. Of each quota and algorithm,
    the table tells the percentage of requests denied, and of clients denied at least once.
    """
    from ratelab.algorithms import COMPARED, select
    from ratelab.cli.artifacts import pictures_named
    from ratelab.cli.output import check_distinct
    from ratelab.lab.sweep import build_policies, quotas
    from ratelab.lab.sweep import sweep as swept
    from ratelab.lab.traces import TraceOptions
    from ratelab.report.files import check_writable
    from ratelab.report.sweep import swept_object
    from ratelab.report.tables import asked

    policies = build_policies(select(algorithms, COMPARED), quotas(rates, bursts, steps))
    pictures = pictures_named(plot, theme, "sweep")
    check_distinct(sources, (csv_file, *pictures))
    if csv_file is not None:
        check_writable(csv_file)
    options = TraceOptions(trace_format, key, time_field, cost_field, time_unit, within_second, strict)
    traffic, source, told = _traffic(sources, options)
    with LateProgress("sweeping", len(traffic) * len(policies)) as progress:
        results = swept(policies, traffic, progress)
    if csv_file is not None:
        _write(csv_file, source, results)
    _draw(pictures, results, theme, f"{told[0]}\n{asked(traffic)}")
    if as_json:
        click.echo(json.dumps(swept_object(traffic, results, source), ensure_ascii=False))
    else:
        _print(traffic, told, results)


def _traffic(sources: tuple[str, ...], options: TraceOptions) -> tuple[Asked, dict[str, Any], tuple[str, ...]]:
    """Return the traffic, what the JSON says of where it is from, and what people are told, the title first."""
    if sources[0].endswith(SCENARIOS):
        from ratelab.lab.scenarios import load_scenario

        if len(sources) > 1:
            raise InputError(f"a scenario is swept by itself, got {len(sources)} sources: give one at a time")
        with LateProgress("drawing traffic", None):
            scenario = load_scenario(sources[0])
        told = {"scenario": scenario.name, "seed": scenario.seed}
        return scenario.traffic, told, (f"{scenario.name}: {scenario.description}",)
    from ratelab.lab.traces import format_paths, make_printable
    from ratelab.report.trace_notes import reading_notes, reading_object

    paths = expand_paths(sources)
    read = read_with_progress(paths, options)
    title = f"{format_paths(paths)}, read as {read.format}"
    told = {"trace": ", ".join(map(make_printable, paths)), **reading_object(read)}
    return read.traffic, told, (title, *reading_notes(read, options.within_second))


def _write(csv_file: str, source: dict[str, Any], results: Sequence[Swept]) -> None:
    from ratelab.report.files import write_rows
    from ratelab.report.sweep import swept_rows

    label = dict([*source.items()][:1])
    write_rows(csv_file, [{**label, **row} for row in swept_rows(results)])


def _draw(pictures: Sequence[str], results: Sequence[Swept], theme: str | None, caption: str) -> None:
    from ratelab.cli.artifacts import write_picture
    from ratelab.report.charts import THEMES, draw_sweep

    for path in pictures:
        write_picture(path, draw_sweep(results, theme or THEMES[0], caption))


def _print(traffic: Asked, told: tuple[str, ...], results: Sequence[Swept]) -> None:
    from ratelab.cli.output import console_of_80
    from ratelab.report.sweep import swept_table
    from ratelab.report.tables import asked

    console = console_of_80()
    title, *notes = told
    console.print(title, style="bold", markup=False)
    console.print(asked(traffic), markup=False)
    for note in notes:
        console.print(note, style="dim", markup=False)
    console.print("denied: % of requests/% of clients, at least once", style="dim", markup=False)
    console.print()
    console.print(swept_table(results))
