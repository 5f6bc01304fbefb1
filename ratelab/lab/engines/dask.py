"""Engine of a Dask cluster, of which only the scheduler is used."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, cast

from ratelab.errors import install_hint
from ratelab.lab.engines.engine import EngineError, Item, collect_versions

CONNECT_TIMEOUT_S = 10
DISCONNECT_TIMEOUT_S = 2

NO_WORKERS_TIMEOUT_S = 60
"""The time for which a run waits for workers after it has lost all of them."""

_WAIT_S = 2  # between two looks at the connection
_COUNT_S = 5  # between two counts of the workers, if no task ends


class DaskEngine:
    """Executes tasks on the workers of a Dask scheduler."""

    is_local = False

    def __init__(self, address: str) -> None:
        """Connect to the scheduler at HOST:PORT; raise `EngineError` if there is none, or if it has no workers."""
        if find_spec("distributed") is None:
            raise EngineError(f"the engine dask:// needs Dask: {install_hint('dask')}")
        import distributed

        _silence_loggers()
        self._address = address
        try:
            self._client: Any = cast("Any", distributed).Client(
                f"tcp://{address}", timeout=CONNECT_TIMEOUT_S, set_as_default=False
            )
        except (OSError, TimeoutError, ValueError):
            raise EngineError(
                f"no Dask scheduler answers at {address}: start one with `dask scheduler`, or check the address"
            ) from None
        found = self._list_workers()
        self.workers = sum(worker["nthreads"] for worker in found)
        if not found:
            self.close()
            raise EngineError(self._describe_missing_workers())
        link = self._client.dashboard_link
        self.description = f"{len(found)} Dask worker{'s' * (len(found) > 1)}, dashboard {link}"

    def map(self, work: Callable[[Item], Any], items: Sequence[Item]) -> Generator[tuple[int, Any], None, None]:
        """Yield results as they are completed; Dask repeats the tasks of lost workers."""
        from distributed import CancelledError
        from distributed.comm.core import CommClosedError

        checked = _VersionCheck(work, collect_versions())
        done: SimpleQueue[Any] = SimpleQueue()
        futures = self._client.map(checked, items, pure=False, key=f"ratelab-{getattr(work, 'label', 'task')}")
        numbers = {future.key: number for number, future in enumerate(futures)}
        for future in futures:
            future.add_done_callback(done.put)
        try:
            while numbers:
                try:
                    future = self._wait(lambda seconds: done.get(timeout=seconds))
                    result = self._get_result(future)
                except (CommClosedError, CancelledError):
                    raise self._describe_lost_connection() from None
                yield numbers.pop(future.key), result
        finally:
            if numbers and self._client.status == "running":
                with suppress(Exception):
                    self._client.cancel(futures, force=True)

    def _wait(self, ask: Callable[[float], Any]) -> Any:
        """Return what `ask` returns, which raises `TimeoutError` or `Empty` after the given seconds.

        Raises `EngineError` if the connection or all workers are lost.
        """
        seen = counted = monotonic()
        while True:
            try:
                return ask(_WAIT_S)
            except (TimeoutError, Empty):
                self._check_connection()
            if monotonic() - counted < _COUNT_S:
                continue
            counted = monotonic()
            if self._list_workers():
                seen = counted
            elif counted - seen >= NO_WORKERS_TIMEOUT_S:
                raise EngineError(f"{self._describe_missing_workers()}, then run the same command to resume")

    def _list_workers(self) -> Sequence[dict[str, Any]]:
        """Return the workers of the scheduler."""
        return [*self._client.scheduler_info(n_workers=-1)["workers"].values()]

    def _describe_missing_workers(self) -> str:
        return (
            f"the Dask scheduler at {self._address} has no workers: "
            f"start one with `dask worker {self._address} --nthreads 1`"
        )

    def _check_connection(self) -> None:
        if self._client.status != "running":
            raise self._describe_lost_connection()

    def _describe_lost_connection(self) -> EngineError:
        return EngineError(
            f"the connection to the Dask scheduler at {self._address} is lost: start it again, "
            "then run the same command to resume"
        )

    def _get_result(self, future: Any) -> Any:
        from distributed import KilledWorker

        if future.status in ("finished", "lost", "pending"):  # a result that is lost with its worker is computed again
            try:
                return self._wait(lambda seconds: future.result(timeout=seconds))
            except Exception:
                if future.status != "error":
                    raise
        self._check_connection()
        if future.status != "error":
            raise EngineError(
                f"the Dask scheduler at {self._address} dropped a task ({future.status}): run the command again"
            )
        error = future.exception()
        if isinstance(error, KilledWorker):
            raise EngineError("a task was lost with several workers, perhaps without enough memory: raise --partitions")
        if isinstance(error, ModuleNotFoundError) or "deserialization" in str(error):
            raise EngineError(
                "the Dask scheduler or its workers cannot load the tasks: "
                f"install ratelab[dask] {collect_versions()['ratelab']} there"
            )
        raise error

    def close(self) -> None:
        """Disconnect; running tasks are canceled."""
        with suppress(Exception):
            self._client.close(timeout=DISCONNECT_TIMEOUT_S)


def _silence_loggers() -> None:
    """Turn off the logs of Dask, each of which has a level of its own: errors are reported in one line here."""
    for name in [*logging.root.manager.loggerDict, "asyncio"]:
        if name.partition(".")[0] in ("asyncio", "distributed"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)


@dataclass(frozen=True)
class _VersionCheck:
    """A task that first compares the versions of its worker with those of the client."""

    work: Callable[[Any], Any]
    versions: dict[str, str]

    def __call__(self, item: Any) -> Any:
        here = collect_versions()
        for name, wanted in self.versions.items():
            if here[name] != wanted:
                raise EngineError(
                    f"the Dask worker on {platform.node()} has {name} {here[name]}, but the client {wanted}: "
                    "install the same version"
                )
        return self.work(item)
