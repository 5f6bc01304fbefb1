"""Coming events over arrays: a heap of those that are near, and buckets of those that are later.

A bucket holds the events of a span of time in any order, in a chain of blocks. When the heap is empty, the events of
the next bucket move there, and the rows of these events are fetched into the cache. Events beyond all buckets wait in a
last one, and are spread when the others are empty, into spans as wide as the rate of events suggests (a ladder queue of
one rung; Tang, Goh and Thng, "Ladder queue", ACM TOMACS 2005).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba.extending import overload, register_jitable
from numpy.typing import NDArray

from ratelab.lab.closed_loop import schedule, state, streams
from ratelab.lab.compiled.intrinsics import LINE_INTEGERS, prefetch
from ratelab.lab.compiled.loops import find_begin

HEAP_BEGIN = 3
"""Place of the first event in the heap, so that four siblings lie in one line of the cache."""

REQUEST_PLACE = streams.STREAMS
CLIENT_PLACE = REQUEST_PLACE + len(state.REQUEST_FIELDS)
"""Where the fields of a request and of a client begin in a row of the memory that both share with the streams.

Those that most events need lie in three lines of the cache, one after the other, since serial clients have the requests
of their own number.
"""

ROW_WIDTH, TRY_WIDTH = (
    -(-width // LINE_INTEGERS) * LINE_INTEGERS
    for width in (CLIENT_PLACE + len(state.CLIENT_FIELDS), len(state.TRY_FIELDS))
)
"""Integers in the rows of the tables that are accessed at random, which are whole lines of the cache."""

BLOCK_WIDTH = 32
"""Integers in a block."""

EVENTS_PER_BLOCK = BLOCK_WIDTH // 2 - 1
"""A block begins with the place of the newest event in the next one of its bucket."""

PLACE_SHIFT = EVENTS_PER_BLOCK.bit_length()
"""Bits of the number of an event in its block."""

EVENTS_PER_BUCKET = 32
"""Events that a bucket shall have, about."""

MIN_BUCKETS = 4096

MAX_SHIFT = 50
"""Bits of the widest span of a bucket."""


# --- the beginning


def create_buckets(clients: int) -> NDArray[np.int64]:
    """Return empty buckets, a power of 2 of them and one more for all later events.

    A bucket is the place of its newest event: the number of the block, and in the last four bits that of the event
    there, from 1. An empty bucket is -1, the last place of a block that there is not, so that its next event needs one.
    """
    count = max(MIN_BUCKETS, 1 << (clients // 16).bit_length())
    return np.full(count + 1, state.NONE)


def fill_blocks(pairs: NDArray[np.int64], buckets: NDArray[np.int64], totals: Any) -> NDArray[np.int64]:
    """Return blocks with these pairs of time and event, which become those of the last bucket."""
    count = -(-len(pairs) // EVENTS_PER_BLOCK)
    blocks = np.zeros((count, EVENTS_PER_BLOCK + 1, 2), np.int64)
    blocks[:, 0, 0] = (np.arange(count) << PLACE_SHIFT) - 1
    filled = np.zeros((count * EVENTS_PER_BLOCK, 2), np.int64)
    filled[: len(pairs)] = pairs
    blocks[:, 1:] = filled.reshape(count, EVENTS_PER_BLOCK, 2)
    if count:
        buckets[-1] = (count - 1 << PLACE_SHIFT) + len(pairs) - (count - 1) * EVENTS_PER_BLOCK
    totals[state.FREE_BLOCKS] = totals[state.BUCKET] = totals[state.FETCHED] = state.NONE
    totals[state.USED_BLOCKS] = count
    totals[state.LATER] = len(pairs)
    return blocks.reshape(count, BLOCK_WIDTH)


# --- what the loop calls


@overload(schedule.first_time, strict=False)
def _overload_first_time(world: Any) -> Callable[..., Any]:  # noqa: ARG001
    heap_size, later, first = state.HEAP_SIZE, state.LATER, 2 * HEAP_BEGIN

    def find(world: Any) -> Any:
        totals = world.totals
        if not totals[heap_size]:
            if not totals[later]:
                return -1
            advance(world)
        fetch_next(world)
        return world.heap[first]

    return find


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
        sift_down(heap, size, heap[last], heap[last + 1])

    return remove


@overload(schedule.push, strict=False)
def _overload_push(world: Any, time: Any, event: Any) -> Callable[..., Any]:  # noqa: ARG001
    heap_size, replaces_first, shift, bucket = state.HEAP_SIZE, state.REPLACES_FIRST, state.SHIFT, state.BUCKET

    def push(world: Any, time: Any, event: Any) -> None:
        heap, totals = world.heap, world.totals
        if time >> totals[shift] > totals[bucket]:
            add_later(world, time, event)
            return
        size = totals[heap_size]
        if totals[replaces_first]:
            totals[replaces_first] = 0
            sift_down(heap, size, time, event)
        else:
            totals[heap_size] = size + 1
            sift_up(heap, size, time, event)

    return push


# --- buckets


@register_jitable
def add_later(world: Any, time: Any, event: Any) -> None:
    """Add an event to its bucket."""
    totals, buckets, blocks = world.totals, world.buckets, world.blocks
    last = len(buckets) - 1
    bucket = time >> totals[state.SHIFT]
    place = last
    if bucket < totals[state.LAST_BUCKET]:
        place = bucket & (last - 1)
        totals[state.SPREAD] += 1
    newest = buckets[place]
    if newest & EVENTS_PER_BLOCK == EVENTS_PER_BLOCK:
        block = totals[state.FREE_BLOCKS]
        if block == state.NONE:
            block = totals[state.USED_BLOCKS]
            totals[state.USED_BLOCKS] = block + 1
        else:
            totals[state.FREE_BLOCKS] = blocks[block, 0]
        blocks[block, 0] = newest
        newest = block << PLACE_SHIFT
    newest += 1
    buckets[place] = newest
    block, number = newest >> PLACE_SHIFT, newest & EVENTS_PER_BLOCK
    blocks[block, 2 * number] = time
    blocks[block, 2 * number + 1] = event
    totals[state.LATER] += 1


@register_jitable
def advance(world: Any) -> None:
    """Move the events of the next bucket that has some to the heap, which is empty."""
    totals, buckets = world.totals, world.buckets
    if not totals[state.SPREAD]:
        spread(world)
    bucket = totals[state.BUCKET] + 1
    mask = len(buckets) - 2
    while buckets[bucket & mask] == state.NONE:
        bucket += 1
    totals[state.BUCKET] = bucket
    empty(world, bucket & mask)
    totals[state.FETCHED] = buckets[bucket + 1 & mask]
    place = buckets[bucket + 2 & mask]
    if place != state.NONE:
        for line in range(0, BLOCK_WIDTH, LINE_INTEGERS):
            prefetch(world.blocks, (place >> PLACE_SHIFT) * BLOCK_WIDTH + line)


@register_jitable
def empty(world: Any, place: Any) -> None:
    """Move the events of a bucket to the heap, and fetch the rows of these events into the cache."""
    totals, buckets, blocks, heap = world.totals, world.buckets, world.blocks, world.heap
    newest, size = buckets[place], 0
    buckets[place] = state.NONE
    while newest != state.NONE:
        block = newest >> PLACE_SHIFT
        for number in range(2, 2 * (newest & EVENTS_PER_BLOCK) + 2, 2):
            sift_up(heap, size, blocks[block, number], blocks[block, number + 1])
            size += 1
        newest = blocks[block, 0]
        blocks[block, 0] = totals[state.FREE_BLOCKS]
        totals[state.FREE_BLOCKS] = block
    totals[state.HEAP_SIZE] = size
    totals[state.LATER] -= size
    totals[state.SPREAD] -= size
    for number in range(size):
        fetch_further(world, heap[2 * (HEAP_BEGIN + number) + 1])


@register_jitable
def spread(world: Any) -> None:
    """Spread the events of the last bucket, while the others are empty."""
    totals, buckets, blocks = world.totals, world.buckets, world.blocks
    last = len(buckets) - 1
    newest = buckets[last]
    buckets[last] = state.NONE
    first_time, total = blocks[newest >> PLACE_SHIFT, 2], 0.0
    place = newest
    while place != state.NONE:
        block = place >> PLACE_SHIFT
        for number in range(2, 2 * (place & EVENTS_PER_BLOCK) + 2, 2):
            first_time = min(first_time, blocks[block, number])
            total += float(blocks[block, number])
        place = blocks[block, 0]
    events, passed = totals[state.EVENTS] - totals[state.SPREAD_EVENTS], totals[state.NOW] - totals[state.SPREAD_TIME]
    if not events:
        events = totals[state.LATER]
        passed = int(total / float(events)) - first_time
    shift = 0
    while EVENTS_PER_BUCKET // 2 * (passed >> shift) > events and shift < MAX_SHIFT:
        shift += 1
    totals[state.SHIFT], totals[state.BUCKET] = shift, (first_time >> shift) - 1
    totals[state.LAST_BUCKET] = (first_time >> shift) + last
    totals[state.SPREAD_EVENTS], totals[state.SPREAD_TIME] = totals[state.EVENTS], totals[state.NOW]
    totals[state.LATER] = 0
    while newest != state.NONE:
        block = newest >> PLACE_SHIFT
        for number in range(2, 2 * (newest & EVENTS_PER_BLOCK) + 2, 2):
            add_later(world, blocks[block, number], blocks[block, number + 1])
        newest = blocks[block, 0]
        blocks[block, 0] = totals[state.FREE_BLOCKS]
        totals[state.FREE_BLOCKS] = block


# --- fetching


@register_jitable
def fetch_next(world: Any) -> None:
    """Fetch the rows of another event of the next bucket into the cache; for all at once, the processor would wait."""
    totals, blocks = world.totals, world.blocks
    place = totals[state.FETCHED]
    if place == state.NONE:
        return
    block, number = place >> PLACE_SHIFT, place & EVENTS_PER_BLOCK
    fetch_rows(world, blocks[block, 2 * number + 1])
    totals[state.FETCHED] = place - 1 if number > 1 else blocks[block, 0]


@register_jitable
def fetch_rows(world: Any, event: Any) -> None:
    """Fetch the rows that an event will access into the cache."""
    kind, row = event >> state.KIND_SHIFT & state.KIND_MASK, event & state.ROW_MASK
    if kind == state.RETRY_DUE or kind == state.START_DUE:
        for line in range(ROW_WIDTH * row, ROW_WIDTH * row + 3 * LINE_INTEGERS, LINE_INTEGERS):
            prefetch(world.streams, line)
    else:
        for line in range(TRY_WIDTH * row, TRY_WIDTH * (row + 1), LINE_INTEGERS):
            prefetch(world.tries, line)


@register_jitable
def fetch_further(world: Any, event: Any) -> None:
    """Fetch into the cache what the rows of an event lead to."""
    kind, row = event >> state.KIND_SHIFT & state.KIND_MASK, event & state.ROW_MASK
    if kind == state.RETRY_DUE or kind == state.START_DUE:
        if row < len(world.clients):
            fetch_state(world.limiter, world.clients[row][state.KEY])
    else:
        entry = world.tries[row]
        client, owner = entry[state.TRY_CLIENT], entry[state.OWNER]
        prefetch(world.streams, ROW_WIDTH * client)
        prefetch(world.clients, ROW_WIDTH * client)
        prefetch(world.requests, ROW_WIDTH * owner)
        prefetch(world.requests, ROW_WIDTH * owner + LINE_INTEGERS)


def fetch_state(limiter: Any, key: int) -> None:
    """Fetch the state of a key into the cache."""
    raise NotImplementedError


@overload(fetch_state, strict=False)
def _overload_fetch_state(limiter: Any, key: Any) -> Callable[..., Any]:  # noqa: ARG001
    if limiter == numba.none:
        return lambda limiter, key: None  # noqa: ARG005

    def fetch(limiter: Any, key: Any) -> None:
        algorithm, states, begins = limiter
        prefetch(states, find_begin(algorithm, begins, key))

    return fetch


# --- the heap, with four children a node


@register_jitable
def sift_down(heap: Any, size: Any, time: Any, event: Any) -> None:
    """Replace the first of `size` events, and move it down to its place in the heap."""
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
        heap[2 * (HEAP_BEGIN + place)] = best_time
        heap[2 * (HEAP_BEGIN + place) + 1] = best_event
        place = best // 2 - HEAP_BEGIN
    heap[2 * (HEAP_BEGIN + place)] = time
    heap[2 * (HEAP_BEGIN + place) + 1] = event


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
