"""Runs of several policies together: those of scenarios and those of a policy file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import click
from click.core import ParameterSource

from ratelab.algorithms import parse_policy
from ratelab.cli import expand_paths
from ratelab.cli.output import (
    LateProgress,
    Output,
    deliver,
    tune_compiler,
)
from ratelab.cli.sources import (
    Advance,
    TrafficSource,
    is_scenario,
    load_scenario_source,
    load_traces,
    reject_trace_options,
)
from ratelab.errors import InputError, short_repr
from ratelab.lab.decisions import ADMISSION_FIELDS, FIGURE_FIELDS, Progress
from ratelab.lab.policies.figures import PolicyCheck, PolicyComparison, check_parts, compare_semantics
from ratelab.lab.policies.outcome import replay_together
from ratelab.lab.policies.requests import Attributes, PolicyTraffic, split_requests
from ratelab.lab.policies.trace import read_policy_traces
from ratelab.lab.replay import replay
from ratelab.lab.scenarios import Scenario
from ratelab.lab.traces import Trace, TraceOptions, make_printable
from ratelab.lab.traffic import Traffic
from ratelab.lab.tune.difference import PolicyDifference, compare_decisions
from ratelab.limiter import ROW_FIELDS
from ratelab.policies.policy_file import PolicyFile, read_policies
from ratelab.report.policy_run import PolicyRun
from ratelab.report.runs import BaseRun


def simulate_policies(
    scenarios: Sequence[Scenario],
    output: Output,
    path: str | None,
    semantics: tuple[str, ...],
    compare: Callable[[Scenario], BaseRun],
) -> None:
    """Replay scenarios through their policies, or those of the file at `path`; `compare` runs one without policies."""
    reject_options("algorithms", "rate", "burst")
    file = None if path is None else read_policies(path)
    runs: list[BaseRun] = []
    for scenario in scenarios:
        limits = scenario.limits
        if file is None and limits is None:
            runs.append(compare(scenario))
            continue
        if scenario.population is not None:
            raise InputError(
                f"the clients of {scenario.name} react to answers and take no policies: leave out --policies"
            )
        attributes = limits.attributes if limits else describe_clients(scenario.traffic)
        parts = limits.parts if limits and file is None else ()
        with LateProgress("replaying", None) as progress:
            comparison = _compare(
                output,
                parts or split(file, scenario.traffic, attributes),
                scenario.traffic,
                semantics or (limits.semantics if limits else ("atomic",)),
                progress,
            )
        source = {"scenario": scenario.name, "seed": scenario.seed}
        runs.append(PolicyRun(comparison, source, f"{scenario.name}: {scenario.description}", scenario=scenario))
    deliver(runs, output)


def _compare(
    output: Output, parts: Sequence[PolicyTraffic], traffic: Traffic, semantics: Sequence[str], progress: Progress
) -> PolicyComparison:
    """Replay `traffic` through several policies together; raise `InputError` for outputs that need one quota."""
    check_output(output)
    tune_compiler(traffic, len(parts))
    fields = ROW_FIELDS if output.events_file else FIGURE_FIELDS
    return compare_semantics(parts, traffic, semantics, fields, progress, output.parse_client_timeout())


def check_output(output: Output) -> None:
    """Raise `InputError` for outputs that need one quota."""
    for option, given in (("--accuracy", output.accuracy), ("--equalize", output.equalize)):
        if given:
            raise InputError(f"{option} compares algorithms at one quota, and not several policies: leave it out")


def replay_policies(
    load: Callable[[PolicyFile], tuple[TrafficSource, Attributes]],
    output: Output,
    path: str,
    semantics: tuple[str, ...],
    top: int,
) -> None:
    """Replay traffic through the policies of the file at `path`, for which `load` loads it.

    List the `top` most denied clients.
    """
    reject_options("algorithms", "rate", "burst")
    file = read_policies(path)
    source, attributes = load(file)
    parts = split(file, source.traffic, attributes)
    with LateProgress("replaying", None) as progress:
        comparison = _compare(output, parts, source.traffic, semantics or ("atomic",), progress)
    fields = {**source.fields, "policy_file": make_printable(path)}
    deliver([PolicyRun(comparison, fields, source.title, source.notes, top)], output)


def compare_files(
    old: str, new: str, sources: tuple[str, ...], reading: dict[str, Any]
) -> tuple[TrafficSource, PolicyDifference]:
    """Replay traffic through two limits of which one or both are policy files; return the difference."""
    sides = [read_policies(text) if is_scenario(text) else parse_policy(text) for text in (old, new)]
    files = [side for side in sides if isinstance(side, PolicyFile)]
    source, attributes = load_policy_source(sources, reading, _merge(files))
    decided = []
    with LateProgress("replaying", None) as progress:
        for side in sides:
            if isinstance(side, PolicyFile):
                parts = split(side, source.traffic, attributes)
                tune_compiler(source.traffic, len(parts))
                decided.append(replay_together(parts, source.traffic, progress=progress).decisions["allowed"])
            else:
                decided.append(replay(side, source.traffic, ADMISSION_FIELDS, progress).decisions["allowed"])
    return source, compare_decisions(sides[0], sides[1], decided[0], decided[1], source.traffic)


def _merge(files: Sequence[PolicyFile]) -> PolicyFile:
    """Return a file with the policies of all, by which traces are read; their headers must not differ."""
    first = files[0]
    for other in files[1:]:
        for kind in ("plan_header", "account_header"):
            names = {name for file in (first, other) if (name := getattr(file, kind)) is not None}
            if len(names) > 1:
                given = " and ".join(sorted(names))
                raise InputError(f"{first.path} and {other.path} must have the same {kind}, got {given}")
        first = replace(
            first,
            policies=(*first.policies, *other.policies),
            plan_header=first.plan_header or other.plan_header,
            account_header=first.account_header or other.account_header,
        )
    return first


def check_policies(
    path: str, name: str | None, sources: tuple[str, ...], reading: dict[str, Any]
) -> tuple[TrafficSource, PolicyCheck]:
    """Replay traffic through each policy of a file alone, and through all together.

    Return the traffic as the policy called `name` sees it, by default the first, and the check.
    """
    file = read_policies(path)
    names = [policy.name for policy in file.policies]
    if name is not None and name not in names:
        raise InputError(f"--policy must be one of {', '.join(names)}, got {short_repr(name)}")
    source, attributes = load_policy_source(sources, reading, file)
    parts = split(file, source.traffic, attributes)
    tune_compiler(source.traffic, 2 * len(parts))
    with LateProgress("replaying", None) as progress:
        check = check_parts(parts, source.traffic, progress)
    chosen = max((part for part in parts if part.policy.name == (name or names[0])), key=lambda part: len(part.traffic))
    if chosen.traffic is not source.traffic:  # a second look at the log would show other requests
        source = replace(source, traffic=chosen.traffic, trace=None, options=None)
    return source, replace(check, chosen=chosen)


def load_policy_source(
    sources: tuple[str, ...], reading: dict[str, Any], file: PolicyFile
) -> tuple[TrafficSource, Attributes]:
    """Load one scenario or read traces, with the facts about requests that the policies of a file need."""
    if not any(map(is_scenario, sources)):
        return load_policy_traces(expand_paths(sources), reading, file)
    reject_trace_options("a scenario is not a trace")
    source, scenario = load_scenario_source(sources)
    return source, scenario.limits.attributes if scenario.limits else describe_clients(source.traffic)


def load_policy_traces(
    paths: Sequence[str], reading: dict[str, Any], file: PolicyFile
) -> tuple[TrafficSource, Attributes]:
    """Read traces with the facts about requests that the policies of a file need."""
    found: list[Attributes] = []

    def read(paths: Sequence[str], options: TraceOptions, progress: Advance) -> Trace:
        trace, attributes = read_policy_traces(paths, options, file, progress)
        found.append(attributes)
        return trace

    return load_traces(paths, reading, read), found[0]


def describe_clients(traffic: Traffic) -> Attributes:
    """Return the facts about requests that follow from their clients alone."""
    return Attributes(groups=traffic.clients, clients=traffic.names)


def split(file: PolicyFile | None, traffic: Traffic, attributes: Attributes) -> list[PolicyTraffic]:
    """Return the requests that each policy of a file applies to; raise `InputError` with the name of the file."""
    assert file is not None  # noqa: S101  (a scenario without policies has a file)
    try:
        return split_requests(file, traffic, attributes)
    except InputError as error:
        raise InputError(f"{file.path}: {error}") from None


def reject_options(*names: str) -> None:
    """Raise `InputError` for options of the command that policies take the place of."""
    context = click.get_current_context()
    given = [
        option.opts[0]
        for option in context.command.params
        if option.name in names and context.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE
    ]
    if given:
        raise InputError(f"each policy has its algorithm and its quota: leave out {' and '.join(given)}")
