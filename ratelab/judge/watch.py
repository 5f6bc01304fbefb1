"""Watch over the calls of a candidate: one that hangs or sleeps in real time, and not one of a busy machine."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

INTERVAL_S = 0.1
"""Real seconds between two looks at the running call."""

SLEEP_LIMIT_S = 0.25
"""Real seconds that a call sleeps before it is suspicious."""

MIN_SLEEPS = 2
"""Suspicious calls that are reported; a single one may have waited for a disk."""

_monotonic, _process_time, _sleep, _Event, _wait, _Thread = (  # the real ones, which are replaced later
    time.monotonic,
    time.process_time,
    time.sleep,
    threading.Event,
    threading.Event.wait,
    threading.Thread,
)


class CallWatch:
    """The running call of the candidate, in the main thread of a process."""

    def __init__(self) -> None:
        self.activity = "a hit"
        """The name of the call."""
        self.may_wait = False
        """Whether the candidate may wait in real time, as for a store or for threads."""
        self._entered_at: float | None = None
        self._mark = self._read_times()
        self._patience = 1.0
        self._sleeps = 0

    def read_cpu(self) -> float:
        """Return the processor time of this process in seconds."""
        return _process_time()

    def sleep(self, seconds: float) -> None:
        """Sleep in real time."""
        _sleep(seconds)

    def mark(self) -> None:
        """Look for calls that sleep from now on."""
        self._mark = self._read_times()

    def run(self, work: Callable[[], Any], patience: float = 1.0) -> Any:
        """Call `work`, which may take `patience` times as long as other calls."""
        self._patience = patience
        self._entered_at = started = _monotonic()
        try:
            return work()
        finally:
            self._entered_at = None
            if _monotonic() - started > SLEEP_LIMIT_S and not self.may_wait:
                self._count_sleep()

    @property
    def has_slept(self) -> bool:
        """Whether calls have slept in real time."""
        return self._sleeps >= MIN_SLEEPS

    def start(self, hang_s: float, report: Callable[[], object]) -> None:
        """Start the thread that calls `report` if a call takes longer than `hang_s` seconds."""
        pause = _Event()

        def look() -> None:
            seen: float | None = None
            begun = self._read_times()
            while True:
                _wait(pause, INTERVAL_S)
                entered = self._entered_at
                if entered is None or entered != seen:
                    seen, begun = entered, self._read_times()
                    continue
                wall, _, delay = (now - then for now, then in zip(self._read_times(), begun, strict=True))
                if wall - delay > hang_s * self._patience:
                    report()

        _Thread(target=look, daemon=True).start()

    def _count_sleep(self) -> None:
        wall, cpu, delay = (now - then for now, then in zip(self._read_times(), self._mark, strict=True))
        self._sleeps += wall - cpu - delay > SLEEP_LIMIT_S
        self.mark()

    def _read_times(self) -> tuple[float, float, float]:
        """Return real time, processor time, and the time for which the main thread waited for a processor.

        The last one is known on Linux alone; elsewhere it counts as no time.
        """
        try:
            text = Path(f"/proc/self/task/{os.getpid()}/schedstat").read_text()
            cpu_ns, delay_ns, _ = map(int, text.split())
        except (OSError, ValueError):
            return _monotonic(), _process_time(), 0.0
        return _monotonic(), cpu_ns / 1e9, delay_ns / 1e9
