"""Counts of a client over the last span of time, in buckets.

A span is divided into `BUCKETS` buckets of equal width, aligned to the beginning of the run. The current bucket and
those before it, `BUCKETS` in all, make up the window.
"""

from __future__ import annotations

from collections.abc import MutableSequence

BUCKETS = 30
"""Buckets of a window."""

WINDOW_FIELDS = LATEST, FIRST_SUM, SECOND_SUM, FIRST_BUCKET = range(4)
"""Fields of a window: the latest bucket, the sums of two counts, and the buckets of both in turn."""

WINDOW_WIDTH = FIRST_BUCKET + 2 * BUCKETS


def bucket_width(span: int) -> int:
    """Return the width of a bucket in nanoseconds."""
    return -(-span // BUCKETS)


def advance(window: MutableSequence[int], bucket: int) -> None:
    """Drop the buckets that `bucket` no longer sees."""
    latest = window[LATEST]
    if bucket == latest:
        return
    window[LATEST] = bucket
    for old in range(latest + 1, min(bucket, latest + BUCKETS) + 1):
        place = FIRST_BUCKET + 2 * (old % BUCKETS)
        window[FIRST_SUM] -= window[place]
        window[SECOND_SUM] -= window[place + 1]
        window[place] = window[place + 1] = 0


def count(window: MutableSequence[int], bucket: int, first: int, second: int) -> None:
    """Add to both counts in the current bucket."""
    advance(window, bucket)
    place = FIRST_BUCKET + 2 * (bucket % BUCKETS)
    window[place] += first
    window[place + 1] += second
    window[FIRST_SUM] += first
    window[SECOND_SUM] += second


def clear(window: MutableSequence[int]) -> None:
    """Forget all counts."""
    for place in range(FIRST_SUM, WINDOW_WIDTH):
        window[place] = 0
