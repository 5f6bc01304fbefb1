"""Learned pace of requests to one rate-limited service: decisions without I/O, given the time."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import NamedTuple, Self

from ratelab.pacing.advertised import Advertised
from ratelab.pacing.advice import RateAdvice
from ratelab.quota import NS_PER_S

MIN_STEP = 0.02
"""The least relative change of the rate, with which the pace comes close to the limit."""

MAX_STEP = 1.0

ADMISSIONS_PER_DENIAL = 400
"""Requests that must be admitted for each denied one before the rate is raised again to one that was denied."""

MAX_SETTLING = 2000
"""The most requests that must be admitted before the rate is raised to just below one that was denied."""

ADMISSIONS_PER_LOST = 80
"""The same for each request that could not be sent during the wait after a denial."""

MAX_LATENESS_NS = 5_000_000
"""How late a request may be sent, beyond one interval, without delaying the next ones: timers are late."""

MIN_INTERVAL_NS = 1000
MAX_INTERVAL_NS = 3600 * NS_PER_S
"""Limits of an interval that is searched for; one that a quota asks for may be longer."""

FIRST_PAUSE_NS = 50_000_000
PAUSE_FACTOR = 1.5
MAX_PAUSE_NS = 60 * NS_PER_S
"""The first wait after a denial that names none, the factor of each further one, and the longest."""

PATIENCE_NS = 60 * NS_PER_S
"""How long a request without a response can hold others."""


class Sent(NamedTuple):
    """A request in flight."""

    at: int
    change: int
    """The number of changes of the pace before it."""
    paced: bool
    """Whether the pace alone held it back, so that its admission shows that the limit permits this pace."""


@dataclass
class LearnedPace:
    """The times at which to send requests, learned from the responses. Times are in nanoseconds.

    Until a response names a limit or denies a request, only the requests in flight are limited: to two, and one more
    after each response. From then on requests are spaced by `interval`, which is searched for by a staircase: after
    enough admissions in a row the rate is raised by a `step`, and after a denial it is lowered. The step is halved at
    each turn, and doubled if the rate must be changed again in the same direction. Once the step is small, the rate
    stays just below the last one that was denied, and seldom tries it again: `hold` limits the denials to a small part
    of the requests.
    """

    interval: float = 0.0
    """Time between two requests; 0 until it is known."""
    step: float = 0.5
    next_at: float = 0.0
    """When the next request may be sent at this pace."""
    blocked_until: int = 0
    """The end of the wait after a denial."""
    in_flight: int = 0
    window: int = 2
    """The most requests in flight, until the interval is known."""
    last_sent: int = 0
    changes: int = 0
    """The number of changes of the pace: a response to an earlier request shows nothing about the present one."""
    rising: bool = False
    """Whether the last change raised the rate."""
    run: int = 0
    """Admissions since the last change."""
    denied_interval: float = 0.0
    """The interval at the last denial, until a shorter one is tried; else 0."""
    hold: float = 0.0
    """How many more requests must be admitted before that."""
    since: int = 0
    """Start of this cycle: when the first request was sent that was admitted after the last denials."""
    admitted: int = 0
    """Requests admitted in this cycle."""
    cycle: int = 0
    cycle_admitted: int = 0
    """The length of the last cycle, and the requests admitted in it."""
    streak: int = 0
    """Denials since the last admission, each of a request sent after the one before was known."""
    denials: int = 0
    """All denials since the last admission after a denial."""
    denied_at: int = 0
    last_denied: int = 0
    """When the first and the last denied request of the streak were sent, or would still have been denied."""
    ordered_ns: int = 0
    """The wait that the server ordered with the last denial; 0 without one."""
    advertised: Advertised = field(default_factory=Advertised)
    stamp: str = ""
    """Of a pace in a store: a text of the last change alone, since two processes may make the same change."""

    def due(self, now: int) -> int:
        """Return the earliest time to send the next request, without regard to those in flight."""
        at = max(now, self.held_until)
        return max(at, int(self.next_at)) if self.interval else at

    def ready_at(self, now: int) -> int:
        """Return the earliest time to send the next request; a response may bring it forward or put it off."""
        at = self.due(now)
        if self.in_flight and (self.streak > 1 or not self.interval):
            room = 1 if self.streak else self.window
            if self.advertised.remaining is not None:
                room = min(room, max(1, self.advertised.remaining))
            if self.in_flight >= room:
                at = max(at, self.last_sent + PATIENCE_NS)
        return at

    @property
    def held_until(self) -> int:
        """The time before which no request is sent, whatever the pace."""
        return max(self.blocked_until, self.advertised.blocked_until)

    @property
    def spacing(self) -> float:
        """The time between two requests; 0 until it is known."""
        return max(self.interval, self.advertised.floor)

    def send(self, now: int, waited: bool) -> Sent:
        """Count a request that is sent now, not before `ready_at`, after it has `waited` for its time or not."""
        self.since = self.since or now
        spacing = self.spacing
        due = max(self.next_at, self.held_until)
        on_time = waited and now - due < MAX_LATENESS_NS + spacing
        self.next_at = (due if on_time else now) + spacing
        self.in_flight += 1
        self.last_sent = now
        paced = on_time and self.interval >= self.advertised.floor
        return Sent(now, self.changes, paced if self.interval else self.in_flight * 2 > self.window)

    def abandon(self) -> None:
        """Count a request that has no response."""
        self.in_flight = max(0, self.in_flight - 1)

    def give_back(self, sent: Sent) -> None:
        """Give back the time of a request that will not be sent."""
        self.abandon()
        if sent.at == self.last_sent:
            self.next_at -= self.spacing

    def observe(self, sent: Sent, now: int, advice: RateAdvice) -> None:
        """Learn from the response to a request."""
        self.abandon()
        if advice.cached:
            return
        if advice.denied:
            self._deny(sent, now, advice.wait_ns or 0)
        else:
            self._admit(sent, now)
        first = self.advertised.read(now, advice, self.in_flight)
        if first is not None and not self.interval and not self.streak:
            self.step, self.cycle = max(first.step, MIN_STEP), first.cycle
            self._change(first.interval, rising=False)
            self.next_at = self.last_sent + first.interval

    # --- admissions

    def _admit(self, sent: Sent, now: int) -> None:
        self.admitted += 1
        self.hold -= 1
        if sent.change != self.changes:
            return
        if self.streak:
            self._recover(sent, now)
        elif not self.interval:
            self.window += sent.paced
        else:
            self.run += sent.paced
            self._raise_rate()

    def _raise_rate(self) -> None:
        """Raise the rate if enough requests were admitted at this one."""
        beyond = self.rising and not self.denied_interval and self.cycle_admitted  # above a rate that was denied
        if self.run * self.step < (4 if beyond else 2) or self.run * self.interval < self.cycle * self.step:
            return
        edge = self.denied_interval * (1 + 0.75 * MIN_STEP)
        settled = self.step > 2 * MIN_STEP or self.admitted > min(self.cycle_admitted, MAX_SETTLING)
        if not edge:
            if self.rising:
                self.step = min(self.step * 2, MAX_STEP)
            self._change(self.interval / (1 + self.step), rising=True)
        elif not settled:  # a full window or bucket may hide that this rate is still too high
            return
        elif self.interval > edge:
            self._change(max(edge, self.interval / (1 + self.step)), rising=True)
        elif self.hold <= 0:
            self.step = max(self.step / 4, MIN_STEP)
            interval, self.denied_interval = self.denied_interval / (1 + self.step / 4), 0.0
            self._change(interval, rising=True)

    def _recover(self, sent: Sent, now: int) -> None:
        """Start a cycle with the first request that is admitted after denials.

        After a long wait, the requests admitted since the last such time are the quota of that time.
        """
        waited = self.streak > 1 or self.ordered_ns
        lost = (sent.at - self.denied_at) / self.interval if waited and self.interval else 0.0
        self.cycle, self.cycle_admitted = sent.at - self.since, self.admitted
        longest = self.cycle / self.admitted
        shortest = max(1, self.last_denied - self.since) / self.admitted
        if not self.interval:
            self._change(longest, rising=False)
        elif self.ordered_ns >= 2 * NS_PER_S if self.ordered_ns else self.streak > 2:
            self.denied_interval = max(self.denied_interval, shortest)
            self.step = min(MAX_STEP, max(MIN_STEP, (longest / shortest - 1) / 2))
            self._change(max((shortest + longest) / 2, self.denied_interval * (1 + MIN_STEP)), rising=False)
        self.hold = MIN_STEP / self.step * (ADMISSIONS_PER_DENIAL * self.denials + ADMISSIONS_PER_LOST * lost)
        self.blocked_until = min(self.blocked_until, now)
        self.since, self.admitted = sent.at, 0
        self.streak = self.denials = 0

    # --- denials

    def _deny(self, sent: Sent, now: int, wait: int) -> None:
        self.denials += 1
        if wait:
            self.blocked_until = max(self.blocked_until, now + wait)
            self.last_denied = max(self.last_denied, self.blocked_until - NS_PER_S)  # waits are rounded up to seconds
        if sent.change != self.changes:
            return
        self.streak += 1
        self.ordered_ns = wait
        self.last_denied = max(self.last_denied, sent.at)
        if not wait:
            pause = (self.interval or FIRST_PAUSE_NS) * PAUSE_FACTOR ** min(self.streak - 1, 50)
            self.blocked_until = max(self.blocked_until, now + int(min(pause, max(MAX_PAUSE_NS, self.interval))))
        if self.streak == 1:
            self.denied_at = sent.at
        if self.streak == 1 and self.interval:
            self._lower_rate()
        else:
            self.changes += 1

    def _lower_rate(self) -> None:
        early = self.run * self.step < 1 or self.run <= self.cycle_admitted
        again = early and not self.rising
        self.step = min(self.step * 2, MAX_STEP) if again else max(self.step / 2, MIN_STEP)
        self.denied_interval = self.interval
        self._change(self.interval * (1 + 1.5 * self.step), rising=False)

    def _change(self, interval: float, rising: bool) -> None:
        interval = min(max(interval, MIN_INTERVAL_NS), MAX_INTERVAL_NS)
        self.next_at = max(0.0, self.next_at - self.interval + interval)
        self.interval, self.rising = interval, rising
        self.changes += 1
        self.run = 0

    # --- as text

    def dump(self) -> str:
        """Return the state as JSON."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def load(cls, text: str) -> Self:
        """Return the pace of a state; raise `ValueError` for text that is not one, such as that of another version."""
        try:
            state = json.loads(text)
            state["advertised"] = Advertised(**state["advertised"])
            return cls(**state)
        except (TypeError, KeyError) as error:
            raise ValueError("not the state of a pace") from error
