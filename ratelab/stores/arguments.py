"""Checks of the arguments of limiters, their default clock, and their fallback."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import lcm
from typing import NoReturn

from ratelab.algorithms import Policy, traits_of
from ratelab.clock import Clock, default_clocks
from ratelab.errors import InputError, short_repr
from ratelab.limiter import NEVER, Costs, Keys
from ratelab.quota import NS_PER_S

MAX_NAME_CHARS = 100
"""Length of the longest name of a limiter in a store."""

MAX_DEADLINE_S = 60
"""The longest deadline of a decision by a store."""


def check_cost(cost: int) -> None:
    """Raise `InputError` unless `cost` is a whole number >= 0."""
    if type(cost) is not int or cost < 0:
        raise InputError(f"cost must be a whole number >= 0, got {short_repr(cost)}")


def check_max_keys(max_keys: int) -> None:
    """Raise `InputError` unless the number of keys that are kept in memory is a whole number >= 1."""
    if type(max_keys) is not int or max_keys < 1:
        raise InputError(f"max_keys must be a whole number >= 1, got {short_repr(max_keys)}")


def check_limits(deadline: float = MAX_DEADLINE_S, connections: int = 1) -> None:
    """Raise `InputError` for an invalid deadline of a store, in seconds, or number of connections."""
    if type(deadline) not in (int, float) or not 0 < deadline <= MAX_DEADLINE_S:
        raise InputError(f"deadline must be above 0 and at most {MAX_DEADLINE_S} seconds, got {short_repr(deadline)}")
    if type(connections) is not int or connections < 1:
        raise InputError(f"connections must be a whole number >= 1, got {short_repr(connections)}")


def check_key(key: object) -> None:
    """Raise `InputError` unless `key` is text."""
    if not isinstance(key, str):
        raise InputError(f"key must be text, got {short_repr(key)}: format it as a str")


def name_keys(policies: Sequence[Policy], key: Keys) -> dict[str, str]:
    """Return the key of each policy that a hit asks, by its name. Raises `InputError` for an invalid key or name."""
    if isinstance(key, str):
        return {policy.name: key for policy in policies}
    if not isinstance(key, Mapping) or not key:
        raise InputError(f"key must be text, got {short_repr(key)}: format it as a str")
    _check_names("key", policies, key)
    for one in key.values():
        check_key(one)
    return {policy.name: key[policy.name] for policy in policies if policy.name in key}


def name_costs(policies: Sequence[Policy], cost: Costs) -> dict[str, int]:
    """Return the cost of a hit for each policy by its name: 1 where a mapping has none and the policy counts requests.

    Raises `InputError` for an invalid cost or name, and for a missing one.
    """
    if not isinstance(cost, Mapping):
        check_cost(cost)
        return {policy.name: cost for policy in policies}
    _check_names("cost", policies, cost)
    for one in cost.values():
        check_cost(one)
    missing = [policy for policy in policies if policy.name not in cost and policy.cost != "requests"]
    if missing:
        name = short_repr(missing[0].name)
        raise InputError(f"missing cost of policy {name}, which counts {missing[0].cost}: give cost={{{name}: ...}}")
    return {policy.name: cost.get(policy.name, 1) for policy in policies}


def _check_names(what: str, policies: Sequence[Policy], given: Mapping[str, object]) -> None:
    names = [policy.name for policy in policies]
    unknown = next((name for name in given if name not in names), None)
    if unknown is not None:
        raise InputError(f"unknown policy {short_repr(unknown)} in {what}: choose from {', '.join(names)}")


def parse_timeout(timeout: float | None) -> int | None:
    """Return a time-out in nanoseconds; None if there is none, or an infinite one. Raises `InputError`."""
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout >= 0:  # nor NaN
        got = short_repr(timeout)
        raise InputError(f"timeout must be a number of seconds >= 0, got {got}: pass None to wait without limit")
    return None if timeout > NEVER // NS_PER_S else round(timeout * NS_PER_S)


def check_clock(clock: Clock) -> None:
    """Raise `InputError` unless `clock` returns a whole number, which clocks in seconds do not."""
    now = clock() if callable(clock) else clock
    if not callable(clock) or not isinstance(now, int):
        rule = "clock must return whole nanoseconds, as time.monotonic_ns does"
        raise InputError(f"{rule}, got {short_repr(now)}: convert it with int()")


def refuse_pickling(limiter: object) -> NoReturn:
    """Raise `TypeError`: counts belong to one process, and a copy of them would grant quota twice."""
    raise TypeError(f"a {type(limiter).__name__} cannot be pickled or copied: create one in each process")


def default_clock(policies: Sequence[Policy]) -> Clock:
    """Return the clock that a limiter of `policies` reads by default: one that never goes backwards.

    If the windows of a policy are aligned, it follows UTC. Otherwise, it is `time.monotonic_ns`.
    """
    aligned = [policy.quota for policy in policies if is_aligned(policy)]
    if not aligned:
        return default_clocks.steady
    by_calendar = any(quota.calendar is not None for quota in aligned)
    return default_clocks.aligned(None if by_calendar else lcm(*(quota.window for quota in aligned)))


def is_aligned(policy: Policy) -> bool:
    """Return whether the windows of a policy follow the wall clock."""
    return traits_of(policy.algorithm).aligned


def choose_fallback(on_store_error: str, policies: Iterable[Policy]) -> str:
    """Return the fallback for policies: shadow policies alone never deny, so `open` replaces `closed` for them."""
    return "open" if on_store_error == "closed" and all(policy.shadow for policy in policies) else on_store_error
