"""`ratelab diff`: the requests that a new limit would deny and the old one does not."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import click

from ratelab.algorithms import parse_policy
from ratelab.cli.options import parse_share
from ratelab.cli.output import LateProgress, create_console, print_sentences, print_table, tune_compiler
from ratelab.cli.sources import is_scenario, load_source, trace_options
from ratelab.lab.tune.difference import compare_policies
from ratelab.report.difference import build_difference_table, describe_difference, serialize_difference
from ratelab.report.summary import describe_traffic


@click.command()
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="NEW")
@click.argument("sources", nargs=-1, required=True, metavar="TRACE|SCENARIO...")
@click.option(
    "--max-newly-denied",
    "tolerated",
    default="0.1%",
    show_default=True,
    metavar="SHARE",
    help="The share of requests that NEW may deny although OLD does not.",
)
@click.option(
    "--top", type=click.IntRange(min=1), default=10, show_default=True, help="How many of the clients to list."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
@trace_options()
def diff(old: str, new: str, sources: tuple[str, ...], tolerated: str, top: int, as_json: bool, **reading: Any) -> None:
    """Replay traffic with the limits OLD and NEW, and report the requests that only one of them denies.

    A limit is written ALGORITHM:RATE:BURST, such as token-bucket:100/min:40; without a burst, it is the count of the
    rate. It may also be a policy file, FILE.yaml, whose policies decide together. The exit status is 1 if NEW denies
    more requests that OLD admits than --max-newly-denied tolerates.
    """
    share = parse_share("--max-newly-denied", tolerated)
    if is_scenario(old) or is_scenario(new):  # by their names, policy files
        from ratelab.cli.policy_runs import compare_files  # only for several policies

        source, difference = compare_files(old, new, sources, reading)
    elif reading["engine"] is not None:
        from ratelab.cli.distributed import check_distributed, load_decided  # only for engines

        policies = parse_policy(old), parse_policy(new)
        check_distributed(policies)
        from ratelab.lab.cluster import results

        source, difference = load_decided(sources, reading, partial(results.diff, *policies))
    else:
        policies = parse_policy(old), parse_policy(new)
        source = load_source(sources, reading)
        tune_compiler(source.traffic, 2)
        with LateProgress("replaying", 2 * len(source.traffic)) as progress:
            difference = compare_policies(*policies, source.traffic, progress)
    if as_json:
        document = serialize_difference(difference, source.fields, float(share), top)
        click.echo(json.dumps(document, ensure_ascii=False))
    else:
        console = create_console()
        console.print(source.title, style="bold", markup=False)
        console.print(describe_traffic(source.traffic), markup=False)
        for note in source.notes:
            console.print(note, style="dim", markup=False)
        print_table(console, build_difference_table(difference, top))
        print_sentences(console, describe_difference(difference, float(share)))
    if difference.newly_denied_ratio > share:
        raise SystemExit(1)
