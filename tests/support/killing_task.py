"""Tasks that end a process once, or never end."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratelab.lab.engines.engine import Item, TaskEngine


@dataclass(frozen=True)
class KillingTask:
    """A task before which one process is killed: the worker, or another."""

    work: Any
    marker: Path
    """Created before the kill, which is not repeated."""
    process: int | None = None

    @property
    def label(self) -> str:
        """The label of the task."""
        label: str = self.work.label
        return label

    def __call__(self, item: Any) -> Any:
        try:
            self.marker.touch(exist_ok=False)
        except FileExistsError:
            return self.work(item)
        os.kill(os.getpid() if self.process is None else self.process, signal.SIGKILL)
        return self.work(item)


class KillingEngine:
    """An engine of which a process is killed in one stage."""

    def __init__(self, engine: TaskEngine, stage: str, marker: Path, process: int | None = None) -> None:
        self._engine, self._stage, self._marker, self._process = engine, stage, marker, process
        self.description, self.workers, self.is_local = engine.description, engine.workers, engine.is_local

    def map(self, work: Callable[[Item], Any], items: Sequence[Item]) -> Generator[tuple[int, Any], None, None]:
        label = getattr(work, "label", "")
        task = KillingTask(work, self._marker, self._process) if label == self._stage else work
        return self._engine.map(task, items)

    def close(self) -> None:
        self._engine.close()


class WaitingTask:
    """A task that ends at once for item 0, and never for the others."""

    label = "waiting"

    def __call__(self, item: int) -> None:
        if item:
            threading.Event().wait()


def count_tasks(dask_scheduler: Any) -> int:
    """Return the number of tasks of a scheduler of Dask, on which this runs."""
    return len(dask_scheduler.tasks)
