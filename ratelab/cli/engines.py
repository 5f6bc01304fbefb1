"""Engines of commands: distributed reading and deciding, with its progress and its report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import click

from ratelab.algorithms import Policy
from ratelab.cli import expand_paths
from ratelab.cli.output import LateProgress
from ratelab.cli.sources import (
    Advance,
    EngineOptions,
    ReadTraces,
    TrafficSource,
    create_trace_options,
    describe_source,
    is_scenario,
    load_source,
    take_engine,
)
from ratelab.errors import InputError, install_hint
from ratelab.lab.comparison import Comparison
from ratelab.lab.engines import open_engine
from ratelab.lab.sweep import SweepResult
from ratelab.lab.traces import Trace, TraceOptions, is_arrow_installed, sum_file_sizes
from ratelab.lab.tune.difference import PolicyDifference

Found = TypeVar("Found")


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


def create_reader(options: EngineOptions) -> ReadTraces:
    """Return a function that reads traces by an engine and gathers their requests in this process."""

    def read(paths: Sequence[str], reading: TraceOptions, progress: Advance) -> Trace:
        with open_run(options) as run:
            trace: Trace = run.read(paths, reading, progress).trace
        return trace

    return read


# --- decisions by tasks


def replay_traces(
    paths: Sequence[str], reading: dict[str, Any], policies: Sequence[Policy], client_timeout: int
) -> tuple[TrafficSource, Comparison]:
    """Replay policies by an engine."""
    from ratelab.lab.cluster import results

    results.check_built_in(policies)
    return _decide(paths, reading, lambda files, progress: results.compare(policies, files, client_timeout, progress))


def sweep_traces(
    sources: Sequence[str], reading: dict[str, Any], policies: Sequence[Policy]
) -> tuple[TrafficSource, SweepResult]:
    """Sweep policies by an engine."""
    from ratelab.lab.cluster import results

    results.check_built_in(policies)
    paths = _expand(sources, reading)
    return _decide(paths, reading, lambda files, progress: results.sweep(policies, files, progress))


def diff_traces(
    sources: Sequence[str], reading: dict[str, Any], old: Policy, new: Policy
) -> tuple[TrafficSource, PolicyDifference]:
    """Compare two policies by an engine."""
    from ratelab.lab.cluster import results

    results.check_built_in((old, new))
    paths = _expand(sources, reading)
    return _decide(paths, reading, lambda files, progress: results.diff(old, new, files, progress))


def _expand(sources: Sequence[str], reading: dict[str, Any]) -> list[str]:
    """Return the files of traces; raise `InputError` for a scenario."""
    if any(map(is_scenario, sources)):
        load_source(tuple(sources), reading)
    return expand_paths(sources)


def _decide(
    paths: Sequence[str], reading: dict[str, Any], decide: Callable[[Any, Advance], tuple[Trace, Found]]
) -> tuple[TrafficSource, Found]:
    """Read traces by an engine, and decide their requests there by `decide`."""
    engine = take_engine(reading)
    assert engine is not None  # noqa: S101  (the caller has looked)
    options = create_trace_options(reading)
    with open_run(engine) as run:
        with LateProgress("reading", sum_file_sizes(paths)) as progress:
            files = run.read(paths, options, progress)
        with LateProgress("deciding", files.partitions) as progress:
            trace, found = decide(files, progress)
    return describe_source(trace, paths, options), found
