"""Heap of coming events over an array: pairs of time and event, with four children a node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba.extending import overload, register_jitable

from ratelab.lab.closed_loop import schedule, state, streams
from ratelab.lab.compiled.intrinsics import LINE_INTEGERS, prefetch

NEAR_TOP = 5, 21
"""Places in the heap, those of its third level, at which the rows of an event are fetched into the cache."""

HEAP_BEGIN = 3
"""Place of the first event in the heap, so that four siblings lie in one line of the cache."""

CLIENT_WIDTH, REQUEST_WIDTH, TRY_WIDTH = (
    -(-len(fields) // LINE_INTEGERS) * LINE_INTEGERS
    for fields in (state.CLIENT_FIELDS, state.REQUEST_FIELDS, state.TRY_FIELDS)
)
"""Integers in the rows of the tables that are accessed at random, which are whole lines of the cache."""


@overload(schedule.first_time, strict=False, jit_options={"forceinline": True})
def _overload_first_time(heap: Any, totals: Any) -> Callable[..., Any]:  # noqa: ARG001
    size, first = state.HEAP_SIZE, 2 * HEAP_BEGIN
    return lambda heap, totals: heap[first] if totals[size] else -1


@overload(schedule.first_event, strict=False, jit_options={"forceinline": True})
def _overload_first_event(heap: Any) -> Callable[..., Any]:  # noqa: ARG001
    return lambda heap: heap[2 * HEAP_BEGIN + 1]


@overload(schedule.remove_first, strict=False)
def _overload_remove_first(world: Any) -> Callable[..., Any]:  # noqa: ARG001
    heap_size = state.HEAP_SIZE

    def remove(world: Any) -> None:
        heap, totals = world.heap, world.totals
        size = totals[heap_size] - 1
        totals[heap_size] = size
        last = 2 * (HEAP_BEGIN + size)
        sift_down(world, heap, size, heap[last], heap[last + 1])

    return remove


@overload(schedule.push, strict=False)
def _overload_push(world: Any, time: Any, event: Any) -> Callable[..., Any]:  # noqa: ARG001
    heap_size, replaces_first = state.HEAP_SIZE, state.REPLACES_FIRST

    def push(world: Any, time: Any, event: Any) -> None:
        heap, totals = world.heap, world.totals
        size = totals[heap_size]
        if totals[replaces_first]:
            totals[replaces_first] = 0
            sift_down(world, heap, size, time, event)
        else:
            totals[heap_size] = size + 1
            sift_up(heap, size, time, event)

    return push


@register_jitable
def sift_down(world: Any, heap: Any, size: Any, time: Any, event: Any) -> None:
    """Replace the first of `size` events, and move it down to its place in the heap, which has four children a node.

    Fetch the rows of an event that comes near the top into the cache.
    """
    place = 0
    while True:
        child = 4 * place + 1
        if child >= size:
            break
        best = 2 * (HEAP_BEGIN + child)
        best_time, best_event = heap[best], heap[best + 1]
        for other in range(best + 2, 2 * (HEAP_BEGIN + min(child + 4, size)), 2):
            other_time, other_event = heap[other], heap[other + 1]
            if other_time < best_time or (other_time == best_time and other_event < best_event):
                best, best_time, best_event = other, other_time, other_event
        if time < best_time or (time == best_time and event < best_event):
            break
        if NEAR_TOP[0] <= place < NEAR_TOP[1]:
            fetch_rows(world, best_event)
        heap[2 * (HEAP_BEGIN + place)] = best_time
        heap[2 * (HEAP_BEGIN + place) + 1] = best_event
        place = best // 2 - HEAP_BEGIN
    heap[2 * (HEAP_BEGIN + place)] = time
    heap[2 * (HEAP_BEGIN + place) + 1] = event


@register_jitable
def fetch_rows(world: Any, event: Any) -> None:
    """Fetch the rows that an event will access into the cache."""
    kind, row = event >> state.KIND_SHIFT & state.KIND_MASK, event & state.ROW_MASK
    if kind == state.RETRY_DUE or kind == state.START_DUE:
        prefetch(world.requests, REQUEST_WIDTH * row)
        prefetch(world.requests, REQUEST_WIDTH * row + LINE_INTEGERS)
        if row < len(world.clients):
            prefetch(world.clients, CLIENT_WIDTH * row)
            prefetch(world.streams, streams.STREAMS * row)
    else:
        for line in range(TRY_WIDTH * row, TRY_WIDTH * (row + 1), LINE_INTEGERS):
            prefetch(world.tries, line)


@register_jitable
def sift_up(heap: Any, place: Any, time: Any, event: Any) -> None:
    """Add an event at the end of the heap, and move it up to its place."""
    while place > 0:
        parent = (place - 1) // 4
        parent_time, parent_event = heap[2 * (HEAP_BEGIN + parent)], heap[2 * (HEAP_BEGIN + parent) + 1]
        if parent_time < time or (parent_time == time and parent_event < event):
            break
        heap[2 * (HEAP_BEGIN + place)] = parent_time
        heap[2 * (HEAP_BEGIN + place) + 1] = parent_event
        place = parent
    heap[2 * (HEAP_BEGIN + place)] = time
    heap[2 * (HEAP_BEGIN + place) + 1] = event
