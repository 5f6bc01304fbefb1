"""`ratelab explain`: an algorithm, so that one can explain it."""

from __future__ import annotations

import click

MOST = 120
"""Columns in which sentences can still be read."""


@click.command()
@click.argument("algorithms", nargs=-1, required=True, metavar="ALGO...")
@click.option("--compare", is_flag=True, help="Set them beside each other.")
@click.option("--rate", default="2/s", show_default=True, metavar="RATE", help="The quota to work with.")
@click.option("--burst", type=click.IntRange(min=1), default=5, show_default=True)
def explain(algorithms: tuple[str, ...], compare: bool, rate: str, burst: int) -> None:
    """Explain each ALGO, a name or FILE.py:CLASS, in its own words and with its own arithmetic on the given quota."""
    from ratelab.cli.options import chosen
    from ratelab.cli.output import console_of_80
    from ratelab.learn.explain import beside, explanation
    from ratelab.quota import Quota

    console, quota, kinds = console_of_80(), Quota.parse(rate, burst), chosen(algorithms, [])
    if not compare:
        console.width = min(console.width, MOST)
    told = [beside(kinds, quota, console.width)] if compare else [explanation(kind, quota) for kind in kinds]
    for number, one in enumerate(told):
        if number:
            console.print()
        console.print(one)
