"""A Valkey limiter for threads: blocking connections with one deadline for a whole decision."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from math import inf
from typing import Any, ClassVar, Self

from ratelab.algorithms import Policy
from ratelab.clock import default_clocks
from ratelab.errors import InputError, StoreError
from ratelab.limiter import Admission, Costs, Decision, Keys
from ratelab.quota import Quota
from ratelab.stores.arguments import check_limits, name_costs, refuse_pickling
from ratelab.stores.plans import Plans, Preparation, QuotaChanges
from ratelab.stores.policy_groups import ALL
from ratelab.stores.tickets import DEFAULT_DEADLINE_S, Reservation, Ticket, check_deadline
from ratelab.stores.valkey.composite_script import CompositeScript, create_policies
from ratelab.stores.valkey.connection import Address
from ratelab.stores.valkey.connection_pool import ConnectionPools
from ratelab.stores.valkey.error_kinds import classify_error
from ratelab.stores.valkey.plan_scripts import PlanScripts
from ratelab.stores.valkey.resp import encode_command
from ratelab.stores.valkey.script import Script, hash_client, register
from ratelab.stores.valkey.secret_claim import COMPARISON_INTERVAL_S, SecretClaim
from ratelab.stores.valkey.session import Session, decide_hits, probe_store
from ratelab.stores.valkey.ticket_script import LATE, TicketSessions
from ratelab.stores.waiting import Waiting

SCAN_COUNT = 1000
"""Keys of the store that one step of a scan looks at."""

_log = logging.getLogger("ratelab")


class ValkeyLimiter:
    """Enforce a quota kept in a store, for threads: `ValkeyLimiter("valkey://host", "token-bucket", "2/s", burst=5)`.

    The server decides by its clock, in one script and one round trip. A `hit` takes at most `deadline` seconds, then
    raises `StoreError`. By then it may have been charged, but only once: a command that may have executed is never
    resent. In an event loop use `AsyncValkeyLimiter`.

    At most `connections` are open, on a cluster to each node; if `store` is another limiter instead of a URL, they are
    those of that limiter. Further threads get them in the order in which they ask; one that has waited for three
    quarters of the deadline gets a `StoreError` of kind `overload`, and is not charged. A forked child process opens
    its own.

    The deadline does not cover the lookup of a host's name, and applies to each address of a host: use an IP address.
    Keys are hashed before they are sent; a key that can be guessed can be found by trying.

    Limiters share a counter only if they have the same `name`, algorithm and quota; the name is that of the policy
    unless it is given. A second one in the same process causes a `ConfigurationWarning`.

    Raises `InputError` for an invalid URL, algorithm, quota or name.
    """

    blocking: ClassVar[bool] = True

    def __init__(
        self,
        store: str | ValkeyLimiter,
        algorithm: str | Policy | Sequence[Policy],
        rate: str | Quota | None = None,
        burst: int | None = None,
        deadline: float = 0.1,
        connections: int = 16,
        name: str | None = None,
        *,
        plans: Mapping[str, QuotaChanges] | None = None,
        overrides: Mapping[str, QuotaChanges] | None = None,
    ) -> None:
        check_limits(deadline, connections)
        pools = store.pools if isinstance(store, ValkeyLimiter) else ConnectionPools(store, connections)
        policies = create_policies(algorithm, rate, burst)
        self._scripts = PlanScripts(policies, plans, overrides, name, pools.slots.cluster)
        self._forget = register(self, pools.url, self._script)
        self.pools: ConnectionPools = pools.add_user(self)
        """Its connections, which other limiters may use."""
        self._slots = pools.slots
        self._deadline = deadline
        self.waiting = Waiting()
        self._secret_due = inf  # the time of the next comparison of secrets, without one infinite

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

    def node_of(self, key: Keys) -> Address | None:
        """Return the node that decides the hits of a key, as far as known; None for a single server."""
        return self._slots.owner(self._slots.slot(self._script.place(key, 0)[0])) if self._slots.cluster else None

    @property
    def _script(self) -> Script | CompositeScript:
        return self._scripts.default

    def hit(self, key: Keys, cost: Costs = 1, plan: str | None = None) -> Decision:
        """Decide as `Limiter.hit` does; raise `StoreError` if there is no decision within the deadline.

        An exception that a signal handler raises meanwhile propagates unchanged.
        """
        script = self._scripts.choose(key, plan)
        return script.combine(self._decide(script, key, cost))

    def wait(self, key: Keys, cost: Costs = 1, timeout: float | None = None, plan: str | None = None) -> Admission:
        """Wait as `MemoryLimiter.wait` does, and raise `StoreError` as `hit` does.

        Each process hits the store for its first in line alone, and later than it could by up to a tenth of the wait,
        at most 1 s, at random: clients of many processes do not come at once. In a task, threads hit the store.
        """
        return self.waiting.wait(self, key, cost, timeout, plan)

    def hit_each(self, key: Keys, cost: Costs = 1, plan: str | None = None) -> tuple[Decision, tuple[Decision, ...]]:
        """Decide as `Limiter.hit_each` does; raise `StoreError` if there is no decision within the deadline."""
        script = self._scripts.choose(key, plan)
        return script.combine_each(self._decide(script, key, cost))

    def _decide(self, script: Script | CompositeScript, key: Keys, cost: Costs) -> Any:
        """Return the decoded reply to a hit."""
        place, costs = script.place(key, cost)
        due = time.monotonic() + self._deadline
        failed = None
        if not self._slots.cluster:
            # Send the first command of a session, which is nearly always the only one: a generator, and the exception
            # that ends it, would take as long as the rest of this method.
            try:
                reply = self._exchange(due, script.encode_one(place, costs))
            except Exception as error:
                failed = error
            else:
                if due > self._secret_due:
                    self._compare_secret(due)
                return script.decode(reply)[0]
        session = decide_hits(script, self._slots, [place], [costs])
        (decided,) = self._run(session, due, failed)
        if isinstance(decided, StoreError):
            raise decided
        if due > self._secret_due:
            self._compare_secret(due)
        return decided

    def reset(self, key: Keys) -> None:
        """Restore the full quota of `key`; raise `StoreError` unless the store confirms it within the deadline.

        Of several policies, those with the key `all` are not reset unless a mapping of keys names them.
        """
        self._run(self._scripts.reset(self._slots, key), time.monotonic() + self._deadline)

    def look(self, key: Keys, plan: str | None = None) -> dict[str, Decision]:
        """Return the decision of each policy on a hit of cost 0, by its name.

        With plans, a policy has the quota under which it decided the last hit of its key, and that of `plan` without
        one; a look converts no state, except of another algorithm. Raises `StoreError` if there is no decision within
        the deadline.
        """
        (decisions,) = self._run(self._scripts.look(self._slots, key, plan), time.monotonic() + self._deadline)
        return decisions  # type: ignore[no-any-return]

    def scan(self) -> Iterator[tuple[str, dict[str, Decision]]]:
        """Yield the hashed key of every client that has a state in the store, and its states by the names of policies.

        They are in no order; `all` is the key of policies with one counter for all clients. Clients that come or go
        meanwhile may be missing. This takes a `SCAN` of all keys of the store, which must be permitted; each step has
        the deadline. Raises `StoreError` if one fails, and `InputError` for several policies without plans.
        """
        suffix = self._scripts.scanned_suffix.decode()
        self.probe()  # of a cluster, this finds the nodes
        nodes: list[Address | None] = [*self._slots.nodes]
        for node in nodes or [None]:
            cursor: int | None = 0
            while cursor is not None:
                command = encode_command("SCAN", cursor, "MATCH", f"rl:{{[0-9a-f]*}}{suffix}", "COUNT", SCAN_COUNT)
                try:
                    following, keys = self._exchange(time.monotonic() + self._deadline, command, node)
                except Exception as error:
                    raise classify_error(error) from error
                cursor = int(following) or None
                for batch in [[key] for key in keys] if self._slots.cluster else [keys] if keys else []:
                    looks = self._scripts.look_at(self._slots, batch)
                    for key, found in zip(batch, self._run(looks, time.monotonic() + self._deadline), strict=True):
                        if isinstance(found, StoreError):
                            raise found
                        if found:
                            tag = key[: key.index(b"}") + 1]
                            yield ALL if tag == hash_client(ALL) else tag[len(b"rl:{") : -1].decode(), found

    def update(
        self,
        policies: Policy | Sequence[Policy] | None = None,
        *,
        plans: Mapping[str, QuotaChanges] | None = None,
        overrides: Mapping[str, QuotaChanges] | None = None,
    ) -> None:
        """Replace the policies, plans or overrides as `MemoryLimiter.update` does, of a limiter created with plans.

        Instances that share the limiter must all be updated: until then, each hit converts the key to its own quotas.
        """
        self._scripts.update(policies, plans, overrides)

    def on_update(self, prepare: Preparation) -> None:
        """Call the method `prepare` before each `update`, which raises the `InputError` of a method that refuses it."""
        self._scripts.followers.add(prepare)

    def reserve(
        self, key: Keys, cost: Costs = 1, plan: str | None = None, deadline: float = DEFAULT_DEADLINE_S
    ) -> Ticket:
        """Decide a request whose cost is known only afterwards, and charge `cost` if it is allowed.

        Settle the ticket with the actual cost within `deadline` seconds; later, the reserved cost is final. If settling
        raises `StoreError`, it may have been done, and may be repeated until the deadline: it is done once.
        """
        check_deadline(deadline)
        sessions = TicketSessions(self._scripts.choose(key, plan), self._slots, key)
        costs = name_costs(self.policies, cost)
        (reserved,) = self._run(sessions.reserve(costs), time.monotonic() + self._deadline)

        def charge(changes: Mapping[str, int]) -> bool:
            session = sessions.settle(changes, reserved, deadline)
            with reservation.retrying():
                return bool(self._run(session, time.monotonic() + self._deadline) != [LATE])

        charged = {name: costs[name] for name in reserved.charged}
        reservation = Reservation(reserved.decision, charged, deadline, default_clocks.steady)
        return Ticket(reservation, charge)

    def refund(self, key: Keys, cost: Costs = 1) -> None:
        """Return `cost` to the quotas of `key`, as `MemoryLimiter.refund` does.

        Raises `StoreError` unless the store confirms it within the deadline; it may have been done, but only once.
        """
        sessions = TicketSessions(self._scripts.choose(key, None), self._slots, key)
        self._run(sessions.refund(name_costs(self.policies, cost)), time.monotonic() + self._deadline)

    def use_secret(self, fingerprint: str, generated: bool) -> None:
        """Compare the secret of an `Identity` with that of other instances: after the next hit, and then every hour.

        If they differ, a warning is logged.
        """
        self._secret = SecretClaim(self.name, fingerprint, generated, self.policy.quota.window)
        self._secret_due = 0.0

    def _compare_secret(self, now: float) -> None:
        self._secret_due = now + COMPARISON_INTERVAL_S  # first, so that one thread compares
        with suppress(StoreError):  # which hits report, too
            if not self._send_claim(self._secret):
                _log.warning("%s", self._secret.description)

    def check_secret(self, fingerprint: str, generated: bool) -> None:
        """Raise `InputError` if instances that share this limiter have another secret than that of an `Identity`.

        Raises `StoreError` if the store does not answer.
        """
        claim = SecretClaim(self.name, fingerprint, generated, self.policy.quota.window)
        if not self._send_claim(claim):
            raise InputError(claim.description)

    def _send_claim(self, claim: SecretClaim) -> bool:
        """Return whether other instances have the same secret."""
        session = decide_hits(claim, self._slots, [claim.key.encode()], [0])
        (shared,) = self._run(session, time.monotonic() + self._deadline)
        return bool(shared)

    def probe(self, node: Address | None = None) -> None:
        """Check that the store, or a `node` of a cluster, can decide: have it write a key that belongs to no client.

        Raises `StoreError` if it cannot.
        """
        self._run(probe_store(self._script, self._slots, node), time.monotonic() + self._deadline)

    __reduce__ = refuse_pickling

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection that is not in use, unless another limiter may use them."""
        self._forget()
        self.pools.remove_user(self)

    def _run(self, session: Session, due: float, failed: Exception | None = None) -> list[Any]:
        """Run a session; if its first command has `failed` already, continue from there."""
        try:
            command = next(session)
            if failed is not None:
                command = session.throw(failed)
            while True:
                try:
                    reply = self._exchange(due, *command)
                except Exception as error:  # the session knows which errors permit a retry
                    command = session.throw(error)
                else:
                    command = session.send(reply)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]

    def _exchange(
        self,
        due: float,
        command: bytes,
        address: Address | None = None,
        reconnect: bool = False,
        asking: bool = False,
    ) -> Any:
        """Send a command and return its reply, before `due`."""
        return self.pools.find(address).exchange(command, due, self._deadline / 4, reconnect, asking)
