"""Traces read under the eyes of whoever waits for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from ratelab.cli.progress import LateProgress
from ratelab.errors import install_hint

if TYPE_CHECKING:
    from ratelab.lab.traces import Trace, TraceOptions

_LARGE = 50_000_000
"""Bytes of a trace from which on a quicker reader is worth a word."""


def read_watched(paths: Sequence[str], options: TraceOptions) -> Trace:
    """Read files as `lab.traces.read_traces` does, with a bar if it takes long."""
    from ratelab.lab.traces import arrow_installed, read_traces, stored_size

    size = stored_size(paths)
    if size and size >= _LARGE and not arrow_installed():
        click.echo(f"to read traces of this size faster, {install_hint('logs')}", err=True)
    with LateProgress("reading", size) as progress:
        return read_traces(paths, options, progress)
