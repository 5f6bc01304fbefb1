"""Pre-fork worker pool with automatic restart and graceful shutdown."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from math import inf
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from socket import socket, socketpair
from time import monotonic
from types import FrameType
from typing import NamedTuple, Protocol, TextIO, cast

from ratelab.http.server import list_terminals

KILL_TIMEOUT_S = 15.0
"""Seconds after which a worker that does not stop is killed."""

MIN_RESTART_INTERVAL_S = 1.0
"""Seconds between two starts of the same worker, at least."""

MAX_REPORT_CHARS = 900
"""Longest line that a worker reports, so that the pipe takes it in one piece."""

_HANGUP = getattr(signal, "SIGHUP", None)  # not on Windows
_SIGNALS = tuple(number for name in ("SIGINT", "SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)))


class Monitor(Protocol):
    """Receives events of the pool, in the supervisor."""

    def update(self) -> None:
        """Do the work of each second."""

    def report(self, line: str) -> None:
        """Print a line."""

    def report_stop(self, in_flight: int) -> None:
        """Report the number of requests in flight at shutdown."""


class WorkerContext(NamedTuple):
    """A worker's number and its connection to the supervisor."""

    number: int
    """From 0; a restarted worker keeps its number."""
    supervisor_pipe: int
    """A descriptor at which end of file means that the supervisor has died."""
    report_pipe: int
    """A descriptor for messages to the supervisor, which never blocks."""

    def report(self, line: str) -> None:
        """Have the supervisor print a line; drop it if the pipe is full."""
        self._send(f"worker {self.number + 1}: {line[:MAX_REPORT_CHARS]}")

    def report_stop(self, in_flight: int) -> None:
        """Report the number of this worker's requests in flight at shutdown."""
        self._send(in_flight)

    def _send(self, message: str | int) -> None:
        with suppress(OSError):
            line = json.dumps([self.number, message], ensure_ascii=False)
            os.write(self.report_pipe, f"{line}\n".encode(errors="replace"))


class ReportStream:
    """A worker's standard error: its lines are printed by the supervisor."""

    encoding, errors = "utf-8", "replace"

    def __init__(self, report: Callable[[str], object]) -> None:
        self._report = report
        self._line = ""

    def write(self, text: str) -> int:
        """Report the complete lines; keep the rest for the next write."""
        *lines, self._line = f"{self._line}{text}".split("\n")
        for line in lines:
            self._report(line)
        return len(text)

    def flush(self) -> None:
        """Report an incomplete line."""
        if self._line:
            self.write("\n")

    def isatty(self) -> bool:
        """Return False: lines are not printed by this process."""
        return False


class WorkerPool:
    """A supervisor that keeps `count` forked processes running `work`, until SIGTERM, SIGHUP or SIGINT.

    `work` must return at SIGTERM or at end of file at its `supervisor_pipe`, and at once at a SIGINT after that. Each
    worker has its own session, so a terminal's Ctrl-C reaches it through the supervisor alone. When this process forks,
    no thread may run in it except those of line writers, which the workers do not use. `listeners` are closed here at
    shutdown. With `forward_hangup`, SIGHUP is passed to the workers and stops nothing, unless the terminal is gone.
    """

    def __init__(
        self,
        count: int,
        work: Callable[[WorkerContext], None],
        listeners: Sequence[socket],
        monitor: Monitor,
        forward_hangup: bool = False,
    ) -> None:
        self._work, self._listeners, self._monitor = work, listeners, monitor
        self._terminals = list_terminals() if forward_hangup else None
        self._running: dict[int, BaseProcess] = {}
        self._last_start = dict.fromkeys(range(count), -inf)
        self._missing = set(range(count))
        self._supervisor_pipe, self._supervisor_end = os.pipe()  # nothing is written: it ends with this process
        self._reports, self._report_pipe = os.pipe()
        for descriptor in (self._reports, self._report_pipe):
            os.set_blocking(descriptor, False)
        self._unread = b""
        self._in_flight: dict[int, int] = {}  # requests of each worker that is stopping
        self._kill_at = inf  # a time, once the pool is stopping

    def run(self) -> None:
        """Supervise the workers; return when all have stopped."""
        next_update = monotonic()
        try:
            with _receive_signals() as signals:
                while self._running or self._missing:
                    self._start_missing()
                    self._wait(signals, next_update - monotonic())
                    if monotonic() >= next_update:
                        next_update = monotonic() + 1
                        self._monitor.update()
                self._read_reports()
        finally:
            for descriptor in (self._supervisor_pipe, self._supervisor_end, self._reports, self._report_pipe):
                os.close(descriptor)

    def _start_missing(self) -> None:
        for number in [*self._missing]:
            if monotonic() - self._last_start[number] >= MIN_RESTART_INTERVAL_S:
                self._missing.remove(number)
                self._last_start[number] = monotonic()
                self._running[number] = get_context("fork").Process(target=self._run_worker, args=(number,))
                signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # until the worker has reset its handlers
                self._running[number].start()
                signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    def _run_worker(self, number: int) -> None:
        os.setsid()
        os.close(self._supervisor_end)
        os.close(self._reports)
        signal.set_wakeup_fd(-1)
        for signal_number in _SIGNALS:
            if signal.getsignal(signal_number) is not signal.SIG_IGN:
                forwarded = signal_number == _HANGUP and self._terminals is not None
                signal.signal(signal_number, _do_nothing if forwarded else signal.SIG_DFL)  # until `work` handles it
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        worker = WorkerContext(number, self._supervisor_pipe, self._report_pipe)
        sys.stderr = cast("TextIO", ReportStream(worker.report))
        self._work(worker)

    def _wait(self, signals: socket, timeout: float) -> None:
        """Wait for signals, reports and exits, and handle them; kill workers that do not stop."""
        sentinels = {process.sentinel: number for number, process in self._running.items()}
        ready = wait([signals, self._reports, *sentinels], max(0, timeout))
        if signals in ready:
            for signal_number in signals.recv(64):
                self._forward(signal_number)
        self._read_reports()
        for sentinel in sentinels.keys() & ready:
            self._handle_exit(sentinels[sentinel])
        if monotonic() >= self._kill_at:
            for process in self._running.values():
                process.kill()

    def _forward(self, signal_number: int) -> None:
        """Forward a signal to the workers; the first one to stop as SIGTERM, for a graceful shutdown."""
        first = self._kill_at == inf
        if first and signal_number == _HANGUP and self._terminals == list_terminals():
            self._send_signal(signal_number)
            return
        if first:
            self._missing.clear()
            self._kill_at = monotonic() + KILL_TIMEOUT_S
            for listener in self._listeners:
                listener.close()
        at_once = signal_number == signal.SIGINT and not first
        self._send_signal(signal.SIGINT if at_once else signal.SIGTERM)

    def _send_signal(self, number: int) -> None:
        for process in self._running.values():
            with suppress(ProcessLookupError):  # the start of another process has reaped this one
                os.kill(process.pid or 0, number)

    def _read_reports(self) -> None:
        """Pass the workers' lines to the monitor, and the requests in flight once every worker has reported them."""
        with suppress(BlockingIOError):
            self._unread += os.read(self._reports, 65536)
        *lines, self._unread = self._unread.split(b"\n")
        for number, message in map(json.loads, lines):
            if isinstance(message, str):
                self._monitor.report(message)
            else:
                self._in_flight[number] = message
                if self._in_flight.keys() >= self._running.keys():
                    self._monitor.report_stop(sum(self._in_flight.values()))

    def _handle_exit(self, number: int) -> None:
        """Forget a worker that has exited; unless the pool is stopping, report it and schedule a restart."""
        process = self._running.pop(number)
        process.join()
        if self._kill_at == inf:
            code = process.exitcode or 0
            how = signal.Signals(-code).name if code < 0 else f"status {code}"
            self._monitor.report(f"worker {number + 1} exited ({how}); restarting")
            self._missing.add(number)


def _do_nothing(number: int, frame: FrameType | None) -> None:
    """Handle a signal whose usual effect would end the process."""


@contextmanager
def _receive_signals() -> Iterator[socket]:
    """Yield a socket that receives the signals to stop as bytes, instead of their usual effect.

    A signal that is ignored, as SIGHUP by nohup, stays ignored.
    """
    received, sent = socketpair()
    with received, sent:
        sent.setblocking(False)
        before = signal.set_wakeup_fd(sent.fileno())
        received_signals = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        handlers = {number: signal.signal(number, lambda *_: None) for number in received_signals}
        try:
            yield received
        finally:
            signal.set_wakeup_fd(before)
            for number, handler in handlers.items():
                signal.signal(number, handler)
