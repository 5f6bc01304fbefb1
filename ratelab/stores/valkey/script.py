"""What a store is asked, and what its answer means: the same for every way to reach it."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import astuple
from fractions import Fraction
from functools import cache, lru_cache
from hashlib import blake2b, sha1
from pathlib import Path
from struct import Struct

from ratelab.algorithms import build_policy, find, traits_of
from ratelab.errors import InputError
from ratelab.limiter import NEVER, Algorithm, Decision
from ratelab.quota import Quota
from ratelab.stores.valkey.resp import bulk

EXACT = 2**53
"""Lua counts in floating point, and is exact below this."""

MAX_TIME_US = 2**52
"""The microsecond since 1970 up to which it is exact: in the year 2112."""

_MICROSECOND = 1000

_make = tuple.__new__  # what Decision._make calls


class Script:
    """Decide hits by the algorithm called `name` in a store: a script, its parameters, and what the keys are called.

    Raises `InputError` if there is no such algorithm, if it has no `.lua` file beside it, and if its numbers for
    this quota would not be exact in Lua.
    """

    def __init__(self, name: str, rate: str | Quota, burst: int | None = None) -> None:
        kind, quota = find(name), Quota.of(rate, burst)
        self.policy = build_policy(kind, quota)
        """The policy, in nanoseconds."""
        self.text = _text(kind)
        self.parameters: tuple[int, ...] = astuple(_in_microseconds(kind, quota))  # type: ignore[call-overload]
        self.sha = sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        self._asked = bulk("EVALSHA") + bulk(self.sha)
        self._told = bulk("EVAL") + bulk(self.text)
        self._given = b"".join(map(bulk, self.parameters))
        digest = blake2b(f"{self.sha} {self.parameters}".encode(), digest_size=4).hexdigest()
        self._ending = f"}}:{digest}".encode()
        self.key = lru_cache(maxsize=4096)(self._key)
        """Return the store's key of a client's name, as `_key` does."""
        self.ask_one = lru_cache(maxsize=4096)(self._ask_one)
        """Return the command that decides a hit by the client of a name, as `_ask_one` does."""
        self._dearest = quota.burst + 1  # whatever costs more is denied just the same, and its numbers stay exact

    def _key(self, name: str) -> bytes:
        """Return the store's key of the client called `name`: its hash, and the policy's.

        Another quota, or another script, has other keys. A cluster keeps all keys of a client in one slot.
        """
        hashed = blake2b(name.encode(errors="surrogatepass"), digest_size=16).hexdigest()
        return b"rl:{" + hashed.encode() + self._ending

    def ask(self, keys: Sequence[bytes], costs: Sequence[int], known: bool = True) -> bytes:
        """Return the command that decides a hit on each of `keys`, in their order; the whole script if not `known`.

        It is as it goes over the wire, most of it being always the same.
        """
        dearest = self._dearest
        pieces = [b"*%d\r\n" % (3 + len(self.parameters) + 2 * len(keys)), self._asked if known else self._told]
        pieces += [bulk(len(keys)), *[_KEY % key for key in keys], self._given]
        pieces += [_ONE if cost == 1 else bulk(min(cost, dearest)) for cost in costs]
        return b"".join(pieces)

    def _ask_one(self, name: str, cost: int) -> bytes:
        return self.ask([self.key(name)], [cost])

    def read(self, reply: bytes) -> list[Decision]:
        """Return the decisions of a reply. Raises `struct.error` or `TypeError` for what is none."""
        return [
            _make(
                Decision,
                (allowed == 1, remaining, NEVER if retry < 0 else retry * 1000, reset * 1000, delay * 1000),
            )
            for allowed, remaining, retry, reset, delay in _DECISIONS(reply[_TIME:])
        ]


_ONE = bulk(1)
_KEY = b"$46\r\n%b\r\n"
_TIME = 16  # bytes of a reply that tell the server's time
_DECISIONS = Struct(">5q").iter_unpack


@cache
def _text(kind: type[Algorithm]) -> str:
    """Return an algorithm's script after what all share."""
    path = Path(inspect.getfile(kind)).with_suffix(".lua")
    if not path.exists():
        raise InputError(
            f"{kind.name} cannot be decided in a store, which needs a file {path.name} beside {path.stem}.py: "
            "write it, or keep the quota in memory"
        )
    prelude = Path(__file__).with_name("prelude.lua")
    return f"{prelude.read_text(encoding='utf-8')}\n{path.read_text(encoding='utf-8')}"


def _in_microseconds(kind: type[Algorithm], quota: Quota) -> Algorithm:
    """Build the algorithm that counts in microseconds; refuse a quota for which Lua would not be exact."""
    built = _built(kind, quota)
    if built is None:
        raise InputError(
            f"{kind.name} with {quota} needs numbers of 2**53 or more, in which a store is not exact: "
            f"the nearest quota that fits is {_nearest(kind, quota)}"
        )
    return built


def _built(kind: type[Algorithm], quota: Quota) -> Algorithm | None:
    try:
        algorithm = kind.from_quota(Quota(quota.limit * _MICROSECOND, quota.period, quota.burst))
    except InputError:  # a number beyond any quota's, and so beyond Lua's
        return None
    bound = traits_of(algorithm).bound
    if bound is None:
        raise InputError(
            f"{kind.name} declares no bound on its integers, which a store needs: add one to its traits, or keep the "
            "quota in memory"
        )
    largest = bound(algorithm, MAX_TIME_US, quota.burst + 1, 0)  # a fully replenished key has expired
    return algorithm if largest < EXACT else None


def _nearest(kind: type[Algorithm], quota: Quota) -> Quota:
    """Return the quota of the largest burst that fits; if none does, of the nearest rate for which one does."""
    interval, digits = Fraction(quota.period, quota.limit * _MICROSECOND), 15  # of the microseconds for each unit
    while _built(kind, Quota(quota.limit, quota.period, 1)) is None:
        digits -= 1
        rounded = max(interval.limit_denominator(10**digits), Fraction(1, 10**digits))
        with suppress(InputError):  # not yet round enough for a quota
            quota = Quota(rounded.denominator, rounded.numerator * _MICROSECOND, quota.burst)
    low, high = 1, quota.burst + 1
    while high - low > 1:
        middle = (low + high) // 2
        fits = _built(kind, Quota(quota.limit, quota.period, middle)) is not None
        low, high = (middle, high) if fits else (low, middle)
    return Quota(quota.limit, quota.period, low)
