"""`ratelab simulate`: replay scenarios through the algorithms."""

from __future__ import annotations

from typing import Any

import click

from ratelab.algorithms import build_policy, select
from ratelab.cli import expand_paths
from ratelab.cli.options import comparison_options, scenario_options
from ratelab.cli.output import LateProgress, Output, deliver
from ratelab.lab.scenarios import load_scenario
from ratelab.report.summary import Run


@click.command()
@click.argument("scenarios", nargs=-1, required=True, metavar="SCENARIO...")
@comparison_options
@scenario_options
def simulate(
    scenarios: tuple[str, ...],
    algorithms: tuple[str, ...],
    rate: str | None,
    burst: int | None,
    seed: int | None,
    **outputs: Any,
) -> None:
    """Replay each SCENARIO, a YAML file, through every algorithm and compare the results.

    Without --algo, the scenario names the algorithms. A scenario has at least:

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
        loaded = [load_scenario(path, rate, burst, seed) for path in paths]
    policies = [
        [build_policy(kind, scenario.quota) for kind in select(algorithms, scenario.algorithms)] for scenario in loaded
    ]
    total = sum(len(scenario.traffic) * (len(row) + 1) for scenario, row in zip(loaded, policies, strict=True))
    with LateProgress("replaying", output.total(total)) as progress:
        runs = [
            Run(
                output.compare(row, scenario.traffic, progress),
                {"scenario": scenario.name, "seed": scenario.seed},
                f"{scenario.name}: {scenario.description}",
                scenario=scenario,
            )
            for scenario, row in zip(loaded, policies, strict=True)
        ]
    deliver(runs, output)
