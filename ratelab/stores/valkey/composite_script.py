"""The Lua script of several policies: their keys, its commands and replies."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from ratelab.algorithms import Policy, create
from ratelab.algorithms.composite import Composite, check_policies
from ratelab.errors import InputError, short_repr
from ratelab.limiter import NEVER, Costs, Decision, Keys, Row
from ratelab.quota import NS_PER_S, Quota
from ratelab.stores.memory import name_costs, name_keys
from ratelab.stores.valkey.resp import encode_bulk
from ratelab.stores.valkey.script import (
    EXACT_LIMIT,
    MAX_TIME_US,
    NS_PER_US,
    Script,
    check_name,
    format_suffix,
    hash_client,
    hash_text,
    join_text,
    load_lua,
    probe_tag,
    unpack_reply,
)

RawRows = tuple[tuple[int, ...], ...]
"""What each policy decided, with times in microseconds; the first number is -1 for one that was not asked."""

ALL = "all"
"""The `key` of a policy that counts all clients together, and the client that it counts."""

_LAST_LINE = re.compile(r"(.*)^return decide\((\w+), (\w+), (\w+)\)\s*", re.DOTALL | re.MULTILINE)
_new_tuple = tuple.__new__  # skips the length check of Decision._make
_NONE = "0"  # in a layout
_COST_ONE = encode_bulk(1)


class CompositeScript:
    """Encode hits on several policies as commands that decide them together in a store, and decode the replies.

    It is used like a `Script`, with bytes that hold the layout and the keys of a hit in place of a key, and with one
    cost for all policies or a tuple of one for each. Raises `InputError` as `Script` does, and if a hit would need keys
    in different slots of a `cluster`.
    """

    def __init__(self, policies: Sequence[Policy], name: str | None = None, cluster: bool = False) -> None:
        self.policies = tuple(policies)
        self.name = check_name(".".join(policy.name for policy in policies) if name is None else name)
        """The name of the limiter, which is part of its keys."""
        scripts = [Script(policy, self.name) for policy in policies]
        for policy in policies:
            _check_window(policy)
        self._shared = [policy.key == ALL for policy in policies]
        self._cluster = cluster
        if cluster and len({*self._shared}) > 1:
            raise _reject_slots("policies with and without the key `all`")
        self._composite = Composite.of(policies)
        self._enforced = not any(policy.shadow for policy in policies)
        self.text = _compose(policies, scripts)
        self.sha = hash_text(self.text)
        self.parameters: tuple[int, ...] = ()
        self._evalsha = encode_bulk("EVALSHA") + encode_bulk(self.sha)
        self._eval = encode_bulk("EVAL") + encode_bulk(self.text)
        counted = [f"{policy.name} {one.counted}" for policy, one in zip(policies, scripts, strict=True)]
        suffix = format_suffix(self.name, "\n".join(counted))
        self._suffixes = [
            (True, format_suffix(self.name, f"{text} of {counted}")) if _has_own_keys(one) else (False, suffix)
            for one, text in zip(scripts, counted, strict=True)
        ]
        """Whether each policy has a key of its own for each client, and the rest of the key."""
        self._layout_bytes = len(encode_bulk("00" * len(policies)))
        self._key_bytes = len(_encode_key(hash_client(""), suffix))  # all keys have one length
        self._cost_limits = [policy.quota.burst + 1 for policy in policies]  # see `Script`
        self._max_cost = min(self._cost_limits)
        self.encode_one = lru_cache(maxsize=4096)(self._encode_one)
        """Return the command that decides one hit."""
        self._place_key = lru_cache(maxsize=4096)(self._place_one)
        self._place_keys = lru_cache(maxsize=4096)(self._place_clients)

    def place(self, key: Keys, cost: Costs) -> tuple[bytes, int | tuple[int, ...]]:
        """Return the layout and keys of a hit, and its costs; raise `InputError` if a key or a cost is invalid."""
        return (self._place_key(key) if type(key) is str else self._place_mapping(key)), self._limit_costs(cost)

    def place_reset(self, key: Keys) -> bytes:
        """Return the layout and keys of a client to reset: not those that count all clients, unless a mapping does."""
        if not isinstance(key, str):
            return self._place_mapping(key)
        clients = [None if shared else key for shared in self._shared]
        return self._place_keys(tuple(clients)) if any(clients) else self._place_key(key)

    def probe_key(self, number: int) -> bytes:
        """Return the layout and one of the keys that belong to no client."""
        return self._place_tags((b"rl:{" + probe_tag(number) + b"}",) * len(self.policies))

    def encode(self, keys: Sequence[bytes], costs: Sequence[Any], cached: bool = True) -> bytes:
        """Return the command that decides hits, in order; with the script's text unless `cached`."""
        width = self._layout_bytes
        places = b"".join([key[width:] for key in keys])
        count = len(places) // self._key_bytes
        pieces = [b"*%d\r\n" % (3 + count + 2 * len(keys)), self._evalsha if cached else self._eval]
        pieces += [encode_bulk(count), places]
        for key, cost in zip(keys, costs, strict=True):
            pieces += [key[:width], _COST_ONE if cost == 1 else _encode_costs(cost)]
        return b"".join(pieces)

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
        composite, asked = self._convert(rows)
        return _new_tuple(Decision, composite.combine(asked))

    def combine_each(self, rows: Any) -> tuple[Decision, tuple[Decision, ...]]:
        """Return the decision of all policies together, and that of each that was asked."""
        composite, asked = self._convert(rows)
        return _new_tuple(Decision, composite.combine(asked)), composite.decisions(asked)

    def _convert(self, rows: RawRows) -> tuple[Composite, Sequence[Row]]:
        """Return the composition of the policies that were asked, and their rows in nanoseconds."""
        asked: list[Row] = [
            (allowed == 1, remaining, NEVER if retry < 0 else retry * NS_PER_US, reset * NS_PER_US, delay * NS_PER_US)
            for allowed, remaining, retry, reset, delay in rows
            if allowed >= 0
        ]
        if len(asked) == len(rows):
            return self._composite, asked
        return Composite.of(policy for policy, row in zip(self.policies, rows, strict=True) if row[0] >= 0), asked

    def _limit_costs(self, cost: Costs) -> int | tuple[int, ...]:
        """Return the costs of a hit, capped: a larger cost is denied just the same."""
        if type(cost) is int and 0 <= cost <= self._max_cost:
            return cost
        named = name_costs(self.policies, cost).values()
        return tuple(map(min, named, self._cost_limits))

    def _place_mapping(self, key: Keys) -> bytes:
        named = name_keys(self.policies, key)
        clients = [
            ALL if shared and policy.name in named else named.get(policy.name)
            for policy, shared in zip(self.policies, self._shared, strict=True)
        ]
        if self._cluster and len({*clients} - {None}) > 1:
            raise _reject_slots("policies with different keys")
        return self._place_keys(tuple(clients))

    def _place_one(self, client: str) -> bytes:
        return self._place_clients(tuple(ALL if shared else client for shared in self._shared))

    def _place_clients(self, clients: tuple[str | None, ...]) -> bytes:
        return self._place_tags([None if client is None else hash_client(client) for client in clients])

    def _place_tags(self, tags: Sequence[bytes | None]) -> bytes:
        """Return the layout of a hit by the parts of its keys that stand for clients, and then the keys."""
        keys: dict[bytes, int] = {}
        layout = ""
        for tag, (own, suffix) in zip(tags, self._suffixes, strict=True):
            number = 0 if tag is None else keys.setdefault(_encode_key(tag, suffix), len(keys) + 1)
            layout += f"{_NONE}{chr(number + ord(_NONE))}" if own else f"{chr(number + ord(_NONE))}{_NONE}"
        return encode_bulk(layout) + b"".join(keys)


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


def _encode_key(tag: bytes, suffix: bytes) -> bytes:
    return encode_bulk((tag + suffix).decode())


def _encode_costs(cost: int | tuple[int, ...]) -> bytes:
    return encode_bulk(cost if isinstance(cost, int) else " ".join(map(str, cost)))


def _reject_slots(what: str) -> InputError:
    return InputError(
        f"on a cluster, one script cannot decide {what}, whose keys are in different slots: "
        "give them separate limiters, and refund the first if the second denies, or use a single server"
    )


def _check_window(policy: Policy) -> None:
    """Raise `InputError` if the time at which a key is fully replenished is not exact in Lua."""
    if MAX_TIME_US + 2 * policy.quota.window // NS_PER_US >= EXACT_LIMIT:
        raise InputError(
            f"policy {policy.name!r} takes {policy.quota.window // NS_PER_S} s to replenish, too long for a list in a "
            "store: use a smaller burst"
        )


def _split(script: Script) -> tuple[str, ...]:
    """Return the text of an algorithm without its last line, and the functions that this passes to `decide`."""
    match = _LAST_LINE.fullmatch(script.body)
    if match is None:
        raise InputError(
            f"the script of {script.policies[0].algorithm.name} must end with the line `return decide(step, read, "
            "write)` to decide together with other policies"
        )
    return match.groups()


def _has_own_keys(script: Script) -> bool:
    """Return whether an algorithm reads and writes its states by functions of its own."""
    return _split(script)[2:] != ("read", "write")


def _compose(policies: Sequence[Policy], scripts: Sequence[Script]) -> str:
    """Return the text of a script that keeps the `step` of each policy, and then decides with all of them."""
    parts = [f"local policies = {{ {', '.join(['false'] * len(policies))} }}"]
    for number, (policy, script) in enumerate(zip(policies, scripts, strict=True), start=1):
        body, step, read, write = _split(script)
        fields = f"shadow = {str(policy.shadow).lower()}, step = {step}, read = {read}, write = {write}"
        parameters = ", ".join(map(str, script.parameters))
        parts += ["do", f"local ARGV = {{ {parameters} }}", body, f"policies[{number}] = {{ {fields} }}", "end"]
    return join_text(*parts, load_lua("composite.lua"))
