"""Events of a closed loop in the order of their time: a heap of pairs `(time, event)`."""

from __future__ import annotations

from heapq import heappop, heappush, heapreplace
from typing import Any

from ratelab.lab.closed_loop import state as at
from ratelab.lab.closed_loop.state import World


def push(world: World, time: int, event: int) -> None:
    """Add an event; it takes the place of the first one if that was just processed."""
    heap, totals = world.heap, world.totals
    if totals[at.REPLACES_FIRST]:
        totals[at.REPLACES_FIRST] = 0
        heapreplace(heap, (time, event))
    else:
        heappush(heap, (time, event))


def remove_first(world: World) -> None:
    """Remove the first event."""
    heappop(world.heap)


def first_time(world: World) -> int:
    """Return the time of the first event; -1 without one."""
    heap = world.heap
    return heap[0][0] if heap else -1


def first_event(heap: Any) -> int:
    """Return the first event."""
    event: int = heap[0][1]
    return event


def schedule(world: World, time: int, kind: int, row: int) -> int:
    """Schedule an event after all others of its time that were scheduled before; return it.

    An event after the end is dropped.
    """
    totals = world.totals
    order = totals[at.SEQUENCE]
    totals[at.SEQUENCE] = order + 1
    event: int = order << at.ORDER_SHIFT | kind << at.KIND_SHIFT | row
    if time < world.duration:
        push(world, time, event)
    return event


def schedule_expiry(world: World, time: int, number: int, row: int) -> None:
    """Schedule the expiry of the try of this number; expiries of a time are in the order of these numbers."""
    order = at.EXPIRY_ORDER + number
    if time < world.duration:
        push(world, time, order << at.ORDER_SHIFT | at.EXPIRY << at.KIND_SHIFT | row)
