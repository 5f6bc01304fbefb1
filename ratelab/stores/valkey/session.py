"""Sans-I/O protocol shared by both clients. Never resends a command that may have executed."""

from __future__ import annotations

from binascii import crc_hqx
from collections import deque
from collections.abc import Generator, Sequence
from typing import Any, NamedTuple

from ratelab.stores.valkey.connection import Address
from ratelab.stores.valkey.resp import ReplyError, encode_command
from ratelab.stores.valkey.script import Script, SecretClaim

SLOT_COUNT = 16_384
"""Slots of a cluster."""


class Command(NamedTuple):
    """A command to send."""

    data: bytes
    address: Address | None = None
    """The node to send it to; None for the server of the URL."""
    reconnect: bool = False
    """Whether to open a new connection first, since the server behind the name may have changed."""


class SlotMap:
    """The nodes of a cluster and their slots; without a cluster, every key is in slot 0 of the only server."""

    def __init__(self, cluster: bool, seeds: Sequence[Address | None] = (None,)) -> None:
        self.cluster = cluster
        self._seeds = tuple(seeds)  # the nodes that the URL names
        self._nodes: deque[Address | None] = deque(seeds)  # the first is the next to ask for the map
        self._owners: list[tuple[int, int, Address]] = []

    def slot(self, key: bytes) -> int:
        """Return the slot of a key, from the part in braces; a script can decide all keys of a slot together."""
        return crc_hqx(key[key.index(b"{") + 1 : key.index(b"}")], 0) % SLOT_COUNT if self.cluster else 0

    @property
    def seed(self) -> Address | None:
        """The node to ask for `CLUSTER SLOTS`."""
        return self._nodes[0]

    def update(self, reply: Any) -> None:
        """Store the map from a reply to `CLUSTER SLOTS`."""
        self._owners = [(first, last, (_decode_host(owner[0]), int(owner[1]))) for first, last, owner, *_ in reply]
        self._nodes = deque([*{address for _, _, address in self._owners}, *self._seeds])

    def invalidate(self, seed: Address | None = None) -> None:
        """Discard the map; ask `seed` for the next one, or else another node than last time."""
        self._owners = []
        if seed:
            self._nodes.appendleft(seed)
        else:
            self._nodes.rotate(-1)

    def owner(self, slot: int) -> Address | None:
        """Return the node that has a slot; None if that is unknown."""
        return next((address for first, last, address in self._owners if first <= slot <= last), None)


def _decode_host(name: bytes | None) -> str:
    """Decode the host of a node in `CLUSTER SLOTS`; it is empty or `?` if the node does not know its address."""
    return name.decode() if name and name != b"?" else ""


Session = Generator[Command, Any, list[Any]]
"""Yields commands to send, receives each reply or has the error thrown in, and returns the decisions."""


def decide_hits(script: Script | SecretClaim, slots: SlotMap, keys: Sequence[bytes], costs: Sequence[int]) -> Session:
    """Decide a hit of each of `keys`, which must be in one slot.

    Retry only after a reply that proves that nothing was charged, and once for each of these: the server does not know
    the script, has become read-only, or does not have the key any more.
    """
    remedies = {"NOSCRIPT": "send the script", "READONLY": "reconnect", "MOVED": "ask the node"}
    cached, reconnect = True, False
    while True:
        address = None
        try:
            if slots.cluster:
                address = slots.owner(slots.slot(keys[0]))
                if address is None:
                    slots.update((yield Command(encode_command("CLUSTER", "SLOTS"), slots.seed)))
                    address = slots.owner(slots.slot(keys[0]))
            return script.decode((yield Command(script.encode(keys, costs, cached), address, reconnect)))
        except Exception as error:
            code = error.code if isinstance(error, ReplyError) else ""
            remedy = remedies.pop(code, None)
            if remedy in (None, "ask the node"):
                slots.invalidate(address if remedy else None)
            if remedy is None:
                raise
            cached, reconnect = cached and remedy != "send the script", remedy == "reconnect"
