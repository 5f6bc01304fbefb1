"""Engines: where the tasks of a distributed run are executed."""

from __future__ import annotations

from ratelab.errors import short_repr
from ratelab.lab.engines.engine import EngineError, TaskEngine

__all__ = ["EngineError", "TaskEngine", "open_engine"]

MAX_PROCESSES = 1024


def open_engine(spec: str) -> TaskEngine:
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
