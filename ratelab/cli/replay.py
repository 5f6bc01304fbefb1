"""`ratelab replay`: replay recorded traffic through the algorithms."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from ratelab.algorithms import COMPARED, build_policy, select
from ratelab.cli import expand_paths
from ratelab.cli.options import POLICIES_OPTION, SEMANTICS_OPTION, comparison_options
from ratelab.cli.output import LateProgress, Output, deliver
from ratelab.cli.recordings import load_recorded_traffic, replay_recording
from ratelab.cli.sources import (
    TRACE_OPTIONS,
    TrafficSource,
    is_scenario,
    load_traces,
    reject_trace_options,
    trace_options,
)
from ratelab.errors import InputError
from ratelab.quota import Quota
from ratelab.report.summary import Run

if TYPE_CHECKING:
    from ratelab.lab.policies.requests import Attributes
    from ratelab.policies.policy_file import PolicyFile


@click.command()
@click.argument("traces", nargs=-1, required=True, metavar="TRACE...")
@click.option("--rate", metavar="RATE", help="Quota of each client, such as 100/min.")
@click.option(
    "--burst", type=click.IntRange(min=1), help="Requests admitted at once; by default the count of the rate."
)
@click.option(
    "--retry",
    "retry_text",
    metavar="POLICY,KEY=VALUE,...",
    help="Let denied clients try again, for example with full-jitter,base=1s,attempts=5.",
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
    retry_text: str | None,
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
    A recording has its own quotas, and is always replayed through its own algorithms: the exit status is 1 if those
    decisions differ from those of the live service. With --policies, it is replayed through those of the file instead.
    With --retry, each request of the trace is a first try of a client that reacts to its answers.
    """
    paths = expand_paths(traces)
    reading = {"trace_format": trace_format, **{name: others.pop(name) for name in TRACE_OPTIONS if name in others}}
    output = Output(tuple(paths), **others)
    if semantics and policy_file is None:
        raise InputError("--semantics is for several policies: add --policies FILE")
    recorded = trace_format == "recording"
    if retry_text is not None and (recorded or policy_file is not None):
        other = "--format recording" if recorded else "--policies"
        raise InputError(f"--retry is for algorithms at one quota: leave out --retry or {other}")
    if recorded:
        if rate is not None or burst is not None:
            raise InputError("a recording has its own quotas: leave out --rate and --burst")
        reject_trace_options("a recording has fixed fields")
        if len(paths) > 1:
            raise InputError(f"only one recording can be replayed at a time, got {len(paths)}: name one file")
    for path in paths:
        if is_scenario(path) and trace_format == "auto":
            raise InputError(f"{path} is a scenario: ratelab simulate replays scenarios")
    if policy_file is not None:
        from ratelab.cli import policy_runs  # only for several policies

        def load(file: PolicyFile) -> tuple[TrafficSource, Attributes]:
            if recorded:
                return load_recorded_traffic(paths[0])
            return policy_runs.load_policy_traces(paths, reading, file)

        policy_runs.replay_policies(load, output, policy_file, semantics, top)
        return
    if recorded:
        replay_recording(paths[0], algorithms, output, top)
        return
    if rate is None:
        raise InputError(
            "missing --rate: give the quota of each client, such as --rate 100/min; "
            "a recording has its own, with --format recording"
        )
    quota = Quota.parse(rate, burst)
    policies = [build_policy(kind, quota) for kind in select(algorithms, COMPARED)]
    if retry_text is not None:
        from ratelab.cli import loop_runs  # only for clients that react

        loop_runs.check_output(output)
        behavior = loop_runs.parse_retry(retry_text, output.parse_client_timeout())
        deliver([loop_runs.run_log(load_traces(paths, reading), policies, behavior, output, top)], output)
        return
    if reading["engine"] is not None and not _shows_requests(output):
        from ratelab.cli.distributed import check_distributed, load_decided  # only for engines

        check_distributed(policies)
        from ratelab.lab.cluster.results import compare

        decide = partial(compare, policies, output.parse_client_timeout())
        source, comparison = load_decided(paths, reading, decide)
    else:
        source = load_traces(paths, reading)
        with LateProgress("replaying", output.total(len(source.traffic) * (len(policies) + 1))) as progress:
            comparison = output.compare(policies, source.traffic, progress)
    deliver([Run(comparison, source.fields, source.title, source.notes, top)], output)


def _shows_requests(output: Output) -> bool:
    """Return whether an output needs the decisions of single requests."""
    needed = output.events_file, output.accuracy, output.equalize, output.timeline, output.html_target, output.plots
    return any(needed)
