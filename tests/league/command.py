"""Command of the league."""

from __future__ import annotations

import datetime
import json
import platform
from pathlib import Path
from typing import Any

import click
from league import HOME, read_packages, run_league
from page import render_page, render_table
from reproduce import run_reproductions

from ratelab.errors import InputError
from ratelab.report.files import check_writable

RESULTS = HOME / "results.json"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", metavar="NAME", help="Judge only this package.")
@click.option("--html", "html_file", metavar="FILE", help="Write the page, too.")
@click.option("--recorded", is_flag=True, help="Report the recorded results, and judge nothing.")
@click.option("--record", is_flag=True, help="Record the results of this run.")
@click.option("--reproduce", is_flag=True, help="Run the reproductions on the real clock and record their output.")
def league(only: str | None, html_file: str | None, recorded: bool, record: bool, reproduce: bool) -> None:
    """Judge rate limiting packages by the promises of `ratelab judge`.

    The versions are those of tests/league/requirements.txt; packages that are not installed are skipped.
    """
    packages = [package for package in read_packages() if only in (None, package.name)]
    if not packages:
        raise click.UsageError(f"unknown package {only!r}: packages.yaml lists them")
    if html_file is not None:
        try:
            check_writable(html_file)
        except InputError as error:
            raise click.UsageError(str(error)) from None
    if reproduce:
        run_reproductions(only, lambda line: click.echo(line, err=True))
        return
    if recorded:
        results = json.loads(RESULTS.read_text("utf-8"))
        results["variants"] = [result for result in results["variants"] if only in (None, result["package"])]
    else:
        results = {
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "python": platform.python_version(),
            "variants": [],
        }
        for result in run_league(packages, lambda line: click.echo(line, err=True)):
            results["variants"].append(result)
            if record:
                record_results(results)
    click.echo(render_table(results))
    if html_file is not None:
        Path(html_file).write_text(render_page(results), "utf-8")


def record_results(results: dict[str, Any]) -> None:
    """Record results in the order of packages.yaml, in place of earlier ones of the same packages."""
    order = [package.name for package in read_packages()]
    judged = {result["package"] for result in results["variants"]}
    recorded = json.loads(RESULTS.read_text("utf-8"))["variants"] if RESULTS.exists() else []
    others = [result for result in recorded if result["package"] not in judged and result["package"] in order]
    variants = sorted([*results["variants"], *others], key=lambda result: order.index(result["package"]))
    RESULTS.write_text(json.dumps({**results, "variants": variants}, indent=1, ensure_ascii=False) + "\n", "utf-8")
