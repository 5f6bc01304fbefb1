"""Engines: where the tasks of a distributed run are executed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from ratelab.errors import InputError, short_repr

Item = TypeVar("Item")


class EngineError(InputError):
    """The engine cannot be reached, does not fit, or has ended."""


class Engine(Protocol):
    """Executes tasks on workers.

    This is all that the lab needs of an engine. Tasks exchange columns through files (`lab.exchange`), and the client
    folds their small results, so an engine has no data of its own.
    """

    description: str
    """The workers, for the user, such as `2 processes`."""
    is_local: bool
    """Whether the workers share the disk of the client."""
    workers: int
    """The number of tasks that run at a time."""

    def map(self, work: Callable[[Item], Any], items: Sequence[Item]) -> Iterator[tuple[int, Any]]:
        """Yield the position of each item and the result of `work` for it, as they are completed.

        Both can be pickled. A task whose worker is lost is repeated; the exception of a task is raised. If the caller
        does not take all results, the remaining tasks are canceled.
        """

    def close(self) -> None:
        """Release the workers; do not wait for running tasks."""


def open_engine(spec: str) -> Engine:
    """Open the engine that `--engine` names: `processes:N`, or `dask://HOST:PORT` for a scheduler of Dask.

    Raises `EngineError` for anything else, and if the scheduler cannot be used.
    """
    kind, _, rest = spec.partition(":")
    if kind == "processes" and rest.isascii() and rest.isdigit() and 1 <= int(rest) <= MAX_PROCESSES:
        from ratelab.lab.engines.processes import ProcessEngine

        return ProcessEngine(int(rest))
    if kind == "dask" and rest.startswith("//") and rest.count(":") == 1:
        from ratelab.lab.engines.dask import DaskEngine

        return DaskEngine(rest.removeprefix("//"))
    raise EngineError(f"the engine must be processes:N or dask://HOST:PORT, got {short_repr(spec)}: name one of them")


MAX_PROCESSES = 1024
