"""Progress bars that appear only when work takes long."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Timer
from types import TracebackType
from typing import TYPE_CHECKING, Self

import click

from ratelab.errors import install_hint

if TYPE_CHECKING:
    from rich.progress import Progress

    from ratelab.lab.traces import Trace, TraceOptions

PROGRESS_DELAY_S = 1.0
"""Seconds before a bar appears."""


class LateProgress:
    """Count work done; show a bar on the terminal's standard error if it takes longer than `PROGRESS_DELAY_S`.

    Work of which nobody knows how much there is, `total` None, gets a bar that only moves.
    """

    def __init__(self, label: str, total: int | None) -> None:
        self._label, self._total, self._done = label, total, 0
        self._bar: Progress | None = None
        self._timer = Timer(PROGRESS_DELAY_S, self._show)
        self._timer.daemon = True

    def __call__(self, more: int) -> None:
        """Count `more` as done."""
        self._done += more
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self._done)

    def _show(self) -> None:
        from rich.console import Console
        from rich.progress import Progress

        console = Console(stderr=True)
        if console.is_terminal:
            bar = Progress(console=console, transient=True)
            bar.add_task(self._label, total=self._total, completed=self._done)
            bar.start()
            self._bar = bar

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        self._timer.join()
        if self._bar is not None:
            self._bar.stop()


_LARGE = 50_000_000
"""Bytes of a trace from which on a quicker reader is worth a word."""


def read_watched(paths: Sequence[str], options: TraceOptions) -> Trace:
    """Read files as `lab.traces.read_traces` does, with a bar if it takes long."""
    from ratelab.lab.traces import is_arrow_installed, read_traces, sum_file_sizes

    size = sum_file_sizes(paths)
    if size and size >= _LARGE and not is_arrow_installed():
        click.echo(f"to read traces of this size faster, {install_hint('logs')}", err=True)
    with LateProgress("reading", size) as progress:
        return read_traces(paths, options, progress)
