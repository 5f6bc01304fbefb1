"""Sources of `ratelab keys`: a running service at its admin socket, or a store."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from heapq import nsmallest
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from ratelab.errors import InputError, StoreError, format_reason, short_repr
from ratelab.limiter import Decision

if TYPE_CHECKING:
    from ratelab.http.identity import Identity
    from ratelab.stores.valkey import ValkeyLimiter

SOCKET_TIMEOUT_S = 10


class KeySource(Protocol):
    """A source of keys and their states; methods raise `InputError` if it cannot answer."""

    def list(self, limit: int) -> dict[str, Any]:
        """Return up to `limit` of the most limited keys, at `keys`."""
        ...

    def show(self, client: str, hashed: bool) -> dict[str, Any]:
        """Return the state of a client, or of a key if it is `hashed`."""
        ...

    def reset(self, client: str, hashed: bool) -> dict[str, Any]:
        """Restore the full quota of a client or a key, and return its state."""
        ...


class ServiceSource:
    """The admin pages of the service that listens at a Unix socket."""

    def __init__(self, path: str) -> None:
        self._path = path

    def list(self, limit: int) -> dict[str, Any]:
        """Return the keys with the most denied requests."""
        answer = self._ask("GET", "/keys")
        return {**answer, "keys": answer["keys"][:limit]}

    def show(self, client: str, hashed: bool) -> dict[str, Any]:
        """Return the state of a key and its denials."""
        return self._ask("GET", _page(client, hashed))

    def reset(self, client: str, hashed: bool) -> dict[str, Any]:
        """Restore the full quota of a key, and return its state."""
        return self._ask("DELETE", _page(client, hashed))

    def _ask(self, method: str, page: str) -> dict[str, Any]:
        import socket
        from http.client import HTTPConnection, HTTPException

        path = self._path

        class UnixConnection(HTTPConnection):
            def connect(self) -> None:
                self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                self.sock.settimeout(self.timeout)
                self.sock.connect(path)

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


def _page(client: str, hashed: bool) -> str:
    return f"/{'keys' if hashed else 'clients'}/{quote(client, safe='')}"


class StoreSource:
    """The keys in a store; it has no denials, and finds no key by its hash."""

    def __init__(self, limiter: ValkeyLimiter, identity: Identity) -> None:
        self._limiter, self._identity = limiter, identity

    def list(self, limit: int) -> dict[str, Any]:
        """Return the keys with the least quota left."""
        with _store_errors():
            return {"keys": [_describe(*found) for found in self._find_most_limited(limit)]}

    def show(self, client: str, hashed: bool) -> dict[str, Any]:
        """Return the state of a client."""
        key = self._find_key(client, hashed)
        with _store_errors():
            return _describe(key, self._limiter.hit(key, 0))

    def reset(self, client: str, hashed: bool) -> dict[str, Any]:
        """Restore the full quota of a client, and return its state."""
        key = self._find_key(client, hashed)
        with _store_errors():
            self._limiter.reset(key)
        return self.show(client, hashed)

    def _find_key(self, client: str, hashed: bool) -> str:
        if hashed:
            raise InputError("a key in a store is hashed again, so --hashed needs --socket: name the client")
        if self._identity.secret_generated:
            raise InputError("RATELAB_KEY_SECRET is not set, so no client can be found: set that of the service")
        return self._identity.key_of(client)

    def _find_most_limited(self, limit: int) -> Sequence[tuple[str, Decision]]:
        return nsmallest(limit, self._limiter.scan(), key=lambda found: (found[1].remaining, -found[1].reset_after_ns))


@contextmanager
def _store_errors() -> Iterator[None]:
    """Raise `InputError` for an error of the store."""
    try:
        yield
    except StoreError as error:
        raise InputError(f"the store failed ({error.kind}): {error}") from None


def _describe(key: str, decision: Decision) -> dict[str, Any]:
    from ratelab.http.admin import describe_state

    return {"key": key, "denied": None, "error": 0, **describe_state(decision)}
