"""Store URLs, connections and error classification: the only module that uses the client library `valkey`."""

from __future__ import annotations

import os
import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ratelab.errors import InputError, StoreError, install_hint, short_repr
from ratelab.stores.valkey.resp import ReplyError, encode_command

MAX_DEADLINE_S = 60
"""The longest deadline of a decision, in seconds."""

DEFAULT_PORT = 6379

Address = tuple[str, int]
"""Host and port of a cluster node; an empty host is that of the URL."""

_SCHEMES = ("valkey://", "valkeys://", "redis://", "rediss://", "unix:")
_PARAMETERS = {"db", "username", "password", "host", "port", "path", "cluster"}

_KINDS_BY_CODE = {
    "ERR": "other",
    "LOADING": "unreachable",
    "NOAUTH": "refused",
    "NOPERM": "refused",
    "OOM": "full",
    "READONLY": "readonly",
    "WRONGPASS": "refused",
}
_KINDS_BY_MESSAGE = {
    "max number of clients reached": "unreachable",
    "unauthenticated": "refused",  # the reply to a long command before authentication
    "without any password configured": "refused",
    "no password is set": "refused",
    "invalid password": "refused",
}


class StoreUrl:
    """A parsed store URL, which opens connections. Raises `InputError` if the URL is invalid."""

    def __init__(self, url: str, asynchronous: bool) -> None:
        try:
            from valkey import connection
        except ImportError:
            raise InputError(f"a store needs the package valkey: {install_hint('valkey')}") from None
        from valkey.asyncio import connection as connection_async
        from valkey.exceptions import ValkeyError

        if not url.lower().startswith(_SCHEMES):
            raise _invalid_url(url, f"it must begin with one of {', '.join(_SCHEMES)}")
        try:
            scheme, _, path, query, _ = urlsplit(url)
            pool = (connection_async if asynchronous else connection).ConnectionPool.from_url(url)
        except ValueError as error:
            raise _invalid_url(url, re.sub("'.*'", "...", str(error))) from None  # which may quote a password
        unknown = [name for name in parse_qs(query) if name not in _PARAMETERS and not name.startswith("ssl_")]
        if unknown:
            raise _invalid_url(url, f"it may not set {unknown[0]}")
        options: dict[str, Any] = dict(pool.connection_kwargs)
        if scheme == "unix" and not options.get("path"):
            raise _invalid_url(url, "the path of the socket is missing")
        cluster, database = options.pop("cluster", "false"), options.pop("db", 0)
        if database < 0 or (scheme != "unix" and not re.fullmatch("/?[0-9]*", path)):
            raise _invalid_url(url, "a database must be a whole number >= 0")
        if cluster not in ("true", "false") or (cluster == "true" and (database or scheme == "unix")):
            raise _invalid_url(url, "cluster must be true or false, and a cluster has no databases and no sockets")
        if pool.connection_class.__name__.startswith("SSL"):  # by default, the client accepts a certificate of any host
            options.setdefault("ssl_check_hostname", options.get("ssl_cert_reqs") != "none")
        user, password = options.pop("username", None), options.pop("password", None)
        if user is not None and password is None:
            raise _invalid_url(url, "a user needs a password, as in user:password@; :password@ has no user")
        self.cluster = cluster == "true"
        """Whether the URL names a node of a cluster, as `valkey://node:6379?cluster=true` does."""
        self.handshake = [
            *([encode_command("AUTH", *([user] if user else []), password)] if password is not None else []),
            *([encode_command("SELECT", database)] if database else []),
        ]
        """Commands to send first on a connection."""
        address = str(options.get("host", "localhost")).lower(), options.get("port", DEFAULT_PORT)
        self.store = options.get("path", address), database
        """The address and database, by which two URLs of one store are recognized."""
        self._connection_class, self._options = pool.connection_class, options
        try:
            self.connection(None)
        except (TypeError, ValkeyError) as error:
            reason = re.sub(r".* unexpected keyword argument '(.*)'", r"it may not set \1", str(error))
            raise _invalid_url(url, reason) from None

    def connection(self, address: Address | None, timeout: float | None = None) -> Any:
        """Create a connection of the client library, which sends nothing by itself, to a node or to the URL's server.

        `timeout` is in seconds.
        """
        host, port = address or ("", 0)
        node = {**({"host": host} if host else {}), **({"port": port} if port else {})}
        limits = {"socket_timeout": timeout, "socket_connect_timeout": timeout}
        silent = {"valkey_connect_func": lambda _: None, "lib_name": "", "lib_version": ""}  # a Unix socket needs all
        return self._connection_class(**silent, **limits, **{**self._options, **node})

    def open_socket(self, address: Address | None, timeout: float) -> Any:
        """Connect within `timeout` seconds and return the socket; the client's own reader has no total deadline."""
        connection = self.connection(address, timeout)
        connection.connect()
        opened, connection._sock = connection._sock, None
        return opened

    async def open_writer(self, address: Address | None) -> Any:
        """Connect and return the `StreamWriter`; the client's own reader is slower than the server."""
        connection = self.connection(address)
        await connection.connect()
        opened, connection._reader, connection._writer = connection._writer, None, None
        return opened


def redact_url(url: str) -> str:
    """Replace the password in a URL, even in an invalid one."""
    redacted = re.sub(r"^((?:[^/]*//)?[^:/@]*):.*@", r"\1:***@", url, flags=re.DOTALL)
    return re.sub(r"(password=)[^&]*", r"\1***", redacted, flags=re.IGNORECASE)


def check_limits(deadline: float, connections: int = 1) -> None:
    """Raise `InputError` for an invalid deadline, in seconds, or number of connections."""
    if type(deadline) not in (int, float) or not 0 < deadline <= MAX_DEADLINE_S:
        raise InputError(f"deadline must be above 0 and at most {MAX_DEADLINE_S} seconds, got {short_repr(deadline)}")
    if type(connections) is not int or connections < 1:
        raise InputError(f"connections must be a whole number >= 1, got {short_repr(connections)}")


def classify_error(error: Exception) -> StoreError:
    """Return the `StoreError` for an error of a call; its message holds nothing that was sent."""
    from valkey import exceptions

    if isinstance(error, StoreError):
        return error
    if isinstance(error, ReplyError):
        return _classify_reply(error)
    if isinstance(error, (exceptions.TimeoutError, TimeoutError)):
        return StoreError("timeout", "the store did not answer in time")
    kind = "unreachable" if isinstance(error, (exceptions.ConnectionError, OSError)) else "other"
    return StoreError(kind, _describe_error(error))


def _classify_reply(error: ReplyError) -> StoreError:
    text = str(error).removesuffix(".")
    kind = next((kind for part, kind in _KINDS_BY_MESSAGE.items() if part in text), _KINDS_BY_CODE.get(error.code))
    if kind == "full":
        return StoreError("full", "the store is out of memory")
    if kind is None:
        return StoreError("other", text)
    return StoreError(kind, text.removeprefix(f"{error.code} "))


def _describe_error(error: Exception) -> str:
    """Return the system's message for a failure of the network, without numbers; else that of the error."""
    system = error if isinstance(error, OSError) else error.__context__
    text = (isinstance(system, OSError) and system.strerror) or str(error)
    if isinstance(system, OSError) and text.startswith("Connect call failed"):  # asyncio's text for any reason
        text = os.strerror(system.errno or 0)
    return text.removesuffix(".")


def _invalid_url(url: str, reason: str) -> InputError:
    example = "valkey://localhost:6379/0, rediss://:password@host or unix:///run/valkey.sock"
    return InputError(f"invalid store URL {redact_url(url)} ({reason}): use a URL such as {example}")
