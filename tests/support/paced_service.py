"""A rate-limited service in simulated time, and clients that pace their requests to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from heapq import heappop, heappush
from typing import Any, NamedTuple
from unittest.mock import patch

from ratelab import ManualClock, MemoryLimiter, Quota, create
from ratelab.clock import default_clocks
from ratelab.http.headers import HeaderWriter
from ratelab.limiter import Decision
from ratelab.pacing import RateAdvice, read_advice
from ratelab.pacing.pace import LearnedPace
from ratelab.quota import NS_PER_S

START_NS = 1_800_000_000 * NS_PER_S + 123_456_789
"""The time at which simulations start: some time on the wall clock, within a window."""

DIALECTS = ("ietf", "epoch", "delta", "retry-after", "bare")
"""The header fields of a service: the IETF pair, `X-RateLimit-*` of two kinds, only `Retry-After`, or none."""


class Result(NamedTuple):
    """The requests of a simulation that arrived after the first part of it."""

    admitted: int
    denied: int
    usable: int
    """Requests that a client would have had admitted that knows each wait exactly and loses no time."""
    nominal: int
    """Requests that the rate permits in this time."""

    @property
    def used(self) -> float:
        return self.admitted / self.usable

    @property
    def denied_share(self) -> float:
        return self.denied / max(self.admitted + self.denied, self.nominal)


class Service:
    """A service with a limit, on a manual clock."""

    def __init__(self, algorithm: str, rate: int, burst: int, dialect: str) -> None:
        self.policy = create(algorithm, Quota(rate, NS_PER_S, burst))
        self.clock = ManualClock(START_NS)
        self._limiter = MemoryLimiter(self.policy, self.clock)
        self._dialect = dialect
        self._writer = HeaderWriter(self.policy, dialect if dialect in ("epoch", "delta") else "off")

    def decide(self) -> Decision:
        return Decision(*self._limiter.hit_row("client"))

    def advise(self, decision: Decision) -> RateAdvice:
        """Return what the client reads in the response."""
        status = 200 if decision.allowed else 429
        if self._dialect == "bare":
            return parse(status, (), 0)
        date = self.clock.now // NS_PER_S if self._dialect == "epoch" else 0
        with patch.object(default_clocks, "wall", self.clock):
            fields = self._writer.format_decision(decision)
        if self._dialect == "retry-after":
            fields = [field for field in fields if field[0] == b"retry-after"]
        elif self._dialect != "ietf":
            fields = [field for field in fields if not field[0].startswith(b"ratelimit")]
        return parse(status, tuple(fields), date)


@lru_cache(maxsize=100_000)
def parse(status: int, fields: tuple[tuple[bytes, bytes], ...], date: int) -> RateAdvice:
    return read_advice(status, [(name.decode(), value.decode()) for name, value in fields], date)


@cache
def count_usable(algorithm: str, rate: int, burst: int, seconds: int, skipped: int) -> int:
    service, admitted = Service(algorithm, rate, burst, "bare"), 0
    while service.clock.now < START_NS + seconds * NS_PER_S:
        decision = service.decide()
        admitted += decision.allowed and service.clock.now >= START_NS + skipped * NS_PER_S
        service.clock.now += decision.retry_after_ns
    return admitted


def simulate(
    algorithm: str,
    rate: int,
    burst: int,
    dialect: str,
    workers: int,
    *,
    seconds: int = 600,
    skipped: int = 60,
    latency_ns: int | None = None,
    paces: Sequence[LearnedPace] | None = None,
    disturb: Callable[[Service, int], Any] | None = None,
) -> Result:
    """Return the requests of `workers` that send one after the other, half of them by each of two `paces`.

    `disturb` is called before each request with the service and the nanoseconds since the start.
    """
    service, now, number = Service(algorithm, rate, burst, dialect), START_NS, 0
    latency = latency_ns or (min(20_000_000, NS_PER_S // rate // 5) if workers == 1 else 50_000_000)
    clients = list(paces or [LearnedPace()])
    idle = [(workers + index) // len(clients) for index in range(len(clients))]
    events: list[tuple[int, int, int, Any, Any]] = []
    admitted = denied = 0
    while True:
        ready, client = min((pace.ready_at(now) if idle[i] else START_NS * 2, i) for i, pace in enumerate(clients))
        if not events or events[0][0] > ready:
            waited, now = ready > now, max(now, ready)
            if now >= START_NS + seconds * NS_PER_S:
                break
            number += 1
            idle[client] -= 1
            heappush(events, (now + latency // 2, number, client, clients[client].send(now, waited), None))
            continue
        now, _, client, sent, decision = heappop(events)
        service.clock.now = now
        if decision is None:
            if disturb is not None:
                disturb(service, now - START_NS)
            decision = service.decide()
            if now >= START_NS + skipped * NS_PER_S:
                admitted += decision.allowed
                denied += not decision.allowed
            number += 1
            heappush(events, (now + latency // 2 + decision.delay_ns, number, client, sent, decision))
        else:
            idle[client] += 1
            clients[client].observe(sent, now, service.advise(decision))
    nominal = rate * (seconds - skipped)
    usable = min(count_usable(algorithm, rate, burst, seconds, skipped), nominal)
    if algorithm != "leaky-bucket":
        usable = min(usable, workers * (seconds - skipped) * NS_PER_S // latency)
    return Result(admitted, denied, usable, nominal)
