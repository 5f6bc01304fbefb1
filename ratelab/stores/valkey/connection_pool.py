"""Blocking connections, and a fair pool of them for threads."""

from __future__ import annotations

import select
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from threading import Lock
from typing import Any
from weakref import WeakSet, ref

from ratelab.errors import StoreError
from ratelab.stores.fork import reset_in_children
from ratelab.stores.valkey.connection import OVERLOAD, Address, StoreUrl
from ratelab.stores.valkey.resp import ReplyError, parse_reply
from ratelab.stores.valkey.session import ASKING, SlotMap

_RECEIVE_BYTES = 65_536
_TIMEOUT_RESOLUTION_S = 0.001  # systems wait in steps of this; smaller changes of a timeout save a system call


class BlockingConnection:
    """A connection that opens on first use, and again after it was closed.

    `due` is the deadline of a call, as a time of `time.monotonic`.
    """

    def __init__(self, pool: ConnectionPool | None, url: StoreUrl, address: Address | None) -> None:
        self._url, self._address = url, address
        self.pool: Callable[[], ConnectionPool | None] = _no_pool if pool is None else ref(pool)
        """Return the pool in which it has a place; None if it has none."""
        self.socket: Any = None
        """The open socket."""
        self.has_data: Callable[[], object] = bool
        """Return whether the socket has unexpected data, or is closed by the store."""
        self.timeout = 0.0
        """The timeout of the socket in seconds; 0 before it is set."""

    def __del__(self) -> None:
        """Replace a connection that no thread returned, because a signal handler raised an exception in between."""
        self.close()
        if (pool := self.pool()) is not None:
            pool.add_connection()

    def exchange(self, command: bytes, due: float, reconnect: bool = False, asking: bool = False) -> Any:
        """Send a command and return its reply, over a new connection if `reconnect`, and after `ASKING` if `asking`.

        Raises `ReplyError` for an error reply, and `TimeoutError` at `due`.
        """
        if self.socket is None or reconnect or self.has_data():
            self._open(due)
        try:
            reply = self._exchange(self.socket, ASKING + command if asking else command, due, asking)
        except BaseException:
            self.close()  # a late reply would be taken for that to the next command
            raise
        if isinstance(reply, ReplyError):
            if reply.closes:
                self.close()
            raise reply
        return reply

    def close(self) -> None:
        """Close the connection."""
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    def take_over(self, other: BlockingConnection) -> None:
        """Take the socket of another connection, and its place in the pool; no signal handler runs in between."""
        self.has_data, self.timeout = other.has_data, other.timeout
        self.socket, self.pool, other.socket, other.pool = other.socket, other.pool, None, _no_pool

    def leave_pool(self) -> None:
        """Close the connection; it will not be replaced."""
        self.pool = _no_pool
        self.close()

    def _open(self, due: float) -> None:
        self.close()
        opened = self._url.open_socket(self._address, timeout=max(0.001, due - time.monotonic()))
        try:
            self.timeout = 0.0
            for command in self._url.handshake:
                reply = self._exchange(opened, command, due)
                if isinstance(reply, Exception):
                    raise reply
            has_data = _make_data_check(opened)
        except BaseException:
            opened.close()  # or the next hit would use it without authentication, or in the wrong database
            raise
        self.socket, self.has_data = opened, has_data

    def _exchange(self, opened: Any, command: bytes, due: float, skip_first: bool = False) -> Any:
        self._set_timeout(opened, due)
        opened.sendall(command)
        data, start = opened.recv(_RECEIVE_BYTES), 0
        refusal: Exception | None = None  # the first reply, if it is an error
        while True:
            parsed = parse_reply(data, start)
            if parsed is not None and not skip_first:
                return refusal or parsed[0]
            if parsed is not None:
                reply, start = parsed
                refusal, skip_first = reply if isinstance(reply, Exception) else None, False
                continue
            self._set_timeout(opened, due)  # a socket's timeout is for one call
            chunk = opened.recv(_RECEIVE_BYTES)
            if not chunk:
                raise StoreError("unreachable", "the store closed the connection")
            data += chunk

    def _set_timeout(self, opened: Any, due: float) -> None:
        rest = due - time.monotonic()
        if rest <= 0:
            raise TimeoutError
        if abs(rest - self.timeout) > _TIMEOUT_RESOLUTION_S:
            opened.settimeout(rest)
            self.timeout = rest


def _no_pool() -> None:
    """Return the pool of a connection without one."""


def _make_data_check(opened: Any) -> Callable[[], object]:
    """Return a function that checks for data; before a command is sent, data means that the peer has closed."""
    if sys.platform == "win32":
        return lambda: select.select((opened,), (), (), 0)[0]
    poll = select.poll()  # `select` fails for file descriptors above 1,023
    poll.register(opened, select.POLLIN)
    return partial(poll.poll, 0)


class _Waiter:
    """A thread that waits for a connection."""

    __slots__ = ("connections", "has_left", "ready")

    def __init__(self) -> None:
        self.connections: list[BlockingConnection] = []
        """The one that was passed to the thread."""
        self.has_left = False
        self.ready = Lock()
        self.ready.acquire()


class ConnectionPool:
    """At most `size` connections to a server or a node, which threads get in the order in which they ask.

    Nothing here holds a lock, so that a signal handler may do anything at any moment, and a fork, too: the operations
    of a deque are atomic.
    """

    def __init__(self, url: StoreUrl, address: Address | None, size: int) -> None:
        self._url, self._address, self._size = url, address, size
        self._connections: WeakSet[BlockingConnection] = WeakSet()
        self._idle: deque[BlockingConnection] = deque()
        self._waiting: deque[_Waiter] = deque()
        self._fill()
        reset_in_children(self)

    def exchange(
        self, command: bytes, due: float, reserve: float, reconnect: bool = False, asking: bool = False
    ) -> Any:
        """Send a command over one of the connections, as `BlockingConnection.exchange` does, and return its reply.

        Wait for a connection only until `reserve` seconds before `due`. Raises `StoreError` of kind `overload` if none
        becomes free by then, and as `BlockingConnection.exchange` does.
        """
        connection = self._take(due - reserve)
        try:
            reply = connection.exchange(command, due, reconnect, asking)
        except BaseException:
            self.add_connection(connection)
            raise
        self._idle.append(connection)
        if self._waiting:
            self._pass_on()
        return reply

    def add_connection(self, replaced: BlockingConnection | None = None) -> None:
        """Add a connection that is not open yet, or that has the socket of the one that it replaces.

        That is necessary after an exception, whose frames keep the replaced one from being collected.
        """
        connection = BlockingConnection(self if replaced is None else None, self._url, self._address)
        if replaced is not None:
            connection.take_over(replaced)
        self._connections.add(connection)
        self._idle.append(connection)
        self._pass_on()

    def close(self) -> None:
        """Close every connection that is not in use."""
        for _ in range(len(self._idle)):
            with suppress(IndexError):
                connection = self._idle.popleft()
                connection.close()
                self._idle.append(connection)
        self._pass_on()

    def reset_after_fork(self) -> None:
        """Close all connections, which belong to the parent, and start with new ones."""
        for connection in [*self._connections]:
            connection.leave_pool()
        self._connections.clear()
        self._waiting.clear()
        self._idle.clear()
        self._fill()

    def _fill(self) -> None:
        for _ in range(self._size):
            self.add_connection()

    def _take(self, until: float) -> BlockingConnection:
        if not self._waiting:
            try:
                return self._idle.pop()  # the most recently used
            except IndexError:
                pass
        waiter = _Waiter()
        try:
            self._waiting.append(waiter)
            self._pass_on()
            waiter.ready.acquire(timeout=max(0.0, until - time.monotonic()))
            return (waiter.connections or self._idle).pop()
        except IndexError:
            raise StoreError("overload", f"{OVERLOAD}: use more connections, or a longer deadline") from None
        finally:
            self._leave(waiter)

    def _pass_on(self) -> None:
        """Pass idle connections to the threads that have waited longest."""
        while self._waiting and self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:
                return  # another thread has passed it on
            try:
                waiter = self._waiting.popleft()
            except IndexError:
                self._idle.append(connection)
                continue
            waiter.connections.append(connection)
            waiter.ready.release()
            if waiter.has_left:
                self._take_back(waiter)

    def _leave(self, waiter: _Waiter) -> None:
        """Stop waiting, and pass on a connection that came at the last moment."""
        waiter.has_left = True
        with suppress(ValueError):
            self._waiting.remove(waiter)
        self._take_back(waiter)

    def _take_back(self, waiter: _Waiter) -> None:
        with suppress(IndexError):
            self._idle.append(waiter.connections.pop())
            if self._waiting:
                self._pass_on()


class ConnectionPools:
    """A pool for a server, or for each node of a cluster; several limiters may use them."""

    def __init__(self, url: str, size: int) -> None:
        self.url = StoreUrl(url, asynchronous=False)
        self.slots = SlotMap(self.url.cluster, self.url.seeds)
        self._size = size
        self._pools: dict[Address | None, ConnectionPool] = {}
        self._users: WeakSet[object] = WeakSet()

    def add_user(self, limiter: object) -> ConnectionPools:
        """Keep the connections open until `limiter`, too, is removed or collected; return this object."""
        self._users.add(limiter)
        return self

    def remove_user(self, limiter: object) -> None:
        """Close every connection that is not in use, unless another limiter may use them."""
        self._users.discard(limiter)
        if not self._users:
            for pool in [*self._pools.values()]:
                pool.close()

    def find(self, address: Address | None) -> ConnectionPool:
        """Return the pool of a node, or that of the URL's server for None."""
        pool = self._pools.get(address)
        if pool is None:
            pool = self._pools.setdefault(address, ConnectionPool(self.url, address, self._size))
        return pool
