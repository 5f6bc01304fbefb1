"""Tasks that end or stop a process once, or never end, and engines that run them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratelab.lab.engines.engine import Item, TaskEngine


@dataclass(frozen=True)
class KillingTask:
    """A task before which a process gets a signal once: the worker, or another."""

    work: Any
    marker: Path
    """The process; created before the signal, which is not repeated."""
    process: int | None = None
    signal: int = signal.SIGKILL

    @property
    def label(self) -> str:
        """The label of the task."""
        label: str = self.work.label
        return label

    def __call__(self, item: Any) -> Any:
        process, own = self.process or os.getpid(), self.marker.with_suffix(f".{os.getpid()}")
        own.write_text(str(process))
        with suppress(FileExistsError):
            os.link(own, self.marker)
            os.kill(process, self.signal)
        return self.work(item)


class KillingEngine:
    """An engine of which a process is killed in one stage."""

    signal: int = signal.SIGKILL

    def __init__(self, engine: TaskEngine, stage: str, marker: Path, process: int | None = None) -> None:
        self._engine, self._stage, self._marker, self._process = engine, stage, marker, process
        self.description, self.workers, self.is_local = engine.description, engine.workers, engine.is_local

    def map(self, work: Callable[[Item], Any], items: Sequence[Item]) -> Generator[tuple[int, Any], None, None]:
        task: Any = work
        if getattr(work, "label", "") == self._stage:
            task = KillingTask(work, self._marker, self._process, self.signal)
        return self._engine.map(task, items)

    def close(self) -> None:
        self._engine.close()


class StoppingEngine(KillingEngine):
    """An engine of which one worker stops in one stage, until another worker has finished a task."""

    signal: int = signal.SIGSTOP

    def map(self, work: Callable[[Item], Any], items: Sequence[Item]) -> Generator[tuple[int, Any], None, None]:
        for pair in super().map(work, items):
            if self._marker.exists():
                os.kill(int(self._marker.read_text()), signal.SIGCONT)
            yield pair


class InterruptingEngine(KillingEngine):
    """An engine that gets Ctrl-C after the first task of a stage."""

    def map(self, work: Callable[[Item], Any], items: Sequence[Item]) -> Generator[tuple[int, Any], None, None]:
        with closing(self._engine.map(work, items)) as results:
            for pair in results:
                yield pair
                if getattr(work, "label", "") == self._stage:
                    signal.raise_signal(signal.SIGINT)


class WaitingTask:
    """A task that ends at once for item 0, and never for the others."""

    label = "waiting"

    def __call__(self, item: int) -> None:
        if item:
            threading.Event().wait()


class NumberTask:
    """A task that returns its item."""

    label = "number"

    def __call__(self, item: int) -> int:
        return item


class ExitingTask:
    """A task that always ends its process."""

    def __call__(self, _item: Any) -> None:
        os._exit(1)


def run_waiting_tasks() -> None:
    """Run tasks in processes; all but one of the tasks never end."""
    from ratelab.lab.engines import open_engine

    with closing(open_engine("processes:2")) as engine:
        tasks = engine.map(WaitingTask(), range(3))
        next(tasks)
        print("running", flush=True)  # noqa: T201
        next(tasks)


def count_tasks(dask_scheduler: Any) -> int:
    """Return the number of tasks of a scheduler of Dask, on which this runs."""
    return len(dask_scheduler.tasks)
