"""A store that is down is probed by a write, node by node; only what disproves a failure ends it."""

from __future__ import annotations

import os
from typing import Any

import pytest
from failing_stores import MS, SECOND, FlakyStore, create_limiter, decide, probe

from ratelab import Decision, ManualClock, create
from ratelab.errors import StoreError
from ratelab.limiter import Costs, Keys

pytestmark = pytest.mark.usefixtures("both_forms")


class ProbedStore(FlakyStore):
    """A store of nodes, which keys name by their first letter; writes to some nodes fail."""

    def __init__(self) -> None:
        super().__init__(create("token-bucket", "1/day", 100))
        self.errors: dict[str, str] = {}
        """The kind of error of each node that fails."""
        self.readable: set[str] = set()
        """Nodes whose hits that only read do not fail."""
        self.probes: list[str] = []

    def node_of(self, key: Keys) -> str:
        assert isinstance(key, str)
        return key[:1]

    async def probe(self, node: str) -> None:
        self.probes.append(node)
        if node in self.errors:
            raise StoreError(self.errors[node], f"node {node} fails")

    async def hit(self, key: Keys, cost: Costs = 1) -> Decision:
        self.calls.append((key, cost))
        node = self.node_of(key)
        if node in self.errors and (cost or node not in self.readable):
            raise StoreError(self.errors[node], f"node {node} fails")
        return self.memory.hit(key, cost)


def start_outage(*nodes: str, kind: str = "readonly") -> tuple[Any, ProbedStore, ManualClock]:
    store, clock = ProbedStore(), ManualClock()
    limiter = create_limiter(store, clock=clock)
    store.errors = dict.fromkeys(nodes, kind)
    for node in nodes:
        for _ in range(3):
            decide(limiter, node)
    assert not limiter.health.up
    store.calls.clear()
    return limiter, store, clock


def test_a_request_probes_by_a_write_before_it_calls_a_store_that_is_down() -> None:
    limiter, store, clock = start_outage("a")
    store.readable.add("a")  # as a replica, which answers what changes nothing
    for _ in range(5):
        clock.advance(SECOND)
        decide(limiter, "a", 0)
    assert (limiter.health.up, store.calls, store.probes) == (False, [], ["a"] * 5)
    store.errors.clear()
    clock.advance(SECOND)
    decide(limiter, "a")
    assert (limiter.health.up, store.calls) == (True, [("a", 1)])


def test_probe_writes_to_each_node_that_is_down() -> None:
    limiter, store, clock = start_outage("a", "b")
    decide(limiter, "c")
    clock.advance(SECOND)
    probe(limiter)
    assert (sorted(store.probes), limiter.health.up) == (["a", "b"], False)
    del store.errors["a"]
    clock.advance(SECOND)
    probe(limiter)
    assert not limiter.health.up
    del store.errors["b"]
    clock.advance(SECOND)
    probe(limiter)
    assert limiter.health.up


def test_keys_of_other_nodes_are_decided_by_the_store() -> None:
    limiter, store, _ = start_outage("a")
    before = limiter.health.fallback_decisions
    for _ in range(10):
        decide(limiter, "b")
        decide(limiter, "a")
    assert store.calls == [("b", 1)] * 10
    assert limiter.health.fallback_decisions == before + 10


@pytest.mark.parametrize("kind_of_error", ["readonly", "full", "refused", "misconfigured"])
def test_reads_do_not_disprove_that_a_store_cannot_write(kind_of_error: str) -> None:
    store = ProbedStore()
    limiter = create_limiter(store, clock=ManualClock())
    store.errors, store.readable = {"a": kind_of_error}, {"a"}
    for _ in range(3):
        decide(limiter, "a", 0)
        decide(limiter, "a", 1)
    assert not limiter.health.up


@pytest.mark.parametrize("kind_of_error", ["timeout", "unreachable"])
def test_reads_disprove_that_a_store_is_unreachable(kind_of_error: str) -> None:
    store = ProbedStore()
    limiter = create_limiter(store, clock=ManualClock())
    for _ in range(9):
        store.errors = {"a": kind_of_error}
        decide(limiter, "a", 1)
        store.errors = {}
        decide(limiter, "a", 0)
    assert limiter.health.up


def test_too_many_hits_at_once_do_not_mean_that_the_store_is_down() -> None:
    store = ProbedStore()
    limiter = create_limiter(store, clock=ManualClock())
    store.errors = {"a": "overload"}
    for _ in range(9):
        assert decide(limiter, "a").allowed
    assert limiter.health == (True, {"overload": 9}, 9)


def test_closed_counts_a_rejected_request_once() -> None:
    store, clock = ProbedStore(), ManualClock()
    limiter = create_limiter(store, "closed", clock)
    store.errors = {"a": "full"}
    for number in range(1, 8):
        with pytest.raises(StoreError):
            decide(limiter, "a")
        assert limiter.health.fallback_decisions == number
    clock.advance(SECOND)
    with pytest.raises(StoreError) as raised:
        decide(limiter, "a")
    assert (raised.value.kind, limiter.health.fallback_decisions) == ("full", 8)


def test_a_child_process_starts_without_the_outages_of_its_parent() -> None:
    limiter, store, clock = start_outage("a")
    clock.advance(500 * MS)
    store.errors.clear()
    child = os.fork()
    if child == 0:  # pragma: no cover
        decide(limiter, "a")
        os._exit(0 if store.calls == [("a", 1)] and limiter.health.up else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not limiter.health.up
