"""`ratelab sample`: write a synthetic log."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import click

from ratelab.cli.options import Seed
from ratelab.cli.output import LateProgress
from ratelab.cli.sources import TraceFormat
from ratelab.errors import InputError
from ratelab.lab.traces.synthetic import MAX_SAMPLE_HEAD_BYTES, is_sample, sample_lines
from ratelab.quota import Quota
from ratelab.report.files import check_writable, write_text


@click.command()
@click.argument("file")
@click.option("--lines", type=click.IntRange(min=1), default=1_000_000, show_default=True, help="Number of lines.")
@click.option("--clients", type=click.IntRange(min=1), default=100_000, show_default=True, help="Number of clients.")
@click.option("--rate", default="100/s", show_default=True, metavar="RATE", help="Requests of all clients together.")
@click.option("--seed", type=Seed(), default=42, show_default=True, help="Seed of the log.")
@click.option(
    "--format",
    "log_format",
    type=TraceFormat(),
    default="combined",
    show_default=True,
    metavar="NAME",
    help="Format of the log; `ratelab formats` lists them.",
)
def sample(file: str, lines: int, clients: int, rate: str, seed: int, log_format: str) -> None:
    """Write FILE, a synthetic log: random arrivals; a few clients send most of the requests (Zipf 1.1).

    An existing FILE is replaced only if it is empty or an earlier sample. The same options write the same lines. To
    write to standard output, name /dev/stdout.
    """
    if log_format in ("auto", "parquet"):
        raise InputError(f"a sample cannot be {log_format}: name a text format that `ratelab formats` lists")
    texts = sample_lines(lines, clients, Quota.parse(rate), seed, log_format)
    check_writable(file)
    if not _is_replaceable(Path(file)):
        raise InputError(f"{file} exists and is not a sample: name a new file, or remove it first")
    with LateProgress("writing lines", lines) as progress:

        def write(out: IO[str]) -> None:
            for text in texts:
                out.write(text)
                progress(text.count("\n"))

        write_text(file, write)


def _is_replaceable(path: Path) -> bool:
    """Return whether there is no file to lose: none, a device, an empty one or an earlier sample."""
    if not path.is_file():
        return True
    with path.open("rb") as file:
        head = file.read(MAX_SAMPLE_HEAD_BYTES)
    return not head or is_sample(head)
