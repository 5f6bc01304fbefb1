"""Admin pages of a service on a Unix socket: the most limited keys; one key; its reset."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from inspect import isawaitable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ratelab.algorithms import Policy
from ratelab.errors import InputError, StoreError, short_repr
from ratelab.http.asgi import App, Receive, Scope, Send
from ratelab.http.identity import Identity
from ratelab.http.offenders import Offender, Ranking
from ratelab.http.responses import send_problem, send_response
from ratelab.limiter import NEVER, Decision, Keys

MAX_ADMIN_PATH_BYTES = 100
"""Length of the longest path of a Unix socket that every system accepts."""

_UNLIMITED = Decision(True, NEVER, 0, 0, 0)

_JSON = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))


@contextmanager
def listen_admin(path: str) -> Iterator[socket.socket]:
    """Yield a listening Unix socket at `path` that only this user can open (mode 0600); remove it afterwards.

    Raises `InputError` if the path cannot be used, such as one at which another process listens.
    """
    file = Path(path)
    if not hasattr(socket, "AF_UNIX"):
        raise InputError("--admin-socket needs Unix sockets, which this system has not: leave it out")
    if len(os.fsencode(path)) > MAX_ADMIN_PATH_BYTES:
        rule = f"--admin-socket must have at most {MAX_ADMIN_PATH_BYTES} bytes"
        raise InputError(f"{rule}, got {short_repr(path)}: use a shorter path")
    _remove_stale(file)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)  # before the socket exists, so that it is never open to others
    try:
        listener.bind(path)
        listener.listen(64)
    except OSError as error:
        listener.close()
        raise InputError(
            f"--admin-socket {path} cannot be created ({error.strerror}): name a file in a folder that you can write to"
        ) from None
    finally:
        os.umask(mask)
    created, owner = file.stat().st_ino, os.getpid()
    try:
        yield listener
    finally:
        listener.close()
        with suppress(OSError):
            if os.getpid() == owner and file.stat().st_ino == created:
                file.unlink()


def _remove_stale(file: Path) -> None:
    """Remove a socket that a killed process has left; raise `InputError` for anything else."""
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(file.lstat().st_mode):
            raise InputError(f"--admin-socket must name a new file, got {file}, which exists: choose another path")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(str(file))
            except ConnectionRefusedError:
                file.unlink()
            except OSError as error:
                raise InputError(
                    f"--admin-socket {file} cannot be used ({error.strerror}): choose another path"
                ) from None
            else:
                raise InputError(f"--admin-socket {file} is in use by another process: choose another path")


class Admin:
    """The pages, for the limiter and the identity of a service.

    `GET /keys` lists the top offenders with their state, `GET /keys/KEY` and `DELETE /keys/KEY` show and reset one.
    `/clients/CLIENT` is the key of a client, hashed as that of its requests.
    """

    def __init__(self, limiter: Any, identity: Identity, read_ranking: Callable[[], Ranking]) -> None:
        self._limiter, self._identity, self._read_ranking = limiter, identity, read_ranking

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  (ASGI's signature)
        """Answer one request."""
        path: str = scope["raw_path"].decode("ascii", "replace")
        kind, _, name = path.partition("?")[0].lstrip("/").partition("/")
        name = unquote(name)
        key = self._identity.key_of(name) if kind == "clients" else name
        try:
            if scope["method"] == "GET" and kind == "keys" and not name:
                await _send_json(scope, send, await self._list())
            elif scope["method"] == "GET" and kind in ("keys", "clients") and name:
                await _send_json(scope, send, await self._show(key))
            elif scope["method"] == "DELETE" and kind in ("keys", "clients") and name:
                await _wait_for(self._limiter.reset(key))
                await _send_json(scope, send, await self._show(key))
            else:
                detail = "Ask for GET /keys, or for GET or DELETE of /keys/KEY or /clients/CLIENT."
                await send_problem(scope, send, 404, detail)
        except StoreError as error:
            await send_problem(scope, send, 503, f"The store failed: {error}.")

    async def _list(self) -> dict[str, Any]:
        ranking = self._read_ranking()
        keys = [await self._describe(offender) for offender in ranking.offenders]
        return {"keys": keys, "unlisted_at_most": ranking.unlisted}

    async def _show(self, key: str) -> dict[str, Any]:
        """Return the denials of a key, its state, and with several policies its state by each, by their names."""
        known = {offender.key: offender for offender in self._read_ranking().offenders}
        offender = known.get(key, Offender(key, 0, 0))
        own = [policy for policy in self._limiter.policies if policy.key is None]
        if len(self._limiter.policies) < 2 or not own:
            return await self._describe(offender)
        decisions = await self._look({policy.name: key for policy in own})
        return {**offender._asdict(), **describe_states([(policy, decisions[policy.name]) for policy in own])}

    async def _describe(self, offender: Offender) -> dict[str, Any]:
        """Return the denials of a key and its state, which the look does not change."""
        policies = self._limiter.policies
        decisions = await self._look(offender.key)
        if len(policies) < 2:
            return {**offender._asdict(), **describe_state(*decisions.values())}
        states = describe_states([(policy, decisions[policy.name]) for policy in policies])
        del states["policies"]
        return {**offender._asdict(), **states}

    async def _look(self, key: Keys) -> dict[str, Decision]:
        decisions: dict[str, Decision] = await _wait_for(self._limiter.look(key))
        return decisions


def describe_state(decision: Decision) -> dict[str, Any]:
    """Return the state of a key as JSON values; an unlimited key has no number of remaining requests."""
    remaining = None if decision.remaining == NEVER else decision.remaining
    return {"remaining": remaining, "reset_after": decision.reset_after}


def describe_states(states: Sequence[tuple[Policy, Decision]]) -> dict[str, Any]:
    """Return the states of a key by several policies as JSON values, and together.

    The policy that binds is the one with the least remaining quota of those that the key has used. Shadow policies
    never bind, and are left out of the joint state unless there are no others.
    """
    enforcing = [(policy.name, decision) for policy, decision in states if not policy.shadow]
    used = [pair for pair in enforcing if pair[1].reset_after_ns]
    described = enforcing or [(policy.name, decision) for policy, decision in states]
    least = min(used or described, key=_rank, default=("", _UNLIMITED))[1]
    longest = max((decision.reset_after_ns for _, decision in described), default=0)
    return {
        **describe_state(least._replace(reset_after_ns=longest)),
        "bound_by": min(used, key=_rank)[0] if used else None,
        "policies": {policy.name: {**describe_state(one), "shadow": policy.shadow} for policy, one in states},
    }


def _rank(named: tuple[str, Decision]) -> tuple[int, int]:
    return named[1].remaining, -named[1].reset_after_ns


async def _wait_for(value: Any) -> Any:
    return await value if isawaitable(value) else value


async def _send_json(scope: Scope, send: Send, value: object) -> None:
    await send_response(scope, send, 200, _JSON, json.dumps(value).encode() + b"\n")


def route_by_socket(path: str, admin: App, public: App) -> App:
    """Return the app that serves `admin` to connections on the Unix socket at `path`, and `public` to all others."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        server = scope.get("server")
        is_admin = scope["type"] == "http" and server is not None and server[1] is None and server[0] == path
        await (admin if is_admin else public)(scope, receive, send)

    return app
