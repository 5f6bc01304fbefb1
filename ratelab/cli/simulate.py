"""`ratelab simulate`: replay scenarios through the algorithms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import click

from ratelab.algorithms import build_policy, select
from ratelab.cli import expand_paths
from ratelab.cli.options import POLICIES_OPTION, SEMANTICS_OPTION, comparison_options, scenario_options
from ratelab.cli.output import LateProgress, Output, deliver
from ratelab.errors import InputError
from ratelab.lab.scenarios import Scenario, load_variants
from ratelab.report.expectations import describe_failures
from ratelab.report.runs import BaseRun
from ratelab.report.summary import Run


@click.command()
@click.argument("scenarios", nargs=-1, required=True, metavar="SCENARIO...")
@comparison_options
@scenario_options
@POLICIES_OPTION
@SEMANTICS_OPTION
def simulate(
    scenarios: tuple[str, ...],
    algorithms: tuple[str, ...],
    rate: str | None,
    burst: int | None,
    seed: int | None,
    policy_file: str | None,
    semantics: tuple[str, ...],
    **outputs: Any,
) -> None:
    """Replay each SCENARIO, a YAML file, through every algorithm and compare the results.

    Without --algo, the scenario names the algorithms. The exit status is 1 if a figure is not as `expect` in a
    scenario demands. A scenario has at least:

    \b
      name: lunch
      duration: 1min
      quota: {rate: 2/s, burst: 5}
      clients:
        - name: alice
          traffic:
            - {pattern: poisson, rate: 3/s}
    """  # noqa: D301  (click's mark for a block)
    paths = tuple(path for argument in scenarios for path in expand_paths([argument]))
    output = Output(paths, **outputs)
    with LateProgress("drawing traffic", None):
        files = [load_variants(path, rate, burst, seed) for path in paths]
    loaded = [variants[0] for variants in files]
    if policy_file is not None or any(scenario.limits for scenario in loaded):
        from ratelab.cli.policy_runs import simulate_policies  # only for several policies

        checked: list[BaseRun] = []

        def compare(scenario: Scenario) -> BaseRun:
            (variants,) = (variants for variants in files if variants[0] is scenario)
            checked.append(_check(run_scenarios([variants], (), output)[0], variants))
            return checked[-1]

        simulate_policies(loaded, output, policy_file, semantics, compare)
        _report_failures(checked)
        return
    if semantics:
        raise InputError("--semantics is for several policies: add --policies FILE, or policies to the scenario")
    runs = run_scenarios(files, algorithms, output)
    runs = [_check(run, variants) for run, variants in zip(runs, files, strict=True)]
    deliver(runs, output)
    _report_failures(runs)


def _report_failures(runs: Sequence[BaseRun]) -> None:
    """Print the expectations that runs do not meet, and exit with status 1 if there are some."""
    failures = [line for run in runs if run.checks for line in describe_failures(run.checks, run.figures)]
    for line in failures:
        click.echo(line, err=True)
    if failures:
        raise SystemExit(1)


def _check(run: BaseRun, variants: Sequence[Scenario]) -> BaseRun:
    """Return a run with the values of its scenario's expectations; raise `InputError` if an algorithm did not run."""
    if not any(scenario.expectations for scenario in variants):
        return run
    from ratelab.lab.scenarios.expectations import check_results  # only scenarios with expectations need it

    return replace(run, checks=tuple(check_results(run.comparison.results, variants)))


def run_scenarios(files: Sequence[Sequence[Scenario]], algorithms: Sequence[str], output: Output) -> Sequence[BaseRun]:
    """Run scenarios, each given by its variants, against each of their algorithms."""
    if all(len(variants) == 1 and variants[0].population is None for variants in files):
        return _replay_scenarios([scenario for (scenario,) in files], algorithms, output)
    from ratelab.cli.loop_runs import is_loop, simulate_variants  # only for clients that react

    return [
        simulate_variants(variants, algorithms, output)
        if is_loop(variants)
        else _replay_scenarios(variants, algorithms, output)[0]
        for variants in files
    ]


def _replay_scenarios(loaded: Sequence[Scenario], algorithms: Sequence[str], output: Output) -> list[Run]:
    """Replay scenarios through each of their algorithms."""
    policies = [
        [build_policy(kind, scenario.open_loop_quota) for kind in select(algorithms, scenario.algorithms)]
        for scenario in loaded
    ]
    total = sum(len(scenario.traffic) * (len(row) + 1) for scenario, row in zip(loaded, policies, strict=True))
    with LateProgress("replaying", output.total(total)) as progress:
        return [
            Run(
                output.compare(row, scenario.traffic, progress),
                {"scenario": scenario.name, "seed": scenario.seed},
                f"{scenario.name}: {scenario.description}",
                scenario=scenario,
            )
            for scenario, row in zip(loaded, policies, strict=True)
        ]
