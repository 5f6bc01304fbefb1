"""Where a store is, and what its failures mean: the same for both clients."""

from __future__ import annotations

import os
import re
from typing import Any
from urllib.parse import urlsplit

from ratelab.errors import InputError, StoreError, install_hint, short_repr
from ratelab.stores.valkey.resp import request

_MAY_SAY = {"db", "username", "password", "host", "port", "path", "connection_class", "cluster"}

_SCHEMES = ("valkey://", "valkeys://", "redis://", "rediss://", "unix:")

LONGEST_DEADLINE = 60
"""Seconds that a decision may take; who waits for longer has given up."""

Address = tuple[str, int]
"""A node of a cluster: its host, or "" for the one that the URL names, and its port."""


def hidden(url: str) -> str:
    """Write a URL without its password, even if it is none."""
    named = re.sub(r"^((?:[^/]*//)?[^:/@]*):.*@", r"\1:***@", url, flags=re.DOTALL)
    return re.sub(r"(password=)[^&]*", r"\1***", named, flags=re.IGNORECASE)


class StoreUrl:
    """Where a store is, as a URL says: how to connect to it, and what is said first.

    Raises `InputError` for a URL that cannot be used.
    """

    def __init__(self, url: str, asynchronous: bool) -> None:
        try:
            from valkey import connection
        except ImportError:
            raise InputError(f"a store needs the package valkey: {install_hint('valkey')}") from None
        from valkey._parsers.url_parser import parse_url
        from valkey.asyncio import connection as connection_async
        from valkey.exceptions import ValkeyError

        if not url.lower().startswith(_SCHEMES):
            raise _unusable(url, f"it begins with none of {', '.join(_SCHEMES)}")
        try:
            scheme, _, path, query, _ = urlsplit(url)
            said: dict[str, Any] = dict(parse_url(url, async_connection=asynchronous))
        except ValueError as error:
            raise _unusable(url, re.sub("'.*'", "...", str(error))) from None  # which may quote a password
        unknown = [name for name in said if name not in _MAY_SAY and not name.startswith("ssl_")]
        if unknown or "connection_class" in query:
            raise _unusable(url, f"it may not set {[*unknown, 'connection_class'][0]}")
        if scheme == "unix" and not said.get("path"):
            raise _unusable(url, "it names no socket")
        cluster, database = said.pop("cluster", "false"), said.pop("db", 0)
        if database < 0 or (scheme != "unix" and not re.fullmatch("/?[0-9]*", path)):
            raise _unusable(url, "a database is a whole number >= 0")
        if cluster not in ("true", "false") or (cluster == "true" and (database or scheme == "unix")):
            raise _unusable(url, "cluster is true or false, and a cluster has no databases and no sockets")
        kind = said.pop("connection_class", connection_async.Connection if asynchronous else connection.Connection)
        if kind.__name__.startswith("SSL"):  # the client by itself takes a certificate for any host
            said.setdefault("ssl_check_hostname", said.get("ssl_cert_reqs") != "none")
        user, password = said.pop("username", None), said.pop("password", None)
        if user is not None and password is None:
            raise _unusable(url, "a user has a password, written user:password@, and a password alone :password@")
        self.cluster = cluster == "true"
        """Whether the URL names a node of a cluster, as `valkey://node:6379?cluster=true` does."""
        self.greeting = [
            *([request("AUTH", *([user] if user else []), password)] if password is not None else []),
            *([request("SELECT", database)] if database else []),
        ]
        """What is said first on a connection, each to be answered."""
        self._kind, self._said = kind, said
        try:
            self.connection(None)
        except (TypeError, ValkeyError) as error:
            reason = re.sub(r".* unexpected keyword argument '(.*)'", r"it may not set \1", str(error))
            raise _unusable(url, reason) from None

    def connection(self, address: Address | None, timeout: float | None = None) -> Any:
        """Make a connection of the client, to a cluster's node if `address` names one; it says nothing by itself."""
        host, port = address or ("", 0)
        node = {**({"host": host} if host else {}), **({"port": port} if port else {})}
        limits = {"socket_timeout": timeout, "socket_connect_timeout": timeout}
        silent = {"valkey_connect_func": lambda _: None, "lib_name": "", "lib_version": ""}  # a Unix socket needs these
        return self._kind(**silent, **limits, **{**self._said, **node})


def check_limits(deadline: float, connections: int = 1) -> None:
    """Raise `InputError` unless a deadline is a number of seconds above 0, and there is a connection at least."""
    if type(deadline) not in (int, float) or not 0 < deadline <= LONGEST_DEADLINE:
        raise InputError(f"deadline must be above 0 and at most {LONGEST_DEADLINE} seconds, got {short_repr(deadline)}")
    if type(connections) is not int or connections < 1:
        raise InputError(f"connections must be a whole number >= 1, got {short_repr(connections)}")


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
    if "unauthenticated" in str(error):  # as the server says of a long request where a password is missing
        kind = "refused"
    text = {"timeout": "the store did not answer in time", "full": "the store is out of memory"}.get(kind)
    return StoreError(kind, text or _in_words(error))


def _in_words(error: Exception) -> str:
    """Return what the system says if it is the network that fails, without numbers; else what the store says."""
    system = error if isinstance(error, OSError) else error.__context__
    words = (isinstance(system, OSError) and system.strerror) or str(error)
    if isinstance(system, OSError) and words.startswith("Connect call failed"):  # as asyncio calls any reason
        words = os.strerror(system.errno or 0)
    return words.removesuffix(".")
