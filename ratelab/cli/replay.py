"""`ratelab replay`: replay recorded traffic through the algorithms."""

from __future__ import annotations

from typing import Any

import click

from ratelab.algorithms import ALGORITHMS, COMPARED, build_policy, select
from ratelab.algorithms.penalty import penalize
from ratelab.cli import expand_paths
from ratelab.cli.options import POLICIES_OPTION, SEMANTICS_OPTION, comparison_options
from ratelab.cli.output import LateProgress, Output, deliver
from ratelab.cli.sources import TRACE_OPTIONS, is_scenario, load_traces, reject_trace_options, trace_options
from ratelab.errors import InputError, short_repr
from ratelab.lab.recording import read_recording
from ratelab.lab.traces import format_path, make_printable, sum_file_sizes
from ratelab.quota import Quota
from ratelab.report.serialize import serialize_recording
from ratelab.report.summary import Run, describe_recording


@click.command()
@click.argument("traces", nargs=-1, required=True, metavar="TRACE...")
@click.option("--rate", metavar="RATE", help="Quota of each client, such as 100/min.")
@click.option(
    "--burst", type=click.IntRange(min=1), help="Requests admitted at once; by default the count of the rate."
)
@comparison_options
@POLICIES_OPTION
@SEMANTICS_OPTION
@trace_options("recording")
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="How many of the most-denied clients to list.",
)
def replay(
    traces: tuple[str, ...],
    rate: str | None,
    burst: int | None,
    algorithms: tuple[str, ...],
    trace_format: str,
    top: int,
    policy_file: str | None,
    semantics: tuple[str, ...],
    **others: Any,
) -> None:
    """Replay TRACEs, merged into one, through every algorithm, with the quota --rate for each client.

    A TRACE is an access log, JSON lines, CSV (plain or compressed with gzip or zstd) or Parquet; - is standard input,
    and a pattern such as 'logs/*.gz' is every file that matches. Without --algo, five algorithms are compared.
    A recording has its own quota, and is always replayed through its own algorithm: the exit status is 1 if those
    decisions differ from those of the live service.
    """
    paths = expand_paths(traces)
    reading = {"trace_format": trace_format, **{name: others.pop(name) for name in TRACE_OPTIONS if name in others}}
    output = Output(tuple(paths), **others)
    if trace_format == "recording":
        if rate is not None or burst is not None or policy_file is not None:
            raise InputError("a recording has its own quota: leave out --rate, --burst and --policies")
        reject_trace_options("a recording has fixed fields")
        if len(paths) > 1:
            raise InputError(f"only one recording can be replayed at a time, got {len(paths)}: name one file")
        _replay_recording(paths[0], algorithms, output, top)
        return
    for path in paths:
        if is_scenario(path) and trace_format == "auto":
            raise InputError(f"{path} is a scenario: ratelab simulate replays scenarios")
    if policy_file is not None:
        from ratelab.cli.policy_runs import replay_policies  # only for several policies

        replay_policies(paths, reading, output, policy_file, semantics, top)
        return
    if semantics:
        raise InputError("--semantics is for several policies: add --policies FILE")
    if rate is None:
        raise InputError(
            "missing --rate: give the quota of each client, such as --rate 100/min; "
            "a recording has its own, with --format recording"
        )
    quota, kinds = Quota.parse(rate, burst), select(algorithms, COMPARED)
    source = load_traces(paths, reading)
    with LateProgress("replaying", output.total(len(source.traffic) * (len(kinds) + 1))) as progress:
        comparison = output.compare([build_policy(kind, quota) for kind in kinds], source.traffic, progress)
    deliver([Run(comparison, source.fields, source.title, source.notes, top)], output)


def _replay_recording(path: str, algorithms: tuple[str, ...], output: Output, top: int) -> None:
    with LateProgress("reading", sum_file_sizes([path])) as progress:
        recording = read_recording(path, progress)
    kinds = select(algorithms, COMPARED if recording.quota.calendar is None else [recording.algorithm])
    if recording.algorithm not in (kind.name for kind in kinds):
        if recording.algorithm not in ALGORITHMS:  # a data file must not choose code to run
            raise InputError(
                f"{format_path(path)} was recorded with {short_repr(recording.algorithm)}, which is not built in: "
                "give it with --algo, by name or as FILE.py:CLASS"
            )
        kinds = [ALGORITHMS[recording.algorithm], *kinds]
    with LateProgress("replaying", output.total(len(recording.traffic) * (len(kinds) + 1))) as progress:
        if recording.penalty is not None:
            kinds = [penalize(kind, recording.penalty) for kind in kinds]
        policies = [build_policy(kind, recording.quota) for kind in kinds]
        comparison = output.compare(policies, recording.traffic, progress, complete=True)
    replayed = comparison.outcome(recording.algorithm).rows
    result = serialize_recording(recording, replayed)
    source = {"trace": make_printable(path), "format": "recording", "recording": result}
    title = f"{format_path(path)}, a recording"
    deliver([Run(comparison, source, title, describe_recording(recording, replayed), top)], output)
    if result["differing"]:
        raise SystemExit(1)
