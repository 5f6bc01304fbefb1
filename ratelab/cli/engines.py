"""Engines of commands: a run on an engine, and the report of its stages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import click

from ratelab.errors import InputError, ResourceError, install_hint
from ratelab.lab.engines import open_engine
from ratelab.lab.traces import Trace, TraceOptions, is_arrow_installed

Advance = Callable[[int], None]
"""Called with the number of further bytes read, or of partitions decided."""


class EngineOptions(NamedTuple):
    """The values of `--engine`, `--partitions` and `--exchange`."""

    engine: str
    partitions: int | None
    exchange: str | None


def check_arrow() -> None:
    """Raise `InputError` if pyarrow is not installed."""
    if not is_arrow_installed():
        raise InputError(f"engines need pyarrow: {install_hint('dask')}")


@contextmanager
def open_run(options: EngineOptions) -> Iterator[Any]:
    """Open a run on an engine; at the end, remove its files and print its stages on standard error.

    The files stay in a folder that the user named if the run is interrupted, or if the engine or the exchange fails.
    The same command then resumes.
    """
    check_arrow()
    from ratelab.lab.cluster.run import DistributedRun, describe_stages  # it needs pyarrow

    with closing(open_engine(options.engine)) as engine, TemporaryDirectory(prefix="ratelab-") as temporary:
        if options.exchange is None and not engine.is_local:
            raise InputError("workers exchange files: add --exchange with a folder or bucket that all of them reach")
        exchange = temporary if options.exchange is None else options.exchange
        run = DistributedRun(engine, exchange, options.partitions)
        try:
            yield run
        except InputError:
            run.remove()
            raise
        except ResourceError:
            run.leave()
            raise
        except BaseException:
            folder = run.leave()
            if folder and options.exchange is not None:
                click.echo(f"finished tasks stay in {folder}: the same command resumes", err=True)
            raise
        for line in (f"engine: {engine.description}", *describe_stages(run.stages)):
            click.echo(line, err=True)
        run.remove()


def create_reader(options: EngineOptions) -> Callable[[Sequence[str], TraceOptions, Advance], Trace]:
    """Return a function that reads traces by an engine and gathers their requests in this process."""

    def read(paths: Sequence[str], reading: TraceOptions, progress: Advance) -> Trace:
        with open_run(options) as run:
            trace: Trace = run.read(paths, reading, progress).trace
        return trace

    return read
