"""Interface of engines, which execute the tasks of a distributed run."""

from __future__ import annotations

import platform
from collections.abc import Callable, Generator, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol, TypeVar

from ratelab.errors import ResourceError

Item = TypeVar("Item")


class EngineError(ResourceError):
    """The engine cannot be reached, does not fit, or has ended."""


def collect_versions() -> dict[str, str]:
    """Return the versions that must be the same for the client, all workers, and the runs that resume."""
    versions = {"Python": ".".join(platform.python_version_tuple()[:2])}
    for name in ("ratelab", "numpy", "pyarrow", "distributed"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "none"
    return versions


class TaskEngine(Protocol):
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

    def map(self, work: Callable[[Item], Any], items: Sequence[Item]) -> Generator[tuple[int, Any], None, None]:
        """Yield the position of each item and the result of `work` for it, as they are completed.

        Both can be pickled. A task whose worker is lost is repeated; the exception of a task is raised. If the caller
        does not take all results, the remaining tasks are canceled.
        """

    def close(self) -> None:
        """Release the workers; do not wait for running tasks."""
