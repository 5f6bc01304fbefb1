"""Sources of traffic: a scenario, or traces, with the options that describe them and notes on how they were read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ratelab.cli import expand_paths
from ratelab.cli.options import Command, add_options
from ratelab.cli.output import LateProgress
from ratelab.errors import InputError, install_hint
from ratelab.lab.traces import (
    ClientRule,
    Trace,
    TraceOptions,
    format_paths,
    is_arrow_installed,
    make_printable,
    parse_filters,
    read_traces,
    sum_file_sizes,
)
from ratelab.lab.traces.formats import check_format
from ratelab.lab.traffic import Traffic
from ratelab.report.numbers import pluralize

if TYPE_CHECKING:
    from ratelab.cli.engines import EngineOptions
    from ratelab.lab.scenarios import Scenario

Advance = Callable[[int], None]
"""Called with the number of further bytes read."""

ReadTraces = Callable[[Sequence[str], TraceOptions, Advance], Trace]
"""Reads traces, such as `read_traces`."""

LARGE_TRACE_BYTES = 50_000_000
"""Size of a trace from which on the faster reader is recommended."""


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
        return load_scenario_source(sources)[0]
    return load_traces(expand_paths(sources), reading)


def load_traces(
    paths: Sequence[str],
    reading: dict[str, Any],
    read: ReadTraces = read_traces,
) -> TrafficSource:
    """Read traces by `read`; `reading` holds the values of `trace_options`, of which an engine replaces `read`."""
    engine = take_engine(reading)
    options = create_trace_options(reading)
    if engine:
        read = _create_engine_reader(engine, is_default=read is read_traces)
    return describe_source(_read_with_progress(paths, options, read), paths, options)


def describe_source(trace: Trace, paths: Sequence[str], options: TraceOptions) -> TrafficSource:
    """Return the source of a trace, with notes on how it was read."""
    fields = {"trace": ", ".join(map(make_printable, paths)), **_serialize_reading(trace)}
    title = f"{format_paths(paths)}, read as {trace.format}"
    notes = _describe_reading(trace, options.within_second)
    return TrafficSource(trace.traffic, fields, title, notes, tuple(paths), options, trace)


def take_engine(reading: dict[str, Any]) -> EngineOptions | None:
    """Take the options of engines out of the parameters of a command; return None without an engine."""
    engine, *others = (reading.pop(name, None) for name in ENGINE_OPTIONS)
    if engine is not None:
        from ratelab.cli.engines import EngineOptions  # only for engines

        return EngineOptions(engine, *others)
    if any(others):
        raise InputError("--partitions and --exchange are for engines: add --engine processes:2 or dask://HOST:PORT")
    return None


def _create_engine_reader(options: EngineOptions, is_default: bool) -> ReadTraces:
    if not is_default:
        raise InputError("several policies are decided in one process: leave out --engine")
    from ratelab.cli.engines import create_reader  # only for engines

    return create_reader(options)


def load_scenario_source(sources: tuple[str, ...]) -> tuple[TrafficSource, Scenario]:
    """Load one scenario; raise `InputError` for several."""
    if len(sources) > 1:
        raise InputError(f"only one scenario can be loaded at a time, got {len(sources)} sources: name one file")
    from ratelab.lab.scenarios import load_scenario  # it needs YAML, which traces do not

    with LateProgress("drawing traffic", None):
        scenario = load_scenario(sources[0])
    scenario.check_open_loop()
    fields: dict[str, Any] = {"scenario": scenario.name, "seed": scenario.seed}
    return TrafficSource(scenario.traffic, fields, f"{scenario.name}: {scenario.description}"), scenario


def _read_with_progress(paths: Sequence[str], options: TraceOptions, read: ReadTraces) -> Trace:
    """Read traces by `read`, with a progress bar."""
    size = sum_file_sizes(paths)
    if size and size >= LARGE_TRACE_BYTES and not is_arrow_installed():
        click.echo(f"to read traces of this size faster, {install_hint('logs')}", err=True)
    with LateProgress("reading", size) as progress:
        return read(paths, options, progress)


# --- notes on the reading

EXAMPLE = "  "
"""How notes begin that are examples of lines."""


def _serialize_reading(trace: Trace) -> dict[str, Any]:
    """Return the fields of `--json` about the trace; `start` is in nanoseconds since 1970."""
    return {
        "format": trace.format,
        "lines": trace.lines,
        "repeated": trace.repeated,
        "anonymous": trace.anonymous,
        "filtered": dict(trace.filtered),
        "unparsed": trace.unparsed,
        "reordered": trace.reordered,
        "whole_seconds": trace.whole_seconds,
        "start": trace.traffic.origin,
        "notes": list(trace.notes),
    }


def _describe_reading(trace: Trace, within_second: str) -> tuple[str, ...]:
    """Return notes on the trace that affect how far the figures can be trusted."""
    notes = [f"{pluralize(trace.lines, 'line')} from {_format_start(trace.traffic.origin)}"]
    if trace.repeated:
        notes.append(f"{pluralize(trace.repeated, 'line')} left out: the same requests, decided by other algorithms")
    if trace.anonymous:
        notes.append(f"{pluralize(trace.anonymous, 'line')} left out: no client in the field of --key")
    notes += [f"{pluralize(count, 'request')} left out by {name}" for name, count in trace.filtered]
    if trace.unparsed:
        notes.append(f"{pluralize(trace.unparsed, 'line')} left out, beginning with:")
        notes += [f"{EXAMPLE}line {reject}" for reject in trace.rejects]
    if trace.reordered:
        notes.append(f"{pluralize(trace.reordered, 'request')} out of order, sorted by time")
    notes += trace.notes
    if any("whole minutes" in note for note in trace.notes):
        return tuple(notes)
    if trace.whole_seconds and within_second == "spread":
        notes.append("times are whole seconds: the requests of a second are spread evenly over it (--within-second)")
    elif trace.whole_seconds:
        notes.append("times are whole seconds: all requests of a second are at its start (--within-second)")
    return tuple(notes)


def _format_start(nanoseconds: int) -> str:
    try:
        start = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=nanoseconds // 1000)
    except OverflowError:
        return f"{nanoseconds} ns since 1970"
    return f"{start:%Y-%m-%d %H:%M:%S} UTC on"


# --- options


class TraceFormat(click.ParamType[str]):
    """The name of a trace format."""

    name = "format"

    def __init__(self, *more_formats: str) -> None:
        self._more_formats = more_formats

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name; raise click's usage error if it is unknown."""
        try:
            check_format(value, *self._more_formats)
        except InputError as error:
            self.fail(str(error), param, ctx)
        return value


def is_scenario(path: str) -> bool:
    """Return whether a file is a scenario and not a trace, by its name."""
    return path.endswith((".yaml", ".yml"))


ENGINE_OPTIONS = ("engine", "partitions", "exchange")
"""The parameters of `trace_options` that name an engine."""

TRACE_OPTIONS = (
    "trace_format", "pattern", "key", "time_field", "time_unit", "time_format", "time_zone", "cost_field",
    "only", "exclude", "trusted_proxies", "trusted_hops", "ipv6_prefix", "within_second", "strict", "lenient",
    *ENGINE_OPTIONS,
)  # fmt: skip
"""The parameters of `trace_options`."""


def create_trace_options(values: dict[str, Any]) -> TraceOptions:
    """Return the options of reading a trace; take their values out of the parameters of a command."""
    given = {name: values.pop(name) for name in TRACE_OPTIONS if name not in ENGINE_OPTIONS}
    return TraceOptions(
        format=given["trace_format"],
        key=given["key"],
        time=given["time_field"],
        cost=given["cost_field"],
        unit=given["time_unit"],
        within_second=given["within_second"],
        strict=given["strict"],
        lenient=given["lenient"],
        pattern=given["pattern"],
        time_format=given["time_format"],
        time_zone=given["time_zone"],
        clients=ClientRule(given["trusted_proxies"], given["trusted_hops"], given["ipv6_prefix"]),
        filters=parse_filters(given["only"], given["exclude"]) if given["only"] or given["exclude"] else (),
    )


def reject_trace_options(reason: str) -> None:
    """Raise `InputError` for options of traces that are given for traffic from another source; `--format` names it."""
    context = click.get_current_context()
    given = [
        option.opts[0]
        for option in context.command.params
        if option.name in TRACE_OPTIONS and context.get_parameter_source(option.name) is ParameterSource.COMMANDLINE
    ]
    ignored = [name for name in given if name != "--format" or context.params["trace_format"] != "recording"]
    if ignored:
        raise InputError(f"{reason}: leave out {' and '.join(ignored)}")


_RECORDING_HELP = {"recording": "recording: a file written by `ratelab serve --record`"}

_TRACE = (
    click.option(
        "--pattern",
        metavar="REGEX",
        help="Instead of --format: a pattern of the lines, with (?P<client>...) and (?P<time>...).",
    ),
    click.option(
        "--key",
        metavar="FIELD",
        help="The field that identifies the client; forwarded: the forwarded addresses.  [default: ip]",
    ),
    click.option("--time", "time_field", metavar="FIELD", help="The field that holds the time."),
    click.option(
        "--time-unit",
        type=click.Choice(["auto", "s", "ms", "us", "ns", "excel"]),
        default="auto",
        show_default=True,
        help="The unit of numeric times.",
    ),
    click.option("--time-format", metavar="FORMAT", help="How times are written, such as '%d.%m.%Y %H:%M:%S'."),
    click.option(
        "--time-zone", default="UTC", show_default=True, metavar="ZONE", help="The zone of times without one."
    ),
    click.option("--cost", "cost_field", metavar="FIELD", help="The field that holds the cost; by default 1."),
    click.option(
        "--only",
        multiple=True,
        metavar="FIELD=VALUE",
        help="Keep only these requests; * is any text, @FILE a list; repeatable.",
    ),
    click.option("--exclude", multiple=True, metavar="FIELD=VALUE", help="Leave out these requests; repeatable."),
    click.option(
        "--trusted-proxy",
        "trusted_proxies",
        multiple=True,
        metavar="CIDR",
        help="Trust forwarded addresses from this proxy; repeatable.",
    ),
    click.option(
        "--trusted-hops",
        type=click.IntRange(0, 16),
        default=0,
        help="Alternative to --trusted-proxy: the fixed number of proxies in front.",
    ),
    click.option(
        "--ipv6-prefix",
        type=click.IntRange(48, 64),
        default=64,
        show_default=True,
        help="The bits that identify an IPv6 client.",
    ),
    click.option(
        "--within-second",
        type=click.Choice(["spread", "start"]),
        default="spread",
        show_default=True,
        help="Of whole seconds or minutes: spread requests over them, or keep them at the start.",
    ),
    click.option("--strict", is_flag=True, help="Reject files and lines that cannot be read."),
    click.option("--lenient", is_flag=True, help="Allow most lines of a file to be left out."),
    click.option("--engine", metavar="ENGINE", help="Read on workers: processes:N or dask://HOST:PORT; see docs."),
    click.option(
        "--partitions", type=click.IntRange(1, 4096), help="Parts of the clients that workers decide, with --engine."
    ),
    click.option("--exchange", metavar="PATH", help="A folder or bucket that all workers reach, with --engine."),
)


def trace_options(*more_formats: str) -> Callable[[Command], Command]:
    """Add the options of `lab.traces.TraceOptions` to a command; `--format` also accepts `more_formats`."""
    format_option = click.option(
        "--format",
        "trace_format",
        type=TraceFormat(*more_formats),
        default="auto",
        show_default=True,
        metavar="NAME",
        help="; ".join(["`ratelab formats` describes them", *(_RECORDING_HELP[name] for name in more_formats)]) + ".",
    )
    return lambda command: add_options(command, (format_option, *_TRACE))
