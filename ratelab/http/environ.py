"""The ASGI scope of a WSGI request, by which doors for WSGI share the code of those for ASGI."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from ratelab.http.addresses import MAX_HOPS, parse_address

ENVIRON = "wsgi.environ"
"""The entry of an `EnvironScope` that holds the environment."""

_WITH_COMMAS = re.compile(
    r"HTTP_(ACCEPT|AUTHORIZATION|COOKIE|DATE|DIGEST|FROM|IF_|PROXY_AUTHORIZATION|REFERER|SEC_|SIGNATURE|USER_AGENT)"
)
"""Fields in which commas are usual, or which a server joins in another way."""

_WITHOUT_PREFIX = {"CONTENT_TYPE": b"content-type", "CONTENT_LENGTH": b"content-length"}


class EnvironScope(dict[str, Any]):
    """The scope of a request, from its WSGI environment (PEP 3333); the header fields are read when they are needed.

    The peer is `REMOTE_ADDR`, which must be that of the socket. A server joins repeated header fields with commas, so
    that a value with a comma becomes two fields here, unless commas are usual in the field.
    """

    def __init__(self, environ: dict[str, Any]) -> None:
        self[ENVIRON] = environ

    def __missing__(self, name: str) -> Any:
        """Return an entry that is read from the environment on first use."""
        environ = self[ENVIRON]
        if name == "headers":
            value: Any = EnvironFields(environ)
        elif name == "client":
            value = _read_peer(environ)
        elif name == "method":
            value = environ["REQUEST_METHOD"]
        elif name == "type":
            value = "http"
        elif name == "path":
            # ASGI has the mount point in both, and text in UTF-8, which PEP 3333 has as Latin-1
            path = environ.get("PATH_INFO", "")
            if path and not path.startswith("/"):  # to frameworks, it is the same path with a slash
                path = f"/{path}"
            value = _decode(environ.get("SCRIPT_NAME", "") + path)
        elif name == "root_path":
            value = _decode(environ.get("SCRIPT_NAME", ""))
        elif name == "query_string":
            value = environ.get("QUERY_STRING", "").encode("latin-1")
        elif name == "http_version":
            value = environ.get("SERVER_PROTOCOL", "HTTP/1.1").removeprefix("HTTP/")
        elif name == "scheme":
            value = environ.get("wsgi.url_scheme", "http")
        else:
            raise KeyError(name)
        self[name] = value
        return value

    def get(self, name: str, default: Any = None) -> Any:
        """Return an entry, also one that is read on first use."""
        try:
            return self[name]
        except KeyError:
            return default


class EnvironFields:
    """The header fields of an environment, as pairs of a name in lower case and a value."""

    def __init__(self, environ: dict[str, Any]) -> None:
        self._environ = environ

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        for name, value in self._environ.items():
            if name.startswith("HTTP_") and isinstance(value, str):
                field = name[5:].replace("_", "-").lower().encode("latin-1")
                yield from ((field, line) for line in _split(name, value))
        for name, field in _WITHOUT_PREFIX.items():
            if self._environ.get(name):
                yield field, self._environ[name].encode("latin-1")

    def list_values(self, field: bytes) -> list[bytes]:
        """Return the values of a field; faster than a search among all fields."""
        name = _entry_of(field)
        value = self._environ.get(name)
        return _split(name, value) if isinstance(value, str) else []


def _split(name: str, value: str) -> list[bytes]:
    """Return the lines that a server may have joined: two, if a value has a comma that is not usual."""
    if "," not in value or _WITH_COMMAS.match(name):
        return [value.encode("latin-1")]
    return [line.encode("latin-1") for line in value.split(",", 1)]


@lru_cache(maxsize=1024)
def _entry_of(field: bytes) -> str:
    """Return the name of the entry that holds a header field."""
    name = field.decode("latin-1").upper().replace("-", "_")
    return name if name in _WITHOUT_PREFIX else f"HTTP_{name}"


def _decode(path: str) -> str:
    """Return a path as text; bytes that are not UTF-8 are kept as surrogates, so that paths stay different."""
    return path.encode("latin-1").decode(errors="surrogateescape")


def _read_peer(environ: dict[str, Any]) -> tuple[str, int | None] | None:
    """Return the host and port of the peer, None for a Unix socket; the port is 0 if the server replaced the host."""
    host, port = environ.get("REMOTE_ADDR"), environ.get("REMOTE_PORT")
    if not host or (host == "localhost" and port == "None"):  # as Waitress has it for a Unix socket
        return None
    if "HTTP_X_FORWARDED_FOR" in environ and _is_replaced(host, environ):
        return host, 0
    return host, int(port) if isinstance(port, str) and port.isdecimal() else None


def _is_replaced(host: str, environ: dict[str, Any]) -> bool:
    """Return whether a server or middleware has probably taken the peer from `X-Forwarded-For`.

    The middleware of Werkzeug keeps the peer of the socket. Otherwise, a peer that is an entry of the list counts,
    unless it is the local host, where clients and proxies have the same address.
    """
    original = environ.get("werkzeug.proxy_fix.orig")
    if isinstance(original, dict):
        return bool(original.get("REMOTE_ADDR") != host)
    forwarded = environ["HTTP_X_FORWARDED_FOR"]
    if host not in forwarded or host.startswith("127.") or host == "::1":
        return False
    around = [*forwarded.split(",", MAX_HOPS)[:MAX_HOPS], *forwarded.rsplit(",", MAX_HOPS)[1:]]
    entries = [entry.strip(' \t"') for entry in around]
    address = parse_address(host)
    return any(entry == host if address is None else parse_address(entry) == address for entry in entries)
