"""`ratelab replay`: recorded traffic through the algorithms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ratelab.cli.options import comparison_options, selected_algorithms, trace_options
from ratelab.cli.progress import read_watched
from ratelab.errors import InputError

if TYPE_CHECKING:
    from ratelab.cli.output import Output
    from ratelab.lab.traces import TraceOptions
    from ratelab.quota import Quota


@click.command()
@click.argument("traces", nargs=-1, required=True, metavar="TRACE...")
@click.option("--rate", metavar="RATE", help="What every client is granted, such as 100/min.")
@click.option("--burst", type=click.IntRange(min=1), help="How much may come at once; by default as the rate says.")
@comparison_options
@trace_options("recording")
@click.option("--top", type=click.IntRange(min=1), default=10, show_default=True, help="Most denied clients to tell.")
def replay(
    traces: tuple[str, ...],
    rate: str | None,
    burst: int | None,
    algorithms: tuple[str, ...],
    key: str,
    trace_format: str,
    time_field: str | None,
    time_unit: str,
    cost_field: str | None,
    within_second: str,
    strict: bool,
    top: int,
    **wanted: Any,
) -> None:
    """Replay TRACEs, as one, through every algorithm, as if each client had been granted --rate.

    A TRACE is an access log, JSON lines or CSV, plain or packed by gzip or zstd, or Parquet; - is standard input, and
    'logs/*.gz' whatever it matches. Without --algo, the usual five.
    A recording brings its own quota and is replayed through its own algorithm too: exit status 1 if that decides
    otherwise than it did live.
    """
    from ratelab.cli.output import Output
    from ratelab.lab.traces import TraceOptions, expanded

    paths = expanded(traces)
    output = Output(tuple(paths), **wanted)
    if trace_format == "recording":
        if rate is not None or burst is not None:
            raise InputError("a recording brings its own quota: leave out --rate and --burst")
        if key != "ip" or time_field or cost_field or strict:
            raise InputError("a recording has fields of its own: leave out --key, --time, --cost and --strict")
        if len(paths) > 1:
            raise InputError(f"a recording is replayed by itself, got {len(paths)} files: give one at a time")
        _replay_recording(paths[0], algorithms, output, top)
        return
    if rate is None:
        raise InputError(
            "--rate is missing: say what every client is granted, such as --rate 100/min; a recording says it itself, "
            "with --format recording"
        )
    from ratelab.quota import Quota

    options = TraceOptions(trace_format, key, time_field, cost_field, time_unit, within_second, strict)
    _replay_traces(paths, Quota.parse(rate, burst), algorithms, options, output, top)


def _replay_traces(
    paths: list[str], quota: Quota, algorithms: tuple[str, ...], options: TraceOptions, output: Output, top: int
) -> None:
    from ratelab.algorithms import COMPARED
    from ratelab.cli.output import deliver
    from ratelab.cli.progress import LateProgress
    from ratelab.lab.comparison import compare
    from ratelab.lab.traces import called_together, printable
    from ratelab.report.summary import Run
    from ratelab.report.trace_notes import reading_notes, reading_object

    classes = selected_algorithms(algorithms, COMPARED)
    read = read_watched(paths, options)
    with LateProgress("replaying", output.work(len(read.traffic) * (len(classes) + 1))) as progress:
        comparison = compare(quota, read.traffic, classes, progress, **output.needs)
    source = {"trace": ", ".join(map(printable, paths)), **reading_object(read)}
    title = f"{called_together(paths)}, read as {read.format}"
    deliver([Run(comparison, source, title, reading_notes(read, options.within_second), top)], output)


def _replay_recording(trace: str, algorithms: tuple[str, ...], output: Output, top: int) -> None:
    from ratelab.algorithms import COMPARED
    from ratelab.cli.output import deliver
    from ratelab.cli.progress import LateProgress
    from ratelab.lab.comparison import compare
    from ratelab.lab.recording import read_recording
    from ratelab.lab.traces import called_together, printable, stored_size
    from ratelab.report.summary import Run
    from ratelab.report.trace_notes import recording_notes, recording_object

    with LateProgress("reading", stored_size([trace])) as progress:
        recording = read_recording(trace, progress)
    classes = selected_algorithms(algorithms, COMPARED)
    if recording.algorithm not in (one.name for one in classes):
        classes = [*selected_algorithms((recording.algorithm,), ()), *classes]
    with LateProgress("replaying", output.work(len(recording.traffic) * (len(classes) + 1))) as progress:
        comparison = compare(
            recording.quota, recording.traffic, classes, progress, **{**output.needs, "keep_decisions": True}
        )
    replayed = comparison.decisions[recording.algorithm]
    verdict = recording_object(recording, replayed)
    source = {"trace": printable(trace), "format": "recording", "recording": verdict}
    title = f"{called_together([trace])}, a recording"
    deliver([Run(comparison, source, title, recording_notes(recording, replayed), top)], output)
    if verdict["differing"]:
        raise SystemExit(1)
