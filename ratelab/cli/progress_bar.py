"""Progress bars and announcements for slow work."""

from __future__ import annotations

import sys
from threading import Event, Thread
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

import click

from ratelab.quota import NS_PER_S, about

if TYPE_CHECKING:
    from rich.progress import Progress

PROGRESS_DELAY_S = 1.0
"""Seconds of work before a progress bar or the announcement of long work appears."""

ANNOUNCED_WORK_S = 10.0
"""Seconds of further work from which on a line announces it, without a terminal."""


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether `stream` is a terminal; unlike `Console.is_terminal`, whatever FORCE_COLOR says."""
    return stream is not None and stream.isatty()


class LateProgress:
    """A progress bar on the terminal's standard error that appears after `PROGRESS_DELAY_S`.

    If standard error is not a terminal, a line announces work that will take more than `ANNOUNCED_WORK_S`. Call it with
    the amount of further work done. Without a `total`, the bar only pulses.
    """

    def __init__(self, label: str, total: int | None) -> None:
        self._label, self._total, self._done = label, total, 0
        self._first: tuple[float, int] | None = None  # when work was first reported, and how much
        self._bar: Progress | None = None
        self._ended = Event()
        self._watcher = Thread(target=self._watch, daemon=True)

    def __call__(self, more: int) -> None:
        """Add `more` to the work done."""
        self._done += more
        self._first = self._first or (monotonic(), self._done)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self._done)

    def _watch(self) -> None:
        """Show the progress, or each time the delay has passed, check whether the rest takes long."""
        shown = False
        while not (shown or self._ended.wait(PROGRESS_DELAY_S)):
            shown = self._draw_bar() if is_terminal(sys.stderr) else self._announce()

    def _draw_bar(self) -> bool:
        from rich.console import Console
        from rich.progress import Progress

        bar = Progress(console=Console(stderr=True), transient=True)
        bar.add_task(self._label, total=self._total, completed=self._done)
        bar.start()
        self._bar = bar
        return True

    def _announce(self) -> bool:
        """Print how long the rest will take, judging by the work since it was first reported; return whether it did."""
        if self._first is None or self._total is None:
            return False
        since, before = self._first
        rest = (self._total - self._done) * (monotonic() - since) / max(1, self._done - before)
        if self._done == before or rest <= ANNOUNCED_WORK_S:
            return False
        click.echo(f"{self._label}: about {about(round(rest) * NS_PER_S)} left", err=True)
        return True

    def __enter__(self) -> Self:
        self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._watcher.join()
        if self._bar is not None:
            self._bar.stop()
