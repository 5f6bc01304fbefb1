"""Runs of clients that react to their answers: those of scenarios, and those of logs with `--retry`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import click
from click.core import ParameterSource

from ratelab.algorithms import Policy, build_policy, select
from ratelab.cli.output import LateProgress, Output
from ratelab.cli.sources import TrafficSource
from ratelab.errors import InputError
from ratelab.lab.closed_loop.behavior import Behavior
from ratelab.lab.closed_loop.figures import LoopCase, LoopComparison, compare_loops
from ratelab.lab.closed_loop.verdict import LoopVerdict, judge
from ratelab.lab.scenarios import Scenario
from ratelab.lab.scenarios.population import create_uniform_population, parse_behavior
from ratelab.report.loop_run import LoopRun


def is_loop(variants: Sequence[Scenario]) -> bool:
    """Return whether clients of a scenario file react to their answers, or there are variants to compare."""
    return len(variants) > 1 or any(variant.population is not None for variant in variants)


def simulate_variants(variants: Sequence[Scenario], algorithms: Sequence[str], output: Output) -> LoopRun:
    """Run variants as `run_variants` does; raise `InputError` for options that need the same requests for all."""
    check_output(output)
    reject_client_timeout("the timeout of a client is its key timeout")
    run = run_variants(variants, algorithms, keeps_outcomes(output))
    return replace(run, verdicts=_judge(run.comparison))


def keeps_outcomes(output: Output) -> bool:
    """Return whether an output needs every try."""
    return bool(output.events_file or output.timeline)


def run_variants(variants: Sequence[Scenario], algorithms: Sequence[str], keep: bool) -> LoopRun:
    """Run the clients of a scenario, or of each of its variants, against their algorithms; keep the tries if `keep`."""
    first = variants[0]
    cases = [create_case(scenario, algorithms) for scenario in variants]
    return LoopRun(
        _compare(cases, keep),
        {"scenario": first.name, "seed": first.seed},
        f"{first.name}: {first.description}",
        scenario=first,
        variants=tuple(variants),
    )


def create_case(scenario: Scenario, algorithms: Sequence[str]) -> LoopCase:
    """Return the clients of a scenario with the policies of its algorithms, or of those named."""
    quota, population = scenario.quota, scenario.population
    if quota is None and algorithms:
        raise InputError(f"{scenario.name} has no quota: give --rate, or leave out --algo")
    kinds = () if quota is None else select(algorithms, scenario.algorithms)
    policies = tuple(build_policy(kind, quota) for kind in kinds if quota is not None)
    population = population or create_uniform_population(scenario.traffic, Behavior(), scenario.seed)
    return LoopCase(population, policies, scenario.variant)


def run_log(source: TrafficSource, policies: Sequence[Policy], behavior: Behavior, output: Output, top: int) -> LoopRun:
    """Run clients whose first tries are the requests of a log, and that react as `behavior` describes."""
    traffic = replace(source.traffic, duration=source.traffic.duration + 1)  # nothing happens at the end itself
    case = LoopCase(create_uniform_population(traffic, behavior), tuple(policies))
    notes = (*source.notes, "each request of the log is a first try; tries end with the log")
    comparison = _compare([case], keeps_outcomes(output))
    return LoopRun(comparison, source.fields, source.title, notes, top, verdicts=_judge(comparison))


def _compare(cases: Sequence[LoopCase], keep: bool) -> LoopComparison:
    total = sum(case.population.duration * max(1, len(case.policies)) for case in cases)
    with LateProgress("simulating", total) as progress:
        return compare_loops(cases, progress, keep)


def _judge(comparison: LoopComparison) -> tuple[LoopVerdict, ...]:
    with LateProgress("trying changes", None):
        return judge(comparison.results)


def check_output(output: Output) -> None:
    """Raise `InputError` for outputs that compare decisions on the same requests."""
    for option, given in (("--accuracy", output.accuracy), ("--equalize", output.equalize)):
        if given:
            raise InputError(
                f"{option} compares decisions on the same requests, but clients that react send others to each "
                "algorithm: leave it out"
            )


def reject_client_timeout(reason: str) -> None:
    """Raise `InputError` if `--client-timeout` is given."""
    if click.get_current_context().get_parameter_source("client_timeout") is ParameterSource.COMMANDLINE:
        raise InputError(f"{reason}: leave out --client-timeout")


def parse_retry(text: str, timeout: int) -> Behavior:
    """Parse `--retry`; clients wait `timeout` nanoseconds for an answer, unless it has a timeout of its own.

    Raises `InputError` if it is invalid, or if two timeouts are given.
    """
    behavior = parse_behavior("--retry", text)
    if behavior.timeout is None:
        return replace(behavior, timeout=timeout)
    reject_client_timeout("--retry has a timeout")
    return behavior
