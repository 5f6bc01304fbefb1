"""Requests as they arrive and as they leave, as rows in the order of time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ratelab.lab.decisions import Outcome
from ratelab.lab.ordered import Gathering
from ratelab.lab.spill import REQUEST, Column
from ratelab.lab.traffic import Asked, Traffic


class Rows(Protocol):
    """Rows of `REQUEST` with keys, in the order of time, taken a slice at a time."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> NDArray[Any]: ...


@dataclass(frozen=True, eq=False)
class _Made:
    """Rows made of requests when they are wanted."""

    traffic: Asked
    make: Callable[[Traffic, slice], NDArray[Any]]

    def __len__(self) -> int:
        return len(self.traffic)

    def __getitem__(self, part: slice) -> NDArray[Any]:
        return self.make(self.traffic.part(part), part)


def arrivals(traffic: Asked, counted: Column | None = None) -> Rows:
    """Return a row for each request; those that are not `counted` cost nothing."""

    def made(some: Traffic, part: slice) -> NDArray[Any]:
        rows = _rows(some)
        if counted is not None:
            rows["cost"][~counted[part]] = 0
        return rows

    return _Made(traffic, made)


def departures(traffic: Asked, decisions: Outcome) -> Rows:
    """Return a row for each request that is admitted, at the time at which it leaves: its arrival plus its delay."""
    allowed, delays = decisions["allowed"], decisions["delay_ns"]
    if not any(delays[part].any() for part in traffic.parts()):
        return _Made(traffic, lambda some, part: _rows(some)[allowed[part]])
    gathered = Gathering()
    for part in traffic.parts():
        some, left = traffic.part(part), allowed[part]
        gathered.add((some.times + delays[part])[left], some.request_keys[left], some.costs[left])
    return gathered.in_order()


def _rows(traffic: Traffic) -> NDArray[Any]:
    rows = np.empty(len(traffic), REQUEST)
    rows["time"], rows["who"], rows["cost"] = traffic.times, traffic.request_keys, traffic.costs
    return rows
