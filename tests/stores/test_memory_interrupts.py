"""The memory limiter stays exact whatever interrupts a call: at every bytecode, a nested hit or an exception."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial, wraps
from itertools import chain, count
from types import FrameType
from typing import Any, NoReturn, ParamSpec, TypeVar

import pytest
from mutate import MUTANT_FILE

import ratelab
from ratelab import Algorithm, ManualClock, MemoryLimiter, Quota
from ratelab.algorithms import build_policy
from ratelab.quota import NS_PER_S

pytestmark = pytest.mark.slow

PACKAGE = str(ratelab.__path__[0])
"""The files whose code is interrupted, in addition to mutants."""

other_thread = ThreadPoolExecutor(1)

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
BURST, MAX_KEYS, DAY = 3, 4, 86_400 * NS_PER_S


class Interrupted(BaseException):
    """Raised by a signal handler, as `KeyboardInterrupt` or a time limit is."""


def in_new_thread(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Run a function that raises from a trace function in a thread of its own.

    Where an `except` block begins or ends, such an exception unbalances the interpreter's stack of exceptions being
    handled, which belongs to the thread. Every later exception of the thread would have a longer `__context__`.
    """

    @wraps(function)
    def run(*arguments: Parameters.args, **options: Parameters.kwargs) -> Result:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(function, *arguments, **options).result()

    return run


class Interrupter:
    """Calls `act` before the bytecode of the package that a call reaches as its `moment`th, counted from 0."""

    def __init__(self, moment: int, act: Callable[[], object]) -> None:
        self.acted = False
        self._rest, self._act = moment, act

    def run(self, call: Callable[[], Result]) -> Result:
        """Return the result of `call`, whose bytecodes are not mixed with those of finalizers of other objects."""
        gc.disable()
        sys.settrace(self._trace)
        try:
            return call()
        finally:
            sys.settrace(None)
            gc.enable()

    def _trace(self, frame: FrameType, event: str, argument: object) -> Any:
        if not frame.f_code.co_filename.startswith((PACKAGE, MUTANT_FILE)):
            return None
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        return self._count

    def _count(self, frame: FrameType, event: str, argument: object) -> Any:
        if event == "opcode":
            self._rest -= 1
            if self._rest < 0:
                self.acted = True
                sys.settrace(None)  # `act` itself is not interrupted
                self._act()
        return self._count


def can_lock(limiter: MemoryLimiter) -> bool:
    """Return whether this thread can acquire the limiter's lock at once."""
    acquired: bool = limiter._table.lock._lock.acquire(blocking=False)
    if acquired:
        limiter._table.lock._lock.release()
    return acquired


class Scene:
    """A limiter of at most `MAX_KEYS` keys, and a call of it that is to be interrupted."""

    def __init__(self, limiter: type[MemoryLimiter], kind: type[Algorithm]) -> None:
        self.clock = ManualClock(10**18)
        self.limiter = limiter(build_policy(kind, Quota(BURST, DAY)), self.clock, MAX_KEYS)

    def use(self, *keys: str) -> None:
        for key in keys:
            self.limiter.hit(key)

    def hit(self, key: str, outcomes: list[bool] | None = None) -> bool:
        """Return whether a hit is allowed, and append it to `outcomes`."""
        allowed = self.limiter.hit(key).allowed
        if outcomes is not None:
            outcomes.append(allowed)
        return allowed

    def check_keys(self) -> None:
        """Check that keys are kept and queued once."""
        limiter = self.limiter
        kept = [*chain.from_iterable(map(dict.values, limiter._table.shards))]
        assert len(kept) == limiter.stats.keys <= limiter.max_keys
        assert len({*limiter._table.queue}) == len(limiter._table.queue)
        assert {*kept} <= {*limiter._table.queue}

    def check(self) -> None:
        """Check the keys, that other threads are not blocked, and that all is forgotten."""
        limiter = self.limiter
        self.check_keys()
        assert other_thread.submit(can_lock, limiter).result()
        self.clock.advance(3 * DAY)
        for number in range(3 * MAX_KEYS):
            limiter.hit(f"late {number}", 0)
        assert (limiter.stats.keys, len(limiter._table.queue)) == (0, 0)


def a_known_key(scene: Scene) -> None:
    scene.limiter.hit("alice", 0)
    scene.use("alice")
    scene.limiter.reset("alice")


def a_new_key(scene: Scene) -> None:
    pass


def a_new_key_that_evicts(scene: Scene) -> None:
    scene.use("alice", "bob", "carol", "dave")
    scene.clock.advance(3 * DAY)


def a_new_key_that_evicts_the_only_one(scene: Scene) -> None:
    scene.limiter = type(scene.limiter)(scene.limiter.policy, scene.clock, max_keys=1)
    scene.use("bob")
    scene.clock.advance(3 * DAY)


def a_new_key_for_the_last_place(scene: Scene) -> None:
    scene.use("carol", "dave", "erin")


def a_key_without_a_place(scene: Scene) -> None:
    scene.use("carol", "dave", "erin", "frank")


Setup = Callable[[Scene], None]
SETUPS: list[Setup] = [
    a_known_key,
    a_new_key,
    a_new_key_that_evicts,
    a_new_key_that_evicts_the_only_one,
    a_new_key_for_the_last_place,
    a_key_without_a_place,
]
SHARED = [a_new_key_that_evicts_the_only_one, a_new_key_for_the_last_place, a_key_without_a_place]
"""Setups in which other keys use the same quota."""

every_setup = pytest.mark.parametrize("setup", SETUPS, ids=lambda setup: setup.__name__)


STEP = 3
"""Moments from one interrupt to the next in calls of which other tests interrupt every moment."""


def check_nested_hits(
    limiter: type[MemoryLimiter], kind: type[Algorithm], setup: Setup, key: str = "alice", step: int = 1
) -> None:
    """At moments of a hit of alice, hit `key`; each is granted exactly its burst."""
    for moment in count(0, step):
        scene = Scene(limiter, kind)
        setup(scene)
        nested: list[bool] = []
        interrupter = Interrupter(moment, partial(scene.hit, key, nested))
        admitted = {"alice": 0, key: 0}
        admitted["alice"] += interrupter.run(partial(scene.hit, "alice"))
        scene.check_keys()
        admitted[key] += sum(nested)
        for name in admitted:
            admitted[name] += sum(scene.hit(name) for _ in range(2 * BURST))
        if setup in SHARED and key != "alice":
            assert all(number <= BURST for number in admitted.values())
        else:
            assert admitted == dict.fromkeys(admitted, BURST)
        scene.check()
        if not interrupter.acted:
            assert moment > 20
            return


@in_new_thread
def check_exceptions(limiter: type[MemoryLimiter], kind: type[Algorithm], setup: Setup, step: int = 1) -> None:
    """At moments of a hit of alice, raise; the same exception surfaces, and she is charged once or not."""
    for moment in count(0, step):
        scene = Scene(limiter, kind)
        setup(scene)
        error = Interrupted()
        interrupter = Interrupter(moment, partial(throw, error))
        try:
            interrupter.run(partial(scene.hit, "alice"))
        except Interrupted as caught:
            assert caught is error  # noqa: PT017  (a trace function raises it, which `pytest.raises` would hide)
        assert sum(scene.hit("alice") for _ in range(2 * BURST)) in (BURST, BURST - 1)
        scene.check()
        if not interrupter.acted:
            assert moment > 20
            return


@in_new_thread
def check_resets(limiter: type[MemoryLimiter], kind: type[Algorithm], setup: Setup) -> None:
    """At every moment of a reset of alice, hit her key or raise; she has her burst, or nothing if the reset failed."""
    for moment in count():
        for nested in (list[bool](), None):
            scene = Scene(limiter, kind)
            setup(scene)
            scene.use(*["alice"] * BURST)
            error = Interrupted()
            act = partial(throw, error) if nested is None else partial(scene.hit, "alice", nested)
            interrupter = Interrupter(moment, act)
            try:
                interrupter.run(partial(scene.limiter.reset, "alice"))
            except Interrupted as caught:
                assert caught is error  # noqa: PT017  (a trace function raises it, which `pytest.raises` would hide)
            granted = sum(scene.hit("alice") for _ in range(2 * BURST)) + sum(nested or [])
            assert granted in ((BURST, 0) if nested is None else (BURST,))
            scene.check()
        if not interrupter.acted:
            assert moment > 20
            return


def throw(error: Interrupted) -> NoReturn:
    raise error


@every_setup
def test_a_nested_hit_of_the_same_key_is_decided_like_any_other(setup: Setup, limiter: type[MemoryLimiter]) -> None:
    check_nested_hits(limiter, ratelab.ALGORITHMS["token-bucket"], setup)


@every_setup
def test_a_nested_hit_of_another_key_is_decided_like_any_other(setup: Setup, limiter: type[MemoryLimiter]) -> None:
    check_nested_hits(limiter, ratelab.ALGORITHMS["token-bucket"], setup, "bob", STEP)


@every_setup
def test_an_exception_surfaces_and_leaves_the_limiter_consistent(setup: Setup, limiter: type[MemoryLimiter]) -> None:
    check_exceptions(limiter, ratelab.ALGORITHMS["token-bucket"], setup)


@pytest.mark.parametrize("setup", [a_known_key, a_key_without_a_place], ids=lambda setup: setup.__name__)
def test_an_interrupted_reset_restores_the_quota_or_changes_nothing(setup: Setup, limiter: type[MemoryLimiter]) -> None:
    check_resets(limiter, ratelab.ALGORITHMS["token-bucket"], setup)


@pytest.mark.parametrize("check", [check_nested_hits, check_exceptions], ids=lambda check: check.__name__)
def test_no_interrupt_breaks_any_algorithm(check: Callable[..., None], kind: type[Algorithm]) -> None:
    check(MemoryLimiter, kind, a_known_key)
    check(MemoryLimiter, kind, a_new_key, step=STEP)
