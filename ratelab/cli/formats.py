"""`ratelab formats`: list the formats of traces."""

from __future__ import annotations

import click

from ratelab.lab.traces.formats import FORMATS


@click.command()
def formats() -> None:
    """List the formats that can be read, by the names for --format. Without --format, they are detected.

    Lines may be wrapped by syslog, journald, Docker, Kubernetes or grep. For other lines, give a --pattern.
    """
    width = max(map(len, FORMATS))
    for name, format_ in FORMATS.items():
        click.echo(f"{name:{width}}  {format_.title}")
    click.echo(f"{'parquet':{width}}  Parquet, with columns like the fields of jsonl")
