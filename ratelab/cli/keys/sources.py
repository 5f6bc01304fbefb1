"""Sources of `ratelab keys`: a running service at its admin socket, or a store."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from heapq import nsmallest
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from ratelab.errors import InputError, StoreError, format_reason, short_repr
from ratelab.limiter import Decision

if TYPE_CHECKING:
    from ratelab.http.identity import Identity
    from ratelab.policies.policy_file import PolicyFile
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
            scanned = ((key, decision) for key, states in self._limiter.scan() for decision in states.values())
            found = nsmallest(limit, scanned, key=lambda found: (found[1].remaining, -found[1].reset_after_ns))
        return {"keys": [_describe(*each) for each in found]}

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
        _check_client(hashed, self._identity)
        return self._identity.key_of(client)


class PolicySource:
    """The keys in a store that policies of a file count, each with the quotas under which it was last decided.

    `chosen` names one policy; by default, they are all that count the clients of the service.
    """

    def __init__(
        self, limiter: ValkeyLimiter, identity: Identity, key: str, file: PolicyFile, chosen: str | None
    ) -> None:
        self._limiter, self._identity, self._file = limiter, identity, file
        named = {policy.name: policy for policy in file.policies}
        if chosen is not None and chosen not in named:
            raise InputError(f"{file.path} has no policy {short_repr(chosen)}: choose one of {', '.join(named)}")
        self._chosen = named.get(chosen or "")
        self._key = self._resolve(key)

    def list(self, limit: int) -> dict[str, Any]:
        """Return the keys with the least quota left, each with the policy that binds it."""
        with _store_errors():
            scanned = (self._describe(*found) for found in self._limiter.scan())
            rows = nsmallest(limit, (row for row in scanned if row["policies"]), key=_rank)
        for row in rows:
            del row["policies"]
        return {"keys": rows}

    def show(self, client: str, hashed: bool) -> dict[str, Any]:
        """Return the state of a client by each policy."""
        keys = self._find_keys(client, hashed)
        plan = (self._file.plan_of or {}).get(client, self._file.default_plan)
        with _store_errors():
            return self._describe(next(iter(keys.values())), self._limiter.look(keys, plan))

    def reset(self, client: str, hashed: bool) -> dict[str, Any]:
        """Restore the full quota of a client in each policy, and return its state."""
        with _store_errors():
            self._limiter.reset(self._find_keys(client, hashed))
        return self.show(client, hashed)

    def _describe(self, key: str, decisions: Mapping[str, Decision]) -> dict[str, Any]:
        from ratelab.http.admin import describe_states

        asked = [policy for policy in self._file.policies if policy.name in decisions]
        states = [(policy, decisions[policy.name]) for policy in asked if self._chosen in (None, policy)]
        return {"key": key, "denied": None, "error": 0, **describe_states(states)}

    def _find_keys(self, client: str, hashed: bool) -> dict[str, str]:
        """Return the key of a client by the names of the policies that count it."""
        chosen = self._chosen
        if chosen is not None and chosen.key == "all":
            if client != "all":
                rule = f"policy {chosen.name} has one counter for all clients, got {short_repr(client)}"
                raise InputError(f"{rule}: name all")
            return {chosen.name: client}
        _check_client(hashed, self._identity)
        key = self._key if chosen is None else self._resolve(chosen.key or self._key)
        policies = [chosen] if chosen is not None else self._file.policies
        names = [policy.name for policy in policies if self._resolve(policy.key or self._key) == key]
        if not names:
            rule = f"no policy of {self._file.path} counts clients by {key}"
            raise InputError(f"{rule}: choose one with --policy, or give the --key of the service")
        return dict.fromkeys(names, self._identity.with_key(key).key_of(client))

    def _resolve(self, key: str) -> str:
        """Return a key in one spelling: an account by its header, and a header that proxies set as the address."""
        from ratelab.http.addresses import is_address_header

        kind, _, header = (f"header:{self._file.account_header}" if key == "account" else key).partition(":")
        return key if kind != "header" else "ip" if is_address_header(header) else f"header:{header.lower()}"


def _check_client(hashed: bool, identity: Identity) -> None:
    if hashed:
        raise InputError("a key in a store is hashed again, so --hashed needs --socket: name the client")
    if identity.secret_generated:
        raise InputError("RATELAB_KEY_SECRET is not set, so no client can be found: set that of the service")


def _rank(row: Mapping[str, Any]) -> tuple[bool, int, float]:
    return row["bound_by"] is None, row["remaining"], -row["reset_after"]


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
