"""Traces that the tasks of an engine read and decide for a command."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from ratelab.cli import expand_paths
from ratelab.cli.engines import Advance, EngineOptions, check_arrow, open_run
from ratelab.cli.output import LateProgress
from ratelab.cli.sources import (
    ENGINE_OPTIONS,
    TrafficSource,
    create_trace_options,
    describe_source,
    is_scenario,
    reject_trace_options,
)
from ratelab.lab.traces import Trace, TraceOptions, sum_file_sizes

if TYPE_CHECKING:
    from ratelab.algorithms import Policy
    from ratelab.lab.traces.inspection import Inspection
    from ratelab.lab.tune import Demand, Outlier
    from ratelab.lab.tune.outliers import Inspect

Found = TypeVar("Found")

Decide: TypeAlias = Callable[[Any, Advance], tuple[Trace, Found]]
"""Decides the requests of files that were read; see `lab.cluster.results`."""


def check_distributed(policies: Sequence[Policy]) -> None:
    """Check before any work that tasks can decide by these policies; raise `InputError` if not."""
    check_arrow()
    from ratelab.lab.cluster.results import check_built_in  # it needs pyarrow

    check_built_in(policies)


def load_decided(sources: Sequence[str], reading: dict[str, Any], decide: Decide[Found]) -> tuple[TrafficSource, Found]:
    """Read traces by the engine that `reading` names, and decide their requests there."""
    engine, paths, options = _prepare(sources, reading)
    with open_run(engine) as run:
        trace, found = _decide(run, paths, options, decide)
    return describe_source(trace, paths, options), found


def _prepare(sources: Sequence[str], reading: dict[str, Any]) -> tuple[EngineOptions, Sequence[str], TraceOptions]:
    """Return the engine that `reading` names, and the traces with the options that describe them."""
    if any(map(is_scenario, sources)):
        reject_trace_options("a scenario is not a trace")
    engine, paths = EngineOptions(*(reading.pop(name) for name in ENGINE_OPTIONS)), expand_paths(sources)
    return engine, paths, create_trace_options(reading)


def _decide(run: Any, paths: Sequence[str], reading: TraceOptions, decide: Callable[[Any, Advance], Found]) -> Found:
    with LateProgress("reading", sum_file_sizes(paths), run.engine.description) as progress:
        files = run.read(paths, reading, progress)
    with LateProgress("deciding", files.partitions) as progress:
        return decide(files, progress)


@contextmanager
def open_demand(
    sources: Sequence[str], reading: dict[str, Any], good: Sequence[str], ignored: Sequence[str]
) -> Iterator[tuple[TrafficSource, Demand, Inspect]]:
    """Read traces by the engine that `reading` names, whose tasks examine their requests, and read them again."""
    engine, paths, options = _prepare(sources, reading)
    with open_run(engine) as run:
        from ratelab.lab.cluster.inspection import inspect_pieces  # they need pyarrow
        from ratelab.lab.cluster.tuning import RemoteDemand

        def decide(files: Any, progress: Advance) -> tuple[Any, RemoteDemand]:
            return files, RemoteDemand(files, good, ignored, progress)

        files, demand = _decide(run, paths, options, decide)

        def inspect(outliers: Sequence[Outlier]) -> Inspection:
            with LateProgress("looking at outliers", sum_file_sizes(paths)) as progress:
                return inspect_pieces(files, [(outlier.client, outlier.requests) for outlier in outliers], progress)

        yield describe_source(demand.trace, paths, options), demand, inspect
