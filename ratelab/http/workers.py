"""Several processes at the same work: forked, made anew when they end, told to stop together."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from math import inf
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from socket import socket, socketpair
from time import monotonic
from typing import NamedTuple, Protocol

KILL_TIMEOUT_S = 15.0
"""Seconds after which a worker that was told to stop is killed."""

SHORTEST_LIFE = 1.0
"""Seconds from one start of a worker to the next, at least."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class WorkerContext(NamedTuple):
    """What a worker has of the process that made it."""

    number: int
    """Which of the workers it is, from 0; its successor has the same."""
    lifeline: int
    """A descriptor that reads as ended when the parent has."""
    told: int
    """A descriptor to write to, which never blocks."""

    def say(self, line: str) -> None:
        """Have a line shown, unless so many are waiting that there is no room."""
        self._send(f"worker {self.number + 1}: {line[:900]}")

    def stop(self, in_flight: int) -> None:
        """Tell how many requests a stop has to wait for."""
        self._send(in_flight)

    def _send(self, message: str | int) -> None:
        with suppress(OSError):
            line = json.dumps([self.number, message], ensure_ascii=False)
            os.write(self.told, f"{line}\n".encode(errors="replace"))  # in one piece, for it is short


class Overseer(Protocol):
    """What is told of the workers, in their parent."""

    def tick(self) -> None:
        """Do what is done every second."""

    def say(self, line: str) -> None:
        """Show a line."""

    def stop(self, in_flight: int) -> None:
        """Say what a stop has to wait for."""


class Workers:
    """Keep `count` processes at `work` until SIGTERM or an interrupt, and until they have then finished.

    `work` takes its `WorkerContext`. It must end at SIGTERM or when the lifeline ends, and at once at a SIGINT after
    that. The workers are forks, so no thread may run here; and each has a session of its own, so that a terminal's
    Ctrl-C comes to them through this process alone. `listeners` are closed here when the workers are told to stop.
    """

    def __init__(
        self, count: int, work: Callable[[WorkerContext], None], listeners: Sequence[socket], overseer: Overseer
    ) -> None:
        self._work, self._listeners, self._overseer = work, listeners, overseer
        self._alive: dict[int, BaseProcess] = {}
        self._started = dict.fromkeys(range(count), -inf)
        self._missing = set(range(count))
        self._lifeline, self._held = os.pipe()
        self._heard, self._told = os.pipe()
        for descriptor in (self._heard, self._told):
            os.set_blocking(descriptor, False)
        self._unread = b""
        self._in_flight: dict[int, int] = {}  # requests, by the workers that stop
        self._kill_at = inf  # once they are told to stop, a time

    def run(self) -> None:
        """Have the work done; return when all have ended."""
        next_tick = monotonic()
        try:
            with _signals() as received:
                while self._alive or self._missing:
                    self._start_missing()
                    self._wait(received, next_tick - monotonic())
                    if monotonic() >= next_tick:
                        next_tick = monotonic() + 1
                        self._overseer.tick()
                self._hear()
        finally:
            for descriptor in (self._lifeline, self._held, self._heard, self._told):
                os.close(descriptor)

    def _start_missing(self) -> None:
        for number in [*self._missing]:
            if monotonic() - self._started[number] >= SHORTEST_LIFE:
                self._missing.remove(number)
                self._started[number] = monotonic()
                self._alive[number] = get_context("fork").Process(target=self._begin, args=(number,))
                signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # until the worker has handlers of its own
                self._alive[number].start()
                signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    def _begin(self, number: int) -> None:
        """Be a worker."""
        os.setsid()
        os.close(self._held)
        os.close(self._heard)
        signal.set_wakeup_fd(-1)
        for one in _SIGNALS:
            signal.signal(one, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        self._work(WorkerContext(number, self._lifeline, self._told))

    def _wait(self, received: socket, seconds: float) -> None:
        """Wait until something happens, and see to it."""
        sentinels = {process.sentinel: number for number, process in self._alive.items()}
        ready = wait([received, self._heard, *sentinels], max(0, seconds))
        if received in ready:
            for number in received.recv(64):
                self._pass_on(number)
        self._hear()
        for sentinel in sentinels.keys() & ready:
            self._bury(sentinels[sentinel])
        if monotonic() >= self._kill_at:
            for process in self._alive.values():
                process.kill()

    def _pass_on(self, number: int) -> None:
        """Pass a signal on; the first one, whichever it is, as a request to finish."""
        first = self._kill_at == inf
        if first:
            self._missing.clear()
            self._kill_at = monotonic() + KILL_TIMEOUT_S
            for listener in self._listeners:
                listener.close()
        for process in self._alive.values():
            os.kill(process.pid or 0, signal.SIGTERM if first else number)

    def _hear(self) -> None:
        """Take what the workers say; how many requests are in flight when the last has said it."""
        with suppress(BlockingIOError):
            self._unread += os.read(self._heard, 65536)
        *lines, self._unread = self._unread.split(b"\n")
        for number, message in map(json.loads, lines):
            if isinstance(message, str):
                self._overseer.say(message)
            else:
                self._in_flight[number] = message
                if self._in_flight.keys() >= self._alive.keys():
                    self._overseer.stop(sum(self._in_flight.values()))

    def _bury(self, number: int) -> None:
        """Take note that a worker has ended, and, unless all are to end, have it replaced."""
        process = self._alive.pop(number)
        process.join()
        if self._kill_at == inf:
            code = process.exitcode or 0
            how = signal.Signals(-code).name if code < 0 else f"status {code}"
            self._overseer.say(f"worker {number + 1} has ended ({how}): another takes its place")
            self._missing.add(number)


@contextmanager
def _signals() -> Iterator[socket]:
    """Have SIGINT and SIGTERM arrive on a socket, as bytes, instead of ending this process."""
    received, sent = socketpair()
    with received, sent:
        sent.setblocking(False)
        before = signal.set_wakeup_fd(sent.fileno())
        handlers = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
        try:
            yield received
        finally:
            signal.set_wakeup_fd(before)
            for number, handler in handlers.items():
                signal.signal(number, handler)
