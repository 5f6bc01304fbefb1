"""Guards: the parts of a limiter of one policy that the middleware uses."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

from ratelab.errors import InputError
from ratelab.http.asgi import Field, Scope
from ratelab.http.counters import Counts
from ratelab.http.headers import MAX_CACHED_HEADERS, HeaderWriter, TextFields, ceil_seconds, decode_fields
from ratelab.http.policy_rules import AnyLimiter, find_plans, needs_rules
from ratelab.http.responses import Denial, TextDenial, build_denial, cost_above_burst, decode_denial, quota_exceeded
from ratelab.http.scope_functions import invalid_result, is_deferred
from ratelab.limiter import NEVER, Limiter, Row
from ratelab.quota import NS_PER_S
from ratelab.stores.memory import MemoryLimiter
from ratelab.stores.plans import Plans, Preparation

MAX_GUARDS = 256
"""Limiters that a function of the scope may choose among, each kept with its `Guard`."""

MAX_CACHED_DENIALS = 1024
"""Denials, by their seconds of `Retry-After`, that are kept encoded."""

MIN_NEW_LIMITERS = 10
"""Requests, each with another limiter, after which a function counts as one that creates a limiter each time."""

_log = logging.getLogger("ratelab.http")


class Guard:
    """The parts of a limiter of one policy that a request uses, and the texts of its responses."""

    __slots__ = ("awaited", "cache", "decide", "deny", "format", "name", "text_denials", "text_fields")

    def __init__(
        self,
        decide: Callable[[str, int], Any],
        awaited: bool,
        cache: dict[tuple[int, int], list[Field]],
        format_fields: Callable[[int, int, bool], list[Field]],
        deny: Callable[[int, int, int], Denial],
        name: str,
    ) -> None:
        self.decide = decide
        """Decide a hit of a key with a cost; the result is awaited if it is `awaited`."""
        self.awaited = awaited
        self.cache, self.format = cache, format_fields
        """`cache` and `format` of the `HeaderWriter`."""
        self.deny = deny
        """Return the denial for `remaining`, `retry_after_ns` and `reset_after_ns`."""
        self.name = name
        """The name of the policy."""
        self.text_fields: dict[tuple[int, int], TextFields] = {}
        self.text_denials: dict[int, TextDenial] = {}

    def format_text(self, remaining: int, seconds: int) -> TextFields:
        """Return the header fields of an admitted request as text."""
        fields = self.text_fields.get((remaining, seconds))
        if fields is None:
            if len(self.text_fields) >= MAX_CACHED_HEADERS:
                self.text_fields.clear()
            fields = self.text_fields[remaining, seconds] = decode_fields(self.format(remaining, seconds, False))
        return fields

    def deny_text(self, retry_after_ns: int) -> TextDenial:
        """Return the denial of a request that may be repeated, with header fields as text."""
        seconds = -(-retry_after_ns // NS_PER_S)
        denial = self.text_denials.get(seconds)
        if denial is None:
            if len(self.text_denials) >= MAX_CACHED_DENIALS:
                self.text_denials.clear()
            denial = self.text_denials[seconds] = decode_denial(self.deny(0, retry_after_ns, 0))
        return denial


def check_limiter(limiter: Any, blocking: bool = False) -> None:
    """Raise `InputError` for an object that is not a limiter, or cannot be used by a door that is `blocking` or not."""
    if isinstance(limiter, type) or not callable(getattr(limiter, "hit", None)):
        raise invalid_result("limiter must be a limiter, such as MemoryLimiter(policy)", limiter, "it has no hit()")
    if blocking and is_deferred(limiter.hit):
        raise InputError(f"limiter must not be awaited, got {type(limiter).__name__}: use ValkeyLimiter")
    if not blocking and getattr(limiter, "blocking", False):
        name = type(limiter).__name__
        raise InputError(f"limiter must not block the event loop, got {name}: use AsyncValkeyLimiter")


def follow_updates(limiter: AnyLimiter, prepare: Preparation) -> None:
    """Call a method before each change of a limiter, if that can change."""
    on_update = getattr(limiter, "on_update", None)
    if on_update is not None:
        on_update(prepare)


def create_guard(limiter: AnyLimiter, legacy: str, policy_name: str | None) -> Guard:
    """Create the guard of a limiter of one policy."""
    policy_name = limiter.policy.name if policy_name is None else policy_name
    writer = HeaderWriter(limiter.policy, legacy, policy_name)

    def deny_for(wait: int) -> Denial:
        """Return the denial of a request that may be repeated after `wait` seconds."""
        return build_denial(429, writer.format(0, wait, True), quota_exceeded((policy_name,), wait))

    cached_deny_for = deny_for if legacy == "epoch" else lru_cache(maxsize=MAX_CACHED_DENIALS)(deny_for)

    def deny(remaining: int, retry_after_ns: int, reset_after_ns: int) -> Denial:
        if retry_after_ns != NEVER:
            return cached_deny_for(-(-retry_after_ns // NS_PER_S))
        headers = writer.format(remaining, ceil_seconds(reset_after_ns), False)
        return build_denial(400, headers, cost_above_burst(writer.burst))

    awaited = is_deferred(limiter.hit)
    cache: dict[tuple[int, int], list[Field]] = {} if legacy == "epoch" else writer.cache
    decide = limiter.hit if awaited else _row_function(cast(Limiter, limiter))
    return Guard(decide, awaited, cache, writer.format, deny, limiter.policy.name)


def _row_function(limiter: Limiter) -> Callable[[str, int], Row]:
    """Return `hit_row` of a `MemoryLimiter` whose `hit` is not overridden, or a function that does the same."""
    if isinstance(limiter, MemoryLimiter) and getattr(limiter.hit, "__func__", None) is MemoryLimiter.hit:
        return limiter.hit_row
    return lambda key, cost: limiter.hit(key, cost).row


class GuardFinder:
    """Find the guard of the limiter that a function of the scope chooses for each request."""

    def __init__(
        self,
        choose: Callable[[Scope], AnyLimiter],
        check: Callable[[AnyLimiter], None],
        legacy: str,
        policy_name: str | None,
        counts: Counts,
    ) -> None:
        self._choose = choose
        self._check = check
        self._options = legacy, policy_name
        self._counts = counts
        self._guards: dict[int, Guard] = {}  # by the id of the limiter, which its guard keeps alive
        self._new_limiters, self._warned = 0, False

    def find(self, scope: Scope) -> Guard:
        """Return the guard of the limiter chosen for a request; create it for a new limiter."""
        limiter = self._choose(scope)
        guard = self._guards.get(id(limiter))
        if guard is None:
            self._check(limiter)
            self._follow(find_plans(limiter))
            follow_updates(limiter, self._follow)
            guard = create_guard(limiter, *self._options)
            if len(self._guards) >= MAX_GUARDS:
                self._guards.clear()
            self._guards[id(limiter)] = guard
            self._watch_limiters()
        return guard

    def _follow(self, plans: Plans) -> Callable[[], None]:
        """Return a function that creates the guards again after a change of a limiter."""
        if needs_rules(plans):
            names = ", ".join(policy.name for policy in plans.policies)
            rule = f"a function cannot choose a limiter of several policies, got one of {names}"
            raise InputError(f"{rule}: use match in the policies of one limiter")
        return self._guards.clear

    def _watch_limiters(self) -> None:
        """Log a warning, once, if the function creates a limiter for each request, which never denies any."""
        self._new_limiters += 1
        requests = self._counts.admitted + self._counts.denied + self._counts.waiting + self._counts.dropped + 1
        each_time = self._new_limiters >= max(MIN_NEW_LIMITERS, requests)
        if not self._warned and (each_time or self._new_limiters > MAX_GUARDS):
            self._warned = True
            _log.warning(
                f"the function given as limiter has returned {self._new_limiters} limiters for {requests} requests, "
                "each with a new quota: create the limiters once, and let it return one of them"
            )
