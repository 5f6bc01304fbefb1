"""A limiter whose keys live in a store, for threads."""

from __future__ import annotations

import time
from collections import deque
from contextlib import suppress
from threading import Condition
from typing import Any, ClassVar, Self

from ratelab.errors import StoreError
from ratelab.limiter import Algorithm, Decision
from ratelab.quota import Quota
from ratelab.stores.memory import check_cost
from ratelab.stores.valkey.connection import Address, Place, check_limits, failure
from ratelab.stores.valkey.deadline import Link
from ratelab.stores.valkey.script import Script
from ratelab.stores.valkey.session import Conversation, Slots, conversation

Links = dict[Address | None, Link]
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
        self._place = Place(url, asynchronous=False)
        self._slots = Slots(self._place.cluster)
        self._deadline = deadline
        self._idle: deque[Links] = deque({} for _ in range(connections))
        self._freed = Condition()
        self._waiting = 0  # threads that want one of them; nobody else looks at the condition, which takes its time

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm that decides."""
        return self._script.algorithm

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
        talk = conversation(self._script, self._slots, [self._script.key(key)], [cost])
        return self._converse(links, talk, due, failed)

    def _converse(self, links: Links, talk: Conversation, due: float, failed: Exception | None) -> list[Decision]:
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
            link = links[address] = Link(self._place, address)
        return link.exchange(command, due, anew)
