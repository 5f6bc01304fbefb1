"""Clients that react to answers, the server behind the limiter, and faults. Durations are in nanoseconds."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np

from ratelab.lab.traffic import Traffic
from ratelab.quota import NS_PER_S

MS = NS_PER_S // 1000

RetryPolicy = Literal[
    "none",
    "immediate",
    "fixed",
    "exponential",
    "equal-jitter",
    "full-jitter",
    "decorrelated-jitter",
    "retry-after",
]
Failure = Literal["denied", "error", "timeout", "shed", "local"]

RETRIED: tuple[Failure, ...] = ("denied", "error", "timeout", "shed")
"""The failures that are retried by default."""


@dataclass(frozen=True)
class Delay:
    """A duration that is drawn: constant, exponential, normal (its absolute value) or one of a table."""

    mean: int
    kind: Literal["constant", "exponential", "normal", "spread", "table"] = "constant"
    deviation: int = 0
    """The standard deviation of a normal or a spread duration."""
    values: tuple[int, ...] = ()
    """The durations of a table."""
    weights: tuple[float, ...] = ()


@dataclass(frozen=True)
class Budget:
    """A token bucket that pays for the retries of a client; it starts full."""

    ratio: Fraction
    """Tokens for each first try, or for each success."""
    on: Literal["start", "success"] = "start"
    cap: Fraction = Fraction(10)
    """Tokens that it holds."""
    cost: Fraction = Fraction(1)
    """Tokens for a retry."""


@dataclass(frozen=True)
class Retry:
    """When a client tries again, and after what wait."""

    policy: RetryPolicy = "none"
    base: int = 100 * MS
    cap: int = 20 * NS_PER_S
    multiplier: Fraction = Fraction(2)
    attempts: int | None = 3
    """The most tries of a request, the first included; None for any number."""
    deadline: int | None = None
    """How long after the start of a request a try may still be sent; None for any time."""
    budget: Budget | None = None
    honors: Literal["none", "retry-after", "ratelimit"] = "none"
    jitter: Literal["none", "equal", "full"] = "none"
    retry_on: tuple[Failure, ...] = RETRIED


@dataclass(frozen=True)
class Breaker:
    """A circuit breaker of a client."""

    failures: Fraction
    """The share of failed tries from which on it is open."""
    window: int | None = None
    """The span in which tries count; None for all."""
    stops: Literal["retries", "calls"] = "calls"
    pause: int = 5 * NS_PER_S
    """How long an open breaker rejects every try before it lets one through."""


@dataclass(frozen=True)
class Throttle:
    """Adaptive throttling: a client rejects tries itself while the backend rejects many."""

    k: Fraction = Fraction(2)
    window: int = 120 * NS_PER_S


@dataclass(frozen=True)
class Hedge:
    """Further tries of a request that has no answer after a while."""

    after: int
    most: int = 1


@dataclass(frozen=True)
class Aimd:
    """A rate of tries that grows by a constant and shrinks by a factor, in millionths of a try a second."""

    rate: int
    increase: int = 1_000_000
    decrease: Fraction = Fraction(1, 2)
    """The factor by which a denial multiplies the rate."""


@dataclass(frozen=True)
class Behavior:
    """How a client sends requests, and how it reacts to their answers."""

    loop: Literal["open", "serial"] = "open"
    think: Delay | None = None
    """From the end of a request to the start of the next; for serial clients."""
    pace: Delay | None = None
    """From the start of a request to that of the next, unless it takes longer; for serial clients."""
    requests: int | None = None
    """The requests of a serial client; None for any number."""
    timeout: int | None = None
    """How long a client waits for the answer to a try."""
    retry: Retry = Retry()
    breaker: Breaker | None = None
    adaptive: Throttle | None = None
    hedge: Hedge | None = None
    aimd: Aimd | None = None
    latency: Delay | None = None
    """From the client to the limiter, and from the server to the client."""
    costs: tuple[tuple[int, float], ...] = ((1, 1.0),)
    """The costs of the requests of a serial client, with their weights."""


@dataclass(frozen=True)
class Server:
    """The server behind the limiter."""

    workers: int | None = None
    """The requests that it serves at a time; None for any number."""
    service: Delay = Delay(0)
    queue: int | None = None
    """The requests that may wait for a worker; None for any number."""
    order: Literal["fifo", "lifo"] = "fifo"
    drop: Literal["none", "stale", "wait", "count"] = "none"
    """The requests that are dropped unserved: those whose caller has left, those that waited longer than `drop_limit`
    nanoseconds, or the oldest while more than `drop_limit` wait."""
    drop_limit: int = 0
    slowdown: int = 0
    """Further service time for each request in service."""
    errors: Fraction = Fraction(0)
    """The probability that a request fails after it was served."""
    optimistic: bool = False
    """Whether a request reads a row and writes it, and fails if another wrote it in between."""


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong at `begin`, until `end`."""

    kind: Literal["outage", "slow", "spike", "limiter-restart"]
    begin: int
    end: int
    factor: int = 1
    """How many times slower the server is, or how many times as many requests begin."""
    hold: bool = False
    """Whether requests during an outage arrive when it ends; otherwise they fail at once."""


@dataclass(frozen=True, eq=False)
class Population:
    """All clients of a closed loop, the server and its faults."""

    first_tries: Traffic
    """The first tries of the open clients. Its names and keys are those of all clients."""
    behaviors: tuple[Behavior, ...]
    behavior_of: np.ndarray[tuple[int], np.dtype[np.int64]]
    """The behavior of each client, as an index into `behaviors`."""
    seed: int
    server: Server | None = None
    faults: tuple[Fault, ...] = ()

    @property
    def duration(self) -> int:
        """Nanoseconds from the beginning to the end."""
        return self.first_tries.duration

    @property
    def max_cost(self) -> int:
        """The largest cost of a request."""
        costs = [cost for behavior in self.behaviors for cost, _ in behavior.costs]
        return max([*costs, self.first_tries.max_cost])
