"""The Lua script of several policies: their keys, its commands and replies."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from ratelab.algorithms import Policy, create
from ratelab.algorithms.composite import Answer, check_policies, combine, list_decisions
from ratelab.errors import InputError, short_repr
from ratelab.limiter import Costs, Decision, Keys
from ratelab.quota import NS_PER_S, Quota
from ratelab.stores.memory import name_costs
from ratelab.stores.valkey.key_layout import ALL, KeyLayout, StateKey
from ratelab.stores.valkey.resp import encode_bulk
from ratelab.stores.valkey.script import (
    EXACT_LIMIT,
    MAX_TIME_US,
    NS_PER_US,
    Script,
    check_name,
    convert_row,
    format_suffix,
    hash_text,
    join_text,
    load_lua,
    unpack_reply,
)

RawRows = tuple[tuple[int, ...], ...]
"""What each policy decided, with times in microseconds; the first number is -1 for one that was not asked."""

_LAST_LINE = re.compile(r"(.*)^return decide\((\w+), (\w+), (\w+)\)\s*", re.DOTALL | re.MULTILINE)
_new_tuple = tuple.__new__  # skips the length check of Decision._make
_COST_ONE = encode_bulk(1)


class CompositeScript:
    """Encode hits on several policies as commands that decide them together in a store, and decode the replies.

    It is used like a `Script`, with the bytes of a `KeyLayout` in place of a key, and with one cost for all policies or
    a tuple of one for each. Raises `InputError` as `Script` and `KeyLayout` do.
    """

    def __init__(self, policies: Sequence[Policy], name: str | None = None, cluster: bool = False) -> None:
        self.policies = tuple(policies)
        self.name = check_name(".".join(policy.name for policy in policies) if name is None else name)
        """The name of the limiter, which is part of its keys."""
        self.scripts = [Script(policy, self.name) for policy in policies]
        """The script of each policy alone."""
        for policy in policies:
            _check_window(policy)
        self.text = compose(policies, self.scripts)
        self.sha = hash_text(self.text)
        self.parameters: tuple[int, ...] = ()
        self._call = encode_call(self.text)
        self.layout = KeyLayout(policies, _choose_keys(self.name, policies, self.scripts), cluster)
        """The keys of its hits."""
        self._cost_limits = [policy.quota.burst + 1 for policy in policies]  # see `Script`
        self._max_cost = min(self._cost_limits)
        self._enforced = not any(policy.shadow for policy in policies)
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
            arguments += [layout, _COST_ONE if cost == 1 else encode_costs(cost)]
            places.append(encoded)
            count += number
        return b"".join(
            [b"*%d\r\n" % (3 + count + len(arguments)), self._call[cached], encode_bulk(count), *places, *arguments]
        )

    def _encode_one(self, key: bytes, cost: Any) -> bytes:
        return self.encode([key], [cost])

    def decode(self, reply: bytes) -> list[RawRows]:
        """Return what each policy decided, for each hit. Raises `StoreError` for an invalid reply."""
        rows, count = unpack_reply(reply), len(self.policies)
        return [*zip(*[rows] * count, strict=True)]

    def combine(self, rows: Any) -> Decision:
        """Return the decision of all policies together."""
        if self._enforced:  # the usual case, which needs no conversion of each row
            for allowed, _, _, _, _ in rows:
                if allowed != 1:
                    break
            else:
                _, remaining, _, reset, delay = zip(*rows, strict=True)
                fields = True, min(remaining), 0, max(reset) * NS_PER_US, max(delay) * NS_PER_US, None, ()
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


def list_answers(policies: Sequence[Policy], rows: Iterable[Sequence[int]]) -> list[Answer]:
    """Return what each policy that was asked decided, in nanoseconds."""
    return [(policy, convert_row(row)) for policy, row in zip(policies, rows, strict=True) if row[0] >= 0]


def create_script(
    policies: str | Policy | Sequence[Policy],
    rate: str | Quota | None,
    burst: int | None,
    name: str | None,
    cluster: bool,
) -> Script | CompositeScript:
    """Return the script of a limiter: of an algorithm's name, a rate and a burst, or of policies without either.

    Raises `InputError` for invalid arguments.
    """
    if isinstance(policies, str):
        if rate is None:
            raise InputError(f"missing rate of {short_repr(policies)}: give one, such as 10/s, or a Policy")
        policies = create(policies, rate, burst)
    elif rate is not None or burst is not None:
        raise InputError("rate and burst must be left out, since each policy has its own: give them to Policy.create")
    checked = check_policies(policies)
    plain = len(checked) == 1 and checked[0].key != ALL and not checked[0].shadow
    return Script(checked[0], name) if plain else CompositeScript(checked, name, cluster)


def encode_call(text: str) -> tuple[bytes, bytes]:
    """Return the beginning of a command that runs a script: with its text, and without it, which must be cached."""
    return encode_bulk("EVAL") + encode_bulk(text), encode_bulk("EVALSHA") + encode_bulk(hash_text(text))


def encode_costs(cost: int | tuple[int, ...]) -> bytes:
    """Encode one cost for all policies, or one for each."""
    return encode_bulk(cost if isinstance(cost, int) else " ".join(map(str, cost)))


def _choose_keys(name: str, policies: Sequence[Policy], scripts: Sequence[Script]) -> list[StateKey]:
    """Return the key of each policy: its own if its algorithm stores states by functions of its own."""
    counted = [f"{policy.name} {script.counted}" for policy, script in zip(policies, scripts, strict=True)]
    common = StateKey(format_suffix(name, "\n".join(counted)), own=False)
    return [
        common
        if _split(script.body)[-2:] == ("read", "write")
        else StateKey(format_suffix(name, f"{one} of {counted}"), own=True)
        for script, one in zip(scripts, counted, strict=True)
    ]


def _check_window(policy: Policy) -> None:
    """Raise `InputError` if the time at which a key is fully replenished is not exact in Lua."""
    if MAX_TIME_US + 2 * policy.quota.window // NS_PER_US >= EXACT_LIMIT:
        raise InputError(
            f"policy {policy.name!r} takes {policy.quota.window // NS_PER_S} s to replenish, too long for a list in a "
            "store: use a smaller burst"
        )


def _split(body: str) -> tuple[str, ...]:
    """Return the text of an algorithm without its last line, and the functions that this passes to `decide`."""
    match = _LAST_LINE.fullmatch(body)
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
) -> str:
    """Return the text of a script that decides with several policies, `before` and `after` which it runs other code.

    With `charges`, the policies have the functions `charge` of their algorithms.
    """
    parts = [f"local policies = {{ {', '.join(['false'] * len(policies))} }}"]
    for number, (policy, script) in enumerate(zip(policies, scripts, strict=True), start=1):
        body, step, read, write = _split(script.whole_body if charges else script.body)
        fields = f"shadow = {str(policy.shadow).lower()}, step = {step}, read = {read}, write = {write}"
        if charges and "\nlocal function charge(" in body:
            fields += ", charge = charge"
        parameters = ", ".join(map(str, script.parameters))
        parts += ["do", f"local ARGV = {{ {parameters} }}", body, f"policies[{number}] = {{ {fields} }}", "end"]
    return join_text(*parts, before, load_lua("composite.lua"), after)
