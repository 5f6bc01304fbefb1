"""Sources of traffic: a scenario, or traces with the options that describe them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ratelab.cli import expand_paths
from ratelab.cli.options import create_trace_options, is_scenario, reject_trace_options
from ratelab.cli.output import LateProgress, read_with_progress
from ratelab.errors import InputError
from ratelab.lab.scenarios import load_scenario
from ratelab.lab.traces import Trace, TraceOptions, format_paths, make_printable
from ratelab.lab.traffic import Traffic
from ratelab.report.trace_notes import describe_reading, serialize_reading


@dataclass(frozen=True, eq=False)
class TrafficSource:
    """Traffic and its origin."""

    traffic: Traffic
    fields: dict[str, Any]
    """The first fields of the JSON object; the name of the traffic is the first of all."""
    title: str
    notes: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    """The files of a trace; none for a scenario."""
    options: TraceOptions | None = None
    """How the trace was read; None for a scenario."""
    trace: Trace | None = None


def load_source(sources: tuple[str, ...], reading: dict[str, Any]) -> TrafficSource:
    """Load one scenario, a .yaml file, or read traces; `reading` holds the values of `trace_options`.

    Raises `InputError` for several scenarios, and for options of traces with a scenario.
    """
    if any(map(is_scenario, sources)):
        reject_trace_options("a scenario is not a trace")
        return _load_scenario(sources)
    options = create_trace_options(reading)
    paths = expand_paths(sources)
    trace = read_with_progress(paths, options)
    fields = {"trace": ", ".join(map(make_printable, paths)), **serialize_reading(trace)}
    title = f"{format_paths(paths)}, read as {trace.format}"
    notes = describe_reading(trace, options.within_second)
    return TrafficSource(trace.traffic, fields, title, notes, tuple(paths), options, trace)


def _load_scenario(sources: tuple[str, ...]) -> TrafficSource:
    if len(sources) > 1:
        raise InputError(f"only one scenario can be loaded at a time, got {len(sources)} sources: name one file")
    with LateProgress("drawing traffic", None):
        scenario = load_scenario(sources[0])
    fields: dict[str, Any] = {"scenario": scenario.name, "seed": scenario.seed}
    return TrafficSource(scenario.traffic, fields, f"{scenario.name}: {scenario.description}")
