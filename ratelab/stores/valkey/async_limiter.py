"""A Valkey limiter for asyncio: concurrent hits are decided in batches, over one pipelined connection."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from math import inf
from typing import Any, NamedTuple, Self

from ratelab.errors import InputError, StoreError
from ratelab.limiter import Decision, Policy
from ratelab.quota import Quota
from ratelab.stores.memory import check_cost, check_key
from ratelab.stores.valkey.connection import Address, StoreUrl, check_limits, classify_error
from ratelab.stores.valkey.resp import parse_reply
from ratelab.stores.valkey.script import Script, SecretClaim, register
from ratelab.stores.valkey.session import Command, Session, SlotMap, decide_hits

MAX_BATCH_HITS = 256
"""Hits of one script call; the server does nothing else during the millisecond that these take."""

_CLAIM_INTERVAL_S = 3600.0
_log = logging.getLogger("ratelab")

_TIMER_SLACK_S = 0.001  # a loop that was busy may have received the replies without having read them

OnReply = Callable[[Any], None]
"""Called with a reply, or with the exception that replaces it."""


class Hit(NamedTuple):
    """A hit that waits for its decision."""

    key: bytes
    cost: int
    due: float
    """The loop's time at which it fails."""
    decision: asyncio.Future[Any]


class AsyncValkeyLimiter:
    """Enforce a quota kept in the store at `url`, as `ValkeyLimiter` does, for the tasks of one event loop.

    Hits of one iteration of the loop are decided by one script call (on a cluster, one for each slot), in order; a
    single hit does not wait for others. One connection carries all of them. A hit that is cancelled within its
    iteration is not charged; later it may be. A hit without a reply within the `deadline` closes the connection, so
    that other hits on it fail, too. Raises as `ValkeyLimiter` does. Call `close` before the event loop ends.
    """

    def __init__(
        self,
        url: str,
        algorithm: str,
        rate: str | Quota,
        burst: int | None = None,
        deadline: float = 0.1,
        name: str | None = None,
    ) -> None:
        check_limits(deadline)
        self._script = Script(algorithm, rate, burst, name)
        self._url = StoreUrl(url, asynchronous=True)
        self._forget = register(self, self._url.store, self._script)
        self._slots = SlotMap(self._url.cluster, self._url.seeds)
        self._deadline = deadline
        self._connections: dict[Address | None, PipelinedConnection] = {}
        self._due = 0.0  # when the hits of this iteration fail
        self._batch: list[Hit] = []  # to be sent at the end of this iteration
        self._undecided: deque[list[Hit]] = deque()  # the batches of each iteration, sent or not, oldest first
        self._timer: asyncio.TimerHandle | None = None
        self._claim: SecretClaim | None = None
        self._next_claim = inf  # the loop's time
        self._claiming: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def policy(self) -> Policy:
        """The policy that this limiter enforces, in nanoseconds."""
        return self._script.policy

    @property
    def name(self) -> str:
        """The name by which limiters share a counter."""
        return self._script.name

    async def hit(self, key: str, cost: int = 1) -> Decision:
        """Decide as `Limiter.hit` does; raise `StoreError` if there is no decision within the deadline."""
        check_key(key)
        check_cost(cost)
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._change_loop(loop)
        store_key = self._script.key(key)
        if not self._batch:
            self._begin_batch(loop)
        decision: asyncio.Future[Decision] = loop.create_future()
        self._batch.append(Hit(store_key, cost, self._due, decision))
        return await decision

    def use_secret(self, fingerprint: str, generated: bool) -> None:
        """Compare the secret of an `Identity` with that of other instances: at the next hit, and then every hour.

        If they differ, a warning is logged.
        """
        self._claim, self._next_claim = self._create_claim(fingerprint, generated), 0.0

    async def check_secret(self, fingerprint: str, generated: bool) -> None:
        """Raise `InputError` if instances that share this limiter have another secret."""
        claim = self._create_claim(fingerprint, generated)
        if not await self._send_claim(claim):
            raise InputError(claim.description)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection; pending hits fail."""
        self._forget()
        self._close_connections()

    def _close_connections(self) -> None:
        for connection in self._connections.values():
            connection.close(StoreError("unreachable", "the limiter was closed"))
        self._connections.clear()

    def _change_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start over in a new event loop; hits pending in the previous one will never be decided."""
        if self._loop is not None and self._loop.is_running():
            raise RuntimeError("this limiter is in use in another event loop: create one limiter for each loop")
        if self._loop is not None and not self._loop.is_closed():
            self._close_connections()
        self._connections.clear()
        self._batch.clear()
        self._undecided.clear()
        self._loop, self._timer = loop, None
        if self._claim is not None:
            self._next_claim = 0.0

    def _create_claim(self, fingerprint: str, generated: bool) -> SecretClaim:
        return SecretClaim(self.name, fingerprint, generated, self.policy.quota.window)

    async def _send_claim(self, claim: SecretClaim) -> bool:
        """Return whether other instances have the same secret."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._change_loop(loop)
        hit = Hit(claim.key.encode(), 0, loop.time() + self._deadline, loop.create_future())
        session = decide_hits(claim, self._slots, [hit.key], [hit.cost])
        self._undecided.append([hit])
        self._start_timer(loop, hit.due)
        self._send(next(session), session, [hit])
        return bool(await hit.decision)

    async def _compare_secret(self, claim: SecretClaim) -> None:
        """Log a warning if another instance has another secret."""
        with suppress(StoreError):  # which hits report, too
            if not await self._send_claim(claim):
                _log.warning("%s", claim.description)

    def _begin_batch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Schedule that the hits of this iteration are sent at its end, and fail when the first of them is due."""
        self._due = loop.time() + self._deadline
        loop.call_soon(self._send_batch)
        self._undecided.append(self._batch)
        self._start_timer(loop, self._due)
        if self._due > self._next_claim and self._claim is not None:
            self._next_claim = self._due + _CLAIM_INTERVAL_S
            self._claiming = loop.create_task(self._compare_secret(self._claim))

    def _start_timer(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        if self._timer is None:
            self._timer = loop.call_at(due + _TIMER_SLACK_S, self._fail_overdue)

    def _send_batch(self) -> None:
        """Send the hits of this iteration, with a script call for each slot."""
        batch, self._batch = self._batch, []
        by_slot: dict[int, list[Hit]] = {}
        for hit in batch:
            if not hit.decision.done():
                by_slot.setdefault(self._slots.slot(hit.key), []).append(hit)
        for hits in by_slot.values():
            for start in range(0, len(hits), MAX_BATCH_HITS):
                part = hits[start : start + MAX_BATCH_HITS]
                session = decide_hits(self._script, self._slots, [hit.key for hit in part], [hit.cost for hit in part])
                self._send(next(session), session, part)

    def _send(self, command: Command, session: Session, hits: Sequence[Hit]) -> None:
        """Send a command of a session that decides `hits`."""
        connection = self._connections.get(command.address)
        if connection is None or connection.closed or command.reconnect:
            if connection is not None:
                connection.retire(asyncio.get_running_loop().time() + self._deadline)
            connection = self._connections[command.address] = PipelinedConnection(self._url, command.address)
        connection.send(command.data, partial(self._receive, session, hits), hits[0].due)

    def _receive(self, session: Session, hits: Sequence[Hit], reply: Any) -> None:
        """Continue a session with a reply; at its end, pass each hit its decision."""
        try:
            command = session.throw(reply) if isinstance(reply, Exception) else session.send(reply)
        except StopIteration as done:
            for hit, decision in zip(hits, done.value, strict=True):
                if not hit.decision.done():
                    hit.decision.set_result(decision)
            while self._undecided and _all_done(self._undecided[0]):
                self._undecided.popleft()
        except Exception as error:
            _fail(hits, classify_error(error))
        else:
            self._send(command, session, hits)

    def _fail_overdue(self) -> None:
        """Fail the hits that are due, close the connections that they wait for, and set the next timer."""
        self._timer = None
        loop = asyncio.get_running_loop()
        now, undecided = loop.time(), self._undecided
        while undecided and (_all_done(undecided[0]) or undecided[0][0].due <= now):
            _fail(undecided.popleft(), StoreError("timeout", "the store did not answer in time"))
        if undecided:
            self._timer = loop.call_at(undecided[0][0].due + _TIMER_SLACK_S, self._fail_overdue)
        for connection in self._connections.values():
            if connection.is_overdue(now):
                connection.close(StoreError("timeout", "the store did not answer other requests in time"))


class PipelinedConnection(asyncio.Protocol):
    """A connection that opens on construction; it sends each command once, without waiting for earlier replies."""

    def __init__(self, url: StoreUrl, address: Address | None) -> None:
        self.closed = False
        """Whether no more commands can be sent."""
        self._url, self._address = url, address
        self._transport: asyncio.Transport | None = None
        self._writer: Any = None
        self._unsent: list[bytes] = []
        self._handshakes = len(url.handshake)  # commands of the handshake without a reply yet
        self._pending: deque[tuple[OnReply, float]] = deque((self._receive_handshake, inf) for _ in url.handshake)
        self._buffer = b""
        self._opening = asyncio.ensure_future(self._open())

    def send(self, data: bytes, on_reply: OnReply, due: float) -> None:
        """Send a command, at once or after the handshake; call `on_reply` with its reply or a `StoreError`.

        The reply is expected until the loop's time is `due`.
        """
        self._pending.append((on_reply, due))
        if self._transport is None or self._handshakes:
            self._unsent.append(data)
        else:
            self._transport.write(data)

    def is_overdue(self, now: float) -> bool:
        """Return whether a reply is overdue."""
        return any(due <= now for _, due in self._pending)

    def retire(self, due: float) -> None:
        """Accept no more commands; close after the pending replies, or when the loop's time is `due`."""
        self.closed = True
        asyncio.get_running_loop().call_at(due, self.close, StoreError("timeout", "the store did not answer in time"))
        self._close_if_done()

    def close(self, error: StoreError) -> None:
        """Close at once; pending commands fail with `error`."""
        self.closed = True
        self._opening.cancel()
        if self._transport is not None:
            self._transport.abort()
        while self._pending:
            on_reply, _ = self._pending.popleft()
            on_reply(error)

    def data_received(self, data: bytes) -> None:
        """Pass on the replies that are complete."""
        data, start = self._buffer + data, 0
        try:
            while self._pending and (parsed := parse_reply(data, start)) is not None:
                reply, start = parsed
                on_reply, _ = self._pending.popleft()
                on_reply(reply)
        except StoreError as error:
            self.close(error)
        self._buffer = data[start:]
        if self._buffer and not self._pending:  # it would be taken for the reply to the next command
            self.close(StoreError("other", "unsolicited reply from the store"))
        self._close_if_done()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (asyncio's signature)
        """Fail the pending commands."""
        self.close(StoreError("unreachable", "the store closed the connection"))

    async def _open(self) -> None:
        try:
            self._writer = await self._url.open_writer(self._address)
        except Exception as error:
            self.close(classify_error(error))
            return
        transport = self._writer.transport  # the writer is kept, since it closes the transport when it is collected
        transport.set_protocol(self)
        self._transport = transport
        transport.write(b"".join(self._url.handshake))
        self._send_unsent()

    def _receive_handshake(self, reply: Any) -> None:
        """Close the connection if the server rejects the handshake; otherwise send the commands that wait for it."""
        if isinstance(reply, Exception):
            self.close(classify_error(reply))
        self._handshakes -= 1
        self._send_unsent()

    def _send_unsent(self) -> None:
        if self._pending and not self._handshakes and self._transport is not None:
            self._transport.write(b"".join(self._unsent))
            self._unsent.clear()

    def _close_if_done(self) -> None:
        if self.closed and not self._pending and self._transport is not None:
            self._transport.abort()


def _all_done(hits: Sequence[Hit]) -> bool:
    return all(hit.decision.done() for hit in hits)


def _fail(hits: Sequence[Hit], error: StoreError) -> None:
    for hit in hits:
        if not hit.decision.done():
            hit.decision.set_exception(error)
