"""Random populations of closed loops, with few clients, short times and many coincidences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from random import Random
from typing import Any, get_args

import numpy as np

from ratelab import create
from ratelab.algorithms import Policy
from ratelab.lab.closed_loop.behavior import (
    MS,
    Aimd,
    Behavior,
    Breaker,
    Budget,
    Delay,
    Failure,
    Fault,
    Hedge,
    Population,
    Retry,
    RetryPolicy,
    Server,
    Throttle,
)
from ratelab.lab.traffic import Traffic

ALGORITHMS = ("token-bucket", "leaky-bucket", "fixed-window", "sliding-log", "sliding-counter", "gcra")
TIMES = (0, 1, 10 * MS, 50 * MS, 100 * MS, 250 * MS, 500 * MS, 1000 * MS)
LATE_TIMES = TIMES[2:]


class PopulationDrawer:
    """Draws a population and a policy from a seed."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.duration = self.random.choice((500, 2_000, 5_000)) * MS

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def choose(self, values: Sequence[Any]) -> Any:
        return self.random.choice(values)

    def maybe(self, share: float, value: Any) -> Any:
        return value() if self.chance(share) else None

    def delay(self) -> Delay:
        mean = self.choose(LATE_TIMES)
        kind = self.choose(("constant", "constant", "exponential", "normal", "spread", "table"))
        deviation = self.choose((0, mean // 2, mean, 3 * mean)) if kind in ("normal", "spread") else 0
        values = tuple(self.random.choices(TIMES, k=3)) if kind == "table" else ()
        return Delay(mean, kind, deviation, values, (0.5, 0.25, 1.0) if kind == "table" else ())

    def retry(self) -> Retry:
        return Retry(
            policy=self.choose(get_args(RetryPolicy)),
            base=self.choose((1, 10 * MS, 100 * MS, 100 * MS, 300 * MS)),
            cap=self.choose((200 * MS, 20_000 * MS)),
            multiplier=self.choose((Fraction(1), Fraction(2), Fraction(3, 2))),
            attempts=self.choose((1, 2, 3, 3, 8, None)),
            deadline=self.maybe(0.2, lambda: self.choose(LATE_TIMES)),
            budget=self.maybe(0.3, self.budget),
            honors=self.choose(("none", "none", "retry-after", "ratelimit")),
            jitter=self.choose(("none", "equal", "full")),
            retry_on=self.choose(
                (get_args(Failure), ("denied", "error", "timeout", "shed"), ("denied",), ("timeout", "local"))
            ),
        )

    def budget(self) -> Budget:
        ratio, tokens = self.choose((Fraction(1, 10), Fraction(1, 3), Fraction(1))), (Fraction(1), Fraction(5, 2))
        return Budget(ratio, self.choose(("start", "success")), self.choose(tokens), self.choose(tokens))

    def breaker(self) -> Breaker:
        share, stops = self.choose((Fraction(1, 10), Fraction(1, 2), Fraction(2, 3))), self.choose(("retries", "calls"))
        window = self.choose((None, 300 * MS, 1_000 * MS))
        return Breaker(share, window, stops, self.choose((20 * MS, 100 * MS, 1_000 * MS)))

    def aimd(self) -> Aimd:
        return Aimd(self.choose((10**5, 10**7, 10**8)), decrease=self.choose((Fraction(1, 2), Fraction(9, 10))))

    def behavior(self) -> Behavior:
        serial = self.chance(0.6)
        return Behavior(
            loop="serial" if serial else "open",
            think=self.maybe(0.6, self.delay) if serial else None,
            pace=self.choose((Delay(30 * MS), self.delay())) if serial and self.chance(0.4) else None,
            requests=self.choose((None, None, 0, 1, 20)) if serial else None,
            timeout=self.maybe(0.4, lambda: self.choose(LATE_TIMES)),
            retry=self.retry(),
            breaker=self.maybe(0.25, self.breaker),
            adaptive=self.maybe(
                0.2, lambda: Throttle(self.choose((Fraction(1), Fraction(2), Fraction(11, 10))), 400 * MS)
            ),
            hedge=self.maybe(0.25, lambda: Hedge(self.choose((1, 10 * MS, 50 * MS)), self.choose((1, 3)))),
            aimd=self.maybe(0.2, self.aimd),
            latency=self.maybe(0.4, lambda: self.choose((Delay(0), self.delay(), Delay(10 * MS)))),
            costs=self.choose((((1, 1.0),), ((1, 1.0),), ((1, 0.5), (3, 0.25)), ((2, 1.0), (30, 0.5)))),
        )

    def server(self) -> Server:
        drop = self.choose(("none", "none", "stale", "wait", "count"))
        return Server(
            workers=self.choose((None, 1, 1, 2, 5)),
            service=self.choose((Delay(0), self.delay(), Delay(10 * MS), Delay(50 * MS, "exponential"))),
            queue=self.choose((None, None, 0, 3)),
            order=self.choose(("fifo", "lifo")),
            drop=drop,
            drop_limit={"wait": 30 * MS, "count": self.choose((0, 2))}.get(drop, 0),
            slowdown=self.choose((0, 0, 5 * MS)),
            errors=self.choose((Fraction(0), Fraction(0), Fraction(1, 2), Fraction(9, 10))),
            optimistic=self.chance(0.1),
        )

    def fault(self) -> Fault:
        kind = self.choose(("outage", "slow", "spike", "limiter-restart"))
        begin = self.choose((0, 10 * MS, 100 * MS, self.duration // 2))
        end = begin if kind == "limiter-restart" else begin + self.choose((10 * MS, 200 * MS, self.duration))
        return Fault(kind, begin, min(end, self.duration), self.choose((2, 3)), self.chance(0.5))

    def traffic(self, behaviors: list[Behavior], behavior_of: list[int]) -> Traffic:
        times: list[tuple[int, int, int]] = []
        for client, number in enumerate(behavior_of):
            if behaviors[number].loop == "open":
                gap = self.choose((0, 20 * MS, 100 * MS))
                for count in range(self.choose((1, 5, 30))):
                    time = gap * count if self.chance(0.7) else self.random.randrange(self.duration)
                    times += [(time, client, self.choose((1, 1, 2)))] if time < self.duration else []
        times.sort(key=lambda entry: entry[0])
        columns = np.array(times, np.int64).reshape(-1, 3).T
        names = tuple(f"client-{number}" for number in range(len(behavior_of)))
        keys = np.arange(len(names)) // self.choose((1, 2, 10))
        arrivals, clients, costs = map(np.ascontiguousarray, columns)
        return Traffic(arrivals, clients, costs, names, keys, self.duration, self.choose((0, 10**18)))

    def population(self) -> Population:
        behaviors = [self.behavior() for _ in range(self.choose((1, 2, 3)))]
        behavior_of = [self.random.randrange(len(behaviors)) for _ in range(self.choose((1, 3, 10)))]
        return Population(
            first_tries=self.traffic(behaviors, behavior_of),
            behaviors=tuple(behaviors),
            behavior_of=np.array(behavior_of, np.int64),
            seed=self.random.randrange(1000),
            server=self.maybe(0.6, self.server),
            faults=tuple(self.fault() for _ in range(self.choose((0, 0, 1, 2)))),
        )

    def policy(self) -> Policy | None:
        if self.chance(0.15):
            return None
        return create(self.choose(ALGORITHMS), self.choose(("2/s", "10/s", "100/s", "5/min")), self.choose((1, 3, 10)))


class InstantDrawer(PopulationDrawer):
    """Draws populations whose clients know each result at once, and only think and wait for a retry."""

    def retry(self) -> Retry:
        retry = replace(super().retry(), budget=None, deadline=None)
        return replace(retry, policy="full-jitter") if retry.policy == "decorrelated-jitter" else retry

    def behavior(self) -> Behavior:
        return replace(super().behavior(), latency=None, pace=None, breaker=None, adaptive=None, aimd=None)

    def delay(self) -> Delay:
        return super().delay() if self.chance(0.5) else Delay(100 * MS, "exponential")

    def fault(self) -> Fault:
        fault = super().fault()
        return fault if fault.kind == "limiter-restart" else replace(fault, kind="spike")

    def population(self) -> Population:
        return replace(super().population(), server=None)


def draw_instant_population(seed: int) -> tuple[Policy | None, Population]:
    """Return a random policy, or none, and a population that is simulated in batches, unless the policy queues."""
    drawer = InstantDrawer(seed)
    return drawer.policy(), drawer.population()


def draw_population(seed: int) -> tuple[Policy | None, Population]:
    """Return a random policy, or none, and a population."""
    drawer = PopulationDrawer(seed)
    return drawer.policy(), drawer.population()
