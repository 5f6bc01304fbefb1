"""A limiter whose keys live in a store, for threads."""

from __future__ import annotations

import time
from collections import deque
from queue import Empty, SimpleQueue
from typing import Any, ClassVar, Self

from ratelab.errors import StoreError
from ratelab.limiter import Algorithm, Decision
from ratelab.quota import Quota
from ratelab.stores.valkey.connecting import Address, Place, failure
from ratelab.stores.valkey.conversation import Request, Slots, conversation
from ratelab.stores.valkey.deadline import Link
from ratelab.stores.valkey.script import Script, check_cost


class ValkeyLimiter:
    """Hold each key to a quota kept in the store at `url`: `ValkeyLimiter(url, "token-bucket", "2/s", burst=5)`.

    The server decides, by its own clock, in one round trip and one script. At most `connections` are open; a `hit`
    takes at most `deadline` seconds, then raises `StoreError`: it may have been charged by then, but only once, for
    nothing is asked again that may have run. For threads; in an event loop use `AsyncValkeyLimiter`.

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
        self._script = Script(algorithm, rate, burst)
        self._place = Place(url, asynchronous=False)
        self._slots = Slots(self._place.cluster)
        self._deadline = deadline
        self._idle: deque[dict[Address | None, Link]] = deque({} for _ in range(connections))
        self._turns: SimpleQueue[None] = SimpleQueue()  # one for each that is idle
        for _ in range(connections):
            self._turns.put(None)

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm that decides."""
        return self._script.algorithm

    def hit(self, key: str, cost: int = 1) -> Decision:
        """Decide as `Limiter.hit` does; raise `StoreError` if there is no decision within the deadline."""
        check_cost(cost)
        due = time.monotonic() + self._deadline
        talk = conversation(self._script, self._slots, [self._script.key(key)], [cost])
        try:
            self._turns.get(timeout=self._deadline)
        except Empty:
            raise StoreError("timeout", "no connection to the store became free in time") from None
        links = self._idle.pop()  # the one used last
        try:
            request = next(talk)
            while True:
                try:
                    reply = self._exchange(links, request, due)
                except Exception as error:  # the conversation knows which may be followed by another try
                    request = talk.throw(error)
                else:
                    request = talk.send(reply)
        except StopIteration as done:
            (decision,) = done.value
            return decision  # type: ignore[no-any-return]
        except Exception as error:
            raise failure(error) from None
        finally:
            self._idle.append(links)
            self._turns.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection that is not in use."""
        for _ in range(self._turns.qsize()):
            self._turns.get()
            for link in self._idle.popleft().values():
                link.close()
            self._idle.append({})
            self._turns.put(None)

    def _exchange(self, links: dict[Address | None, Link], request: Request, due: float) -> Any:
        """Send a request and return the reply, all of it before `due`."""
        link = links.get(request.address)
        if link is None:
            link = links[request.address] = Link(self._place, request.address)
        return link.exchange(request.command, due, request.anew)
