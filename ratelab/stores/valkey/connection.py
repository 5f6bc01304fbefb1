"""Store URLs, connections and error classification: the only module that uses the client library `valkey`."""

from __future__ import annotations

import re
import time
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from ratelab.errors import InputError, StoreError, install_hint, short_repr
from ratelab.stores.valkey.error_kinds import describe_error, find_signal_exception
from ratelab.stores.valkey.resp import encode_command

DEFAULT_PORT = 6379

OVERLOAD = "too many hits at once, this one was not sent and not charged"
"""The reason of errors of kind `overload`."""

Address = tuple[str, int]
"""Host and port of a cluster node; an empty host is that of the URL."""

SENTINEL_PORT = 26_379

_SCHEMES = ("valkey://", "valkeys://", "redis://", "rediss://", "unix:")
_SENTINEL_SCHEMES = ("valkey+sentinel://", "valkeys+sentinel://", "redis+sentinel://", "rediss+sentinel://")
_PARAMETERS = {"db", "username", "password", "host", "port", "path", "cluster"}
_SENTINEL_PARAMETERS = {"db", "username", "password", "sentinel_username", "sentinel_password"}


class StoreUrl:
    """A parsed store URL, which opens connections. Raises `InputError` if the URL is invalid."""

    def __init__(self, url: str, asynchronous: bool) -> None:
        connections, parsed = _import_connections(asynchronous), _split_url(url)
        try:
            pool = connections.ConnectionPool.from_url(parsed.first)
        except ValueError as error:
            raise _invalid_url(url, re.sub("'.*'", "...", str(error))) from None  # which may quote a password
        options: dict[str, Any] = dict(pool.connection_kwargs)
        _check_options(url, parsed, options)
        if pool.connection_class.__name__.startswith("SSL"):  # by default, the client accepts a certificate of any host
            options.setdefault("ssl_check_hostname", options.get("ssl_cert_reqs") != "none")
        user, password = options.pop("username", None), options.pop("password", None)
        database = options.pop("db", 0)
        self.cluster = options.pop("cluster", "false") == "true"
        """Whether the URL names a node of a cluster, as `valkey://node:6379?cluster=true` does."""
        self.seeds: tuple[Address | None, ...] = parsed.addresses if self.cluster and parsed.addresses[1:] else (None,)
        """The nodes of a cluster that the URL names; None stands for the server of the URL."""
        self._master = parsed.master
        self._sentinels = parsed.addresses if parsed.master else ()
        self._sentinel_login = {name: options.pop(f"sentinel_{name}", None) for name in ("username", "password")}
        self.handshake = [
            *([encode_command("AUTH", *([user] if user else []), password)] if password is not None else []),
            *([encode_command("SELECT", database)] if database else []),
        ]
        """Commands to send first on a connection."""
        address = str(options.get("host", "localhost")).lower(), options.get("port", DEFAULT_PORT)
        hosts = frozenset(parsed.addresses) if parsed.master or self.seeds != (None,) else address
        self.store: tuple[Hashable, ...] = (options.get("path") or hosts, parsed.master, database)
        """The address and database, by which two URLs of one store are recognized."""
        self.connected = False
        """Whether a connection has been opened."""
        self._connection_class, self._options = pool.connection_class, options
        self._check_connection(url)

    def _check_connection(self, url: str) -> None:
        """Raise `InputError` unless the client library accepts the options of the URL."""
        from valkey.exceptions import ValkeyError

        try:
            self.connection(None)
        except (TypeError, ValkeyError) as error:
            reason = re.sub(r".* unexpected keyword argument '(.*)'", r"it may not set \1", str(error))
            raise _invalid_url(url, reason) from None

    def connection(self, address: Address | None, timeout: float | None = None) -> Any:
        """Create a connection of the client library, which sends nothing by itself, to a node or to the URL's server.

        `timeout` is in seconds.
        """
        return self._create(address, timeout, {"valkey_connect_func": lambda _: None})

    def _create(self, address: Address | None, timeout: float | None, more: dict[str, Any]) -> Any:
        host, port = address or ("", 0)
        node = {**({"host": host} if host else {}), **({"port": port} if port else {})}
        limits = {"socket_timeout": timeout, "socket_connect_timeout": timeout}
        nameless = {"lib_name": "", "lib_version": ""}  # the client would send them, even to a Unix socket
        return self._connection_class(**nameless, **limits, **{**self._options, **more, **node})

    def open_socket(self, address: Address | None, timeout: float) -> Any:
        """Connect within `timeout` seconds and return the socket; the client's own reader has no total deadline."""
        due = time.monotonic() + timeout
        if address is None and self._sentinels:
            address = self._find_master(due)
        connection = self.connection(address, max(0.001, due - time.monotonic()))
        with _system_errors(connection):
            connection.connect()
        opened, connection._sock = connection._sock, None
        self.connected = True
        return opened

    async def open_writer(self, address: Address | None) -> Any:
        """Connect and return the `StreamWriter`; the client's own reader is slower than the server."""
        if address is None and self._sentinels:
            address = await self._find_master_async()
        connection = self.connection(address)
        with _system_errors(connection):
            await connection.connect()
        opened, connection._reader, connection._writer = connection._writer, None, None
        self.connected = True
        return opened

    def _find_master(self, due: float) -> Address:
        """Ask each Sentinel in turn for the address of the master."""
        failure: Exception | None = None
        for waiting, sentinel in zip(range(len(self._sentinels), 0, -1), self._sentinels, strict=True):
            self._move(sentinel, first=False)
            timeout = max(0.001, (due - time.monotonic()) / (waiting + 1))  # the rest is for the master
            connection = self._create(sentinel, timeout, self._sentinel_login)
            try:
                connection.connect()
                connection.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._master)
                reply = connection.read_response()
            except Exception as error:
                failure = _translate(error)
                if not isinstance(failure, OSError) or find_signal_exception(error):
                    raise
                continue
            finally:
                connection.disconnect()
            if reply is not None:
                self._move(sentinel, first=True)
                return _read_address(reply)
        raise self._explain(failure)

    async def _find_master_async(self) -> Address:
        """Ask each Sentinel in turn, as `_find_master` does; the caller cancels this at a deadline."""
        failure: Exception | None = None
        for sentinel in self._sentinels:
            self._move(sentinel, first=False)
            connection = self._create(sentinel, None, self._sentinel_login)
            try:
                await connection.connect()
                await connection.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._master)
                reply = await connection.read_response()
            except Exception as error:
                failure = _translate(error)
                if not isinstance(failure, OSError) or find_signal_exception(error):
                    raise
                continue
            finally:
                await connection.disconnect(nowait=True)
            if reply is not None:
                self._move(sentinel, first=True)
                return _read_address(reply)
        raise self._explain(failure)

    def _move(self, sentinel: Address, first: bool) -> None:
        """Move a Sentinel to the first place, or to the last while it has not answered."""
        others = tuple(other for other in self._sentinels if other != sentinel)
        self._sentinels = (sentinel, *others) if first else (*others, sentinel)

    def _explain(self, failure: Exception | None) -> StoreError:
        """Return the error if no Sentinel has named the master."""
        if failure is None:
            return StoreError("unreachable", f"no Sentinel knows the master {self._master}")
        kind = "refused" if isinstance(failure, PermissionError) else "unreachable"
        reason = describe_error(failure)
        return StoreError(kind, f"no Sentinel names the master {self._master}: {reason}")


def _import_connections(asynchronous: bool) -> Any:
    """Return the client library's module of connections; raise `InputError` if it is not installed."""
    try:
        from valkey import connection
    except ImportError:
        raise InputError(f"a store needs the package valkey: {install_hint('valkey')}") from None
    from valkey.asyncio import connection as connection_async

    return connection_async if asynchronous else connection


@contextmanager
def _system_errors(connection: Any) -> Iterator[None]:
    """Raise errors of the system instead of those of the client library; that of a connection names the server."""
    from valkey.exceptions import ValkeyError

    try:
        yield
    except ValkeyError as error:
        failure = _translate(error)
        if isinstance(failure, ConnectionError):
            failure = ConnectionError(f"cannot connect to {_name_server(connection)}: {failure}")
        raise failure from error


def _name_server(connection: Any) -> str:
    """Return the path of the socket of a connection, or its host and port."""
    if path := getattr(connection, "path", None):
        return str(path)
    host = f"[{connection.host}]" if ":" in connection.host else connection.host
    return f"{host}:{connection.port}"


def _translate(error: Exception) -> Exception:
    """Return the error of the system for one of the client library, and any other as it is."""
    from valkey import exceptions

    if isinstance(error, exceptions.TimeoutError):
        return TimeoutError(describe_error(error))
    if isinstance(error, (exceptions.AuthenticationError, exceptions.NoPermissionError)):
        return PermissionError(str(error))
    return ConnectionError(describe_error(error)) if isinstance(error, exceptions.ValkeyError) else error


def _read_address(reply: Any) -> Address:
    """Return the address in a Sentinel's reply."""
    host, port = reply
    return host.decode(), int(port)


class _SplitUrl(NamedTuple):
    """The parts of a URL that may name several hosts."""

    scheme: str
    first: str
    """The URL with the first host alone, in a form that the client library parses."""
    addresses: tuple[Address, ...]
    """All hosts, if there are any."""
    master: str
    """The name by which Sentinels know the master; empty without Sentinels."""


def _split_url(url: str) -> _SplitUrl:
    if not isinstance(url, str):
        raise InputError(f"store must be a URL, or a limiter of the same class, got {short_repr(url)}")
    if not url.lower().startswith(_SCHEMES + _SENTINEL_SCHEMES):
        raise _invalid_url(url, f"it must begin with one of {', '.join(_SCHEMES + _SENTINEL_SCHEMES)}")
    try:
        scheme, netloc, path, query, _ = urlsplit(url)
        master = ""
        if scheme == "unix":
            return _SplitUrl(scheme, url, (), master)
        scheme, _, watched = scheme.partition("+")
        if watched:
            master, _, path = path.removeprefix("/").partition("/")
        login, at, hosts = netloc.rpartition("@")
        default_port = SENTINEL_PORT if watched else DEFAULT_PORT
        named = [urlsplit(f"//{host}") for host in hosts.split(",")]
        addresses = tuple((part.hostname or "", part.port or default_port) for part in named)
    except ValueError as error:
        raise _invalid_url(url, re.sub("'.*'", "...", str(error))) from None  # which may quote a password
    if watched and not master:
        raise _invalid_url(url, "the name of the master is missing, as in valkey+sentinel://host:26379/mymaster")
    if not all(host for host, _ in addresses) and (watched or len(addresses) > 1):
        raise _invalid_url(url, "a host is missing")
    first = f"{scheme}://{login}{at}{hosts.partition(',')[0]}/{path.removeprefix('/')}{'?' if query else ''}{query}"
    return _SplitUrl(scheme, first, addresses, unquote(master))


def _check_options(url: str, parsed: _SplitUrl, options: Mapping[str, Any]) -> None:
    """Raise `InputError` for invalid parts of a URL, given the options that the client library reads from it."""
    first, is_socket = urlsplit(parsed.first), parsed.scheme == "unix"
    permitted = _SENTINEL_PARAMETERS if parsed.master else _PARAMETERS
    unknown = [name for name in parse_qs(first.query) if name not in permitted and not name.startswith("ssl_")]
    if unknown:
        raise _invalid_url(url, f"it may not set {unknown[0]}")
    if is_socket and not options.get("path"):
        raise _invalid_url(url, "the path of the socket is missing")
    cluster, database = options.get("cluster", "false"), options.get("db", 0)
    if database < 0 or (not is_socket and not re.fullmatch("/?[0-9]*", first.path)):
        raise _invalid_url(url, "a database must be a whole number >= 0")
    if cluster not in ("true", "false") or (cluster == "true" and (database or is_socket)):
        raise _invalid_url(url, "cluster must be true or false, and a cluster has no databases and no sockets")
    if len(parsed.addresses) > 1 and cluster == "false" and not parsed.master:
        raise _invalid_url(url, "several hosts need ?cluster=true or a scheme such as valkey+sentinel")
    if options.get("username") is not None and options.get("password") is None:
        raise _invalid_url(url, "a user needs a password, as in user:password@; :password@ has no user")


def redact_url(url: str) -> str:
    """Replace the password in a URL, even in an invalid one."""
    redacted = re.sub(r"^((?:[^/]*//)?[^:/@]*):.*@", r"\1:***@", url, flags=re.DOTALL)
    return re.sub(r"(password=)[^&]*", r"\1***", redacted, flags=re.IGNORECASE)


def _invalid_url(url: str, reason: str) -> InputError:
    example = "valkey://localhost:6379/0, rediss://:password@host or unix:///run/valkey.sock"
    return InputError(f"invalid store URL {redact_url(url)} ({reason}): use a URL such as {example}")
