"""A Valkey limiter for threads: blocking connections with one deadline for a whole decision."""

from __future__ import annotations

import os
import select
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from threading import Condition
from typing import Any, ClassVar, Self

from ratelab.errors import StoreError
from ratelab.limiter import Decision, Policy
from ratelab.quota import Quota
from ratelab.stores.memory import check_cost, check_key
from ratelab.stores.valkey.connection import Address, StoreUrl, check_limits, classify_error
from ratelab.stores.valkey.resp import parse_reply
from ratelab.stores.valkey.script import Script, register
from ratelab.stores.valkey.session import Session, SlotMap, decide_hits

_RECEIVE_BYTES = 65_536
_TIMEOUT_RESOLUTION_S = 0.001  # systems wait in steps of this; smaller changes of a timeout save a system call


class BlockingConnection:
    """A connection that opens on first use, and again when it is closed or the process has forked.

    `due` is the deadline of a call, as a time of `time.monotonic`.
    """

    def __init__(self, url: StoreUrl, address: Address | None) -> None:
        self._url, self._address = url, address
        self._socket: Any = None
        self._has_data: Callable[[], object] = bool
        self._process = 0
        self._timeout = 0.0

    def exchange(self, command: bytes, due: float, reconnect: bool) -> Any:
        """Send a command and return its reply, over a new connection if `reconnect`.

        Raises `ReplyError` for an error reply, and `TimeoutError` at `due`.
        """
        if self._socket is None or reconnect or self._process != os.getpid() or self._has_data():
            self._open(due)
        return self._exchange(command, due)

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _open(self, due: float) -> None:
        self.close()
        self._socket = self._url.open_socket(self._address, timeout=max(0.001, due - time.monotonic()))
        self._process, self._has_data, self._timeout = os.getpid(), _make_data_check(self._socket), 0.0
        try:
            for command in self._url.handshake:
                self._exchange(command, due)
        except BaseException:
            self.close()  # or the next hit would use it without authentication, or in the wrong database
            raise

    def _exchange(self, command: bytes, due: float) -> Any:
        opened = self._socket
        try:
            self._set_timeout(due)
            opened.sendall(command)
            data = opened.recv(_RECEIVE_BYTES)
            while (parsed := parse_reply(data)) is None:
                self._set_timeout(due)  # a socket's timeout is for one call
                chunk = opened.recv(_RECEIVE_BYTES)
                if not chunk:
                    raise StoreError("unreachable", "the store closed the connection")
                data += chunk
        except BaseException:
            self.close()  # a late reply would be taken for that to the next command
            raise
        value, _ = parsed
        if isinstance(value, Exception):
            raise value
        return value

    def _set_timeout(self, due: float) -> None:
        rest = due - time.monotonic()
        if rest <= 0:
            raise TimeoutError
        if abs(rest - self._timeout) > _TIMEOUT_RESOLUTION_S:
            self._socket.settimeout(rest)
            self._timeout = rest


def _make_data_check(opened: Any) -> Callable[[], object]:
    """Return a function that checks for data; before a command is sent, data means that the peer has closed."""
    if sys.platform == "win32":
        return lambda: select.select((opened,), (), (), 0)[0]
    poll = select.poll()  # `select` fails for file descriptors above 1,023
    poll.register(opened, select.POLLIN)
    return partial(poll.poll, 0)


Connections = dict[Address | None, BlockingConnection]
"""The connections that one thread uses at a time: to the server, or to each node of a cluster."""


class ValkeyLimiter:
    """Enforce a quota kept in the store at `url`, for threads: `ValkeyLimiter(url, "token-bucket", "2/s", burst=5)`.

    The server decides by its clock, in one script and one round trip. At most `connections` are open. A `hit` takes at
    most `deadline` seconds, then raises `StoreError`. By then it may have been charged, but only once: a command that
    may have executed is never resent. In an event loop use `AsyncValkeyLimiter`.

    The deadline does not cover the lookup of a host's name, and applies to each address of a host: use an IP address.
    Keys are hashed before they are sent; a key that can be guessed can be found by trying.

    Limiters share a counter only if they have the same `name`, algorithm and quota; the name is that of the policy
    unless it is given. A second one in the same process causes a `ConfigurationWarning`.

    Raises `InputError` for an invalid URL, algorithm, quota or name.
    """

    blocking: ClassVar[bool] = True

    def __init__(
        self,
        url: str,
        algorithm: str,
        rate: str | Quota,
        burst: int | None = None,
        deadline: float = 0.1,
        connections: int = 16,
        name: str | None = None,
    ) -> None:
        check_limits(deadline, connections)
        self._script = Script(algorithm, rate, burst, name)
        self._url = StoreUrl(url, asynchronous=False)
        self._forget = register(self, self._url.store, self._script)
        self._slots = SlotMap(self._url.cluster, self._url.seeds)
        self._deadline = deadline
        self._idle: deque[Connections] = deque({} for _ in range(connections))
        self._freed = Condition()
        self._waiting = 0  # threads that wait for connections; without any, `hit` saves the cost of the condition

    @property
    def policy(self) -> Policy:
        """The policy that this limiter enforces, in nanoseconds."""
        return self._script.policy

    @property
    def name(self) -> str:
        """The name by which limiters share a counter."""
        return self._script.name

    def hit(self, key: str, cost: int = 1) -> Decision:
        """Decide as `Limiter.hit` does; raise `StoreError` if there is no decision within the deadline."""
        check_key(key)
        check_cost(cost)
        due = time.monotonic() + self._deadline
        try:
            connections = self._idle.pop()  # the most recently used
        except IndexError:
            connections = self._wait_for_connections(due)
        try:
            (decision,) = self._decide(connections, key, cost, due)
            return decision
        except Exception as error:
            raise classify_error(error) from None
        finally:
            self._idle.append(connections)
            if self._waiting:
                with self._freed:
                    self._freed.notify()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection that is not in use."""
        self._forget()
        for _ in range(len(self._idle)):
            with suppress(IndexError):
                for connection in self._idle.popleft().values():
                    connection.close()
                self._idle.append({})

    def _wait_for_connections(self, due: float) -> Connections:
        """Return the first connections that another thread releases."""
        with self._freed:
            self._waiting += 1  # before the first look: a thread that releases connections checks it afterwards
            try:
                while True:
                    with suppress(IndexError):
                        return self._idle.pop()
                    rest = due - time.monotonic()
                    if rest <= 0:
                        raise StoreError("timeout", "no connection to the store became free in time")
                    self._freed.wait(rest)
            finally:
                self._waiting -= 1

    def _decide(self, connections: Connections, key: str, cost: int, due: float) -> list[Decision]:
        """Send the first command of a session, which is nearly always the only one; if it fails, run the session.

        A generator, and the exception that ends it, would take as long as the rest of this method.
        """
        failed = None
        if not self._slots.cluster:
            try:
                return self._script.decode(self._exchange(connections, due, self._script.encode_one(key, cost)))
            except Exception as error:
                failed = error
        session = decide_hits(self._script, self._slots, [self._script.key(key)], [cost])
        return self._run(session, connections, due, failed)

    def _run(self, session: Session, connections: Connections, due: float, failed: Exception | None) -> list[Decision]:
        """Run a session; if its first command has `failed` already, continue from there."""
        command = next(session)
        try:
            if failed is not None:
                command = session.throw(failed)
            while True:
                try:
                    reply = self._exchange(connections, due, *command)
                except Exception as error:  # the session knows which errors permit a retry
                    command = session.throw(error)
                else:
                    command = session.send(reply)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]

    def _exchange(
        self,
        connections: Connections,
        due: float,
        command: bytes,
        address: Address | None = None,
        reconnect: bool = False,
    ) -> Any:
        """Send a command and return its reply, before `due`."""
        connection = connections.get(address)
        if connection is None:
            connection = connections[address] = BlockingConnection(self._url, address)
        return connection.exchange(command, due, reconnect)
