"""`ratelab keys`: the most limited clients of a service, and the state or the reset of one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import click

from ratelab.cli.keys.sources import KeySource, PolicySource, ServiceSource, StoreSource
from ratelab.cli.options import add_options, parse_quota, require
from ratelab.cli.output import create_console
from ratelab.cli.serve import check_policy_options
from ratelab.errors import InputError
from ratelab.quota import about

DEFAULT_LISTED = 20
STORE_DEADLINE_S = 5.0

_ANY_PROXIES = ("127.0.0.1",)  # those of the service do not change the key of a client that is named

_OPTIONS = (
    click.option("--socket", metavar="PATH", help="The --admin-socket of a running service."),
    click.option("--store", metavar="URL", help="Instead, the store of a service, with the options of that service."),
    click.option(
        "--algo", default="token-bucket", show_default=True, metavar="NAME", help="With --store, its algorithm."
    ),
    click.option("--rate", metavar="RATE", help="With --store, its rate."),
    click.option("--burst", type=click.IntRange(min=1), help="With --store, its burst."),
    click.option("--policies", metavar="FILE", help="With --store, its policy file, instead of these three."),
    click.option("--policy", metavar="NAME", help="With --policies, only this policy; it has its own key."),
    click.option("--name", metavar="NAME", help="With --store, its `--name`."),
    click.option("--key", default="ip", show_default=True, metavar="ip|header:NAME", help="With --store, its `--key`."),
    click.option(
        "--ipv6-prefix", type=click.IntRange(48, 64), default=64, show_default=True, help="With --store, its prefix."
    ),
    click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table."),
)


def _source_options(command: Callable[..., None]) -> Callable[..., None]:
    return add_options(command, _OPTIONS)


class SourceOptions(NamedTuple):
    """A running service or a store, as the options name it."""

    socket: str | None
    store: str | None
    algo: str
    rate: str | None
    burst: int | None
    policies: str | None
    policy: str | None
    name: str | None
    key: str
    ipv6_prefix: int

    def create_source(self) -> KeySource:
        """Create the source; raise `InputError` unless the options name one."""
        if (self.socket is None) == (self.store is None):
            raise InputError("ratelab keys needs a running service or its store: give --socket PATH or --store URL")
        if self.policy is not None and self.policies is None:
            raise InputError(f"--policy {self.policy} needs the file of the policy: give --policies FILE")
        if self.socket is None:
            require("keys", valkey=("valkey",))
            return self._create_store_source() if self.policies is None else self._create_policy_source(self.policies)
        if self.policies is not None:
            raise InputError(f"--policies {self.policies} needs --store URL: a service at --socket has its policies")
        return ServiceSource(self.socket)

    def _create_policy_source(self, path: str) -> PolicySource:
        from ratelab.http.file_policies import FilePolicies
        from ratelab.http.identity import Identity
        from ratelab.stores.valkey import ValkeyLimiter

        check_policy_options(path)
        file, identity = FilePolicies(path), Identity(self.key, _ANY_PROXIES, ipv6_prefix=self.ipv6_prefix)
        plans = file.find_plans(identity)
        limiter = ValkeyLimiter(
            self.store or "",
            plans.policies,
            deadline=STORE_DEADLINE_S,
            name=self.name,
            plans=plans.plans,
            overrides=plans.overrides,
        )
        click.get_current_context().call_on_close(limiter.close)
        return PolicySource(limiter, identity, self.key, file.content, self.policy)

    def _create_store_source(self) -> StoreSource:
        from ratelab.http.identity import Identity
        from ratelab.stores.valkey import ValkeyLimiter

        quota = parse_quota(self.rate, self.burst)
        limiter = ValkeyLimiter(self.store or "", self.algo, quota, deadline=STORE_DEADLINE_S, name=self.name)
        click.get_current_context().call_on_close(limiter.close)
        return StoreSource(limiter, Identity(self.key, _ANY_PROXIES, ipv6_prefix=self.ipv6_prefix))


@click.group()
def keys() -> None:
    """List the most limited clients of a service, show one, or reset one.

    Clients appear as keyed hashes, as everywhere in ratelab. The service, or with --store the RATELAB_KEY_SECRET of its
    instances, finds the hash of a given client.
    """


@keys.command("list", short_help="List the most limited clients.")
@click.option("--limit", type=click.IntRange(min=1), default=DEFAULT_LISTED, show_default=True, help="Keys to list.")
@_source_options
def list_keys(limit: int, as_json: bool, **options: Any) -> None:
    """List the clients with the most denied requests, or in a store those with the least quota left."""
    source = SourceOptions(**options).create_source()
    _print(source.list(limit), as_json)


@keys.command()
@click.argument("client")
@click.option("--hashed", is_flag=True, help="CLIENT is a key from the list.")
@_source_options
def show(client: str, hashed: bool, as_json: bool, **options: Any) -> None:
    """Show the quota of CLIENT: an address, or the value of its header. This charges nothing."""
    source = SourceOptions(**options).create_source()
    _print({"keys": [source.show(_check_client(client), hashed)]}, as_json)


@keys.command()
@click.argument("client")
@click.option("--hashed", is_flag=True, help="CLIENT is a key from the list.")
@_source_options
def reset(client: str, hashed: bool, as_json: bool, **options: Any) -> None:
    """Restore the full quota of CLIENT."""
    source = SourceOptions(**options).create_source()
    _print({"keys": [source.reset(_check_client(client), hashed)]}, as_json)


def _check_client(client: str) -> str:
    if not client:
        raise InputError("CLIENT must not be empty: name an address, or the value of the client's header")
    return client


def _print(answer: dict[str, Any], as_json: bool) -> None:
    """Print keys with their states, as a table or as JSON."""
    if as_json:
        click.echo(json.dumps({"version": 1, **answer}))
        return
    rows = answer["keys"]
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("key", no_wrap=True)
    for header in ("denied", "remaining", "full in"):
        table.add_column(header, justify="right")
    bound = any("bound_by" in row for row in rows)
    if bound:
        table.add_column("bound by")
    for row in rows:
        remaining = "unlimited" if row["remaining"] is None else f"{row['remaining']:,}"
        binding = [Text(row.get("bound_by") or "-")] if bound else []
        table.add_row(row["key"], _format_denied(row), remaining, _format_reset(row), *binding)
        for name, state in row.get("policies", {}).items():
            table.add_row(
                Text(f"  {name} (shadow)" if state["shadow"] else f"  {name}"),
                "",
                f"{state['remaining']:,}",
                _format_reset(state),
            )
    create_console().print(table if rows else "no client has used its quota", markup=False)


def _format_reset(state: dict[str, Any]) -> str:
    return about(round(state["reset_after"] * 1e9))


def _format_denied(row: dict[str, Any]) -> str:
    """Format a count of denials, which may be too high by its error."""
    if row["denied"] is None:
        return "-"
    least = row["denied"] - row["error"]
    return f"{least:,}" if not row["error"] else f"{least:,} to {row['denied']:,}"
