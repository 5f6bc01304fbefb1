"""A limiter whose keys live in a store, for the tasks of an event loop; those that wait together are decided together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ratelab.errors import StoreError
from ratelab.limiter import Algorithm, Decision
from ratelab.quota import Quota
from ratelab.stores.valkey.connecting import failure, is_cluster, settings
from ratelab.stores.valkey.conversation import Address, Request, Slots, conversation
from ratelab.stores.valkey.script import Script, check_cost

if TYPE_CHECKING:
    from valkey.asyncio.connection import AbstractConnection

LARGEST_BATCH = 256
"""Hits that one call decides at most: the server does nothing else for the millisecond that these take it."""


class Hit(NamedTuple):
    """A hit that waits for its decision."""

    key: bytes
    cost: int
    due: float
    """The time of the loop at which it is given up."""
    decision: asyncio.Future[Decision]


class AsyncValkeyLimiter:
    """Hold each key to a quota that is kept in the store at `url`: as `ValkeyLimiter`, for tasks instead of threads.

    Hits of the same turn of the event loop are decided by one call, in their order; a single one waits for nobody.
    When all `connections` are busy, those that come meanwhile go together with the next. A hit that is cancelled
    before it was sent is not charged; one sent already may be. Raises what `ValkeyLimiter` does.

    It belongs to the event loop that uses it first.
    """

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
        self._settings = settings(url, asynchronous=True)
        self._slots = Slots(is_cluster(url))
        self._deadline = deadline
        self._turns: list[dict[Address | None, AbstractConnection]] = [{} for _ in range(connections)]
        self._waiting: dict[int, deque[Hit]] = {}  # by slot, in the order in which they came
        self._unanswered: deque[Hit] = deque()  # the same and those on their way, the oldest first
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._batches: set[asyncio.Task[None]] = set()

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm that decides."""
        return self._script.algorithm

    async def hit(self, key: str, cost: int = 1) -> Decision:
        """Decide as `Limiter.hit` does; raise `StoreError` if there is no decision within the deadline."""
        check_cost(cost)
        loop = asyncio.get_running_loop()
        hit = Hit(self._script.key(key), cost, loop.time() + self._deadline, loop.create_future())
        self._waiting.setdefault(self._slots.of(hit.key), deque()).append(hit)
        self._unanswered.append(hit)
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._send)
        if self._timer is None:
            self._timer = loop.call_at(hit.due, self._give_up)
        return await hit.decision

    async def close(self) -> None:
        """Close every connection; what is on its way fails."""
        for task in [*self._batches]:
            task.cancel()
        await asyncio.gather(*self._batches, return_exceptions=True)
        for connections in self._turns:
            for connection in connections.values():
                await connection.disconnect(nowait=True)
            connections.clear()
        self._give_up()

    def _send(self) -> None:
        """Send what waits, as long as there are connections."""
        self._scheduled = False
        for slot in [*self._waiting]:
            waiting = self._waiting[slot]
            while waiting and self._turns:
                hits = [hit for hit in _taken(waiting) if not hit.decision.done()]
                if hits:
                    task = asyncio.ensure_future(self._decide(hits, self._turns.pop()))
                    self._batches.add(task)
                    task.add_done_callback(self._batches.discard)
            if not waiting:
                del self._waiting[slot]

    async def _decide(self, hits: Sequence[Hit], connections: dict[Address | None, AbstractConnection]) -> None:
        """Have hits decided, and tell each its decision."""
        try:
            async with asyncio.timeout_at(hits[-1].due):
                decisions = await self._ask(hits, connections)
        except Exception as error:
            lost = failure(error)
            for hit in hits:
                if not hit.decision.done():
                    hit.decision.set_exception(lost)
        else:
            for hit, decision in zip(hits, decisions, strict=True):
                if not hit.decision.done():
                    hit.decision.set_result(decision)
        finally:
            self._turns.append(connections)
            self._send()

    async def _ask(self, hits: Sequence[Hit], connections: dict[Address | None, AbstractConnection]) -> list[Decision]:
        talk = conversation(self._script, self._slots, [hit.key for hit in hits], [hit.cost for hit in hits])
        try:
            request = next(talk)
            while True:
                try:
                    reply = await self._exchange(connections, request)
                except Exception as error:  # the conversation knows which may be followed by another try
                    request = talk.throw(error)
                else:
                    request = talk.send(reply)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]

    async def _exchange(self, connections: dict[Address | None, AbstractConnection], request: Request) -> Any:
        """Send a request and return the reply."""
        connection = connections.get(request.address)
        if connection is None:
            connection = connections[request.address] = self._connection(request.address)
        if connection.is_connected and (request.anew or await connection.can_read_destructive()):  # type: ignore[no-untyped-call]
            await connection.disconnect(nowait=True)
        await connection.send_command(*request.command)
        return await connection.read_response(disable_decoding=True)

    def _connection(self, address: Address | None) -> AbstractConnection:
        """Make a connection, which is opened when it is used."""
        from valkey.asyncio.connection import Connection

        given = {name: value for name, value in self._settings.items() if name != "connection_class"}
        if address is not None:
            given["host"], given["port"] = address
        kind = self._settings.get("connection_class", Connection)
        return kind(socket_timeout=None, **given)  # type: ignore[no-any-return]

    def _give_up(self) -> None:
        """Fail the hits that are due, and look again when the next is."""
        self._timer = None
        loop = asyncio.get_running_loop()
        while self._unanswered:
            hit = self._unanswered[0]
            if not hit.decision.done():
                if hit.due > loop.time():
                    self._timer = loop.call_at(hit.due, self._give_up)
                    return
                hit.decision.set_exception(StoreError("timeout", "the store did not answer in time"))
            self._unanswered.popleft()


def _taken(waiting: deque[Hit]) -> list[Hit]:
    return [waiting.popleft() for _ in range(min(len(waiting), LARGEST_BATCH))]
