"""Candidates of built-in kernels with one mistake each, and the promise that each of them breaks."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from mutate import rewritten

from ratelab import MemoryLimiter, Policy
from ratelab.algorithms.fixed_window import FixedWindow
from ratelab.algorithms.gcra import Gcra
from ratelab.algorithms.sliding_log import SlidingLog
from ratelab.algorithms.token_bucket import TokenBucket
from ratelab.limiter import traits_of
from ratelab.quota import Quota

Factory = Callable[[int, int, int], Callable[..., Any]]


def make(kind: Any, right: str, wrong: str) -> Factory:
    methods = {"step": rewritten(kind.step, right, wrong), "traits": traits_of(kind)}
    mutant: Any = type(kind.__name__, (kind,), methods)

    def factory(limit: int, period: int, burst: int) -> Callable[..., Any]:
        quota = Quota(limit, period * 10**9, burst)
        limiter = MemoryLimiter(Policy(kind.name, quota, mutant.from_quota(quota)), time.monotonic_ns)

        def hit(key: str) -> tuple[bool, float]:
            decision = limiter.hit(key)
            return decision.allowed, decision.retry_after

        return hit

    return factory


bound_window = make(FixedWindow, "used + cost <= burst", "used + cost <= burst + 1")
bound_bucket = make(TokenBucket, "refilled if refilled < capacity else capacity", "refilled")
bound_gcra = make(Gcra, "state[0] if state[0] > clock else clock", "state[0]")
due_bucket = make(TokenBucket, "(now - last) * limit", "(now - last) * limit // period * period")
due_log = make(SlidingLog, "+ window", "+ 2 * window")
wait_early = make(TokenBucket, "-((tokens - price) // limit) if", "max(0, -((tokens - price) // limit) - 1_000_000) if")
wait_double = make(TokenBucket, "-((tokens - price) // limit) if", "-2 * ((tokens - price) // limit) if")
retrying_bucket = make(TokenBucket, "tokens - price if allowed else tokens", "max(0, tokens - price)")
retrying_gcra = make(Gcra, "moved if allowed else due", "moved")
