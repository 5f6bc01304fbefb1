"""Random traffic for several policies, with keys, costs and routes of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ratelab import Policy
from ratelab.lab.policies.requests import PolicyTraffic
from ratelab.lab.traffic import Traffic

QUOTAS = (("7/13s", 10), ("3/s", 12), ("20/min", 5))


def create_policies(algorithms: Sequence[str], shadow: bool = False) -> list[Policy]:
    """Return a policy for each algorithm, with different quotas and names."""
    return [
        Policy.create(algorithm, rate, burst, name=f"{algorithm}-{number}", shadow=shadow)
        for number, (algorithm, (rate, burst)) in enumerate(zip(algorithms, QUOTAS, strict=False))
    ]


def apply_to_all(policies: Sequence[Policy], traffic: Traffic) -> list[PolicyTraffic]:
    """Return the whole traffic for each policy."""
    return [PolicyTraffic(policy, None, traffic, None) for policy in policies]


def apply_to_some(policies: Sequence[Policy], traffic: Traffic, seed: int = 1) -> list[PolicyTraffic]:
    """Return other requests, keys and costs for each policy: all with one key, half of them, and those with cost 1."""
    random = np.random.default_rng(seed)
    parts = []
    for number, policy in enumerate(policies):
        if number % 3 == 0:
            one_key = replace(traffic, keys=np.zeros(len(traffic.names), np.int64))
            parts.append(PolicyTraffic(policy, None, one_key, None))
            continue
        places = np.flatnonzero(random.random(len(traffic)) < 0.5)
        costs = traffic.costs[places] if number % 3 == 1 else np.ones(len(places), np.int64)
        part = replace(traffic, times=traffic.times[places], clients=traffic.clients[places], costs=costs)
        parts.append(PolicyTraffic(policy, None, part, places))
    return parts
