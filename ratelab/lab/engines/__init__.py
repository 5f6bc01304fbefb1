"""Engines: where the tasks of a distributed run are executed."""

from __future__ import annotations

import re

from ratelab.errors import short_repr
from ratelab.lab.engines.engine import EngineError, TaskEngine

__all__ = ["EngineError", "TaskEngine", "open_engine"]

MAX_PROCESSES = 1024
MAX_PORT = 65535

_ADDRESS = re.compile(r"//((?:\[[0-9a-fA-F:.]+\]|[\w.-]+):(\d{1,5}))", re.ASCII)


def open_engine(spec: str) -> TaskEngine:
    """Open the engine that `--engine` names: `processes:N`, or `dask://HOST:PORT` for a scheduler of Dask.

    Raises `EngineError` for anything else, and if the scheduler cannot be used.
    """
    kind, _, rest = spec.partition(":")
    if kind == "processes" and rest.isascii() and rest.isdigit() and 1 <= int(rest) <= MAX_PROCESSES:
        from ratelab.lab.engines.processes import ProcessEngine

        return ProcessEngine(int(rest))
    address = _ADDRESS.fullmatch(rest) if kind == "dask" else None
    if address and 1 <= int(address[2]) <= MAX_PORT:
        from ratelab.lab.engines.dask import DaskEngine

        return DaskEngine(address[1])
    raise EngineError(
        f"the engine must be processes:N with N from 1 to {MAX_PROCESSES}, or dask://HOST:PORT, "
        f"got {short_repr(spec)}: name one of them"
    )
