"""Sans-I/O protocol shared by both clients. Never resends a command that may have executed."""

from __future__ import annotations

import asyncio
from binascii import crc_hqx
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count
from math import inf
from typing import Any, NamedTuple, Protocol

from ratelab.errors import StoreError
from ratelab.stores.valkey.composite_script import CompositeScript
from ratelab.stores.valkey.connection import Address
from ratelab.stores.valkey.error_kinds import classify_error
from ratelab.stores.valkey.resp import ReplyError, encode_command
from ratelab.stores.valkey.script import PROBE_COST, Script, probe_tag

SLOT_COUNT = 16_384
"""Slots of a cluster."""

MAX_REDIRECTS = 4
"""How often a hit follows its key from node to node of a cluster."""

ASKING = encode_command("ASKING")
"""The command before one that is sent to a node which is still importing the key's slot."""

_LOOKUP = encode_command("CLUSTER", "SLOTS")


class AnyScript(Protocol):
    """A script for keys of one slot: its commands, and its replies."""

    text: str

    def encode(self, keys: Sequence[bytes], costs: Sequence[Any], cached: bool = True) -> bytes:
        """Return the command that decides hits; with the text of the script unless it is `cached`."""
        ...

    def decode(self, reply: Any) -> list[Any]:
        """Return the result of each hit; raise `StoreError` for an invalid one."""
        ...


class Command(NamedTuple):
    """A command to send."""

    data: bytes
    address: Address | None = None
    """The node to send it to; None for the server of the URL."""
    reconnect: bool = False
    """Whether to open a new connection first, since the server behind the name may have changed."""
    asking: bool = False
    """Whether to send `ASKING` first, and ignore its reply."""

    @property
    def is_lookup(self) -> bool:
        """Whether the command asks for the map of slots, so that one reply serves all who ask at the same time."""
        return self.data is _LOOKUP


class SlotMap:
    """The nodes of a cluster and their slots; without a cluster, every key is in slot 0 of the only server."""

    def __init__(self, cluster: bool, seeds: Sequence[Address | None] = (None,)) -> None:
        self.cluster = cluster
        self._given = tuple(seeds)  # the nodes that the URL names
        self._seeds: deque[Address | None] = deque(seeds)
        self._owners: list[tuple[int, int, Address]] = []
        self._stale: set[Address | None] = set()  # nodes that failed or lost slots since the latest map
        self._reply: Any = None

    def slot(self, key: bytes) -> int:
        """Return the slot of a key, from the part in braces; a script can decide all keys of a slot together."""
        return crc_hqx(key[key.index(b"{") + 1 : key.index(b"}")], 0) % SLOT_COUNT if self.cluster else 0

    @property
    def nodes(self) -> dict[Address, int]:
        """The nodes that have slots, as far as known, each with one of its slots."""
        return {address: first for first, _, address in self._owners}

    @property
    def seeds(self) -> list[Address | None]:
        """The nodes to ask for `CLUSTER SLOTS`, the most promising first."""
        return [*self._seeds]

    def owner(self, slot: int) -> Address | None:
        """Return the node that has a slot, as far as known."""
        return next((address for first, last, address in self._owners if first <= slot <= last), None)

    def is_stale(self, address: Address) -> bool:
        """Return whether the slots of a node must be looked up again before they are used."""
        return address in self._stale

    def update(self, reply: Any) -> None:
        """Store the map from a reply to `CLUSTER SLOTS`. Raises `StoreError` for any other reply."""
        if reply is self._reply:
            return  # one that several sessions share
        try:
            owners = [(first, last, (_decode_host(owner[0]), int(owner[1]))) for first, last, owner, *_ in reply]
        except (TypeError, ValueError, LookupError):
            raise StoreError("other", "unexpected reply to CLUSTER SLOTS") from None
        self._owners, self._reply = owners, reply
        last = [seed for seed in self._seeds if seed in self._stale]
        self._seeds = deque([*(seed for seed in (*self.nodes, *self._given) if seed not in last), *last])
        self._stale.clear()

    def suspect(self, address: Address | None, redirected: bool = False) -> None:
        """Mark the slots of a node as stale; ask it for the next map only if it has `redirected` a hit."""
        self._stale.add(address)
        self._reply = None
        while address in self._seeds:
            self._seeds.remove(address)
        self._seeds.insert(0 if redirected else len(self._seeds), address)


def _decode_host(name: bytes | None) -> str:
    """Decode the host of a node in `CLUSTER SLOTS`; it is empty or `?` if the node does not know its address."""
    return name.decode() if name and name != b"?" else ""


Session = Generator[Command, Any, list[Any]]
"""Yields commands to send, receives each reply or has the error thrown in, and returns a decision or error per hit."""

_REMEDIES = {
    "NOSCRIPT": "send the script",
    "READONLY": "find the server",
    "MASTERDOWN": "find the server",
    "LOADING": "find the server",
    "CLUSTERDOWN": "find the server",
    "MOVED": "follow the key",
    "ASK": "follow the key",
}
"""Replies that prove that nothing was charged, so that a hit may be sent again."""


def decide_hits(
    script: AnyScript, slots: SlotMap, keys: Sequence[bytes], costs: Sequence[Any], cached: bool = True
) -> Session:
    """Decide a hit of each of `keys`, which must be in one slot; send the text of the script first unless `cached`.

    Retry only after a reply that proves that nothing was charged, each kind once, and follow a key that migrates from
    node to node at most `MAX_REDIRECTS` times. Raises `StoreError`.
    """
    attempts = {"send the script": 1, "find the server": 1, "follow the key": MAX_REDIRECTS if slots.cluster else 0}
    reconnect, target = False, None
    while True:
        address = target
        try:
            if slots.cluster and address is None:
                address = yield from _find_node(slots, slots.slot(keys[0]))
            command = Command(script.encode(keys, costs, cached), address, reconnect, asking=target is not None)
            return script.decode((yield command))
        except Exception as error:
            code = error.code if isinstance(error, ReplyError) else ""
            remedy = _REMEDIES.get(code, "")
            if code == "TRYAGAIN" and len({*keys}) > 1:
                break
            if not attempts.get(remedy):
                failure = classify_error(error, script.text, slots.cluster)
                if slots.cluster and isinstance(failure, StoreError) and failure.kind in ("timeout", "unreachable"):
                    slots.suspect(address)
                if failure is error:
                    raise
                raise failure from None
            attempts[remedy] -= 1
            cached = cached and remedy != "send the script"
            reconnect = remedy == "find the server"
            if remedy == "follow the key":
                target = _parse_target(str(error), address) if code == "ASK" else None
            if code != "ASK" and remedy != "send the script":
                target = None
                slots.suspect(address, redirected=code == "MOVED")
    return (yield from _decide_each(script, slots, keys, costs))


def _decide_each(script: AnyScript, slots: SlotMap, keys: Sequence[bytes], costs: Sequence[Any]) -> Session:
    """Decide the hits of each key separately, since nodes with parts of a slot do not decide several keys together."""
    decisions: dict[int, Any] = {}
    failures: list[StoreError] = []
    for key in {*keys}:
        places = [place for place, other in enumerate(keys) if other == key]
        decided: Sequence[Any] = []
        if not failures:
            try:
                decided = yield from decide_hits(script, slots, [key] * len(places), [costs[place] for place in places])
            except StoreError as error:
                failures.append(error)  # the rest is neither sent nor charged
        decisions |= zip(places, decided or failures * len(places), strict=True)
    return [decisions[place] for place in range(len(keys))]


def _find_node(slots: SlotMap, slot: int) -> Generator[Command, Any, Address | None]:
    """Return the node that has a slot; ask the cluster first if that is not known."""
    address = slots.owner(slot)
    if address is not None and not slots.is_stale(address):
        return address
    *others, last = slots.seeds
    for seed in (*others, last):
        try:
            slots.update((yield Command(_LOOKUP, seed)))
            break
        except Exception as error:
            failure = classify_error(error)
            slots.suspect(seed)
            if seed == last or not isinstance(failure, StoreError) or failure.kind != "unreachable":
                raise
    return slots.owner(slot)


def _parse_target(reply: str, address: Address | None) -> Address:
    """Return the node in a reply such as `ASK 3999 127.0.0.1:6381`; without a host, it is at that of `address`."""
    host, _, port = reply.split()[2].rpartition(":")
    return (host if host not in ("", "?") else address[0] if address else ""), int(port)


def probe_store(script: Script | CompositeScript, slots: SlotMap, node: Address | None) -> Session:
    """Have the server, or a `node` of a cluster, run the script on keys of no client, and write them.

    Two keys in different slots reveal a node of a cluster whose URL does not mention the cluster. Each is written
    twice, since a script may use other commands for a key that exists; and by `EVAL` and `EVALSHA`, since each needs a
    permission.
    """
    if not slots.cluster:
        keys = [script.probe_key(0), script.probe_key(1)] * 2
    else:
        keys = [script.probe_key(_find_number(slots.nodes.get(node, 0) if node else 0))] * 2
    costs = [PROBE_COST] * len(keys)
    yield from decide_hits(script, slots, keys, costs, cached=False)
    return (yield from decide_hits(script, slots, keys, costs))[:1]


@lru_cache
def _find_number(slot: int) -> int:
    """Return a number for `Script.probe_key` whose key is in a slot."""
    slots = SlotMap(cluster=True)
    return next(number for number in count() if slots.slot(b"{%b}" % probe_tag(number)) == slot)


# --- hits of tasks


_TIMER_SLACK_S = 0.001  # a loop that was busy may have received the replies without having read them


class Hit(NamedTuple):
    """A hit that waits for its decision."""

    key: bytes
    cost: Any
    decision: asyncio.Future[Any]
    script: Script | CompositeScript


@dataclass(slots=True)
class Lane:
    """The hits on one server or node: those sent, and those that wait for their turn."""

    sent: int = 0
    waiting: deque[tuple[float, Sequence[Hit]]] = field(default_factory=deque)
    """Batches in order, each with the loop's time at which it is due."""

    def fail_waiting(self, error: StoreError, latest: float = inf) -> None:
        """Fail the waiting hits that are due until `latest`."""
        while self.waiting and self.waiting[0][0] <= latest:
            _, hits = self.waiting.popleft()
            fail(hits, error)


class DueHits:
    """Hits of one event loop that must be decided within `deadline` seconds.

    `close_overdue` is called with the loop's time when hits are overdue, to close the connections that they wait for.
    """

    def __init__(self, deadline: float, close_overdue: Callable[[float], object]) -> None:
        self._deadline, self._close_overdue = deadline, close_overdue
        self._batches: deque[tuple[float, Sequence[Hit]]] = deque()  # and when they are due, oldest first
        self._timer: asyncio.TimerHandle | None = None

    def expect(self, hits: Sequence[Hit]) -> float:
        """Fail hits if they are undecided at the deadline, which is returned, in the loop's time."""
        loop = asyncio.get_running_loop()
        due = loop.time() + self._deadline
        self._batches.append((due, hits))
        if self._timer is None:
            self._timer = loop.call_at(due + _TIMER_SLACK_S, self._fail_overdue)
        return due

    def drop_decided(self) -> None:
        """Forget the oldest batches whose hits are all decided."""
        while self._batches and _all_done(self._batches[0][1]):
            self._batches.popleft()

    def _fail_overdue(self) -> None:
        """Fail the hits that are due, and set the next timer."""
        self._timer = None
        loop = asyncio.get_running_loop()
        now, batches = loop.time(), self._batches
        while batches and (_all_done(batches[0][1]) or batches[0][0] <= now):
            fail(batches.popleft()[1], StoreError("timeout", "the store did not answer in time"))
        if batches:
            self._timer = loop.call_at(batches[0][0] + _TIMER_SLACK_S, self._fail_overdue)
        self._close_overdue(now)


class Request(NamedTuple):
    """Hits that one session decides."""

    session: Session
    hits: Sequence[Hit]
    due: float
    """The loop's time at which they fail."""
    lane: Lane


def _all_done(hits: Sequence[Hit]) -> bool:
    return all(hit.decision.done() for hit in hits)


def decide(hits: Sequence[Hit], results: Sequence[Any]) -> None:
    """Pass each hit without a decision its result, or let it raise a `StoreError` in place of one."""
    for hit, result in zip(hits, results, strict=True):
        if not hit.decision.done():
            if isinstance(result, StoreError):
                hit.decision.set_exception(result)
            else:
                hit.decision.set_result(result)


def fail(hits: Sequence[Hit], error: Exception) -> None:
    """Let the hits without a decision raise `error`."""
    for hit in hits:
        if not hit.decision.done():
            hit.decision.set_exception(error)


def current_loop() -> asyncio.AbstractEventLoop | None:
    """Return the running event loop of this thread, or None."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
