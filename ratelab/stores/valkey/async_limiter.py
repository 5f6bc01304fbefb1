"""A Valkey limiter for asyncio: concurrent hits are decided in batches, over one pipelined connection."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Self

from ratelab.algorithms import Policy
from ratelab.clock import default_clocks
from ratelab.errors import InputError, StoreError
from ratelab.limiter import Costs, Decision, Keys
from ratelab.quota import Quota
from ratelab.stores.arguments import check_limits, name_costs, refuse_pickling
from ratelab.stores.fork import reset_in_children
from ratelab.stores.plans import Plans, Preparation, QuotaChanges
from ratelab.stores.tickets import DEFAULT_DEADLINE_S, AsyncTicket, Reservation, check_deadline
from ratelab.stores.valkey.composite_script import CompositeScript, create_policies
from ratelab.stores.valkey.connection import OVERLOAD, Address
from ratelab.stores.valkey.pipelined_connection import Connections
from ratelab.stores.valkey.plan_scripts import PlanScripts
from ratelab.stores.valkey.script import RESET_COST, Script, register
from ratelab.stores.valkey.secret_claim import SecretClaim, SecretWatch
from ratelab.stores.valkey.session import (
    Command,
    DueHits,
    Hit,
    Lane,
    Request,
    Session,
    current_loop,
    decide,
    decide_hits,
    fail,
    probe_store,
)
from ratelab.stores.valkey.ticket_script import LATE, TicketSessions
from ratelab.stores.waiting import Waiting

MAX_BATCH_HITS = 256
"""Hits of one script call; the server does nothing else during the millisecond that these take."""

MAX_SENT_HITS = 2048
"""Hits that are sent to a server before the first of them is decided; further ones wait for their turn."""


class AsyncValkeyLimiter:
    """Enforce a quota kept in a store, as `ValkeyLimiter` does, for the tasks of one event loop.

    Hits of one iteration of the loop are decided by one script call (on a cluster, one for each slot), in order; a
    single hit does not wait for others. One connection carries all of them, and those of other limiters that were
    created with this one instead of a URL. A hit that is cancelled within its iteration is not charged; later it may
    be. A hit without a reply within the `deadline`, which starts at the end of its iteration, closes the connection, so
    that other hits on it fail, too.

    Of a large number of hits at once, up to `MAX_SENT_HITS` are sent, and the others as those are decided. One that
    has waited for half of the deadline gets a `StoreError` of kind `overload`, and is not charged.

    Raises as `ValkeyLimiter` does. Call `close` at the end, from any thread or loop; it never raises. In another event
    loop the limiter starts over; a second loop at the same time gets a `RuntimeError`.
    """

    def __init__(
        self,
        store: str | AsyncValkeyLimiter,
        algorithm: str | Policy | Sequence[Policy],
        rate: str | Quota | None = None,
        burst: int | None = None,
        deadline: float = 0.1,
        name: str | None = None,
        *,
        plans: Mapping[str, QuotaChanges] | None = None,
        overrides: Mapping[str, QuotaChanges] | None = None,
    ) -> None:
        check_limits(deadline)
        connections = store.connections if isinstance(store, AsyncValkeyLimiter) else Connections(store)
        self.connections: Connections = connections  # other limiters may use them, too
        self._slots, policies = self.connections.slots, create_policies(algorithm, rate, burst)
        self._scripts = PlanScripts(policies, plans, overrides, name, self._slots.cluster)
        self._forget = register(self, self.connections.url, self._script)
        self._deadline, self.waiting, self._secret = deadline, Waiting(), SecretWatch()
        self.reset_after_fork()
        reset_in_children(self)

    @property
    def policy(self) -> Policy:
        """The first of the policies, in nanoseconds."""
        return self.policies[0]

    @property
    def policies(self) -> tuple[Policy, ...]:
        """The policies that this limiter enforces together, in nanoseconds."""
        return self._script.policies

    @property
    def plans(self) -> Plans:
        """The policies with their plans and overrides."""
        return self._scripts.plans

    @property
    def name(self) -> str:
        """The name by which limiters share a counter."""
        return self._script.name

    @property
    def nodes(self) -> list[Address | None]:
        """The nodes of the cluster, as far as known; `[None]` for a single server."""
        return [*self._slots.nodes] or [None]

    def node_of(self, key: Keys) -> Address | None:
        """Return the node that decides the hits of a key, as far as known; None for a single server."""
        return self._slots.owner(self._slots.slot(self._script.place(key, 0)[0])) if self._slots.cluster else None

    @property
    def _script(self) -> Script | CompositeScript:
        return self._scripts.default

    async def hit(self, key: Keys, cost: Costs = 1, plan: str | None = None) -> Decision:
        """Decide as `Limiter.hit` does; raise `StoreError` if there is no decision within the deadline."""
        scripts = self._scripts
        script = scripts.default if plan is None and scripts.always_default else scripts.choose(key, plan)
        return script.combine(await self._add_to_batch(script, *script.place(key, cost)))

    async def wait(self, key: Keys, cost: Costs = 1, timeout: float | None = None, plan: str | None = None) -> Decision:
        """Wait as `ValkeyLimiter.wait` does; the charge of a task that is cancelled during its hit is refunded."""
        return await self.waiting.wait_async(self, key, cost, timeout, plan)

    async def hit_each(
        self, key: Keys, cost: Costs = 1, plan: str | None = None
    ) -> tuple[Decision, tuple[Decision, ...]]:
        """Decide as `Limiter.hit_each` does; raise `StoreError` if there is no decision within the deadline."""
        script = self._scripts.choose(key, plan)
        return script.combine_each(await self._add_to_batch(script, *script.place(key, cost)))

    async def look(self, key: Keys, plan: str | None = None) -> dict[str, Decision]:
        """Look at a key as `ValkeyLimiter.look` does."""
        return await self._run(self._scripts.look(self._slots, key, plan))  # type: ignore[no-any-return]

    async def reset(self, key: Keys) -> None:
        """Restore the full quota of `key`; raise `StoreError` unless the store confirms it within the deadline.

        Of several policies, those with the key `all` are not reset unless a mapping of keys names them.
        """
        if self._scripts.planned and not isinstance(key, str):
            await self._run(self._scripts.reset(self._slots, key))
        else:
            await self._add_to_batch(self._script, self._script.place_reset(key), RESET_COST)

    def update(
        self,
        policies: Policy | Sequence[Policy] | None = None,
        *,
        plans: Mapping[str, QuotaChanges] | None = None,
        overrides: Mapping[str, QuotaChanges] | None = None,
    ) -> None:
        """Replace the policies, plans or overrides, as `ValkeyLimiter.update` does."""
        self._scripts.update(policies, plans, overrides)

    def on_update(self, prepare: Preparation) -> None:
        """Call the method `prepare` before each `update`, which raises the `InputError` of a method that refuses it."""
        self._scripts.followers.add(prepare)

    async def reserve(
        self, key: Keys, cost: Costs = 1, plan: str | None = None, deadline: float = DEFAULT_DEADLINE_S
    ) -> AsyncTicket:
        """Decide a request whose cost is known only afterwards, as `ValkeyLimiter.reserve` does."""
        check_deadline(deadline)
        sessions = TicketSessions(self._scripts.choose(key, plan), self._slots, key)
        costs = name_costs(self.policies, cost)
        reserved = await self._run(sessions.reserve(costs))

        async def charge(changes: Mapping[str, int]) -> bool:
            with reservation.retrying():
                return bool(await self._run(sessions.settle(changes, reserved, deadline)) != LATE)

        charged = {name: costs[name] for name in reserved.charged}
        reservation = Reservation(reserved.decision, charged, deadline, default_clocks.steady)
        return AsyncTicket(reservation, charge)

    async def refund(self, key: Keys, cost: Costs = 1) -> None:
        """Return `cost` to the quotas of `key`, as `ValkeyLimiter.refund` does."""
        sessions = TicketSessions(self._scripts.choose(key, None), self._slots, key)
        await self._run(sessions.refund(name_costs(self.policies, cost)))

    async def probe(self, node: Address | None = None) -> None:
        """Check that the store, or a `node` of a cluster, can decide: have it write a key that belongs to no client.

        Raises `StoreError` if it cannot.
        """
        await self._run(probe_store(self._script, self._slots, node))

    def use_secret(self, fingerprint: str, generated: bool) -> None:
        """Compare the secret of an `Identity` with that of other instances: at the next hit, and then every hour.

        If they differ, a warning is logged.
        """
        self._secret.watch(SecretClaim(self.name, fingerprint, generated, self.policy.quota.window))

    async def check_secret(self, fingerprint: str, generated: bool) -> None:
        """Raise `InputError` if instances that share this limiter have another secret."""
        claim = SecretClaim(self.name, fingerprint, generated, self.policy.quota.window)
        if not await self._send_claim(claim):
            raise InputError(claim.description)

    __reduce__ = refuse_pickling

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Fail the pending hits, and close the connections unless another limiter uses them."""
        self._forget()
        if (loop := self._loop) is not None and loop.is_running() and loop is not current_loop():
            with suppress(RuntimeError):  # the loop has ended in this moment
                loop.call_soon_threadsafe(self._close_in_loop)
        else:
            self._close_in_loop()

    def _add_to_batch(self, script: Script | CompositeScript, place: bytes, costs: Any) -> asyncio.Future[Any]:
        """Return the decoded reply to a hit, which is decided with the others of this iteration."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._change_loop(loop)
        if not self._batch:
            loop.call_soon(self._send_batch)
        decision: asyncio.Future[Any] = loop.create_future()
        self._batch.append(Hit(place, costs, decision, script))
        return decision

    def _close_in_loop(self) -> None:
        closed = StoreError("unreachable", "the limiter was closed")
        self._fail_waiting(closed)
        self.connections.remove_user(self, closed)

    def _fail_waiting(self, error: StoreError) -> None:
        """Fail the hits that wait for their turn, unless their event loop has ended."""
        for lane in self._lanes.values():
            if self._loop is not None and not self._loop.is_closed():
                lane.fail_waiting(error)
            lane.waiting.clear()

    def _change_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start over in a new event loop; hits pending in the previous one will never be decided."""
        if self.connections.are_used_outside(loop) and (self._loop is None or not self._loop.is_running()):
            self.connections = self.connections.copy()
        self.connections.move_to(loop, self)
        self._fail_waiting(StoreError("unreachable", "the event loop has ended"))
        self.reset_after_fork(loop)

    def reset_after_fork(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Start over without hits, in an event loop; those of a parent process or another loop are not decided."""
        self._loop = loop
        self._lanes: dict[Address | None, Lane] = {}
        self._lookups: dict[Address | None, list[Request]] = {}  # that wait for one reply to `CLUSTER SLOTS`
        self._batch: list[Hit] = []  # to be sent at the end of this iteration
        self._undecided = DueHits(self._deadline, self.connections.close_overdue)
        self._secret.start_over()

    async def _send_claim(self, claim: SecretClaim) -> bool:
        """Return whether other instances have the same secret."""
        return bool(await self._run(decide_hits(claim, self._slots, [claim.key.encode()], [0])))

    async def _run(self, session: Session) -> Any:
        """Run a session, and return its only result."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._change_loop(loop)
        hits = [Hit(b"", 0, loop.create_future(), self._script)]
        due = self._undecided.expect(hits)
        self._send(next(session), Request(session, hits, due, Lane()))
        return await hits[0].decision

    def _send_batch(self) -> None:
        """Send the hits of this iteration, with a script call for each slot, or have them wait for their turn."""
        batch, self._batch = self._batch, []
        by_call: dict[tuple[int, object], list[Hit]] = {}
        for hit in batch:
            by_call.setdefault((self._slots.slot(hit.key), hit.script), []).append(hit)
        due = self._undecided.expect(batch)  # now, since all this takes a while for many hits
        if due > self._secret.due:
            self._secret.compare(due, self._send_claim)
        for (slot, _), hits in by_call.items():
            lane = self._lanes.setdefault(self._slots.owner(slot), Lane())
            idle = not lane.waiting
            for start in range(0, len(hits), MAX_BATCH_HITS):
                lane.waiting.append((due, hits[start : start + MAX_BATCH_HITS]))
            self._send_waiting(lane)
            if idle:
                self._watch(lane)

    def _send(self, command: Command, request: Request) -> None:
        """Send a command of a session; one reply serves all sessions that look up the same."""
        if command.is_lookup:
            waiting = self._lookups.setdefault(command.address, [])
            waiting.append(request)
            if len(waiting) > 1:
                return
            receive = partial(self._receive_lookup, command.address)
        else:
            receive = partial(self._receive, request)
        self.connections.send(command, receive, request.due, self._deadline)

    def _receive_lookup(self, address: Address | None, reply: Any) -> None:
        for request in self._lookups.pop(address, []):
            self._receive(request, reply)

    def _receive(self, request: Request, reply: Any) -> None:
        """Continue a session with a reply; at its end, pass each hit its decision."""
        session, hits, _, lane = request
        try:
            command = session.throw(reply) if isinstance(reply, Exception) else session.send(reply)
        except StopIteration as done:
            decide(hits, done.value)
            self._undecided.drop_decided()
        except Exception as error:
            fail(hits, error)
        else:
            self._send(command, request)
            return
        lane.sent -= len(hits)
        if lane.waiting:
            self._drop_late(lane)
            self._send_waiting(lane)

    def _send_waiting(self, lane: Lane) -> None:
        """Send the hits whose turn it is, except those that were cancelled meanwhile."""
        while lane.waiting and lane.sent < MAX_SENT_HITS:
            due, batch = lane.waiting.popleft()
            hits = [hit for hit in batch if not hit.decision.done()]
            if hits:
                lane.sent += len(hits)
                keys, costs = [hit.key for hit in hits], [hit.cost for hit in hits]
                session = decide_hits(hits[0].script, self._slots, keys, costs)
                self._send(next(session), Request(session, hits, due, lane))

    def _watch(self, lane: Lane) -> None:
        """Fail the hits that have waited too long, now and whenever it is time for the next."""
        self._drop_late(lane)
        if lane.waiting:
            asyncio.get_running_loop().call_at(lane.waiting[0][0] - self._deadline / 2, self._watch, lane)

    def _drop_late(self, lane: Lane) -> None:
        latest = asyncio.get_running_loop().time() + self._deadline / 2
        if lane.waiting and lane.waiting[0][0] <= latest:
            lane.fail_waiting(StoreError("overload", f"{OVERLOAD}: send fewer, or use a longer deadline"), latest)
