"""Trials: a new limiter of a candidate, hit at chosen times of the fake clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import ceil, isnan
from typing import Any, NamedTuple

from ratelab.judge.candidate import Allotment, CandidateError, HitAnswer, JudgedLimiter, describe_value, read_number
from ratelab.judge.fake_clock import FakeClock, FakeLoop
from ratelab.judge.timeline import CLIENT, TimedHit, TimelineRow, TimelineStep, list_rows
from ratelab.judge.watch import CallWatch
from ratelab.quota import NS_PER_S

DAY_NS = 86_400 * NS_PER_S
"""The time between the starts of two trials: a multiple of all periods, so that aligned windows start alike."""

TOLERANCE_NS = NS_PER_S // 2000
"""Half a millisecond, by which times of a candidate may be wrong: it may round them to whole milliseconds."""

STORE_TOLERANCE_NS = 3 * TOLERANCE_NS
"""The same on a store: a key of Redis expires a millisecond after the time that `PTTL` returns."""

ONE_PER_SECOND = Allotment(1, 1, 1)

REAL_PAUSE_S = 2.2
"""Real seconds after which a limiter of one request per second that reads the real time admits an exhausted client."""


class PromiseReport(NamedTuple):
    """The result of one promise."""

    kept: bool | None
    """None if the promise does not apply to the candidate, or cannot be measured; `reason` states why."""
    figures: dict[str, Any] = {}  # noqa: RUF012  (never changed)
    timeline: Sequence[TimelineRow] = ()
    """The shortest failing timeline that was found."""
    reason: str | None = None
    needs_time: bool = False
    """Whether a candidate with a clock that never moves would break the promise in this way, too."""


@dataclass
class Bench:
    """A candidate with its clock: makes trials, each of which starts a day after the one before it."""

    candidate: JudgedLimiter
    clock: FakeClock
    loop: FakeLoop
    watch: CallWatch
    store_url: str | None = None
    """The URL of the store on which all limiters are created; None for those in memory."""
    trials: int = 0
    latest: Trial | None = None
    """The latest trial, for the report of an exception."""

    @property
    def tolerance_ns(self) -> int:
        """By how much the times of the candidate may be wrong."""
        return TOLERANCE_NS if self.store_url is None else STORE_TOLERANCE_NS

    @cached_property
    def follows_real_time(self) -> bool:
        """Whether the candidate admits an exhausted client when real time alone has passed, as compiled code may."""
        try:
            trial = self.start(ONE_PER_SECOND)
            if trial.hit_until_denied(20) is None:
                return False
            self.watch.sleep(REAL_PAUSE_S)
            return trial.hit().allowed
        except CandidateError:
            return True

    def start(self, allotment: Allotment, phase_ns: int = 0) -> Trial:
        """Return a trial of a new limiter, `phase_ns` after a time at which all aligned windows start."""
        if self.store_url is not None:
            return self.start_with(lambda: self.create_on_store(str(self.store_url), allotment), phase_ns)
        return self.start_with(lambda: self.candidate.create(*allotment), phase_ns)

    def create_on_store(self, url: str, allotment: Allotment) -> Callable[[str], Any]:
        """Return the `hit` of a limiter on a store."""
        return self.candidate.create(url, *allotment, method="store")

    def start_with(self, create: Callable[[], Callable[[str], Any]], phase_ns: int = 0) -> Trial:
        """Return a trial of the limiter whose `hit` the function `create` returns."""
        self.trials += 1
        self.latest = None
        self.loop.cancel_tasks()
        self.watch.mark()
        self.clock.wall_offset_ns = 0
        start = (self.clock.now_ns // DAY_NS + 2) * DAY_NS + phase_ns
        self.clock.move_to(start)
        self.latest = Trial(self, self.call(create), start, f"-{self.trials}")
        return self.latest

    def play(self, allotment: Allotment, steps: Iterable[TimelineStep], phase_ns: int = 0) -> Trial:
        """Return a new trial after these steps."""
        trial = self.start(allotment, phase_ns)
        trial.play(steps)
        return trial

    def call(self, work: Callable[[], Any], patience: float = 1.0) -> Any:
        """Call `work`, which calls the candidate, and report it if it hangs or sleeps in real time."""
        try:
            return self.watch.run(work, patience)
        finally:
            if self.watch.has_slept:
                self.clock.reject("sleeps in real time, which a fake clock cannot shorten")


@dataclass
class Trial:
    """A limiter and the hits that it has got; times are nanoseconds since the start of the trial."""

    bench: Bench
    limiter: Callable[[str], Any]
    start_ns: int
    suffix: str
    """Appended to keys: a candidate may keep states of earlier trials."""
    hits: list[TimedHit] = field(default_factory=list)
    note: str = ""
    """The note of the next hit."""

    @property
    def now_ns(self) -> int:
        """The time."""
        return self.bench.clock.now_ns - self.start_ns

    def move_to(self, at_ns: int) -> None:
        """Let time pass until `at_ns`, with what the candidate does meanwhile in tasks of its own."""
        clock, target = self.bench.clock, self.start_ns + at_ns
        if self.bench.candidate.is_async:
            self.bench.call(lambda: self.bench.loop.run_for(target - clock.now_ns))
        clock.move_to(target)

    def hit(self, key: str = CLIENT) -> TimedHit:
        """Hit a key now."""
        at = self.now_ns
        answer: HitAnswer = self.bench.call(lambda: self.bench.candidate.hit(self.limiter, key + self.suffix))
        hit = TimedHit(at, self.now_ns, key, *answer, self.note)
        self.note = ""
        self.hits.append(hit)
        return hit

    def hit_names(self, names: Iterable[str]) -> int:
        """Hit many keys once each, without a record, and return how many were allowed."""
        keys = [name + self.suffix for name in names]
        return int(self.bench.call(lambda: self.bench.candidate.hit_each(self.limiter, keys)))

    def hit_until_denied(self, limit: int, key: str = CLIENT) -> TimedHit | None:
        """Hit a key until it is denied, at most `limit` times; return the denial."""
        for _ in range(limit):
            hit = self.hit(key)
            if not hit.allowed:
                return hit
        return None

    def set_back(self, nanoseconds: int) -> None:
        """Set the wall clock back."""
        self.bench.clock.step_wall(-nanoseconds)
        self.note = f"after the clock was set back {nanoseconds / NS_PER_S:g} s"

    def play(self, steps: Iterable[TimelineStep]) -> None:
        """Do what the steps say; the time of a step that is over is now."""
        for step in steps:
            self.move_to(step.at_ns)
            if step.back_ns:
                self.set_back(step.back_ns)
            for _ in range(step.hits):
                self.hit(step.key)

    @property
    def rows(self) -> list[TimelineRow]:
        """The hits as rows of a report."""
        return list_rows(self.hits)

    def admissions(self, key: str = CLIENT) -> list[int]:
        """Return the times at which hits of a key were allowed, which for one that slept is when it returned."""
        return [hit.done_ns for hit in self.hits if hit.allowed and hit.key == key]


# --- the bound of a candidate


class Excess(NamedTuple):
    """The window of admissions that is nearest to, or farthest above, the bound."""

    admitted: int
    bound: float
    window_ns: int

    @property
    def rank(self) -> tuple[float, int]:
        """The order of windows: by distance from the bound, then by size."""
        return self.admitted - self.bound, self.admitted

    @property
    def is_above(self) -> bool:
        """Whether more was admitted than the bound allows."""
        return self.admitted > self.bound

    @property
    def figures(self) -> dict[str, Any]:
        """The window as figures of a report."""
        return {"admitted": self.admitted, "bound": self.bound, "window": self.window_ns / NS_PER_S}


def make_bound(candidate: JudgedLimiter, allotment: Allotment) -> Callable[[int], float]:
    """Return the most that a window of this many nanoseconds may admit.

    By default that is the burst, and the limit for each period that the window has begun. Half a millisecond more
    counts for each end of a window that is longer than an instant.
    """
    own = getattr(candidate.factory, "bound", None)
    limit, period, burst = allotment
    known: dict[int, float] = {}

    def bound(window_ns: int) -> float:
        if window_ns not in known:
            window = window_ns and window_ns + 2 * TOLERANCE_NS
            if callable(own):
                value = candidate.run(lambda: own(limit, period, burst, window / NS_PER_S), "FACTORY.bound")
                known[window_ns] = read_number(value)
                if isnan(known[window_ns]):
                    raise CandidateError(f"FACTORY.bound returned {describe_value(value)}: it must be a number")
            else:
                known[window_ns] = burst + limit * ceil(window / (period * NS_PER_S))
        return known[window_ns]

    return bound


def find_excess(admissions: Sequence[int], bound: Callable[[int], float]) -> Excess:
    """Return the window in which the admissions exceed the bound by most, or stay below it by least."""
    worst = Excess(0, bound(0), 0)
    for first, start in enumerate(admissions):
        for last in range(first, len(admissions)):
            window = admissions[last] - start
            found = Excess(last - first + 1, bound(window), window)
            worst = max(worst, found, key=lambda excess: excess.rank)
    return worst
