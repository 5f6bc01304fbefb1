"""Deterministic interleaving of threads: one runs at a time, and a seed decides after which instruction it changes."""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable
from random import Random
from types import FrameType
from typing import Any

from ratelab.judge.fake_clock import Unsuitable

STALL_S = 0.1
"""Real seconds without progress after which the running thread counts as blocked, and another one goes on, too."""

MAX_STALLS = 30
"""Stalls after which the threads wait for something that cannot be scheduled."""

NOT_TRACED = ("ratelab.judge.", "threading", "logging", "importlib", "random")
"""Modules within which no thread is interrupted."""

_active: Interleaving | None = None

_real_lock, _real_rlock = threading.Lock, threading.RLock


class Deadlock(Exception):  # noqa: N818  (a word of the field)
    """Every thread waits for a lock."""


class Interleaving:
    """Runs functions in a thread each, of which one at a time makes progress."""

    def __init__(self, seed: int, share: float) -> None:
        self._random = Random(seed)
        self._share = share  # of instructions after which another thread goes on
        self._turns: list[Any] = []
        self._runnable: list[int] = []
        self._current = 0
        self.steps = 0
        """The number of instructions so far."""
        self._numbers: dict[int, int] = {}  # of threads, by their identifiers
        self._failures: list[BaseException] = []
        self._waiting = 0  # consecutive turns that ended at a lock
        self._done = _real_lock()

    def run(self, works: list[Callable[[], object]]) -> None:
        """Run the functions to their ends, and raise the first exception of one; in no thread after a stall."""
        global _active
        self._turns = [_real_lock() for _ in works]
        self._runnable = list(range(len(works)))
        for lock in (*self._turns, self._done):
            lock.acquire()
        threads = [
            threading.Thread(target=self._run_one, args=(number, work), name=f"judge-{number}", daemon=True)
            for number, work in enumerate(works)
        ]
        for thread in threads:
            thread.start()
        _active = self
        try:
            self._turns[0].release()
            self._wait_for_end()
        finally:
            _active = None
        if self._failures:
            raise self._failures[0]

    def _wait_for_end(self) -> None:
        """Wait until all threads have ended, and let another one go on if the running one waits for something else."""
        steps, stalls = -1, 0
        while not self._done.acquire(timeout=STALL_S):
            has_stalled, steps = steps == self.steps, self.steps
            stalls += has_stalled
            if stalls > MAX_STALLS:
                raise Unsuitable("its threads wait for something that the judge cannot schedule")
            others = [each for each in self._runnable if each != self._current]
            if has_stalled and others:
                self._current = self._random.choice(others)
                self._wake(self._current)

    def _wake(self, number: int) -> None:
        if self._turns[number].locked():
            self._turns[number].release()

    def _run_one(self, number: int, work: Callable[[], object]) -> None:
        self._turns[number].acquire()
        self._numbers[threading.get_ident()] = number
        try:
            if not self._failures:
                sys.settrace(self._trace)
                try:
                    work()
                finally:
                    sys.settrace(None)
        except BaseException as error:
            self._failures.append(error)
        finally:
            self._runnable.remove(number)
            if self._runnable:
                self._pass_on()
            else:
                self._done.release()

    def _trace(self, frame: FrameType, event: str, argument: object) -> Any:  # noqa: ARG002  (the signature of settrace)
        if str(frame.f_globals.get("__name__")).startswith(NOT_TRACED):
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self._trace_opcode

    def _trace_opcode(self, frame: FrameType, event: str, argument: object) -> Any:  # noqa: ARG002
        if event == "opcode":
            self._waiting = 0
            self.steps += 1
            number = self._numbers[threading.get_ident()]
            while self._current != number:  # after it was blocked
                self._turns[number].acquire()
            if self._random.random() < self._share:
                self.switch()
        return self._trace_opcode

    def switch(self, is_blocked: bool = False) -> None:
        """Let another thread go on, chosen at random, and wait for the next turn of this one."""
        number = self._numbers[threading.get_ident()]
        if is_blocked:
            self._waiting += 1
            if self._waiting > 50 * len(self._turns) or len(self._runnable) == 1:
                raise Deadlock("every thread waits for a lock")
        others = [each for each in self._runnable if each != number]
        if not others:
            return
        chosen = self._random.choice(others)
        self._current = chosen
        self._wake(chosen)
        self._turns[number].acquire()

    def _pass_on(self) -> None:
        self._current = self._random.choice(self._runnable)
        self._wake(self._current)


class CooperativeLock:
    """A lock that, while an `Interleaving` runs, passes the turn to another thread instead of blocking."""

    make: Callable[[], Any] = staticmethod(_real_lock)

    def __init__(self) -> None:
        self._lock = self.make()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Do as `threading.Lock.acquire`; a time-out is over as soon as no other thread can go on."""
        running = _active
        if running is None or not threading.current_thread().name.startswith("judge-"):
            return bool(self._lock.acquire(blocking, timeout))
        while not self._lock.acquire(False):
            if not blocking:
                return False
            try:
                running.switch(is_blocked=True)
            except Deadlock:
                if timeout >= 0:
                    return False
                raise
        return True

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def __getattr__(self, name: str) -> Any:
        """Return `release`, `locked` and the methods that a condition uses."""
        method = getattr(self._lock, name)
        setattr(self, name, method)  # the next time, it is found at once
        return method


class CooperativeRLock(CooperativeLock):
    """The same for a lock that its owner may acquire again."""

    make = staticmethod(_real_rlock)

    def _acquire_restore(self, state: Any) -> None:
        """Acquire the lock as often as before a wait for a condition, which calls this."""
        self.acquire()
        self._lock.release()  # at once, for the method of the real lock
        self._lock._acquire_restore(state)


def install_locks() -> None:
    """Replace the locks of `threading` for modules that are imported later."""
    threading.Lock = CooperativeLock  # type: ignore[assignment]
    threading.RLock = CooperativeRLock  # type: ignore[assignment]
    if hasattr(functools, "RLock"):
        functools.RLock = CooperativeRLock  # of `cached_property`, before Python 3.12
    if hasattr(threading, "_allocate_lock"):
        threading._allocate_lock = CooperativeLock  # on which conditions, and so semaphores, wait
