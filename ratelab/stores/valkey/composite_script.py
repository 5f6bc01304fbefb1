"""The Lua script of several policies: their keys, its commands and replies."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from struct import Struct
from typing import Any

from ratelab.algorithms import BUILT_IN, Policy, create
from ratelab.algorithms.composite import Answer, check_policies, combine, list_decisions
from ratelab.algorithms.penalty import Penalized
from ratelab.errors import InputError, short_repr
from ratelab.limiter import Costs, Decision, Keys
from ratelab.quota import NS_PER_S, NS_PER_US, Quota
from ratelab.stores.arguments import name_costs
from ratelab.stores.policy_groups import ALL
from ratelab.stores.valkey.key_layout import KeyLayout, StateKeys
from ratelab.stores.valkey.lua_text import CHARGE, has_text, join_text, load_lua, load_text
from ratelab.stores.valkey.resp import encode_bulk
from ratelab.stores.valkey.script import (
    COST_ONE,
    EXACT_LIMIT,
    MAX_TIME_US,
    Script,
    check_name,
    convert_row,
    escape_name,
    format_suffix,
    hash_text,
    unpack_reply,
)

ROW_SIZE = 5
"""Numbers of a decision in a reply, with times in microseconds; the first is -1 for a policy that was not asked."""

_DECIDE_LINE = re.compile(r"(.*)^return decide\((\w+), (\w+), (\w+)\)\s*", re.DOTALL | re.MULTILINE)
_CONSTANTS = """local WIDTH = 40  -- of a slot
local EMPTY = '%s'
local unpack, byte, sub = struct.unpack, string.byte, string.sub""" % (r"\0" * 40)
_REBUILD = """local function rebuild(kind, ARGV, calendar)
  local STARTS, LENGTHS, DIGITS = calendar.starts or '0000000000000000', calendar.lengths or '0000086400000000', 16"""
_STORAGE = ("read", "write")  # the functions of `state.lua`; with others, an algorithm needs keys of its own
_new_tuple = tuple.__new__  # skips the length check of Decision._make


class CompositeScript:
    """Encode hits on several policies as commands that decide them together in a store, and decode the replies.

    It is used like a `Script`, with the bytes of a `KeyLayout` in place of a key, and with one cost for all policies or
    a tuple of one for each. Raises `InputError` as `Script` and `KeyLayout` do.
    """

    def __init__(
        self, policies: Sequence[Policy], name: str | None = None, cluster: bool = False, planned: bool = False
    ) -> None:
        self.policies = tuple(policies)
        self.name = check_name(name, policies)
        """The name of the limiter, which is part of its keys."""
        self.scripts = [Script(policy, self.name) for policy in policies]
        """The script of each policy alone."""
        for policy in policies:
            _check_window(policy)
            if planned and policy.quota.burst**2 >= EXACT_LIMIT:
                raise InputError(f"burst of policy {policy.name!r} must be below 2**26.5 with plans: use a larger unit")
        keys = _choose_keys(self.name, policies, self.scripts, planned)
        self.plans = _compose_plans(self.name, policies) if planned else ""
        """The text that converts states of other quotas; empty if the keys depend on the quotas."""
        self.text = compose(policies, self.scripts, plans=self.plans)
        self.sha = hash_text(self.text)
        self.parameters: tuple[int, ...] = ()
        self._call = encode_call(self.text)
        self.layout = KeyLayout(policies, keys, cluster)
        """The keys of its hits."""
        self._cost_limits = [policy.quota.burst + 1 for policy in policies]  # see `Script`
        self._max_cost = min(self._cost_limits)
        self._rows = Struct(f">{ROW_SIZE * len(policies)}q")
        enforced = not any(policy.shadow for policy in policies)
        self._admitted = (1,) * len(policies) if enforced else None
        self.probe_key = self.layout.place_probe
        """Return the layout and keys of no client, for a number."""
        self.place_reset = self.layout.place_reset
        """Return the layout and keys of a client to reset."""
        self.encode_one = lru_cache(maxsize=4096)(self._encode_one)
        """Return the command that decides one hit."""

    def place(self, key: Keys, cost: Costs) -> tuple[bytes, int | tuple[int, ...]]:
        """Return the layout and keys of a hit, and its costs; raise `InputError` if a key or a cost is invalid."""
        return self.layout.place(key), self._limit_costs(cost)

    def encode(self, keys: Sequence[bytes], costs: Sequence[Any], cached: bool = True) -> bytes:
        """Return the command that decides hits, in order; with the script's text unless `cached`."""
        arguments, places, count = [], [], 0
        for place, cost in zip(keys, costs, strict=True):
            layout, encoded, number = self.layout.split(place)
            arguments += [layout, COST_ONE if cost == 1 else encode_costs(cost)]
            places.append(encoded)
            count += number
        return b"".join(
            [b"*%d\r\n" % (3 + count + len(arguments)), self._call[cached], encode_bulk(count), *places, *arguments]
        )

    def _encode_one(self, key: bytes, cost: Any) -> bytes:
        return self.encode([key], [cost])

    def decode(self, reply: bytes) -> list[tuple[int, ...]]:
        """Return what each policy decided, for each hit. Raises `StoreError` for an invalid reply."""
        return [*unpack_reply(reply, self._rows)]

    def combine(self, rows: Any) -> Decision:
        """Return the decision of all policies together."""
        if rows[::ROW_SIZE] == self._admitted:  # the usual case, which needs no conversion of each row
            reset, delay = max(rows[3::ROW_SIZE]), max(rows[4::ROW_SIZE])
            fields = True, min(rows[1::ROW_SIZE]), 0, reset * NS_PER_US, delay * NS_PER_US, None, ()
            return _new_tuple(Decision, fields)
        return _new_tuple(Decision, combine(list_answers(self.policies, rows)))

    def combine_each(self, rows: Any) -> tuple[Decision, tuple[Decision, ...]]:
        """Return the decision of all policies together, and that of each that was asked."""
        answers = list_answers(self.policies, rows)
        return _new_tuple(Decision, combine(answers)), list_decisions(answers)

    def _limit_costs(self, cost: Costs) -> int | tuple[int, ...]:
        """Return the costs of a hit, capped: a larger cost is denied just the same."""
        if type(cost) is int and 0 <= cost <= self._max_cost:
            return cost
        named = name_costs(self.policies, cost).values()
        return tuple(map(min, named, self._cost_limits))


def list_answers(policies: Sequence[Policy], rows: Sequence[int]) -> list[Answer]:
    """Return what each policy that was asked decided, in nanoseconds, from the numbers of all rows."""
    each = [rows[start : start + ROW_SIZE] for start in range(0, len(rows), ROW_SIZE)]
    return [(policy, convert_row(row)) for policy, row in zip(policies, each, strict=True) if row[0] >= 0]


def create_policies(
    policies: str | Policy | Sequence[Policy], rate: str | Quota | None, burst: int | None
) -> tuple[Policy, ...]:
    """Return the policies of a limiter: an algorithm's name, a rate and a burst, or policies without either.

    Raises `InputError` for invalid arguments.
    """
    if isinstance(policies, str):
        if rate is None:
            raise InputError(f"missing rate of {short_repr(policies)}: give one, such as 10/s, or a Policy")
        policies = create(policies, rate, burst)
    elif rate is not None or burst is not None:
        raise InputError("rate and burst must be left out, since each policy has its own: give them to Policy.create")
    return check_policies(policies)


def create_script(
    policies: Sequence[Policy], name: str | None, cluster: bool, planned: bool
) -> Script | CompositeScript:
    """Return the script that decides with policies, which is the fastest if there is one for a single key."""
    plain = len(policies) == 1 and policies[0].key != ALL and not policies[0].shadow and not planned
    return Script(policies[0], name) if plain else CompositeScript(policies, name, cluster, planned)


def encode_call(text: str) -> tuple[bytes, bytes]:
    """Return the beginning of a command that runs a script: with its text, and without it, which must be cached."""
    return encode_bulk("EVAL") + encode_bulk(text), encode_bulk("EVALSHA") + encode_bulk(hash_text(text))


def encode_costs(cost: int | tuple[int, ...]) -> bytes:
    """Encode one cost for all policies, or one for each."""
    return encode_bulk(cost if isinstance(cost, int) else " ".join(map(str, cost)))


def _choose_keys(name: str, policies: Sequence[Policy], scripts: Sequence[Script], planned: bool) -> list[StateKeys]:
    """Return the keys of each policy: its own if its algorithm stores states by functions of its own.

    With plans, they do not depend on the quotas.
    """
    counted = [
        f"plans {policy.name}" if planned else f"{policy.name} {script.counted}"
        for policy, script in zip(policies, scripts, strict=True)
    ]
    slots = format_suffix(name, "plans" if planned else "\n".join(counted))
    keys = []
    for script, one in zip(scripts, counted, strict=True):
        own = format_suffix(name, one if planned else f"{one} of {counted}")
        has_own = _split(script.body)[-2:] != _STORAGE
        keys.append(StateKeys(slots if planned or not has_own else None, own if has_own else None))
    return keys


def _check_window(policy: Policy) -> None:
    """Raise `InputError` if the time at which a key is fully replenished is not exact in Lua."""
    if MAX_TIME_US + 2 * policy.quota.window // NS_PER_US >= EXACT_LIMIT:
        raise InputError(
            f"policy {policy.name!r} takes {policy.quota.window // NS_PER_S} s to replenish, too long for a list in a "
            "store: use a smaller burst"
        )


def _split(body: str) -> tuple[str, ...]:
    """Return the text of an algorithm without its last line, and the functions that this passes to `decide`."""
    match = _DECIDE_LINE.fullmatch(body)
    if match is None:
        raise InputError(
            "the script of an algorithm must end with the line `return decide(step, read, write)` to decide together "
            "with other policies"
        )
    return match.groups()


def compose(
    policies: Sequence[Policy],
    scripts: Sequence[Script],
    before: str = "",
    after: str = "return table.concat(rows)",
    *,
    charges: bool = False,
    plans: str = "",
) -> str:
    """Return the text of a script that decides with several policies, `before` and `after` which it runs other code.

    With `charges`, the policies have the functions `charge` of their algorithms. `plans` is the text that converts the
    states of other quotas, which needs them too.
    """
    bodies = [_split(script.whole_body if charges or plans else script.body) for script in scripts]
    has_own_keys = len(policies) == 1 or any(body[-2:] != _STORAGE for body in bodies)
    parts = [load_lua("state.lua")] if has_own_keys or plans else []
    parts += [_CONSTANTS, f"local policies = {{ {', '.join(['false'] * len(policies))} }}"]
    for number, (policy, script, (body, step, read, write)) in enumerate(
        zip(policies, scripts, bodies, strict=True), 1
    ):
        fields = f"shadow = {str(policy.shadow).lower()}, step = {step}"
        if has_own_keys or plans:
            fields += f", read = {read}, write = {write}"
        if plans and "local STARTS = " in body:
            fields += ", starts = STARTS, lengths = LENGTHS"
        if "\nlocal function charge(" in body:
            fields += ", charge = charge"
        parameters = ", ".join(map(str, script.parameters))
        parts += ["do", f"local ARGV = {{ {parameters} }}", body, f"policies[{number}] = {{ {fields} }}", "end"]
    return join_text(*parts, plans or "local expand, shrink, converts", before, load_lua("composite.lua"), after)


@lru_cache(maxsize=4096)
def format_tag(policy: Policy) -> str:
    """Return the line that stands for a policy and its quota in the keys of a limiter with plans."""
    quota = policy.quota.in_microseconds()
    numbers = policy.quota.burst, quota.limit, quota.period, *Script(policy, "any").parameters
    return f"{escape_name(policy.name)} {_name_kind(policy)} {' '.join(map(str, numbers))}"


def _name_kind(policy: Policy) -> str:
    kind = type(policy.algorithm)
    text = load_text(kind)
    return f"{kind.__name__}:{hash_text(text)[:8]}" if issubclass(kind, Penalized) else kind.__name__


def _compose_plans(name: str, policies: Sequence[Policy]) -> str:
    """Return the text that converts the states of other quotas into those of policies."""
    kinds = {kind.__name__: load_text(kind) for kind in BUILT_IN if has_text(kind)}  # of the states of a store
    kinds |= {_name_kind(policy): load_text(type(policy.algorithm)) for policy in policies}
    tags = [format_tag(policy) for policy in policies]
    own = [repr(format_suffix(name, f"plans {policy.name}").decode()) for policy in policies]
    branches = []
    for kind_name, text in kinds.items():
        functions, step, read, write = _split(text)
        charge = ", charge = charge" if CHARGE.search(text) else ""
        result = f"return {{ step = {step}, read = {read}, write = {write}{charge} }}"
        branches.append(f"if kind == '{kind_name}' then\n{functions}{result}\nend")
    tables = [
        f"local TAGS = {{ {', '.join(map(repr, tags))} }}",
        f"local OWN = {{ {', '.join(own)} }}",
        f"local BURSTS = {{ {', '.join(str(policy.quota.burst) for policy in policies)} }}",
    ]
    return "\n".join([*tables, _REBUILD, *branches, "end", load_lua("plans.lua")])
