"""`ratelab keys`: the most limited clients of a service, and the state or the reset of one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import quote

import click

from ratelab.cli.keys.sources import Pages, StorePages, ask_service
from ratelab.cli.options import add_options, parse_quota, require
from ratelab.cli.output import create_console
from ratelab.errors import InputError
from ratelab.quota import about

DEFAULT_LISTED = 20
STORE_DEADLINE_S = 5.0

_OPTIONS = (
    click.option("--socket", metavar="PATH", help="The --admin-socket of a running service."),
    click.option("--store", metavar="URL", help="Instead, the store of a service, with its options."),
    click.option("--algo", default="token-bucket", show_default=True, metavar="NAME", help="With --store."),
    click.option("--rate", metavar="RATE", help="With --store."),
    click.option("--burst", type=click.IntRange(min=1), help="With --store."),
    click.option("--name", metavar="NAME", help="With --store."),
    click.option("--key", default="ip", show_default=True, metavar="ip|header:NAME", help="With --store."),
    click.option("--ipv6-prefix", type=click.IntRange(48, 64), default=64, show_default=True, help="With --store."),
    click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table."),
)


def _source_options(command: Callable[..., None]) -> Callable[..., None]:
    return add_options(command, _OPTIONS)


class KeySource(NamedTuple):
    """A running service or a store, as the options name it."""

    socket: str | None
    store: str | None
    algo: str
    rate: str | None
    burst: int | None
    name: str | None
    key: str
    ipv6_prefix: int
    as_json: bool

    def open(self) -> Pages:
        """Return a function that answers pages; raise `InputError` unless the options name one source."""
        if (self.socket is None) == (self.store is None):
            raise InputError("ratelab keys needs a running service or its store: give --socket PATH or --store URL")
        return ask_service(self.socket) if self.socket is not None else self._ask_store()

    def _ask_store(self) -> Pages:
        require("keys", valkey=("valkey",))
        from ratelab.http.identity import Identity
        from ratelab.stores.valkey import ValkeyLimiter

        quota = parse_quota(self.rate, self.burst)
        limiter = ValkeyLimiter(self.store or "", self.algo, quota, deadline=STORE_DEADLINE_S, name=self.name)
        return StorePages(limiter, Identity(self.key, ipv6_prefix=self.ipv6_prefix))


@click.group()
def keys() -> None:
    """List the most limited clients of a service, show one, or reset one.

    Clients appear as keyed hashes, as everywhere in ratelab. The service, or with --store the RATELAB_KEY_SECRET of its
    instances, finds the hash of a given client.
    """


@keys.command("list")
@click.option("--limit", type=click.IntRange(min=1), default=DEFAULT_LISTED, show_default=True, help="Keys to list.")
@_source_options
def list_keys(limit: int, **options: Any) -> None:
    """List the clients with the most denied requests, or in a store those with the least quota left."""
    source = KeySource(**options)
    _print(source, source.open()("GET", f"/keys?limit={limit}"), limit)


@keys.command()
@click.argument("client")
@click.option("--hashed", is_flag=True, help="CLIENT is a key from the list.")
@_source_options
def show(client: str, hashed: bool, **options: Any) -> None:
    """Show the quota of CLIENT: an address, or the value of its header. This charges nothing."""
    source = KeySource(**options)
    _print(source, {"keys": [source.open()("GET", _path(client, hashed))]}, 1)


@keys.command()
@click.argument("client")
@click.option("--hashed", is_flag=True, help="CLIENT is a key from the list.")
@_source_options
def reset(client: str, hashed: bool, **options: Any) -> None:
    """Restore the full quota of CLIENT."""
    source = KeySource(**options)
    _print(source, {"keys": [source.open()("DELETE", _path(client, hashed))]}, 1)


def _path(client: str, hashed: bool) -> str:
    if not client:
        raise InputError("CLIENT must not be empty: name an address, or the value of the client's header")
    return f"/{'keys' if hashed else 'clients'}/{quote(client, safe='')}"


def _print(source: KeySource, answer: dict[str, Any], limit: int) -> None:
    rows = answer["keys"][:limit]
    if source.as_json:
        click.echo(json.dumps({"version": 1, **answer, "keys": rows}))
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("key", no_wrap=True)
    for header in ("denied", "remaining", "full in"):
        table.add_column(header, justify="right")
    for row in rows:
        remaining = "unlimited" if row["remaining"] is None else f"{row['remaining']:,}"
        table.add_row(row["key"], _format_denied(row), remaining, _format_reset(row))
        for name, state in row.get("policies", {}).items():
            table.add_row(Text(f"  {name}"), "", f"{state['remaining']:,}", _format_reset(state))
    create_console().print(table if rows else "no client has used its quota", markup=False)


def _format_reset(state: dict[str, Any]) -> str:
    return about(round(state["reset_after"] * 1e9))


def _format_denied(row: dict[str, Any]) -> str:
    """Format a count of denials, which may be too high by its error."""
    if row["denied"] is None:
        return "-"
    least = row["denied"] - row["error"]
    return f"{least:,}" if not row["error"] else f"{least:,} to {row['denied']:,}"
