"""Engine of local processes."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context
from multiprocessing.process import BaseProcess
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
        """Yield results, and remove their items from `rest`."""
        before = {*active_children()}
        pool = ProcessPoolExecutor(self.workers, get_context("spawn"), initializer=_ignore_interrupts)
        try:
            pending: dict[Future[Any], int] = {pool.submit(work, item): number for number, item in rest.items()}
            self._children = {*active_children()} - before
            while pending:
                for future in wait(pending, return_when=FIRST_COMPLETED).done:
                    result = future.result()
                    number = pending.pop(future)
                    del rest[number]
                    yield number, result
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            self.close()

    def close(self) -> None:
        """End the processes."""
        for child in self._children:
            child.terminate()
        self._children = set()


def _ignore_interrupts() -> None:
    """Leave Ctrl-C, which a terminal sends to all processes, to the one that started this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
