"""Engines of commands: the options of a distributed run, its progress and its report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from tempfile import TemporaryDirectory

import click

from ratelab.errors import InputError, install_hint
from ratelab.lab.cluster.run import Run, describe_stages
from ratelab.lab.engines import open_engine
from ratelab.lab.traces import Trace, TraceOptions, is_arrow_installed

Advance = Callable[[int], None]


@contextmanager
def open_run(engine: str, partitions: int | None, exchange: str | None) -> Iterator[Run]:
    """Open a run on an engine; at the end, remove its files and print its stages on standard error.

    After an error the files in a folder that the user named stay, so that the same command resumes.
    """
    if not is_arrow_installed():
        raise InputError(f"engines need pyarrow: {install_hint('dask')}")
    if exchange is None and not engine.startswith("processes:"):
        raise InputError("the workers of a cluster need a folder or bucket that all of them reach: add --exchange PATH")
    opened = open_engine(engine)
    temporary = TemporaryDirectory(prefix="ratelab-") if exchange is None else None
    run = Run(opened, exchange or str(temporary and temporary.name), partitions)
    click.echo(f"engine: {opened.description}", err=True)
    try:
        yield run
        for line in describe_stages(run.stages):
            click.echo(line, err=True)
        run.remove()
    except BaseException:
        if exchange is not None and run.exchange is not None:
            click.echo(f"finished tasks are kept in {run.exchange.folder}: the same command resumes", err=True)
        raise
    finally:
        opened.close()
        if temporary is not None:
            temporary.cleanup()


def create_reader(
    engine: str, partitions: int | None, exchange: str | None
) -> Callable[[Sequence[str], TraceOptions, Advance], Trace]:
    """Return a function that reads traces by an engine and gathers their requests."""

    def read(paths: Sequence[str], options: TraceOptions, progress: Advance) -> Trace:
        with open_run(engine, partitions, exchange) as run:
            return run.read(paths, options, progress).trace

    return read
