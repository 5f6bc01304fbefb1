"""Engine of local processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import Any

from ratelab.lab.engines.engine import EngineError, Item

MAX_RESTARTS = 3
"""Times that the processes are started again after the end of one of them."""


class ProcessEngine:
    """Executes tasks in processes of this machine."""

    is_local = True

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.description = f"{workers} process{'es' * (workers > 1)}"
        self._pool: ProcessPoolExecutor | None = None
        self._children: set[BaseProcess] = set()

    def map(self, work: Callable[[Item], Any], items: Sequence[Item]) -> Generator[tuple[int, Any], None, None]:
        """Yield results as they are completed; start the processes again if one of them is killed."""
        rest = dict(enumerate(items))
        for _ in range(1 + MAX_RESTARTS):
            try:
                yield from self._map_once(work, rest)
            except BrokenProcessPool:
                continue
            return
        raise EngineError(
            f"processes of the engine were killed {1 + MAX_RESTARTS} times, perhaps without enough memory: "
            "raise --partitions or use fewer processes"
        )

    def _map_once(self, work: Callable[[Item], Any], rest: dict[int, Item]) -> Generator[tuple[int, Any], None, None]:
        """Yield results, and remove their items from `rest`; end the processes if any are left."""
        try:
            pending = self._submit(work, rest)
            while pending:
                for future in wait(pending, return_when=FIRST_COMPLETED).done:
                    result = future.result()
                    number = pending.pop(future)
                    del rest[number]
                    yield number, result
        finally:
            if rest:
                self.close()

    def _submit(self, work: Callable[[Item], Any], items: dict[int, Item]) -> dict[Future[Any], int]:
        """Return the numbers of the items by the futures of their tasks; processes start as they are needed."""
        if self._pool is None:
            self._pool = ProcessPoolExecutor(self.workers, get_context("spawn"), initializer=_follow_parent)
        before = {*active_children()}
        pending = {self._pool.submit(work, item): number for number, item in items.items()}
        self._children |= {*active_children()} - before
        return pending

    def close(self) -> None:
        """End the processes, and then the thread of their pool, which reports an error if this process ends first."""
        for child in self._children:
            child.terminate()
        self._children = set()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


def _follow_parent() -> None:
    """Leave Ctrl-C, which a terminal sends to all processes, to the parent, and end when it ends, even if killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_after_parent, daemon=True).start()


def _end_after_parent() -> None:
    if (parent := parent_process()) is not None:
        parent.join()
    os._exit(1)
