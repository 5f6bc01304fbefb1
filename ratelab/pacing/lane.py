"""Requests that wait for their time, in one lane for each key: first come, first served."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator
from dataclasses import dataclass, field
from itertools import count, islice
from threading import Lock
from typing import Any

from ratelab.errors import RateLimitExceeded
from ratelab.limiter import Decision
from ratelab.pacing.advice import Headers, RateAdvice, read_advice
from ratelab.pacing.pace import LearnedPace, Sent
from ratelab.pacing.state import Action, PaceState
from ratelab.quota import NS_PER_S
from ratelab.stores.waiting_lines import Sleep

MAX_NAP_NS = NS_PER_S
"""The longest sleep of the first request before another look at a store, which other processes change."""


_numbers = count()

MAX_TIMES_TAKEN = 100
"""How many requests take their times in one change of a pace."""


class Take:
    """A step of a request that waits: take the times of the first requests."""


Steps = Generator[Take | Sleep, Any, Sent]


@dataclass(eq=False, slots=True)
class Turn:
    """A request that waits for its time."""

    deadline: int | None
    sleeper: Any
    until: int | None = None
    """The time until which it sleeps; None unless it is the first."""
    taken: Sent | None = None
    """The request, once its time is taken and until it is sent."""
    waited: bool = False
    """Whether its time had not come when it asked."""
    number: int = field(default_factory=lambda: next(_numbers))


class RequestLane:
    """The requests with one key: the pace of all, and those that wait.

    Only the first sleeps until its time; the others sleep until they are first. A request whose time was taken early
    sleeps outside the lane, and comes back to its place if requests are held until later by then.
    """

    def __init__(self, key: str, state: PaceState) -> None:
        self.key = key
        self.state = state
        self._lock = Lock()
        self._turns: OrderedDict[Turn, None] = OrderedDict()

    @property
    def idle(self) -> bool:
        """Whether no request waits or is in flight."""
        return not self._turns and not self.state.pace.in_flight

    def admit(self, turn: Turn) -> Steps:
        """Return the request once it is to be sent; raise `RateLimitExceeded` as soon as that is certain to be late.

        If this is closed earlier, the request gives its place or its time back.
        """
        try:
            with self._lock:
                ahead = len(self._turns)
                self._turns[turn] = None
            self._check(turn, ahead)
            while True:
                while turn.taken is None:
                    yield from self._approach(turn)
                self._leave(turn)
                while self.state.clock() < turn.taken.at:  # a time that was taken from a store
                    yield Sleep(turn.taken.at)
                if self.state.pace.held_until <= turn.taken.at:
                    sent, turn.taken = turn.taken, None
                    return sent
                self.settle(turn)
                self._return(turn)
        finally:
            self._leave(turn)
            self.settle(turn)

    def _approach(self, turn: Turn) -> Generator[Take | Sleep, Any, None]:
        """Take times if this is the first request, and sleep without one; raise `RateLimitExceeded` if it is late."""
        late = False
        if not self._is_first(turn):
            turn.waited = True
            yield Sleep(turn.deadline)
            late = turn.deadline is not None and self.state.clock() >= turn.deadline
        else:
            yield Take()
            if turn.taken is None and turn.until is not None:
                turn.waited = True
                self._check(turn)
                until = turn.until if turn.deadline is None else min(turn.until, turn.deadline)
                nap = self.state.clock() + MAX_NAP_NS
                yield Sleep(min(until - self.state.ahead // 2, nap) if self.state.blocking else until)
        if turn.taken is None:
            self._check(turn, late=late)

    def _is_first(self, turn: Turn) -> bool:
        with self._lock:
            is_first = next(iter(self._turns), None) is turn
            if not is_first:
                turn.until = None
            return is_first

    def take(self) -> None:
        """Take the times of the first requests, as far as these are near."""
        with self._lock:
            turns = [*islice(self._turns, MAX_TIMES_TAKEN)]

        def take_near(pace: LearnedPace, now: int) -> list[tuple[int, Sent | None]]:
            times: list[tuple[int, Sent | None]] = []
            for turn in turns:
                at = pace.ready_at(now)
                takes = at <= now + self.state.ahead and (turn.deadline is None or at <= turn.deadline)
                waited = turn.waited or at > now or turn is not turns[0]
                times.append((at, pace.send(at, waited) if takes else None))
                if not takes:
                    break
            return times

        times = self.state.change(take_near)
        unused = []
        with self._lock:
            for turn, (at, sent) in zip(turns, times, strict=False):
                if sent is None:
                    turn.until = at if turn is turns[0] else None  # another first has to ask before it sleeps
                elif turn in self._turns:
                    del self._turns[turn]
                    turn.taken = sent
                    turn.sleeper.wake()
                else:  # it was cancelled meanwhile
                    unused.append(sent)
        for sent in unused:
            self._give_back(sent)

    def _check(self, turn: Turn, ahead: int = 0, late: bool = False) -> None:
        """Raise `RateLimitExceeded` if a request cannot be sent in time, with a number of requests before it."""
        if turn.deadline is not None:
            now, pace = self.state.clock(), self.state.pace
            at = pace.due(now) + int(ahead * pace.spacing)
            if late or at > turn.deadline:
                wait = max(1, at - now)
                raise RateLimitExceeded(Decision(False, 0, wait, wait, 0), self.key)

    def _leave(self, turn: Turn) -> None:
        with self._lock:
            self._turns.pop(turn, None)
            following = next(iter(self._turns), None)
            wakes = following is not None and following.until is None
        if following is not None and wakes:
            following.sleeper.wake()

    def _return(self, turn: Turn) -> None:
        """Put a request back before those that came later."""
        with self._lock:
            self._turns = OrderedDict.fromkeys(sorted([*self._turns, turn], key=lambda each: each.number))

    def settle(self, turn: Turn) -> None:
        """Give back the time of a request that has left without being sent."""
        with self._lock:
            taken, turn.taken = turn.taken, None
        if taken is not None:
            self._give_back(taken)

    def _give_back(self, sent: Sent) -> None:
        self._learn(lambda pace, _: pace.give_back(sent))

    def observe(self, sent: Sent, advice: RateAdvice) -> None:
        """Learn from a response."""
        self._learn(lambda pace, now: pace.observe(sent, now, advice), advice.denied)

    def abandon(self) -> None:
        """Count a request that has no response."""
        self._learn(lambda pace, _: pace.abandon())

    def _learn(self, action: Action[None], denied: bool = False) -> None:
        now = self.state.clock()

        def learn(pace: LearnedPace, _: int) -> None:
            action(pace, now)
            self._wake(pace.ready_at(now), pace.due(now) if denied else 0)

        self.state.learn(learn)

    def _wake(self, ready_at: int, due: int) -> None:
        """Wake the first request if it can be sent earlier, and those whose deadline is before `due`."""
        with self._lock:
            first = next(iter(self._turns), None)
            awake = [first] if first is not None and first.until is not None and ready_at < first.until else []
            if due:
                awake += [turn for turn in self._turns if turn.deadline is not None and turn.deadline < due]
        for turn in awake:
            turn.sleeper.wake()


class Permit:
    """A request that may be sent now. Pass its response to `observe`, or call `abandon` if there is none."""

    def __init__(self, lane: RequestLane, sent: Sent) -> None:
        self._lane, self._sent = lane, sent
        self._open = True

    def observe(self, status: int, headers: Headers = ()) -> RateAdvice:
        """Learn from the status and the header fields of the response, and return the limits in them."""
        advice = read_advice(status, headers)
        if self._open:
            self._open = False
            self._lane.observe(self._sent, advice)
        return advice

    def abandon(self) -> None:
        """Give up the request, unless its response was observed."""
        if self._open:
            self._open = False
            self._lane.abandon()
