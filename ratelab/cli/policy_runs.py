"""Runs of several policies together: those of scenarios and those of a policy file."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click
from click.core import ParameterSource

from ratelab.cli.output import LateProgress, Output, deliver
from ratelab.errors import InputError
from ratelab.lab.policies.requests import Attributes, PolicyTraffic, split_requests
from ratelab.lab.scenarios import Scenario
from ratelab.lab.traffic import Traffic
from ratelab.policies.policy_file import PolicyFile, read_policies
from ratelab.report.policies import PolicyRun
from ratelab.report.summary import Run


def simulate_policies(
    scenarios: Sequence[Scenario],
    output: Output,
    path: str | None,
    semantics: tuple[str, ...],
    compare: Callable[[Scenario], Run],
) -> None:
    """Replay scenarios through their policies, or those of the file at `path`; `compare` runs one without policies."""
    reject_options("algorithms", "rate", "burst")
    file = None if path is None else read_policies(path)
    runs: list[Run | PolicyRun] = []
    for scenario in scenarios:
        limits = scenario.limits
        if file is None and limits is None:
            runs.append(compare(scenario))
            continue
        attributes = limits.attributes if limits else describe_clients(scenario.traffic)
        parts = limits.parts if limits and file is None else ()
        with LateProgress("replaying", None) as progress:
            comparison = output.compare_policies(
                parts or split(file, scenario.traffic, attributes),
                scenario.traffic,
                semantics or (limits.semantics if limits else ("atomic",)),
                progress,
            )
        source = {"scenario": scenario.name, "seed": scenario.seed}
        runs.append(PolicyRun(comparison, source, f"{scenario.name}: {scenario.description}", scenario=scenario))
    deliver(runs, output)


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
