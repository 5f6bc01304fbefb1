"""Command `ratelab explain`."""

from __future__ import annotations

import click

from ratelab.algorithms import select
from ratelab.cli.options import parse_quota, quota_options, require
from ratelab.cli.output import create_console
from ratelab.learn.explain import render_explanation, render_side_by_side

MAX_TEXT_COLUMNS = 120
"""Wider lines of prose are hard to read."""


@click.command()
@click.argument("algorithms", nargs=-1, required=True, metavar="ALGO...")
@click.option("--compare", is_flag=True, help="Show the algorithms side by side.")
@click.option(
    "--prove", "with_proof", is_flag=True, help="Also prove the promises for all times, as ratelab prove does."
)
@quota_options("the worked example")
def explain(algorithms: tuple[str, ...], compare: bool, with_proof: bool, rate: str | None, burst: int | None) -> None:
    """Explain each ALGO, a name or FILE.py:CLASS: its idea, source code, a worked example and when to choose it."""
    if with_proof:
        require("explain --prove", prove=("z3",))
    console, quota, classes = create_console(), parse_quota(rate, burst), select(algorithms, [])
    if compare:
        pages = [render_side_by_side(classes, quota, console.width, with_proof)]
    else:
        console.width = min(console.width, MAX_TEXT_COLUMNS)
        pages = [render_explanation(algorithm, quota, with_proof) for algorithm in classes]
    for number, page in enumerate(pages):
        if number:
            console.print()
        console.print(page)
