"""`ratelab policies`: policy files, checked and printed in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from ratelab.cli.output import create_console
from ratelab.errors import InputError
from ratelab.policies.description import describe_key, describe_limit

if TYPE_CHECKING:
    from rich.table import Table

    from ratelab.policies.policy_file import PolicyFile


@click.group()
def policies() -> None:
    """Work with policy files: several limits at once, plans and overrides, in YAML."""


@policies.command()
@click.argument("file", metavar="FILE")
def check(file: str) -> None:
    """Check a policy file and print its limits in words.

    The table lists the policies, and those that differ in a plan or for a client.

    Below it are the sources of plans and accounts, and what the policies need that is not in the file.

    An error names the file, the line, the path of the value and the remedy, and the exit status is 2.
    """
    from ratelab.policies.policy_file import read_policies

    content = read_policies(file)
    console = create_console()
    console.print(_build_table(content))
    for line in (*_describe_sources(content), *_describe_needs(content)):
        console.print(line, markup=False)


def _build_table(content: PolicyFile) -> Table:
    """Build a table of the policies, and of those that differ in a plan or for a client."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for header in ("policy", "algorithm", "limit", "for", "requests"):
        table.add_column(header, overflow="fold", no_wrap=header == "algorithm")
    rows = [(policy, describe_key(policy.key)) for policy in content.policies]
    for plan, policies in content.plans.items():
        changed = [policy for policy in policies if policy not in content.policies]
        rows += [(policy, f"{describe_key(policy.key)} on {plan}") for policy in changed]
    for client, by_name in content.overrides.items():
        rows += [(policy, client) for policy in by_name.values()]
    for policy, subject in rows:
        name = f"{policy.name} (shadow)" if policy.shadow else policy.name
        cells = (name, policy.algorithm.name, describe_limit(policy), subject, policy.match or "all")
        table.add_row(*map(Text, cells))
    return table


def _describe_needs(content: PolicyFile) -> Iterator[str]:
    """Yield a line for each thing that the policies need and the file cannot have."""
    from ratelab.http.addresses import is_address_header
    from ratelab.policies.values import COUNTED_COSTS
    from ratelab.stores.valkey.plan_scripts import PlanScripts

    costs = dict.fromkeys(policy.cost for policy in content.policies if policy.cost not in COUNTED_COSTS)
    if costs:
        yield f"costs: {', '.join(costs)}, which an application counts; ratelab serve cannot"
    keys = [policy.key or "" for policy in content.policies]
    headers = [key.removeprefix("header:") for key in keys if key.startswith("header:")]
    if "account" in keys:
        headers.append(content.account_header or "")
    for header in dict.fromkeys(filter(is_address_header, headers)):
        yield f"proxies: {header} needs the proxies that set it, as --trusted-proxy or trusted_proxies"
    try:
        PlanScripts(content.policies, content.plans, content.overrides, None, cluster=False)
    except InputError as error:
        yield f"store: refused, since {error}"


def _describe_sources(content: PolicyFile) -> Iterator[str]:
    """Yield a line about the source of the plan, and one about that of the account."""
    default = "" if content.default_plan is None else f"; without one, it is {content.default_plan}"
    if content.plan_header is not None:
        yield f"plan: {content.plan_header}, which only your authentication layer may set{default}"
    elif content.plan_of is not None:
        count = len(content.plan_of)
        yield f"plan: by {content.files[-1]}, for {count:,} {'client' if count == 1 else 'clients'}{default}"
    if content.account_header is not None:
        yield f"account: {content.account_header}, which only your authentication layer may set"
