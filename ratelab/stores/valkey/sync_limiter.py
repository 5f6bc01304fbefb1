"""A limiter whose keys live in a store, for threads."""

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
from ratelab.stores.memory import check_cost
from ratelab.stores.valkey.connection import Address, StoreUrl, check_limits, failure
from ratelab.stores.valkey.resp import parse
from ratelab.stores.valkey.script import Script
from ratelab.stores.valkey.session import Session, Slots, session

_PIECE = 65_536
_GRAIN = 0.001  # seconds in which a system waits, so that there is no need to tell it less


class BlockingConnection:
    """A connection to a server, opened when it is first used, and anew when it has ended."""

    def __init__(self, place: StoreUrl, address: Address | None) -> None:
        self._place, self._address = place, address
        self._socket: Any = None
        self._has_ended: Callable[[], object] = bool
        self._process = 0
        self._limited = 0.0

    def exchange(self, command: bytes, due: float, anew: bool) -> Any:
        """Send a command and return the reply, before `time.monotonic` says `due`; connect `anew` if told to.

        Raises the error that the server answers.
        """
        if self._socket is None or anew or self._process != os.getpid() or self._has_ended():
            self._open(due)
        return self._exchange(command, due)

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _open(self, due: float) -> None:
        self.close()
        connection = self._place.connection(self._address, timeout=max(0.001, due - time.monotonic()))
        connection.connect()
        self._socket, connection._sock = connection._sock, None  # the client's reader knows no deadline
        self._process, self._has_ended, self._limited = os.getpid(), _readable(self._socket), 0.0
        try:
            for command in self._place.greeting:
                self._exchange(command, due)
        except BaseException:
            self.close()  # or the next hit would find it open, without a right or in another database
            raise

    def _exchange(self, command: bytes, due: float) -> Any:
        opened = self._socket
        try:
            self._limit(due)
            opened.sendall(command)
            data = opened.recv(_PIECE)
            while (parsed := parse(data)) is None:
                self._limit(due)  # which is for each piece by itself
                piece = opened.recv(_PIECE)
                if not piece:
                    raise StoreError("unreachable", "the store closed the connection")
                data += piece
        except BaseException:
            self.close()  # what is still to come would be taken for the answer to something else
            raise
        value, _ = parsed
        if isinstance(value, Exception):
            raise value
        return value

    def _limit(self, due: float) -> None:
        left = due - time.monotonic()
        if left <= 0:
            raise TimeoutError
        if abs(left - self._limited) > _GRAIN:
            self._socket.settimeout(left)
            self._limited = left


def _readable(opened: Any) -> Callable[[], object]:
    """Return what says whether there is something to read: before anything was asked the end, most likely."""
    if sys.platform == "win32":
        return lambda: select.select((opened,), (), (), 0)[0]
    poll = select.poll()  # elsewhere `select` knows no more than 1,024 files
    poll.register(opened, select.POLLIN)
    return partial(poll.poll, 0)


Links = dict[Address | None, BlockingConnection]
"""The connections of one who asks, to the server or to each node."""


class ValkeyLimiter:
    """Hold each key to a quota kept in the store at `url`: `ValkeyLimiter(url, "token-bucket", "2/s", burst=5)`.

    The server decides, by its own clock, in one round trip and one script. At most `connections` are open; a `hit`
    takes at most `deadline` seconds, then raises `StoreError`: it may have been charged by then, but only once, for
    nothing is asked again that may have run. For threads; in an event loop use `AsyncValkeyLimiter`. Only looking up a
    host's name has no deadline, and each of several addresses has its own: give an address.

    Names of clients are hashed, so that the store never sees them; one that can be guessed can be found by trying.
    Raises `InputError` for a URL, an algorithm or a quota that cannot be used.
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
    ) -> None:
        check_limits(deadline, connections)
        self._script = Script(algorithm, rate, burst)
        self._place = StoreUrl(url, asynchronous=False)
        self._slots = Slots(self._place.cluster)
        self._deadline = deadline
        self._idle: deque[Links] = deque({} for _ in range(connections))
        self._freed = Condition()
        self._waiting = 0  # threads that want one of them; nobody else looks at the condition, which takes its time

    @property
    def policy(self) -> Policy:
        """The policy that this limiter enforces, in nanoseconds."""
        return self._script.policy

    def hit(self, key: str, cost: int = 1) -> Decision:
        """Decide as `Limiter.hit` does; raise `StoreError` if there is no decision within the deadline."""
        check_cost(cost)
        due = time.monotonic() + self._deadline
        try:
            links = self._idle.pop()  # the one used last
        except IndexError:
            links = self._wait(due)
        try:
            (decision,) = self._decide(links, key, cost, due)
            return decision
        except Exception as error:
            raise failure(error) from None
        finally:
            self._idle.append(links)
            if self._waiting:
                with self._freed:
                    self._freed.notify()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection that is not in use."""
        for _ in range(len(self._idle)):
            with suppress(IndexError):
                for link in self._idle.popleft().values():
                    link.close()
                self._idle.append({})

    def _wait(self, due: float) -> Links:
        """Return the connections that become free first; whoever gives some back looks afterwards for who waits."""
        with self._freed:
            self._waiting += 1
            try:
                while True:
                    with suppress(IndexError):
                        return self._idle.pop()
                    left = due - time.monotonic()
                    if left <= 0:
                        raise StoreError("timeout", "no connection to the store became free in time")
                    self._freed.wait(left)
            finally:
                self._waiting -= 1

    def _decide(self, links: Links, key: str, cost: int, due: float) -> list[Decision]:
        """Ask what a conversation begins with, which is nearly always all of it; go through the whole if it is not.

        The generator and the exception at its end would take as long as all else here.
        """
        failed = None
        if not self._slots.cluster:
            try:
                return self._script.read(self._exchange(links, due, self._script.ask_one(key, cost)))
            except Exception as error:
                failed = error
        talk = session(self._script, self._slots, [self._script.key(key)], [cost])
        return self._converse(links, talk, due, failed)

    def _converse(self, links: Links, talk: Session, due: float, failed: Exception | None) -> list[Decision]:
        """Go through a conversation; if its first request has `failed`, what follows on that."""
        request = next(talk)
        try:
            if failed is not None:
                request = talk.throw(failed)
            while True:
                try:
                    reply = self._exchange(links, due, *request)
                except Exception as error:  # the conversation knows which may be followed by another try
                    request = talk.throw(error)
                else:
                    request = talk.send(reply)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]

    def _exchange(
        self, links: Links, due: float, command: bytes, address: Address | None = None, anew: bool = False
    ) -> Any:
        """Send a request and return the reply, all of it before `due`."""
        link = links.get(address)
        if link is None:
            link = links[address] = BlockingConnection(self._place, address)
        return link.exchange(command, due, anew)
