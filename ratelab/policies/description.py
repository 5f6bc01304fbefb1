"""Descriptions of policies in words."""

from __future__ import annotations

from ratelab.algorithms import Policy, traits_of
from ratelab.algorithms.penalty import Penalized
from ratelab.quota import Quota

_PERIODS = {"s": "per second", "min": "per minute", "h": "per hour", "day": "per day"}

_COUNTED = {None: "each client", "all": "all clients together", "ip": "each address", "account": "each account"}


def describe_quota(quota: Quota, queued: bool = False, units: str = "requests") -> str:
    """Describe a quota: `2 requests per second, at most 5 at once`, or its queue if requests are `queued`."""
    if quota.calendar is not None:
        return f"{quota.burst:,} {units} in each {quota.calendar.unit} of {quota.calendar.timezone}"
    count, _, period = quota.rate.partition("/")
    unit = units.removesuffix("s") if count == "1" else units
    burst = f"one at a time, up to {quota.burst:,} in the queue" if queued else f"at most {quota.burst:,} at once"
    return f"{int(count):,} {unit} {_PERIODS.get(period, f'every {period}')}, {burst}"


def describe_limit(policy: Policy) -> str:
    """Describe the quota of a policy in units of its cost, and its penalty."""
    quota = describe_quota(policy.quota, traits_of(policy.algorithm).queues, policy.cost)
    return f"{quota}; penalty {policy.algorithm.penalty}" if isinstance(policy.algorithm, Penalized) else quota


def describe_key(key: str | None) -> str:
    """Describe the clients that a policy counts: `each client`, `each X-API-Key`, `all clients together`."""
    return _COUNTED.get(key) or f"each {(key or '').removeprefix('header:')}"
