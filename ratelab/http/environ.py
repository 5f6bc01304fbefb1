"""The ASGI scope of a WSGI request, by which doors for WSGI share the code of those for ASGI."""

from __future__ import annotations

from typing import Any

ENVIRON = "wsgi.environ"
"""The entry of an `EnvironScope` that holds the environment."""

_WITHOUT_PREFIX = {"CONTENT_TYPE": b"content-type", "CONTENT_LENGTH": b"content-length"}


class EnvironScope(dict[str, Any]):
    """The scope of a request, from its WSGI environment (PEP 3333); the header fields are read when they are needed.

    The peer is `REMOTE_ADDR`, which must be that of the socket. A server joins repeated header fields with commas, so
    that a repeated header which identifies the client counts as one value.
    """

    def __init__(self, environ: dict[str, Any]) -> None:
        host = environ.get("REMOTE_ADDR")
        super().__init__(
            type="http",
            method=environ["REQUEST_METHOD"],
            client=(host, _read_port(environ.get("REMOTE_PORT"))) if host else None,
        )
        self[ENVIRON] = environ

    def __missing__(self, name: str) -> Any:
        """Return an entry that is read from the environment on first use."""
        environ = self[ENVIRON]
        if name == "headers":
            value: Any = _read_fields(environ)
        elif name == "path":
            # ASGI has the mount point in both, and text in UTF-8, which PEP 3333 has as Latin-1
            value = _decode(environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""))
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


def _read_fields(environ: dict[str, Any]) -> list[tuple[bytes, bytes]]:
    """Return the header fields of an environment, as those of ASGI."""
    fields = [
        (name[5:].replace("_", "-").lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in environ.items()
        if name.startswith("HTTP_") and isinstance(value, str)
    ]
    extra = [(field, environ.get(name)) for name, field in _WITHOUT_PREFIX.items()]
    return [*fields, *((field, value.encode("latin-1")) for field, value in extra if value)]


def _decode(path: str) -> str:
    """Return a path as text; bytes that are not UTF-8 are kept as surrogates, so that paths stay different."""
    return path.encode("latin-1").decode(errors="surrogateescape")


def _read_port(text: object) -> int | None:
    """Return the port of a peer; None if the server does not give it."""
    return int(text) if isinstance(text, str) and text.isdecimal() else None
