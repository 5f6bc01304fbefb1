"""`ratelab bench`: what ratelab itself costs on this machine."""

from __future__ import annotations

import json
import platform

import click

NAMES = ("hit", "memory", "replay", "start")


@click.command(short_help="Measure what ratelab itself costs on this machine.")
@click.argument("names", nargs=-1, type=click.Choice(NAMES), metavar="[hit|memory|replay|start]...")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def bench(names: tuple[str, ...], as_json: bool) -> None:
    """Measure the benchmarks named, or all, each beside a floor timed in turn with it; two minutes or so."""
    from ratelab.bench import BENCHMARKS
    from ratelab.cli.progress import LateProgress
    from ratelab.report.figures import figures_table

    figures = []
    with LateProgress("measuring", None) as progress:
        for name in dict.fromkeys(names or NAMES):
            for figure in BENCHMARKS[name]():
                figures.append(figure)
                progress(1)
    machine = f"Python {platform.python_version()} on {platform.machine()}"
    if as_json:
        click.echo(json.dumps({"version": 1, "machine": machine, "figures": [one._asdict() for one in figures]}))
    else:
        from ratelab.cli.output import console_of_80

        console_of_80().print(figures_table(figures, machine))
