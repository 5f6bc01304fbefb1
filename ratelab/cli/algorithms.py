"""`ratelab algorithms`: a catalogue of the available algorithms."""

from __future__ import annotations

import json

import click

from ratelab.algorithms import select
from ratelab.cli.options import parse_quota, quota_options
from ratelab.cli.output import create_console
from ratelab.report.catalogue import describe_algorithm, render_catalogue
from ratelab.report.serialize import serialize_quota

MAX_TABLE_COLUMNS = 120
"""Wider tables are hard to read."""


@click.command()
@click.option("--algo", "-a", "names", multiple=True, metavar="NAME|FILE.py:CLASS", help="Only these; repeatable.")
@quota_options("the windows and bytes in the table")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def algorithms(names: tuple[str, ...], rate: str | None, burst: int | None, as_json: bool) -> None:
    """List the available algorithms, including those of installed packages."""
    quota = parse_quota(rate, burst)
    entries = [describe_algorithm(algorithm, quota) for algorithm in select(names, ["all"])]
    if as_json:
        rows = [entry._asdict() for entry in entries]
        click.echo(json.dumps({"version": 1, "quota": serialize_quota(quota), "algorithms": rows}))
    else:
        console = create_console()
        console.print(render_catalogue(entries, quota, min(console.width, MAX_TABLE_COLUMNS)))
