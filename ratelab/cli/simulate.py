"""`ratelab simulate`: replay written scenarios through the algorithms."""

from __future__ import annotations

from typing import Any

import click

from ratelab.cli import expand_paths
from ratelab.cli.options import comparison_options


@click.command()
@click.argument("scenarios", nargs=-1, required=True, metavar="SCENARIO...")
@comparison_options
@click.option("--rate", metavar="RATE", help="Instead of the scenario's rate, such as 100/min.")
@click.option("--burst", type=click.IntRange(min=1), help="Instead of the scenario's burst.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="Instead of the scenario's seed.")
def simulate(
    scenarios: tuple[str, ...],
    algorithms: tuple[str, ...],
    rate: str | None,
    burst: int | None,
    seed: int | None,
    **wanted: Any,
) -> None:
    """Replay each SCENARIO, a YAML file, through every algorithm and compare what they do.

    Without --algo, the algorithms that the scenario names. A scenario holds at least:

    \b
      name: lunch
      duration: 1min
      quota: {rate: 2/s, burst: 5}
      clients:
        - name: alice
          traffic:
            - {pattern: poisson, rate: 3/s}
    """  # noqa: D301  (click's mark for a block)
    from ratelab.algorithms import build_policy, select
    from ratelab.cli.output import LateProgress, Output, deliver
    from ratelab.lab.scenarios import load_scenario
    from ratelab.report.summary import Run

    paths = tuple(path for one in scenarios for path in expand_paths([one]))
    output = Output(paths, **wanted)
    with LateProgress("drawing traffic", None):
        loaded = [load_scenario(path, rate, burst, seed) for path in paths]
    classes = [select(algorithms, scenario.algorithms) for scenario in loaded]
    work = sum(len(one.traffic) * (len(many) + 1) for one, many in zip(loaded, classes, strict=True))
    with LateProgress("replaying", output.total(work)) as progress:
        runs = [
            Run(
                output.compare([build_policy(kind, scenario.quota) for kind in many], scenario.traffic, progress),
                {"scenario": scenario.name, "seed": scenario.seed},
                f"{scenario.name}: {scenario.description}",
                scenario=scenario,
            )
            for scenario, many in zip(loaded, classes, strict=True)
        ]
    deliver(runs, output)
