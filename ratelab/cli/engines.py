"""Engines of commands: distributed reading and deciding, with its progress and its report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TypeAlias, TypeVar

import click

from ratelab.cli.output import LateProgress
from ratelab.errors import InputError, install_hint
from ratelab.lab.engines import open_engine
from ratelab.lab.traces import Trace, TraceOptions, is_arrow_installed, sum_file_sizes

Found = TypeVar("Found")

Advance = Callable[[int], None]
"""Called with the number of further bytes read, or of partitions decided."""

Decide: TypeAlias = Callable[[Any, Advance], tuple[Trace, Found]]
"""Decides the requests of files that were read; see `lab.cluster.results`."""


class EngineOptions(NamedTuple):
    """The values of `--engine`, `--partitions` and `--exchange`."""

    engine: str
    partitions: int | None
    exchange: str | None


@contextmanager
def open_run(options: EngineOptions) -> Iterator[Any]:
    """Open a run on an engine; at the end, remove its files and print its stages on standard error.

    After an error, the files stay in a folder that the user named, so that the same command resumes.
    """
    if not is_arrow_installed():
        raise InputError(f"engines need pyarrow: {install_hint('dask')}")
    from ratelab.lab.cluster.run import Run, describe_stages  # it needs pyarrow

    engine = open_engine(options.engine)
    try:
        if options.exchange is None and not engine.is_local:
            raise InputError(
                "the workers of a cluster exchange files: add --exchange with a folder or bucket that all of them reach"
            )
        with TemporaryDirectory(prefix="ratelab-") as temporary:
            run = Run(engine, options.exchange or temporary, options.partitions)
            click.echo(f"engine: {engine.description}", err=True)
            try:
                yield run
            except BaseException:
                if options.exchange is not None and run.exchange is not None:
                    click.echo(f"finished tasks stay in {run.exchange.folder}: the same command resumes", err=True)
                raise
            for line in describe_stages(run.stages):
                click.echo(line, err=True)
            run.remove()
    finally:
        engine.close()


def create_reader(options: EngineOptions) -> Callable[[Sequence[str], TraceOptions, Advance], Trace]:
    """Return a function that reads traces by an engine and gathers their requests in this process."""

    def read(paths: Sequence[str], reading: TraceOptions, progress: Advance) -> Trace:
        with open_run(options) as run:
            trace: Trace = run.read(paths, reading, progress).trace
        return trace

    return read


def decide_traces(
    engine: EngineOptions, paths: Sequence[str], reading: TraceOptions, decide: Decide[Found]
) -> tuple[Trace, Found]:
    """Read traces by an engine, and let its tasks decide their requests."""
    with open_run(engine) as run:
        with LateProgress("reading", sum_file_sizes(paths)) as progress:
            files = run.read(paths, reading, progress)
        with LateProgress("deciding", files.partitions) as progress:
            return decide(files, progress)
