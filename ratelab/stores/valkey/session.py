"""What is said to a store until hits are decided, whoever carries it: nothing that may have run is said twice."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from typing import Any, NamedTuple

from ratelab.limiter import Decision
from ratelab.stores.valkey.connection import Address
from ratelab.stores.valkey.resp import request
from ratelab.stores.valkey.script import Script


class Command(NamedTuple):
    """A command to send."""

    command: bytes
    address: Address | None = None
    """The node to send it to; None for the server that the URL names."""
    anew: bool = False
    """Whether to connect anew: the server behind the name may be another by now."""


class Slots:
    """Which node of a cluster keeps which keys; all are kept by one server where there is no cluster."""

    def __init__(self, cluster: bool) -> None:
        self.cluster = cluster
        self._nodes: deque[Address | None] = deque([None])  # the first is asked who keeps what
        self._owners: list[tuple[int, int, Address]] = []

    def of(self, key: bytes) -> int:
        """Return the slot of a key; keys of one slot can be decided together."""
        if not self.cluster:
            return 0
        from valkey.crc import key_slot

        return int(key_slot(key))

    @property
    def adviser(self) -> Address | None:
        """The node to ask for `CLUSTER SLOTS`."""
        return self._nodes[0]

    def learn(self, reply: Any) -> None:
        """Take what `CLUSTER SLOTS` answers."""
        self._owners = [(first, last, (_host(owner[0]), int(owner[1]))) for first, last, owner, *_ in reply]
        self._nodes = deque([*{address for _, _, address in self._owners}, None])

    def forget(self, adviser: Address | None = None) -> None:
        """Ask again: `adviser`, who knows that keys have moved, or if there is none another node than before."""
        self._owners = []
        if adviser:
            self._nodes.appendleft(adviser)
        else:
            self._nodes.rotate(-1)

    def owner(self, slot: int) -> Address | None:
        """Return the node that keeps a slot; None if that is not known."""
        return next((address for first, last, address in self._owners if first <= slot <= last), None)


def _host(name: bytes | None) -> str:
    """Read how a node calls itself, which is nothing or ? if nobody has told it its name."""
    return name.decode() if name and name != b"?" else ""


Session = Generator[Command, Any, list[Decision]]
"""Yields what to send, is sent the reply or thrown the error, and returns the decisions."""


def session(script: Script, slots: Slots, keys: Sequence[bytes], costs: Sequence[int]) -> Session:
    """Decide a hit on each of `keys`, which are of one slot.

    Only an answer that proves that nothing was charged is followed by another try, each of them once: the server
    does not know the script, may not write any more, or does not keep the key.
    """
    remedies = {"NoScriptError": "tell", "ReadOnlyError": "reconnect", "MOVED": "move"}
    known, anew = True, False
    while True:
        address = None
        try:
            if slots.cluster:
                address = slots.owner(slots.of(keys[0]))
                if address is None:
                    slots.learn((yield Command(request("CLUSTER", "SLOTS"), slots.adviser)))
                    address = slots.owner(slots.of(keys[0]))
            return script.read((yield Command(script.ask(keys, costs, known), address, anew)))
        except Exception as error:
            name = "MOVED" if str(error).startswith("MOVED ") else type(error).__name__
            remedy = remedies.pop(name, None)
            if remedy in (None, "move"):
                slots.forget(address if remedy else None)
            if remedy is None:
                raise
            known, anew = known and remedy != "tell", remedy == "reconnect"
