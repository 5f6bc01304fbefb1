"""The Lua script of one policy: its keys, its commands and replies, and the check that its numbers are exact."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import suppress
from dataclasses import fields
from fractions import Fraction
from functools import lru_cache
from hashlib import blake2b, sha1
from struct import Struct
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from weakref import finalize

from ratelab.algorithms import Policy, build_policy, traits_of
from ratelab.algorithms.penalty import Penalized, in_microseconds
from ratelab.errors import InputError, StoreError, short_repr, warn_of_configuration
from ratelab.limiter import NEVER, Algorithm, Costs, Decision, Keys, Row
from ratelab.quota import NS_PER_US, Quota
from ratelab.stores.arguments import MAX_NAME_CHARS, name_costs, name_keys
from ratelab.stores.valkey.lua_text import CHARGE, join_text, load_lua, load_text
from ratelab.stores.valkey.resp import encode_bulk

if TYPE_CHECKING:
    from ratelab.stores.valkey.composite_script import CompositeScript
    from ratelab.stores.valkey.connection import StoreUrl

EXACT_LIMIT = 2**53
"""Numbers in Lua are floating point; integers below this are exact."""

MAX_TIME_US = 2**52
"""The latest time for which scripts are checked, in microseconds since 1970: a day in the year 2112."""

PROBE_COST = -1
"""A cost that charges nothing, and yet has the script write the key, for a millisecond."""

RESET_COST = -2
"""A cost with which the script deletes the key, and then looks at it."""

TABLE_DIGITS = 16
"""Characters of a number in a table, which is below `EXACT_LIMIT`."""

_TIME_BYTES = 16  # the server's time at the start of a reply

ROW = Struct(">5q")
"""The fields of a decision in a reply."""

_new_tuple = tuple.__new__  # skips the length check of Decision._make


class Script:
    """Encode hits on one policy as commands that run its algorithm in a store, and decode the replies.

    `name` is the name of the limiter, by default that of its policy. Raises `InputError` if the algorithm has no `.lua`
    file, if its numbers for this quota would not be exact in Lua, or for an invalid name.
    """

    def __init__(self, policy: Policy, name: str | None = None) -> None:
        kind, quota = type(policy.algorithm), policy.quota
        self.policies: tuple[Policy, ...] = (policy,)
        """The policy, in nanoseconds."""
        self.plans = ""
        """See `CompositeScript`."""
        self.scripts = [self]
        """The script of each policy alone."""
        self.name = check_name(name, [policy])
        """The name of the limiter, which is part of its keys."""
        text = load_text(kind)
        self.parameters, tables = _read_fields(_build_in_microseconds(kind, quota))
        self.whole_body = tables + text
        """The text of the algorithm."""
        text = CHARGE.sub("", text)
        self.body = tables + text
        """The text of the algorithm without the function `charge`, which hits do not need."""
        self.text = _compose(self.body)
        self.sha = hash_text(self.text)
        self._evalsha = encode_bulk("EVALSHA") + encode_bulk(self.sha)
        self._eval = encode_bulk("EVAL") + encode_bulk(self.text)
        self._arguments = b"".join(map(encode_bulk, self.parameters))
        self.counted = f"{hash_text(_compose(text))} {self.parameters}{quota.calendar or ''}"
        """The text that decides what the numbers of a key mean: without the tables, which are updated."""
        self.key_suffix = format_suffix(self.name, self.counted)
        """The part of its keys that is the same for every client."""
        self._key_bulk = b"$%d\r\n%%b\r\n" % len(self._key(""))  # all keys have one length
        self._max_cost = quota.burst + 1  # a larger cost is denied just the same; capped, its numbers stay exact
        self.key = lru_cache(maxsize=4096)(self._key)
        """`_key` with a cache."""
        self.encode_one = lru_cache(maxsize=4096)(self._encode_one)
        """`_encode_one` with a cache."""

    def place(self, key: Keys, cost: Costs) -> tuple[bytes, int]:
        """Return the store's key of a hit, and its cost; raise `InputError` if one is invalid."""
        if type(key) is str and type(cost) is int and cost >= 0:
            return self.key(key), cost
        (given,), (limited,) = name_keys(self.policies, key).values(), name_costs(self.policies, cost).values()
        return self.key(given), limited

    def _key(self, client: str) -> bytes:
        """Return the store's key for a client: a hash of `client`, the limiter's name, and a hash of the script and its
        parameters.

        A limiter of another name, quota or script therefore has other keys. A cluster keeps all keys of a client in one
        slot.
        """
        return hash_client(client) + self.key_suffix

    def probe_key(self, number: int) -> bytes:
        """Return one of the keys that belong to no client."""
        return b"rl:{" + probe_tag(number) + b"}" + self.key_suffix

    def place_reset(self, key: Keys) -> bytes:
        """Return the store's key of a client to reset."""
        return self.place(key, 0)[0]

    def _encode_one(self, key: bytes, cost: Any) -> bytes:
        """Return the command that decides one hit."""
        return self.encode([key], [cost])

    def encode(self, keys: Sequence[bytes], costs: Sequence[Any], cached: bool = True) -> bytes:
        """Return the command that decides a hit of each of `keys`, in order; with the script's text unless `cached`."""
        max_cost, key_bulk = self._max_cost, self._key_bulk
        pieces = [b"*%d\r\n" % (3 + len(self.parameters) + 2 * len(keys)), self._evalsha if cached else self._eval]
        pieces += [encode_bulk(len(keys)), *[key_bulk % key for key in keys], self._arguments]
        pieces += [COST_ONE if cost == 1 else encode_bulk(min(cost, max_cost)) for cost in costs]
        return b"".join(pieces)

    def decode(self, reply: bytes) -> list[Decision]:
        """Return the decisions of a reply. Raises `StoreError` for an invalid one."""
        name = self.policies[0].name
        return [
            _new_tuple(
                Decision,
                (
                    allowed == 1,
                    remaining,
                    NEVER if retry < 0 else retry * NS_PER_US,
                    reset * NS_PER_US,
                    delay * NS_PER_US,
                    None if allowed == 1 else name,
                    (),
                ),
            )
            for allowed, remaining, retry, reset, delay in unpack_reply(reply)
        ]

    def combine(self, decision: Any) -> Decision:
        """Return the decision of all policies together, of which there is one."""
        only: Decision = decision
        return only

    def combine_each(self, decision: Any) -> tuple[Decision, tuple[Decision, ...]]:
        """Return the decision of all policies together, and that of each that was asked."""
        return decision, (decision,)


def _compose(body: str) -> str:
    """Return the text of a script that decides by the algorithm of a `body`."""
    return join_text(load_lua("state.lua"), load_lua("decide.lua"), body)


def unpack_reply(reply: bytes, row: Struct = ROW) -> Iterator[tuple[int, ...]]:
    """Return the rows of a reply, in microseconds. Raises `StoreError` for an invalid one."""
    if type(reply) is not bytes or len(reply) % row.size != _TIME_BYTES:
        raise StoreError("other", "unexpected reply to a script")
    return row.iter_unpack(reply[_TIME_BYTES:])


COST_ONE = encode_bulk(1)
"""The usual cost, encoded."""


def probe_tag(number: int) -> bytes:
    """Return the part in braces of a key that belongs to no client; that of a client is hexadecimal."""
    return b"probe%027d" % number


def check_name(name: str | None, policies: Sequence[Policy]) -> str:
    """Return the name of a limiter, by default that of its policies; raise `InputError` if it is invalid."""
    used = ".".join(policy.name for policy in policies) if name is None else name
    if not isinstance(used, str) or not 0 < len(used) <= MAX_NAME_CHARS:
        remedy = ", the names of its policies: give name= or --name" if name is None else ""
        raise InputError(f"name must be a text of 1 to {MAX_NAME_CHARS} characters, got {short_repr(used)}{remedy}")
    return used


def escape_name(name: str) -> str:
    """Escape the name of a limiter for a key: without braces, which would choose a slot, and characters of patterns."""
    return quote(name, safe="/:", errors="surrogatepass")


def convert_row(row: Sequence[int]) -> Row:
    """Return a row of a reply in nanoseconds."""
    allowed, remaining, retry, reset, delay = row
    return (
        allowed == 1,
        remaining,
        NEVER if retry < 0 else retry * NS_PER_US,
        reset * NS_PER_US,
        delay * NS_PER_US,
    )


def hash_client(client: str) -> bytes:
    """Return the part of a key that stands for a client: a cluster keeps keys with the same part in one slot."""
    return b"rl:{" + blake2b(client.encode(errors="surrogatepass"), digest_size=16).hexdigest().encode() + b"}"


def format_suffix(name: str, counted: str) -> bytes:
    """Return the rest of a key: the name of the limiter, and a hash of a text on the numbers that the key holds."""
    return f":{escape_name(name)}:{blake2b(counted.encode(), digest_size=4).hexdigest()}".encode()


def hash_text(text: str) -> str:
    """Return the name that a store gives to a script."""
    return sha1(text.encode(), usedforsecurity=False).hexdigest()


_live: dict[int, tuple[StoreUrl, tuple[Hashable, ...]]] = {}
"""The store and counters of every limiter in this process that is neither closed nor collected, by its `id`."""


def list_connected() -> list[tuple[Hashable, str]]:
    """Return the address of the store and the name of each of these limiters that has connected to its store."""
    return [(url.store[0], str(name)) for url, (_, name, *_) in _live.copy().values() if url.connected]


def register(limiter: object, url: StoreUrl, script: Script | CompositeScript) -> Callable[[], object]:
    """Warn if another limiter of this process uses the same counters of a store, which is usually a mistake.

    Return a function that removes the limiter from the register, as its collection does.
    """
    counters = url.store, script.name, script.sha, script.parameters
    if counters in [other for _, other in _live.copy().values()]:  # copied, since other threads create limiters, too
        warn_of_configuration(
            f"two limiters named {script.name!r} for {script.policies[0].quota} share one counter in the store: "
            'give each its own name, as in name="login", or use one limiter for both'
        )
    _live[id(limiter)] = url, counters
    forget = finalize(limiter, _live.pop, id(limiter), None)
    forget.atexit = False
    return forget


def _read_fields(algorithm: Algorithm) -> tuple[tuple[int, ...], str]:
    """Return the fields of an algorithm: its parameters, and Lua code that defines its tables.

    A table is a string of numbers of `TABLE_DIGITS` characters each, since a script pays nothing for a constant.
    """
    if isinstance(algorithm, Penalized):
        algorithm = algorithm.inner
    values = {field.name: getattr(algorithm, field.name) for field in fields(algorithm)}  # type: ignore[arg-type]
    parameters = tuple(value for value in values.values() if not isinstance(value, tuple))
    tables = {name.upper(): value for name, value in values.items() if isinstance(value, tuple)}
    if not tables:
        return parameters, ""
    lines = [f"local DIGITS = {TABLE_DIGITS}"]
    lines += [f"local {name} = '{''.join(f'%0{TABLE_DIGITS}d' % n for n in table)}'" for name, table in tables.items()]
    return parameters, "".join(f"{line}\n" for line in lines)


def _build_in_microseconds(kind: type[Algorithm], quota: Quota) -> Algorithm:
    """Build the algorithm with times in microseconds. Raises `InputError` for a quota that is not exact in Lua."""
    built = _build_exact(kind, quota)
    if built is None:
        raise InputError(
            f"{kind.name} with {quota} needs numbers of 2**53 or more, which are not exact in a store: "
            f"the nearest quota that fits is {_find_nearest(kind, quota)}"
        )
    return built


def _build_exact(kind: type[Algorithm], quota: Quota) -> Algorithm | None:
    """Build the algorithm with times in microseconds, or return None if its numbers are not exact in Lua."""
    try:
        algorithm = build_policy(in_microseconds(kind), quota.in_microseconds()).algorithm
    except InputError:  # a number that is too large for any quota, and for Lua
        return None
    bound = traits_of(algorithm).bound
    if bound is None:
        raise InputError(
            f"{kind.name} declares no bound on its integers, which a store needs: add one to its traits, or keep the "
            "quota in memory"
        )
    largest = bound(algorithm, MAX_TIME_US, quota.burst + 1, 0)  # a fully replenished key has expired
    return algorithm if largest < EXACT_LIMIT else None


def _find_nearest(kind: type[Algorithm], quota: Quota) -> Quota:
    """Return the quota with the largest burst that fits; if none does, round the rate until one does.

    A rate that is too low is raised in steps of 1 %.
    """
    if quota.calendar is not None:
        return Quota((EXACT_LIMIT >> 1) - 1, quota.calendar.nominal, calendar=quota.calendar)
    interval, digits = Fraction(quota.period, quota.limit * NS_PER_US), 15  # microseconds for each unit of cost
    while _build_exact(kind, Quota(quota.limit, quota.period, 1)) is None:
        digits -= 1
        if digits >= 0:
            rounded = max(interval.limit_denominator(10**digits), Fraction(1, 10**digits))
        else:
            rounded = interval = Fraction(interval * 99 // 100)
        with suppress(InputError):  # still too many digits for a quota
            quota = Quota(rounded.denominator, rounded.numerator * NS_PER_US, quota.burst)
    low, high = 1, quota.burst + 1
    while high - low > 1:
        middle = (low + high) // 2
        fits = _build_exact(kind, Quota(quota.limit, quota.period, middle)) is not None
        low, high = (middle, high) if fits else (low, middle)
    return Quota(quota.limit, quota.period, low)
