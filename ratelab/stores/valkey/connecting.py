"""Where a store is, and what its failures mean: the same for both clients."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

from ratelab.errors import InputError, StoreError

SCHEMES = ("valkey", "valkeys", "redis", "rediss", "unix")
"""How a store's URL begins; those in -s are encrypted."""

_MAY_SAY = {"db", "username", "password", "host", "port", "path", "connection_class", "cluster"}


def hidden(url: str) -> str:
    """Write a URL without its password."""
    parts = urlsplit(url)
    return url if parts.password is None else url.replace(f":{parts.password}@", ":***@", 1)


def settings(url: str, asynchronous: bool) -> dict[str, Any]:
    """Return what a connection's constructor takes, and its class as `connection_class`; nothing is retried.

    Raises `InputError` for a URL that cannot be used.
    """
    from valkey._parsers.url_parser import parse_url

    try:
        said = dict(parse_url(url, async_connection=asynchronous))
    except ValueError as error:
        raise _unusable(url, str(error)) from None
    for name in said:
        if name not in _MAY_SAY and not name.startswith("ssl_"):
            raise _unusable(url, f"it may not set {name}")
    if urlsplit(url).scheme == "unix" and not said.get("path"):
        raise _unusable(url, "it names no socket")
    if said.get("connection_class", type(None)).__name__.startswith("SSL"):
        said.setdefault("ssl_check_hostname", True)  # the client's own default takes a certificate for any host
    if said.pop("cluster", "false") not in ("true", "false") or (said.get("db") and is_cluster(url)):
        raise _unusable(url, "cluster must be true or false, and a cluster has no databases")
    return {"lib_name": None, "lib_version": None, **said}


def is_cluster(url: str) -> bool:
    """Say whether a URL names a node of a cluster, as `valkey://node:6379?cluster=true` does."""
    return parse_qs(urlsplit(url).query).get("cluster") == ["true"]


def _unusable(url: str, reason: str) -> InputError:
    example = "valkey://localhost:6379/0, rediss://:password@host or unix:///run/valkey.sock"
    return InputError(f"cannot use the store {hidden(url)} ({reason}): give a URL such as {example}")


def failure(error: Exception) -> StoreError:
    """Say what an error of the client means, without anything that was sent."""
    from valkey import exceptions as known

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
