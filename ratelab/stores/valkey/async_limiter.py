"""A limiter whose keys live in a store, for the tasks of an event loop; those that wait go together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from typing import Any, NamedTuple, Self

from ratelab.errors import StoreError
from ratelab.limiter import Decision, Policy
from ratelab.quota import Quota
from ratelab.stores.memory import check_cost
from ratelab.stores.valkey.connection import Address, StoreUrl, check_limits, failure
from ratelab.stores.valkey.resp import parse
from ratelab.stores.valkey.script import Script
from ratelab.stores.valkey.session import Command, Session, Slots, session

Hear = Callable[[Any], None]
"""Takes a reply, or the exception that stands in its place."""


class PipelinedConnection(asyncio.Protocol):
    """A connection to a server, opened when it is made; a request is sent once, and never again on another."""

    def __init__(self, place: StoreUrl, address: Address | None) -> None:
        self.closed = False
        """Whether no request can be sent any more."""
        self._place, self._address = place, address
        self._transport: asyncio.Transport | None = None
        self._writer: Any = None
        self._unsent: list[bytes] = []
        self._greetings = len(place.greeting)  # that are not answered
        self._expecting: deque[tuple[Hear, float]] = deque((self._greeted, inf) for _ in place.greeting)
        self._held = b""
        self._opening = asyncio.ensure_future(self._open())

    def ask(self, command: bytes, hear: Hear, due: float) -> None:
        """Send a request, at once or when the server knows us; `hear` is told the reply, or why there is none.

        A reply is of use until the loop's time is `due`.
        """
        self._expecting.append((hear, due))
        if self._transport is None or self._greetings:
            self._unsent.append(command)
        else:
            self._transport.write(command)

    def is_late(self, now: float) -> bool:
        """Say whether a reply is due that has not come."""
        return any(due <= now for _, due in self._expecting)

    def leave(self, due: float) -> None:
        """Take no more requests, and close when those on their way are answered or the loop's time is `due`."""
        self.closed = True
        asyncio.get_running_loop().call_at(due, self.close, StoreError("timeout", "the store did not answer in time"))
        self._close_if_done()

    def close(self, error: StoreError) -> None:
        """Close at once; all that is on its way fails with `error`."""
        self.closed = True
        self._opening.cancel()
        if self._transport is not None:
            self._transport.abort()
        while self._expecting:
            hear, _ = self._expecting.popleft()
            hear(error)

    def data_received(self, data: bytes) -> None:
        """Pass on the replies that are complete."""
        data, start = self._held + data, 0
        try:
            while self._expecting and (parsed := parse(data, start)) is not None:
                reply, start = parsed
                hear, _ = self._expecting.popleft()
                hear(reply)
        except StoreError as error:
            self.close(error)
        self._held = data[start:]
        if self._held and not self._expecting:
            self.close(StoreError("other", "the store said what it was not asked"))  # and it would answer the next
        self._close_if_done()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (asyncio's signature)
        """Fail what is on its way."""
        self.close(StoreError("unreachable", "the store closed the connection"))

    async def _open(self) -> None:
        connection = self._place.connection(self._address)
        try:
            await connection.connect()
        except Exception as error:
            self.close(failure(error))
            return
        self._writer, connection._reader, connection._writer = connection._writer, None, None
        transport = self._writer.transport  # the writer is kept, for it closes the transport when it goes
        transport.set_protocol(self)  # the client's own reader is slower than the server
        self._transport = transport
        transport.write(b"".join(self._place.greeting))
        self._send_unsent()

    def _greeted(self, reply: Any) -> None:
        """Give up a connection that the server does not want; without a right or a database nothing is asked."""
        if isinstance(reply, Exception):
            self.close(failure(reply))
        self._greetings -= 1
        self._send_unsent()

    def _send_unsent(self) -> None:
        if self._expecting and not self._greetings and self._transport is not None:
            self._transport.write(b"".join(self._unsent))
            self._unsent.clear()

    def _close_if_done(self) -> None:
        if self.closed and not self._expecting and self._transport is not None:
            self._transport.abort()


LARGEST_BATCH = 256
"""Hits that one call decides at most: the server does nothing else for the millisecond that these take it."""

_LATE = 0.001  # a loop that was held up may have the replies, but not read them yet


class Hit(NamedTuple):
    """A hit that waits for its decision."""

    key: bytes
    cost: int
    due: float
    """The time of the loop at which it is given up."""
    decision: asyncio.Future[Decision]


class AsyncValkeyLimiter:
    """Hold each key to a quota kept in the store at `url`: as `ValkeyLimiter`, for the tasks of one event loop.

    Hits of the same turn of the loop are decided by one call (on a cluster, one for each slot), in the order in which
    they came; a single one waits for nobody. One connection carries them all. A hit that is cancelled before the turn
    ends is not charged; later it may be. When a hit finds no answer within the `deadline`, its connection is given up,
    and what else is on it fails, too. Raises what `ValkeyLimiter` does. `close` it before its event loop ends.
    """

    def __init__(
        self, url: str, algorithm: str, rate: str | Quota, burst: int | None = None, deadline: float = 0.1
    ) -> None:
        check_limits(deadline)
        self._script = Script(algorithm, rate, burst)
        self._place = StoreUrl(url, asynchronous=True)
        self._slots = Slots(self._place.cluster)
        self._deadline = deadline
        self._streams: dict[Address | None, PipelinedConnection] = {}
        self._due = 0.0  # when this turn's hits are given up
        self._waiting: list[Hit] = []  # for the end of this turn
        self._unanswered: deque[list[Hit]] = deque()  # the same and those on their way, by turns, the oldest first
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def policy(self) -> Policy:
        """The policy that this limiter enforces, in nanoseconds."""
        return self._script.policy

    async def hit(self, key: str, cost: int = 1) -> Decision:
        """Decide as `Limiter.hit` does; raise `StoreError` if there is no decision within the deadline."""
        check_cost(cost)
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._enter(loop)
        name = self._script.key(key)
        if not self._waiting:
            self._begin_turn(loop)
        decision: asyncio.Future[Decision] = loop.create_future()
        self._waiting.append(Hit(name, cost, self._due, decision))
        return await decision

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection; what is on its way fails."""
        for stream in self._streams.values():
            stream.close(StoreError("unreachable", "the limiter was closed"))
        self._streams.clear()

    def _enter(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin anew in an event loop: what is left from the one before will not be answered any more."""
        if self._loop is not None and self._loop.is_running():
            raise RuntimeError("this limiter serves an event loop of another thread: make one for each")
        if self._loop is not None and not self._loop.is_closed():
            self.close()
        self._streams.clear()
        self._waiting.clear()
        self._unanswered.clear()
        self._loop, self._timer = loop, None

    def _begin_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have what comes in this turn sent at its end, and given up when its first hit is due."""
        self._due = loop.time() + self._deadline
        loop.call_soon(self._send)
        self._unanswered.append(self._waiting)
        if self._timer is None:
            self._timer = loop.call_at(self._due + _LATE, self._give_up)

    def _send(self) -> None:
        """Send what waits: a call for the hits of each slot."""
        waiting, self._waiting = self._waiting, []
        by_slot: dict[int, list[Hit]] = {}
        for hit in waiting:
            if not hit.decision.done():
                by_slot.setdefault(self._slots.of(hit.key), []).append(hit)
        for hits in by_slot.values():
            for start in range(0, len(hits), LARGEST_BATCH):
                batch = hits[start : start + LARGEST_BATCH]
                talk = session(self._script, self._slots, [hit.key for hit in batch], [hit.cost for hit in batch])
                self._ask(next(talk), talk, batch)

    def _ask(self, request: Command, talk: Session, hits: Sequence[Hit]) -> None:
        """Send a request of a conversation about hits."""
        stream = self._streams.get(request.address)
        if stream is None or stream.closed or request.anew:
            if stream is not None:
                stream.leave(asyncio.get_running_loop().time() + self._deadline)
            stream = self._streams[request.address] = PipelinedConnection(self._place, request.address)
        stream.ask(request.command, partial(self._hear, talk, hits), hits[0].due)

    def _hear(self, talk: Session, hits: Sequence[Hit], reply: Any) -> None:
        """Go on with a conversation; at its end tell each hit its decision."""
        try:
            request = talk.throw(reply) if isinstance(reply, Exception) else talk.send(reply)
        except StopIteration as done:
            for hit, decision in zip(hits, done.value, strict=True):
                if not hit.decision.done():
                    hit.decision.set_result(decision)
            while self._unanswered and _answered(self._unanswered[0]):
                self._unanswered.popleft()
        except Exception as error:
            _fail(hits, failure(error))
        else:
            self._ask(request, talk, hits)

    def _give_up(self) -> None:
        """Fail the hits that are due, and the connections that they wait for; look again when the next is due."""
        self._timer = None
        loop = asyncio.get_running_loop()
        now, unanswered = loop.time(), self._unanswered
        while unanswered and (_answered(unanswered[0]) or unanswered[0][0].due <= now):
            _fail(unanswered.popleft(), StoreError("timeout", "the store did not answer in time"))
        if unanswered:
            self._timer = loop.call_at(unanswered[0][0].due + _LATE, self._give_up)
        for stream in self._streams.values():
            if stream.is_late(now):
                stream.close(StoreError("timeout", "the store did not answer others in time"))


def _answered(hits: Sequence[Hit]) -> bool:
    return all(hit.decision.done() for hit in hits)


def _fail(hits: Sequence[Hit], error: StoreError) -> None:
    for hit in hits:
        if not hit.decision.done():
            hit.decision.set_exception(error)
