"""A progress bar for work that takes a person's time."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress

PATIENCE = 1.0
"""Seconds before a bar appears."""


class LateProgress:
    """Count work done; show a bar on the terminal's standard error once that has taken over `PATIENCE`."""

    def __init__(self, label: str, total: int | None) -> None:
        self._label, self._total, self._done = label, total, 0
        self._begun = time.monotonic()
        self._bar: Progress | None = None

    def __call__(self, more: int) -> None:
        """Count `more` as done."""
        self._done += more
        if self._bar is None and time.monotonic() - self._begun > PATIENCE:
            self._bar = self._show()
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self._done)

    def _show(self) -> Progress:
        from rich.console import Console
        from rich.progress import Progress

        console = Console(stderr=True)
        bar = Progress(console=console, transient=True, disable=not console.is_terminal)
        bar.add_task(self._label, total=self._total)
        bar.start()
        return bar

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
