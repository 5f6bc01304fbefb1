"""Tests of the manual clock, of the wall clock, and of the clock whose windows follow it."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise, product
from pathlib import Path

import freezegun
import pytest
import time_machine
from hypothesis import given
from hypothesis import strategies as st
from mutate import rewritten
from waiting_runs import wait_until

from ratelab import Clock, ManualClock, MemoryLimiter, Policy, create
from ratelab.clock import MAX_WALL_CLOCK_AGE_NS, aligned_clock, wall_clock
from ratelab.lab.replay import replay
from ratelab.lab.traces import TraceOptions, read_traces

SECOND = 10**9
MINUTE = 60 * SECOND
NOON = 1_700_049_600 * SECOND
"""A whole minute, hour and half day since 1970."""


def test_a_manual_clock_moves_only_when_set_or_advanced() -> None:
    clock = ManualClock(5)
    assert [clock(), clock()] == [5, 5]
    clock.advance(10)
    assert clock() == 15
    clock.advance(-20)
    assert clock() == -5
    clock.now = 7
    assert clock() == 7


# --- the wall clock, for tests of applications


def advance_frozen(limiter: MemoryLimiter) -> list[bool]:
    with freezegun.freeze_time("2026-01-02 03:04:05") as frozen:
        return hit_twice_and_after_a_day(limiter, lambda: frozen.tick(86_400))


def advance_travelled(limiter: MemoryLimiter) -> list[bool]:
    with time_machine.travel(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), tick=False) as traveller:
        return hit_twice_and_after_a_day(limiter, lambda: traveller.shift(86_400))


def hit_twice_and_after_a_day(limiter: MemoryLimiter, advance: Callable[[], object]) -> list[bool]:
    before = [limiter.hit("alice").allowed for _ in range(2)]
    advance()
    return [*before, *(limiter.hit("alice").allowed for _ in range(2))]


@pytest.mark.parametrize("advance", [advance_frozen, advance_travelled])
@pytest.mark.parametrize("name", ["token-bucket", "fixed-window"])
def test_a_limiter_on_the_wall_clock_follows_the_time_of_a_test(
    name: str, advance: Callable[[MemoryLimiter], list[bool]]
) -> None:
    limiter = MemoryLimiter(create(name, "1/day"), clock=wall_clock)
    assert advance(limiter) == [True, False, True, False]


@pytest.mark.parametrize(
    ("advance", "name"),
    [
        (advance_frozen, "token-bucket"),
        (advance_frozen, "fixed-window"),
        (advance_travelled, "token-bucket"),
    ],
)
def test_the_default_clock_is_not_affected_by_the_time_of_a_test(
    name: str, advance: Callable[[MemoryLimiter], list[bool]]
) -> None:
    created: list[MemoryLimiter] = []
    with freezegun.freeze_time("2026-01-02"):
        created.append(MemoryLimiter(create(name, "1/day")))
    created.append(MemoryLimiter(create(name, "1/day")))
    for limiter in created:
        assert advance(limiter) == [True, False, False, False]
        assert limiter.hit("alice").retry_after <= 86_400


def test_time_machine_moves_windows_that_follow_utc_forward_and_not_back() -> None:
    limiter = MemoryLimiter(create("fixed-window", "1/day"))
    limiter.hit("alice")
    with time_machine.travel(datetime.now(UTC) + timedelta(days=1)):
        wait_until(lambda: limiter.hit("alice").allowed)
    assert not limiter.hit("alice").allowed


# --- windows that follow the wall clock


MakeClock = Callable[..., Clock]


class Machine:
    """A machine with a wall clock that can be set, and a steady clock."""

    def __init__(self, wall: int = NOON + 30 * SECOND) -> None:
        self.wall, self.steady = ManualClock(wall), ManualClock(12_345_678_901)

    def pass_time(self, nanoseconds: int) -> None:
        self.wall.advance(nanoseconds)
        self.steady.advance(nanoseconds)

    def clock(self, window: int = MINUTE) -> Callable[[], int]:
        return aligned_clock(window, self.wall, self.steady)


def test_an_aligned_clock_is_the_wall_clock_while_that_does_not_step() -> None:
    machine = Machine()
    clock = machine.clock()
    for passed in (0, 1, MAX_WALL_CLOCK_AGE_NS, 3 * SECOND, 86_400 * SECOND):
        machine.pass_time(passed)
        assert clock() == machine.wall.now


@pytest.mark.parametrize("step", [1, SECOND, 45 * SECOND, 8 * 3600 * SECOND])
def test_a_step_forward_is_followed(step: int) -> None:
    """As after the machine was suspended, when the steady clock stands still."""
    machine = Machine()
    clock = machine.clock()
    clock()
    machine.wall.advance(step)
    machine.pass_time(MAX_WALL_CLOCK_AGE_NS)
    assert clock() == machine.wall.now


def check_convergence(make_clock: MakeClock) -> None:
    for step in (1, SECOND, 45 * SECOND, MINUTE, 8 * 3600 * SECOND + 7):
        machine = Machine()
        clock = make_clock(MINUTE, machine.wall, machine.steady)
        clock()
        machine.wall.advance(-step)
        for _ in range(1000):
            machine.pass_time(MINUTE // 500)
            clock()
        assert clock() % MINUTE == machine.wall.now % MINUTE
        machine.wall.advance(20 * SECOND)
        machine.pass_time(MAX_WALL_CLOCK_AGE_NS)
        assert clock() % MINUTE == machine.wall.now % MINUTE


def test_windows_follow_the_wall_clock_again_soon_after_a_step_back() -> None:
    check_convergence(aligned_clock)


@pytest.mark.parametrize("step", [45 * SECOND, 3 * MINUTE + 45 * SECOND])
def test_a_wall_clock_that_jumps_back_and_forth_grants_nothing(step: int) -> None:
    machine = Machine()
    clock = machine.clock()
    clock()
    for _ in range(20):
        machine.wall.advance(-step)
        machine.pass_time(SECOND // 2)
        clock()
        machine.wall.advance(step)
        machine.pass_time(SECOND // 2)
        assert clock() <= machine.wall.now


Move = tuple[int, int]
"""A step of the wall clock, and the time that passes after it."""
moves = st.lists(st.tuples(st.integers(-5 * MINUTE, 5 * MINUTE), st.integers(0, 2 * MINUTE)), max_size=30)


@given(moves)
def test_time_never_goes_back_and_runs_at_no_less_than_half_its_pace(moves: list[Move]) -> None:
    machine = Machine()
    clock = machine.clock()
    times, passed = [clock()], [0]
    for step, rest in moves:
        machine.wall.advance(step)
        for part in (rest // 2, rest - rest // 2):
            machine.pass_time(part)
            times.append(clock())
            passed.append(part)
    assert all(
        later - at >= max(0, part // 2 - MAX_WALL_CLOCK_AGE_NS)
        for (at, later), part in zip(pairwise(times), passed[1:], strict=True)
    )


class Interruption:
    """A steady clock whose reading number `moment`, from 0, is interrupted: `before` and `after` are called."""

    def __init__(self, machine: Machine, moment: int, before: Callable[[], None], after: Callable[[], None]) -> None:
        self._steady, self._rest, self._before, self._after = machine.steady, moment, before, after

    def __call__(self) -> int:
        self._rest -= 1
        if self._rest != -1:
            return self._steady()
        self._before()
        now = self._steady()
        self._after()
        return now


def check_interrupted_reader(make_clock: MakeClock, moment: int, before: int, after: int, reads: int) -> None:
    """Interrupt the reader for two times, while other threads read; the wall clock has just stepped back."""
    machine, seen = Machine(), [0]

    def pause(duration: int) -> None:
        machine.pass_time(duration)
        seen.extend(clock() for _ in range(reads))

    clock = make_clock(MINUTE, machine.wall, Interruption(machine, moment, lambda: pause(before), lambda: pause(after)))
    machine.wall.advance(-SECOND)
    for rest in (MAX_WALL_CLOCK_AGE_NS, 1) * 3:
        machine.pass_time(rest)
        latest = max(seen)
        seen.append(clock())
        assert seen[-1] >= latest


def check_threads(make_clock: MakeClock) -> None:
    pauses = (1, MAX_WALL_CLOCK_AGE_NS - 1, MAX_WALL_CLOCK_AGE_NS, 4 * MAX_WALL_CLOCK_AGE_NS)
    for moment, before, after, reads in product(range(1, 9), pauses, pauses, (0, 1, 2)):
        check_interrupted_reader(make_clock, moment, before, after, reads)


def test_time_never_goes_back_whenever_a_thread_is_interrupted() -> None:
    check_threads(aligned_clock)


def count_admitted(make_clock: MakeClock, steps: dict[int, int]) -> list[int]:
    """Return the second of each admission of a client that hits once a second, with steps of the wall clock."""
    machine = Machine()
    policy, clock = create("fixed-window", "5/min"), make_clock(MINUTE, machine.wall, machine.steady)
    state, admitted = policy.start(clock()), list[int]()
    for second in range(600):
        machine.wall.advance(steps.get(second, 0))
        allowed, *_ = policy.step(state, clock(), 1)
        admitted += [second] if allowed else []
        machine.pass_time(SECOND)
    return admitted


STEPS = {
    "none": {},
    "a second back": {100: -SECOND},
    "a minute and a half back": {100: -90 * SECOND},
    "an hour back": {100: -3600 * SECOND},
    "an hour back and forth": {100: -3600 * SECOND, 130: 3600 * SECOND},
    "back again and again": dict.fromkeys(range(100, 300, 20), -7 * SECOND),
}


def check_steps_back(make_clock: MakeClock) -> None:
    for steps in STEPS.values():
        admitted = count_admitted(make_clock, steps)
        assert all(last - first >= 60 for first, last in zip(admitted, admitted[10:], strict=False))  # 2x burst
        assert all(later - at <= 120 for at, later in pairwise([*admitted, 600]))


def test_a_step_back_grants_no_quota_and_doubles_waits_at_most() -> None:
    check_steps_back(aligned_clock)


MUTANTS: dict[str, tuple[Callable[[MakeClock], None], str, str]] = {
    "trusts the wall clock": (
        check_steps_back,
        "now_on_wall = wall()",
        "return Alignment(wall() - steady(), 0, steady(), 0, 0, 0)",
    ),
    "jumps to the next window": (check_steps_back, "offset - slowed, floor", "offset + window - slowed, floor"),
    "never converges": (check_convergence, "min(ahead % window, (now - looked_at) // 2)", "0"),
    "takes every step forward for the end of a step back": (
        check_convergence,
        "now - stepped_back_at >= window",
        "False",
    ),
    "reads the time again without looking again": (
        check_threads,
        "            state = current\n",
        "            state = current\n            return max(steady() + current[1], current[2])\n",
    ),
}


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS.keys())
def test_a_mutant_of_the_aligned_clock_is_caught(mutant: tuple[Callable[[MakeClock], None], str, str]) -> None:
    check, right, wrong = mutant
    with pytest.raises(AssertionError):
        check(rewritten(aligned_clock, right, wrong))


# --- the same windows live and in the lab


@pytest.mark.parametrize("name", ["fixed-window", "sliding-counter"])
@pytest.mark.parametrize("rate", ["10/min", "1000/day", "7/11s"])
def test_a_live_window_starts_at_a_whole_multiple_of_its_length_since_1970(name: str, rate: str) -> None:
    policy = create(name, rate)
    before = time.time_ns()
    decision = MemoryLimiter(policy).hit("alice", policy.quota.burst)
    after = time.time_ns()
    window, count = policy.quota.window, 1 if name == "fixed-window" else 2
    ends = {(at // window + count) * window for at in (before, after)}
    assert any(before - SECOND < end - decision.reset_after_ns < after + SECOND for end in ends)


def test_a_replay_and_a_live_limiter_use_the_same_windows(tmp_path: Path) -> None:
    seconds = [*range(30, 40), *range(70, 80)]
    log = tmp_path / "log.csv"
    log.write_text("time,ip\n" + "".join(f"{NOON // SECOND + second},10.0.0.1\n" for second in seconds))
    machine = Machine(NOON)
    policy: Policy = create("fixed-window", "10/min")
    limiter = MemoryLimiter(policy, machine.clock())
    live = []
    for second in seconds:
        machine.pass_time(NOON + second * SECOND - machine.wall.now)
        live.append(limiter.hit("10.0.0.1"))
    traffic = read_traces([str(log)], TraceOptions()).traffic
    assert replay(policy, traffic).rows.tolist() == [decision.row for decision in live]
    assert all(decision.allowed for decision in live)
