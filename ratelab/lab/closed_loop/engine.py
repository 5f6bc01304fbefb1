"""Engine of a closed loop in plain Python, and the growth of its memory."""

from __future__ import annotations

import ast
from array import array
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ratelab.algorithms import Policy, traits_of
from ratelab.algorithms.plugins import check_row
from ratelab.errors import InputError
from ratelab.lab.closed_loop import answers, gates, loop, schedule, service, state, tables
from ratelab.lab.closed_loop.behavior import Population
from ratelab.lab.closed_loop.state import MAX_WORLD_ROWS, NONE, World
from ratelab.limiter import Algorithm, Row, State

ROW_COLUMNS = {
    "row_times": "q", "row_requests": "i", "row_numbers": "i", "row_sent": "q", "row_ended": "q", "row_results": "b",
    "row_served": "q", "row_wasted": "b", "row_allowed": "b", "row_delays": "q",
}  # fmt: skip
"""Columns of the tries, see `state`: the type of each."""

REQUEST_COLUMNS = {
    "request_clients": "i", "request_costs": "q", "request_started": "q", "request_ended": "q", "request_tries": "i",
}  # fmt: skip
"""Columns of the requests."""

BOOLEANS = ("row_wasted", "row_allowed")


# --- constants


class _ConstantFolder(ast.NodeTransformer):
    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        value = getattr(state, node.attr, None) if ast.unparse(node.value) == "at" else None
        return ast.copy_location(ast.Constant(value), node) if isinstance(value, int) else node


def fold_constants(module: ModuleType) -> None:
    """Replace names such as `at.OWNER` in the functions of a module by their values.

    Looking them up would take a quarter of the time.
    """
    path = str(module.__file__)
    tree = _ConstantFolder().visit(ast.parse(Path(path).read_bytes()))
    folded: dict[str, Any] = {"__name__": module.__name__}
    exec(compile(tree, path, "exec", dont_inherit=True), folded)  # noqa: S102  (the source of this package)
    for name, function in vars(module).items():
        if isinstance(function, FunctionType) and function.__module__ == module.__name__:
            function.__code__ = folded[name].__code__


for _module in (answers, gates, loop, schedule, service):
    with suppress(OSError):  # without its source, it is only slower
        fold_constants(_module)


# --- engines


class Engine(Protocol):
    """Runs the event loop over its own kind of memory."""

    world: World

    def run(self, events: int) -> int:
        """Process up to this many events; return why it stopped, as `loop.run` does."""
        ...

    def column(self, name: str) -> NDArray[Any]:
        """Return a column of the tries or the requests."""
        ...


class PythonLimiter:
    """A policy's algorithm, and the states of all keys."""

    def __init__(self, algorithm: Algorithm, keys: int) -> None:
        self._algorithm = algorithm
        self._states: list[State | None] = [None] * keys
        self._step: Callable[[State, int, int], Row] = algorithm.step
        if traits_of(algorithm).bound is None:
            self._step = lambda state, now, cost: check_row(algorithm.step(state, now, cost))

    def decide(self, key: int, now: int, cost: int) -> Row:
        """Decide a hit; a new key begins at its first."""
        own = self._states[key]
        if own is None:
            own = self._states[key] = self._algorithm.start(now)
        return self._step(own, now, cost)

    def restart(self) -> None:
        """Begin every key again."""
        self._states = [None] * len(self._states)


GROWTH = 500
"""Events for which a `PythonEngine` makes room at once; most short runs have fewer tries in progress."""


class PythonEngine:
    """Runs the event loop over lists."""

    def __init__(self, policy: Policy | None, population: Population) -> None:
        fields = tables.create_world_fields(population)
        count = len(fields["clients"])
        for name in ("behaviors", "clients", "windows", "streams"):
            fields[name] = fields[name].tolist()
        for name in ("first_times", "first_clients", "first_costs"):
            fields[name] = array("q", fields[name].astype(np.int64).tobytes())
        times, events = fields["heap"]
        fields["heap"] = list(zip(times.tolist(), events.tolist(), strict=True))  # in order, it is a heap
        self._limiter = None if policy is None else PythonLimiter(policy.algorithm, population.first_tries.key_count)
        columns: dict[str, Any] = {name: array(kind) for name, kind in (ROW_COLUMNS | REQUEST_COLUMNS).items()}
        self.world = World(
            **fields,
            requests=[[0] * len(state.REQUEST_FIELDS) for _ in range(count)],
            tries=[],
            limiter=self._limiter,
            **columns,
        )

    def run(self, events: int) -> int:
        """Process up to this many events; return why it stopped, as `loop.run` does."""
        status = loop.PAUSED
        while events > 0 and status == loop.PAUSED:
            step = min(events, GROWTH)
            self._grow(step)
            status = loop.run(self.world, step)
            events -= step
        if status == loop.RESTARTED and self._limiter is not None:
            self._limiter.restart()
        return status

    def _grow(self, events: int) -> None:
        """Make room for what this many events may add."""
        world, totals = self.world, self.world.totals
        for rows, used, width in (
            (world.tries, totals[state.USED_TRIES], len(state.TRY_FIELDS)),
            (world.requests, totals[state.USED_REQUESTS], len(state.REQUEST_FIELDS)),
        ):
            check_rows(used)
            rows.extend([NONE] * width for _ in range(used + events - len(rows)))
        for columns, used in ((ROW_COLUMNS, totals[state.TRY_ROWS]), (REQUEST_COLUMNS, totals[state.REQUEST_ROWS])):
            for name, kind in columns.items():
                column: array[int] = getattr(world, name)
                column.extend(array(kind, [0]) * max(0, used + events - len(column)))

    def column(self, name: str) -> NDArray[Any]:
        """Return a column of the tries or the requests."""
        used = self.world.totals[state.TRY_ROWS if name in ROW_COLUMNS else state.REQUEST_ROWS]
        values = np.array(getattr(self.world, name)[:used])
        return values.astype(np.bool_) if name in BOOLEANS else values


def check_rows(used: int) -> None:
    """Raise `InputError` if an event could not name a row."""
    if used > MAX_WORLD_ROWS - 100_000:
        raise InputError(
            f"a closed loop may have at most {MAX_WORLD_ROWS - 100_000:,} clients, and requests and tries in progress, "
            f"got {used:,}: have fewer clients, limit the queue of the server or shorten the duration"
        )
