"""Needs of clients, by plain integer arithmetic that Numba can compile: corners for every rate, and levels at one.

A client that requests the costs `c_i` at the times `t_i` needs, at the rate `r`, the burst

    b(r) = max over i <= j of c_i + ... + c_j - r (t_j - t_i)

As a function of `r`, that is the support function of the points `(t_j - t_i, c_i + ... + c_j)`: only the corners of
their upper hull count. Of the points whose span crosses a cut in time, each is the sum of a span before the cut and one
after it, so their hull is the Minkowski sum of two hulls, whose edges only have to be merged by slope. There are
O(n log n) steps for n requests. At a single rate, one pass over the requests is enough (`find_block_needs`).

In plain Python, integers have any size. Numba's have 64 bits, so it compiles `is_flatter` with products of 128 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Column = Any
"""A list of integers or, in compiled code, an array."""


def allocate(size: int) -> Column:
    """Return a column whose values are set later."""
    return [0] * size


def is_flatter(height: int, width: int, other_height: int, other_width: int) -> bool:
    """Return whether the first edge is at most as steep as the second; widths are at least 0."""
    return height * other_width <= other_height * width


def push(spans: Column, amounts: Column, begin: int, end: int, span: int, amount: int) -> int:
    """Append a point with the greatest span to the upper hull in `[begin, end)`, and return the hull's new end."""
    if end > begin and amount <= amounts[end - 1]:
        return end
    if end > begin and span == spans[end - 1]:
        end -= 1
    while end - begin >= 2 and is_flatter(
        amounts[end - 1] - amounts[end - 2],
        spans[end - 1] - spans[end - 2],
        amount - amounts[end - 1],
        span - spans[end - 1],
    ):
        end -= 1
    spans[end] = span
    amounts[end] = amount
    return end + 1


def find_corners(times: Sequence[int], costs: Sequence[int]) -> tuple[Column, Column]:
    """Return the spans and the amounts of the corners, for the requests of one client in the order of time.

    Both increase from corner to corner, and the edges between corners become flatter.
    """
    size = len(times)
    totals = allocate(size + 1)
    totals[0] = 0
    spans, amounts, ends = allocate(size), allocate(size), allocate(size)
    for place in range(size):
        totals[place + 1] = totals[place] + costs[place]
        spans[place] = 0
        amounts[place] = costs[place]
        ends[place] = place + 1
    scratch = allocate(size), allocate(size), allocate(size), allocate(size), allocate(size + 1), allocate(size + 1)
    width = 1  # requests in a block; `ends` has the end of each block's corners
    while width < size:
        spans, amounts, ends = merge_blocks(times, totals, spans, amounts, ends, width, scratch)
        width *= 2
    return spans[: ends[len(ends) - 1]], amounts[: ends[len(ends) - 1]]


def find_all_corners(
    times: Sequence[int], costs: Sequence[int], begins: Sequence[int]
) -> tuple[Column, Column, Column]:
    """Return the number of corners of each client, and their spans and amounts, one client after the other.

    The requests of client `n` are those from `begins[n]` to `begins[n + 1]`, in the order of time.
    """
    counts = allocate(len(begins) - 1)
    spans, amounts = allocate(len(begins)), allocate(len(begins))
    end = 0
    for number in range(len(counts)):
        counts[number] = 0
        first, stop = begins[number], begins[number + 1]
        if stop > first:
            more_spans, more_amounts = find_corners(times[first:stop], costs[first:stop])
            counts[number] = len(more_spans)
            if end + counts[number] > len(spans):
                size = 2 * (end + counts[number])
                spans, amounts = copy_column(spans, size), copy_column(amounts, size)
            for place in range(counts[number]):
                spans[end + place] = more_spans[place]
                amounts[end + place] = more_amounts[place]
            end += counts[number]
    return counts, spans[:end], amounts[:end]


def copy_column(column: Column, size: int) -> Column:
    """Copy a column to a longer one."""
    longer = allocate(size)
    for place in range(len(column)):
        longer[place] = column[place]
    return longer


def merge_blocks(
    times: Sequence[int], totals: Column, spans: Column, amounts: Column, ends: Column, width: int, scratch: Any
) -> tuple[Column, Column, Column]:
    """Merge each block with the next: the hull of both, and of the spans that begin in one and end in the other."""
    blocks = len(ends)
    merged_ends = allocate((blocks + 1) // 2)
    capacity = ends[blocks - 1] + len(times)
    merged_spans, merged_amounts = allocate(capacity), allocate(capacity)
    begin, end = 0, 0
    for number in range(len(merged_ends)):
        middle = ends[2 * number]
        last = ends[2 * number + 1] if 2 * number + 1 < blocks else middle
        crossing = 0
        if last > middle:
            first = 2 * number * width
            stop = min(first + 2 * width, len(times))
            crossing = find_crossing(times, totals, first, first + width, stop, scratch)
        end = merge_hulls(spans, amounts, begin, middle, last, scratch, crossing, merged_spans, merged_amounts, end)
        merged_ends[number] = end
        begin = last
    return merged_spans, merged_amounts, merged_ends


def find_crossing(times: Sequence[int], totals: Column, first: int, cut: int, stop: int, scratch: Any) -> int:
    """Find the hull of the spans that begin before request `cut` and end at or after it; return its number of corners.

    It is left in the last two columns of `scratch`.
    """
    before_spans, before_amounts, after_spans, after_amounts, spans, amounts = scratch
    before, after = 0, 0
    for place in range(cut - 1, first - 1, -1):
        before = push(before_spans, before_amounts, 0, before, times[cut] - times[place], totals[cut] - totals[place])
    for place in range(cut, stop):
        amount = totals[place + 1] - totals[cut]
        after = push(after_spans, after_amounts, 0, after, times[place] - times[cut], amount)
    left, right, corners = 0, 0, 0
    while True:
        spans[corners] = before_spans[left] + after_spans[right]
        amounts[corners] = before_amounts[left] + after_amounts[right]
        corners += 1
        if left + 1 < before and (
            right + 1 == after
            or is_flatter(
                after_amounts[right + 1] - after_amounts[right],
                after_spans[right + 1] - after_spans[right],
                before_amounts[left + 1] - before_amounts[left],
                before_spans[left + 1] - before_spans[left],
            )
        ):
            left += 1
        elif right + 1 < after:
            right += 1
        else:
            return corners


def merge_hulls(
    spans: Column, amounts: Column, begin: int, middle: int, last: int, scratch: Any, crossing: int,
    merged_spans: Column, merged_amounts: Column, end: int,
) -> int:  # fmt: skip
    """Append the hull of three hulls to the merged ones, from shorter to longer spans, and return the new end."""
    _, _, _, _, crossing_spans, crossing_amounts = scratch
    start, left, right, cross = end, begin, middle, 0
    while left < middle or right < last or cross < crossing:
        takes_left = left < middle and (right == last or spans[left] <= spans[right])
        place = left if takes_left else right
        if cross < crossing and (place == last or crossing_spans[cross] < spans[place]):
            end = push(merged_spans, merged_amounts, start, end, crossing_spans[cross], crossing_amounts[cross])
            cross += 1
        else:
            end = push(merged_spans, merged_amounts, start, end, spans[place], amounts[place])
            left, right = (left + 1, right) if takes_left else (left, right + 1)
    return end


def find_block_needs(
    times: Sequence[int], costs: Sequence[int], begins: Sequence[int], limit: int, period: int, origin: int, length: int
) -> tuple[Column, Column, Column]:
    """Return the keys with requests in a block, these blocks, and the needs within them at `limit` per `period`.

    The requests of key `n` are those from `begins[n]` to `begins[n + 1]`, in the order of time. A need is the largest
    level of a bucket that leaks at the rate; a unit of cost fills it by `period`, and a nanosecond drains `limit`.
    """
    keys, blocks, needs = allocate(len(times)), allocate(len(times)), allocate(len(times))
    end = 0
    for key in range(len(begins) - 1):
        level, most = 0, 0
        for place in range(begins[key], begins[key + 1]):
            block = (origin + times[place]) // length
            if place == begins[key] or block != blocks[end - 1]:
                keys[end], blocks[end] = key, block
                level, most = 0, 0
                end += 1
            else:
                elapsed = times[place] - times[place - 1]
                level = 0 if elapsed > level // limit else level - elapsed * limit
            level += costs[place] * period
            most = max(most, level)
            needs[end - 1] = -(-most // period)
    return keys[:end], blocks[:end], needs[:end]
