"""`ratelab sweep`: replay the same traffic with many quotas."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import click

from ratelab.algorithms import COMPARED, select
from ratelab.cli.artifacts import resolve_images, write_image
from ratelab.cli.options import (
    ALGORITHMS_OPTION,
    LAYOUT,
    PLOT,
    THEME,
)
from ratelab.cli.output import LateProgress, check_distinct, create_console, print_sentences, print_table, tune_compiler
from ratelab.cli.sources import TrafficSource, load_source, trace_options
from ratelab.lab.sweep import SweepResult, build_policies, parse_quotas
from ratelab.lab.sweep import sweep as sweep_policies
from ratelab.report.charts import LAYOUTS, THEME_NAMES, draw_sweep
from ratelab.report.files import check_writable, write_rows
from ratelab.report.summary import describe_traffic
from ratelab.report.sweep import build_sweep_tables, describe_sweep, serialize_sweep, serialize_sweep_rows


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SCENARIO|TRACE...")
@click.option("--rate", "rates", required=True, metavar="RATES", help="Rates, such as 10/min..1000/min or 1/s,5/s.")
@click.option(
    "--burst", "bursts", metavar="BURSTS", help="Bursts, such as 5,10,20 or 5..500; by default the count of each rate."
)
@click.option(
    "--steps",
    type=click.IntRange(2, 1000),
    default=10,
    show_default=True,
    help="Number of values in each range, in equal ratios; whole numbers if the ends are.",
)
@ALGORITHMS_OPTION
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
@click.option("--csv", "csv_file", metavar="FILE", help="Write the table as CSV.")
@PLOT
@THEME
@LAYOUT
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
    layout: str | None,
    **reading: Any,
) -> None:
    """Load the traffic once, and replay it with each rate and burst through each algorithm.

    The traffic is a SCENARIO, a .yaml file, or TRACEs as for `ratelab replay`. The tables show, for each quota and
    algorithm, the share and the number of requests denied, and of clients denied at least once.
    """
    policies = build_policies(select(algorithms, COMPARED), parse_quotas(rates, bursts, steps))
    images = resolve_images(plot, theme, layout, "sweep")
    check_distinct(sources, (csv_file, *images))
    if csv_file is not None:
        check_writable(csv_file)
    if reading["engine"] is not None:
        from ratelab.cli.distributed import check_distributed, load_decided  # only for engines

        check_distributed(policies)
        from ratelab.lab.cluster import results

        source, result = load_decided(sources, reading, partial(results.sweep, policies))
    else:
        source = load_source(sources, reading)
        tune_compiler(source.traffic, len(policies))
        with LateProgress("sweeping", len(source.traffic) * len(policies)) as progress:
            result = sweep_policies(policies, source.traffic, progress)
    if csv_file is not None:
        label = dict(list(source.fields.items())[:1])
        write_rows(csv_file, [{**label, **row} for row in serialize_sweep_rows(result)])
    for path in images:
        caption = f"{source.title}\n{describe_traffic(source.traffic)}"
        write_image(path, draw_sweep(result, theme or THEME_NAMES[0], caption, layout or LAYOUTS[0]))
    if as_json:
        click.echo(json.dumps(serialize_sweep(source.traffic, result, source.fields), ensure_ascii=False))
    else:
        _print(source, result)


def _print(source: TrafficSource, result: SweepResult) -> None:
    console = create_console()
    console.print(source.title, style="bold", markup=False)
    console.print(describe_traffic(source.traffic), markup=False)
    for note in source.notes:
        console.print(note, style="dim", markup=False)
    for table in build_sweep_tables(result):
        print_table(console, table)
    print_sentences(console, [describe_sweep(result)])
