"""Recordings of a live limiter: their replay through their own limits, and their requests for a policy file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ratelab.algorithms import ALGORITHMS, COMPARED, build_policy, find, select
from ratelab.algorithms.penalty import penalize
from ratelab.algorithms.plugins import FAILURES, attributed_error
from ratelab.cli.output import LateProgress, Output, deliver
from ratelab.cli.sources import TrafficSource
from ratelab.errors import InputError, short_repr
from ratelab.lab.decisions import Decisions
from ratelab.lab.recording import (
    CheckBuilder,
    OtherCallError,
    Recording,
    RecordingCheck,
    RecordingLines,
    digest,
    read_recording,
)
from ratelab.lab.traces import format_path, make_printable, sum_file_sizes
from ratelab.report.numbers import format_part, join_names, pluralize
from ratelab.report.serialize import serialize_recording
from ratelab.report.summary import Run

if TYPE_CHECKING:
    from ratelab.lab.policies.recorded import RecordedRequests
    from ratelab.lab.policies.requests import Attributes


class Repeated(NamedTuple):
    """A recording of several policies, whose calls were made again."""

    requests: RecordedRequests
    check: RecordingCheck


def replay_recording(path: str, algorithms: Sequence[str], output: Output, top: int) -> None:
    """Replay a recording through its own limits; exit with status 1 if its decisions differ.

    One quota is replayed through its algorithm and others. Several policies decide together, as they did.
    """
    recording = _load_recording(path, algorithms)
    if isinstance(recording, Recording):
        check = _compare_algorithms(recording, path, algorithms, output, top)
    else:
        check = _show_policies(recording, path, output, top)
    if len(check.differing):
        raise SystemExit(1)


def load_recorded_traffic(path: str) -> tuple[TrafficSource, Attributes]:
    """Load the requests of a recording, with the facts about them that other policies may need."""
    recording = _load_recording(path, ())
    if isinstance(recording, Recording):
        from ratelab.cli.policy_runs import describe_clients  # only for several policies

        traffic, notes = recording.traffic, []
        attributes = describe_clients(traffic)
        denied = recording.decisions.denied
    else:
        traffic, attributes = recording.requests.create_traffic()
        denied, notes = recording.requests.denied, [*describe_other_calls(recording.check)]
    notes.insert(0, f"the recorded limits denied {format_part(denied, len(traffic), 'request')}")
    return TrafficSource(traffic, *_describe_source(path), tuple(notes)), attributes


def _load_recording(path: str, algorithms: Sequence[str]) -> Recording | Repeated:
    with LateProgress("reading", sum_file_sizes([path])) as progress:
        lines = RecordingLines(path, progress)
        if not lines.has_policies:
            try:
                return read_recording(lines)
            except OtherCallError:
                if path == "-":  # cannot be read again
                    raise
                lines = RecordingLines(path, progress)
        return _repeat_calls(lines, algorithms)


def _repeat_calls(lines: RecordingLines, algorithms: Sequence[str]) -> Repeated:
    """Make the recorded calls of a limiter again; `algorithms` are those of its policies that are not built in."""
    from ratelab.lab.policies.recorded import RecordedRequests  # only for several policies
    from ratelab.stores.recorded_calls import CallRepeater

    requests, check = RecordedRequests(), CheckBuilder()
    kinds = {name: find(name) for name in algorithms}
    with lines.name_errors(1):
        repeater = CallRepeater(lines.header, {kind.name: name for name, kind in kinds.items()})
    for number, line in lines:
        with lines.name_errors(number):
            try:
                hit = repeater.repeat(line)
                if hit is None:
                    check.count_other_call("at_ns" in line)
                else:
                    check.add(number, line, hit.fields)
                    requests.add(hit.at_ns, hit.keys, hit.costs, hit.plan, hit.policies, hit.decision, hit.each)
            except FAILURES as error:
                if isinstance(error, InputError) or not kinds:
                    raise
                raise attributed_error(error, next(iter(kinds.values()))) from error
    with lines.name_errors():
        if not requests:
            raise InputError("the recording has no request with a cost: send requests to the service first")
        unused = next((name for name, kind in kinds.items() if kind.name not in requests.algorithms), None)
        if unused is not None:
            raise InputError(f"no request was decided by {unused}: leave out --algo {unused}")
        return Repeated(requests, check.build(repeater.names, lines.truncated))


def _describe_source(path: str) -> tuple[dict[str, Any], str]:
    """Return the first fields of the JSON object, and the title."""
    return {"trace": make_printable(path), "format": "recording"}, f"{format_path(path)}, a recording"


def _show_policies(recording: Repeated, path: str, output: Output, top: int) -> RecordingCheck:
    """Show the decisions of several policies as they were repeated, and what differs."""
    from ratelab.cli.policy_runs import check_output  # only for several policies
    from ratelab.lab.policies.figures import PolicyComparison, measure_together
    from ratelab.report.policy_run import PolicyRun

    check_output(output)
    check = recording.check
    traffic, _ = recording.requests.create_traffic()
    outcome = recording.requests.create_outcome(traffic, check.names)
    timeout = output.parse_client_timeout()
    parts = tuple(policy.asked for policy in outcome.policies)
    comparison = PolicyComparison(traffic, parts, (measure_together(outcome, timeout),), timeout)
    fields, title = _describe_source(path)
    fields["recording"] = {**serialize_recording(check), "settlements_and_refunds": check.other_calls}
    notes = (*describe_recording(check), *describe_other_calls(check))
    deliver([PolicyRun(comparison, fields, title, notes, top)], output)
    return check


def _compare_algorithms(
    recording: Recording, path: str, algorithms: Sequence[str], output: Output, top: int
) -> RecordingCheck:
    """Show what the algorithm of a recording and others decide, and what differs."""
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
    check = recording.decisions.compare(recording.algorithm, replayed)
    fields, title = _describe_source(path)
    fields["recording"] = {"algorithm": recording.algorithm, **serialize_recording(check)}
    deliver([Run(comparison, fields, title, describe_recording(check), top)], output)
    return check


def describe_recording(check: RecordingCheck) -> tuple[str, ...]:
    """Return the comparison as text: both digests, the number of differences and the first of them."""
    recorded, replayed = check.recorded, check.replayed
    count, names = pluralize(len(replayed), "decision"), join_names(check.names)
    notes = [f"sha256 recorded {digest(recorded.rows)}", f"sha256 replayed {digest(replayed)}"]
    if len(check.differing):
        first = int(check.differing[0])
        was, is_now = check.first or (_format_decision(recorded.rows, first), _format_decision(replayed, first))
        line = int(recorded.lines[first])
        notes.append(f"{len(check.differing):,} of {count} by {names} differ, the first in line {line}:")
        notes += [f"  recorded: {was}", f"  replayed: {is_now}"]
    else:
        notes.append(f"{count} by {names} replayed, no differences")
    if recorded.shared:
        notes.append(
            f"{pluralize(recorded.shared, 'decision')} on buckets that keys shared because the limiter was full "
            "(serve --max-keys); a replay by key cannot reproduce them"
        )
    if recorded.truncated:
        notes.append("last line incomplete, left out")
    return tuple(notes)


def describe_other_calls(check: RecordingCheck) -> tuple[str, ...]:
    """Return a note on settlements and refunds, if there are any."""
    if not check.other_calls:
        return ()
    return (f"settlements and refunds: {check.other_calls:,}; the figures count the costs before them",)


def _format_decision(decisions: Decisions, index: int) -> str:
    allowed, remaining, retry_after_ns, _, delay_ns = decisions[index].tolist()
    decision = "admitted" if allowed else "denied"
    return f"{decision}, remaining {remaining}, retry after {retry_after_ns} ns, delay {delay_ns} ns"
