"""`ratelab algorithms`: what there is to choose from."""

from __future__ import annotations

import json

import click

from ratelab.cli.options import selected_algorithms


@click.command()
@click.option("--algo", "-a", "names", multiple=True, metavar="NAME|FILE.py:CLASS", help="Only these; repeatable.")
@click.option("--rate", default="2/s", show_default=True, metavar="RATE", help="The quota to work out figures for.")
@click.option("--burst", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def algorithms(names: tuple[str, ...], rate: str, burst: int, as_json: bool) -> None:
    """List the algorithms there are, those of installed packages included."""
    from ratelab.quota import Quota
    from ratelab.report.catalogue import catalogue, catalogue_table
    from ratelab.report.serialize import quota_object

    quota = Quota.parse(rate, burst)
    entries = [catalogue(algorithm, quota) for algorithm in selected_algorithms(names, ["all"])]
    if as_json:
        rows = [entry._asdict() for entry in entries]
        click.echo(json.dumps({"version": 1, "quota": quota_object(quota), "algorithms": rows}))
    else:
        from ratelab.cli.output import console_of_80

        console_of_80().print(catalogue_table(entries, quota))
