"""The Lua scripts of tickets: to reserve a cost, and to charge or refund without a decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from secrets import token_hex
from struct import Struct
from typing import NamedTuple

from ratelab.algorithms.composite import combine
from ratelab.errors import StoreError
from ratelab.limiter import Decision, Keys
from ratelab.stores.tickets import MAX_CHANGE
from ratelab.stores.valkey.composite_script import CompositeScript, compose, encode_call, list_answers
from ratelab.stores.valkey.key_layout import KeyLayout, StateKeys
from ratelab.stores.valkey.lua_text import load_lua
from ratelab.stores.valkey.resp import encode_bulk
from ratelab.stores.valkey.script import Script, unpack_reply
from ratelab.stores.valkey.session import Session, SlotMap, decide_hits

LATE = 0
"""The reply to a charge after the deadline of its ticket."""

_RESERVED = "for i = 1, count do rows[#rows + 1] = pack('>i8', times[i] or 0) end\nreturn table.concat(rows)"
_CHARGED = "return 1"
_time, _server_time = Struct(">q"), Struct(">2q")


class Reserved(NamedTuple):
    """A reply to a reservation."""

    decision: Decision
    charged: list[str]
    """The names of the policies that were charged."""
    times_us: tuple[int, ...]
    """The time of the key of each policy, which is that of the charge."""
    began_us: int
    """The server's time."""


class Charge(NamedTuple):
    """What to charge to each policy without a decision: negative numbers are refunds."""

    changes: Sequence[int]
    reserved: Reserved | None = None
    """The reservation to settle; None for a refund without a ticket."""
    lifetime_us: int = 0
    ticket: str = ""


class ReserveScript:
    """Encode a hit as a command whose reply also has the time of the charge. It is used like a `Script`."""

    def __init__(self, script: Script | CompositeScript, layout: KeyLayout) -> None:
        self.policies, self._layout = script.policies, layout
        self.text = compose(script.policies, script.scripts, load_lua("reserve.lua"), _RESERVED, plans=script.plans)
        self._call = encode_call(self.text)

    def encode(self, keys: Sequence[bytes], costs: Sequence[Mapping[str, int]], cached: bool = True) -> bytes:
        """Return the command that reserves the cost of each policy, by its name."""
        ((place,), (cost,)) = keys, costs
        capped = (min(cost[policy.name], policy.quota.burst + 1) for policy in self.policies)
        return _join(self._layout, self._call[cached], place, b"", " ".join(map(str, capped)))

    def decode(self, reply: bytes) -> list[Reserved]:
        """Return the decision and the times of a reply. Raises `StoreError` for an invalid one."""
        times_at = len(reply) - 8 * len(self.policies)
        rows = [number for row in unpack_reply(reply[:times_at]) for number in row]
        answers = list_answers(self.policies, rows)
        decision = Decision(*combine(answers))
        charged = [policy.name for policy, row in answers if row[0] and (decision.allowed or policy.shadow)]
        times = tuple(time for (time,) in _time.iter_unpack(reply[times_at:]))
        seconds, microseconds = _server_time.unpack_from(reply)
        return [Reserved(decision, charged, times, seconds * 1_000_000 + microseconds)]


class ChargeScript:
    """Encode charges without a decision. It is used like a `Script`; see `charge.lua` for the replies."""

    def __init__(self, script: Script | CompositeScript, layout: KeyLayout) -> None:
        self.policies, self._layout = script.policies, layout
        self.text = compose(
            script.policies, script.scripts, load_lua("charge.lua"), _CHARGED, charges=True, plans=script.plans
        )
        self._call = encode_call(self.text)

    def encode(self, keys: Sequence[bytes], costs: Sequence[Charge], cached: bool = True) -> bytes:
        """Return the command that charges the keys of a hit."""
        ((place,), (charge,)) = keys, costs
        reserved, changes = charge.reserved, [max(-MAX_CHANGE, min(change, MAX_CHANGE)) for change in charge.changes]
        times = [0] * len(changes) if reserved is None else reserved.times_us
        first = place[place.index(b"rl:{") : place.index(b"}") + 1]
        ticket = encode_bulk(f"{first.decode()}:ticket:{charge.ticket}") if charge.ticket else b""
        return _join(
            self._layout,
            self._call[cached],
            place,
            ticket,
            " ".join("1" if change else "0" for change in changes),
            " ".join(map(str, changes)),
            " ".join(map(str, times)),
            0 if reserved is None else reserved.began_us,
            charge.lifetime_us,
        )

    def decode(self, reply: int) -> list[int]:
        """Return the outcome of a charge. Raises `StoreError` for an invalid reply."""
        if type(reply) is not int:
            raise StoreError("other", "unexpected reply to a script")
        return [reply]


class TicketSessions:
    """The sessions of a ticket, or of a refund without one, on the keys of a hit that a `script` decides."""

    def __init__(self, script: Script | CompositeScript, slots: SlotMap, key: Keys) -> None:
        self._slots = slots
        self._policies = script.policies
        layout, self._reserve, self._charge = _create_scripts(script, slots.cluster)
        self._place = layout.place(key)
        self._ticket = token_hex(16)

    def reserve(self, costs: Mapping[str, int]) -> Session:
        """Decide a hit with the cost of each policy; the result is a `Reserved`."""
        return decide_hits(self._reserve, self._slots, [self._place], [costs])

    def settle(self, changes: Mapping[str, int], reserved: Reserved, deadline: float) -> Session:
        """Charge changes of a reservation, once; the result is `LATE` after the deadline, in seconds."""
        charge = Charge(self._list_changes(changes), reserved, int(deadline * 1_000_000), self._ticket)
        return decide_hits(self._charge, self._slots, [self._place], [charge])

    def refund(self, costs: Mapping[str, int]) -> Session:
        """Refund costs without a ticket."""
        changes = self._list_changes({name: -cost for name, cost in costs.items()})
        return decide_hits(self._charge, self._slots, [self._place], [Charge(changes)])

    def _list_changes(self, changes: Mapping[str, int]) -> list[int]:
        return [changes.get(policy.name, 0) for policy in self._policies]


@lru_cache
def _create_scripts(script: Script | CompositeScript, cluster: bool) -> tuple[KeyLayout, ReserveScript, ChargeScript]:
    """Return the keys and scripts of the tickets of a limiter that uses `script`."""
    if isinstance(script, Script):
        layout = KeyLayout(script.policies, [StateKeys(None, script.key_suffix)], cluster)
    else:
        layout = script.layout
    return layout, ReserveScript(script, layout), ChargeScript(script, layout)


def _join(layout: KeyLayout, call: bytes, place: bytes, key: bytes, *arguments: object) -> bytes:
    """Return the command that runs a script on the keys of a hit and, unless it is empty, another encoded `key`."""
    encoded_layout, keys, count = layout.split(place)
    count += bool(key)
    size = b"*%d\r\n" % (4 + count + len(arguments))
    return b"".join([size, call, encode_bulk(count), keys, key, encoded_layout, *map(encode_bulk, arguments)])
