"""Where a store is, and what its failures mean: the same for both clients."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from ratelab.errors import InputError, StoreError
from ratelab.stores.valkey.wire import request

SCHEMES = ("valkey", "valkeys", "redis", "rediss", "unix")
"""How a store's URL begins; those in -s are encrypted."""

_MAY_SAY = {"db", "username", "password", "host", "port", "path", "connection_class", "cluster"}

Address = tuple[str, int]
"""A node of a cluster: its host and port."""


def hidden(url: str) -> str:
    """Write a URL without its password."""
    parts = urlsplit(url)
    return url if parts.password is None else url.replace(f":{parts.password}@", ":***@", 1)


class Place:
    """Where a store is, as a URL says: how to connect to it, and what is said first.

    Raises `InputError` for a URL that cannot be used.
    """

    def __init__(self, url: str, asynchronous: bool) -> None:
        from valkey import connection
        from valkey._parsers.url_parser import parse_url
        from valkey.asyncio import connection as connection_async

        try:
            said: dict[str, Any] = dict(parse_url(url, async_connection=asynchronous))
        except ValueError as error:
            raise _unusable(url, str(error)) from None
        unknown = [name for name in said if name not in _MAY_SAY and not name.startswith("ssl_")]
        if unknown:
            raise _unusable(url, f"it may not set {unknown[0]}")
        if urlsplit(url).scheme == "unix" and not said.get("path"):
            raise _unusable(url, "it names no socket")
        cluster, database = said.pop("cluster", "false"), said.pop("db", 0)
        if cluster not in ("true", "false") or (cluster == "true" and database):
            raise _unusable(url, "cluster is true or false, and a cluster has no databases")
        kind = said.pop("connection_class", connection_async.Connection if asynchronous else connection.Connection)
        if kind.__name__.startswith("SSL"):
            said.setdefault("ssl_check_hostname", True)  # the client by itself takes a certificate for any host
        user, password = said.pop("username", None), said.pop("password", None)
        self.cluster = cluster == "true"
        """Whether the URL names a node of a cluster, as `valkey://node:6379?cluster=true` does."""
        self.greeting = [
            *([request("AUTH", *([user] if user else []), password)] if password is not None else []),
            *([request("SELECT", database)] if database else []),
        ]
        """What is said first on a connection, each to be answered."""
        self._kind, self._said = kind, said

    def connection(self, address: Address | None, timeout: float | None = None) -> Any:
        """Make a connection of the client, to a cluster's node if `address` names one; it says nothing by itself."""
        node = {} if address is None else {"host": address[0], "port": address[1]}
        limits = {"socket_timeout": timeout, "socket_connect_timeout": timeout}
        return self._kind(valkey_connect_func=lambda _: None, **limits, **{**self._said, **node})


def _unusable(url: str, reason: str) -> InputError:
    example = "valkey://localhost:6379/0, rediss://:password@host or unix:///run/valkey.sock"
    return InputError(f"cannot use the store {hidden(url)} ({reason}): give a URL such as {example}")


def failure(error: Exception) -> StoreError:
    """Say what an error of the client means, without anything that was sent."""
    from valkey import exceptions as known

    if isinstance(error, StoreError):
        return error
    kinds: dict[str, tuple[type[BaseException], ...]] = {
        "timeout": (known.TimeoutError, TimeoutError),
        "refused": (known.AuthenticationError, known.NoPermissionError),
        "readonly": (known.ReadOnlyError,),
        "full": (known.OutOfMemoryError,),
        "unreachable": (known.ConnectionError, OSError),
    }
    kind = next((kind for kind, errors in kinds.items() if isinstance(error, errors)), "other")
    text = {"timeout": "the store did not answer in time", "full": "the store is out of memory"}.get(kind, str(error))
    return StoreError(kind, text)
