"""Sources of `ratelab keys`: a running service at its admin socket, or a store."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from heapq import nsmallest
from typing import TYPE_CHECKING, Any

from ratelab.errors import InputError, StoreError, format_reason, short_repr
from ratelab.limiter import Decision

if TYPE_CHECKING:
    from ratelab.stores.valkey import ValkeyLimiter

SOCKET_TIMEOUT_S = 10

Pages = Callable[[str, str], dict[str, Any]]
"""Answers a method, such as `GET`, for a page, such as `/keys`, as the service does."""


def ask_service(path: str) -> Pages:
    """Return a function that asks the service that listens at `path`."""
    import socket
    from http.client import HTTPConnection, HTTPException

    class UnixConnection(HTTPConnection):
        def connect(self) -> None:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(self.timeout)
            self.sock.connect(path)

    def ask(method: str, page: str) -> dict[str, Any]:
        connection = UnixConnection("ratelab", timeout=SOCKET_TIMEOUT_S)
        try:
            connection.request(method, page)
            response = connection.getresponse()
            answer: dict[str, Any] = json.loads(response.read())
        except (OSError, HTTPException, ValueError) as error:
            reason = format_reason(error)
            raise InputError(
                f"no answer at {short_repr(path)} ({reason}): start ratelab serve --admin-socket {path}, as this user"
            ) from None
        finally:
            connection.close()
        if response.status != 200:
            raise InputError(f"the service at {path} answers {response.status}: {answer.get('detail')}")
        return answer

    return ask


class StorePages:
    """Answers pages from a store."""

    def __init__(self, limiter: ValkeyLimiter, identity: Any) -> None:
        self._limiter, self._identity = limiter, identity

    def __call__(self, method: str, page: str) -> dict[str, Any]:
        """Answer a page."""
        from urllib.parse import unquote

        _, kind, *name = page.partition("?")[0].split("/")
        limiter = self._limiter
        try:
            if not name:
                limit = int(page.rpartition("=")[2])
                return {"keys": [_describe(*found) for found in self._find_most_limited(limit)]}
            if kind == "clients" and self._identity.secret_generated:
                raise InputError("RATELAB_KEY_SECRET is not set, so no client can be found: set that of the service")
            if kind == "keys":
                raise InputError("a key in a store is hashed again, so --hashed needs --socket: name the client")
            key = self._identity.key_of(unquote(name[0]))
            if method == "DELETE":
                limiter.reset(key)
            return _describe(key, limiter.hit(key, 0))
        except StoreError as error:
            raise InputError(f"the store failed ({error.kind}): {error}") from None

    def _find_most_limited(self, limit: int) -> Sequence[tuple[str, Decision]]:
        return nsmallest(limit, self._limiter.scan(), key=lambda found: (found[1].remaining, -found[1].reset_after_ns))


def _describe(key: str, decision: Decision) -> dict[str, Any]:
    from ratelab.http.admin import describe_state

    return {"key": key, "denied": None, "error": 0, **describe_state(decision)}
