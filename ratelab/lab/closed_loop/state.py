"""State of a closed loop: tables of integers, one row for each client, request and try in progress.

The event loop reads and writes these tables, whether they are lists or arrays. A field is a position in a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

NONE = -1
"""No row, no time or no limit."""

UNLIMITED = 2**62

# --- rows of `behaviors`

BEHAVIOR_FIELDS = (
    IS_SERIAL, THINK_DELAY, PACE_DELAY, MAX_REQUESTS, TIMEOUT, LATENCY, COST_DELAY,
    RETRY_POLICY, BASE, CAP, ATTEMPTS, DEADLINE, BACKOFFS, BACKOFFS_END, HONORS, JITTER, RETRIED,
    RATIO, PAID_BY_SUCCESS, MAX_TOKENS, TOKENS_PER_RETRY,
    BREAKER, BREAKER_SHARE, BREAKER_WIDTH, PAUSE, THROTTLE_K, THROTTLE_WIDTH,
    HEDGE_AFTER, MAX_HEDGES, AIMD_RATE, AIMD_INCREASE, AIMD_DECREASE,
    HAS_GATES, LEARNS,
) = range(34)  # fmt: skip
"""Fields of a behavior. `THINK_DELAY`, `PACE_DELAY`, `LATENCY` and `COST_DELAY` are rows of `delays`; shares, tokens
and rates are in millionths; `BACKOFFS` are positions of the waits of its retries; `RETRIED` has a bit for each failure.
`HAS_GATES` is whether a client may reject tries itself, `LEARNS` whether results matter to its later tries."""

RETRY_POLICIES = ("none", "immediate", "fixed", "exponential", "equal-jitter", "full-jitter", "decorrelated-jitter",
                  "retry-after")  # fmt: skip
NO_RETRY, IMMEDIATE, FIXED, BACKOFF, EQUAL_JITTER, FULL_JITTER, DECORRELATED, RETRY_AFTER = range(8)
NO_HONOR, HONOR_RETRY_AFTER, HONOR_RATELIMIT = range(3)
NO_JITTER, ADD_HALF, ADD_FULL = range(3)
NO_BREAKER, STOPS_RETRIES, STOPS_CALLS = range(3)

# --- rows of `clients`

CLIENT_FIELDS = (
    BEHAVIOR, KEY, STARTED, TOKENS, CALLS, FAILED, BREAKER_WINDOW, OPEN_UNTIL, PROBING, THROTTLE_WINDOW,
    TURN, RATE, RAISED_AT, LOWERED_AT,
) = range(14)  # fmt: skip
"""Fields of a client. `STARTED` counts requests; `OPEN_UNTIL` is `NONE` while the breaker is closed."""

# --- rows of `requests`: the requests in progress; serial clients have the row of their own number

REQUEST_FIELDS = (
    REQUEST_CLIENT, REQUEST_COST, REQUEST_NUMBER, START_TIME, TRIES, RETRIES, FIRST_TRY, ASKED,
    PROBES, PREVIOUS_WAIT, HEDGES, HEDGE_ORDER,
) = range(12)  # fmt: skip
"""Fields of a request. `REQUEST_NUMBER` is its place in the columns; `FIRST_TRY` the first of its unanswered tries.
`ASKED` is the wait that its last denial asks for, or 0; `PROBES` whether its last try was a probe. The fields from
there on are of requests alone whose clients learn from results, have decorrelated jitter, or hedge."""

# --- rows of `tries`: the tries in progress, until both the client and the server have finished with them

TRY_FIELDS = (
    OWNER, IS_AWAITED, TRY_CLIENT, TRY_COST, TRY_REQUEST, NUMBER, ROW, SENT_TIME, TRY_ID, OUTCOME, END_TIME, ANSWERED,
    WAIT, IS_PROBE, EXPIRY_TIME, TIMER, TIMER_ID, SIBLING, QUEUED_AT, OLDER, NEWER, VERSION,
) = range(22)  # fmt: skip
"""Fields of a try. `OWNER` is its row of `requests` while it `IS_AWAITED`; `ROW` its place in the columns."""

# --- totals

TOTALS = (
    NOW, SEQUENCE, TRY_ROWS, REQUEST_ROWS, TRY_COUNT, REJECTED, FREE_TRIES, USED_TRIES,
    FREE_REQUESTS, USED_REQUESTS, NEXT_FIRST, EVENTS, STALLED, CHANGE,
    IN_SERVICE, WAITING, OLDEST, NEWEST, ROW_VERSION, REPLACES_FIRST,
    HEAP_SIZE, LATER, SPREAD, SHIFT, BUCKET, LAST_BUCKET, FETCHED, SPREAD_EVENTS, SPREAD_TIME,
    FREE_BLOCKS, USED_BLOCKS,
) = range(31)  # fmt: skip
"""Fields of `totals`. `FREE_TRIES` and `FREE_REQUESTS` are the first rows given back, linked by `SIBLING` and
`FIRST_TRY`; rows from `USED_TRIES` and `USED_REQUESTS` on have never been used. Those from `HEAP_SIZE` on
are of the compiled loop. It has events beyond its heap: `LATER` in all, of which `SPREAD` are spread over buckets of
`1 << SHIFT` nanoseconds. `BUCKET` is the one that went to the heap last, `LAST_BUCKET` the first beyond all; of
the events of the next bucket, `FETCHED` is the one whose rows are fetched next; the rest are the events and the time
when they were spread, and blocks of their memory."""

# --- rows of `changes`: what faults make of the world from a time on

CHANGE_FIELDS = CHANGE_TIME, REJECTS, HOLDS_UNTIL, SLOWNESS, SPIKE, RESTARTS = range(6)
"""Fields of a change."""

# --- `server`

SERVER_FIELDS = WORKERS, SERVICE_DELAY, QUEUE, IS_LIFO, DROP, DROP_LIMIT, SLOWDOWN, IS_OPTIMISTIC = range(8)
"""Fields of the server; there is none if `WORKERS` is 0."""

NO_DROP, DROP_STALE, DROP_LATE, DROP_OLDEST = range(4)

# --- results

RESULTS = ("success", "denied", "error", "shed", "timeout", "pending", "abandoned", "local")
SUCCESS, DENIED, FAULT, SHED, TIMED_OUT, PENDING, ABANDONED, LOCAL = range(8)
"""Results of a try; a request ends as `SUCCESS`, `GAVE_UP` or not at all."""

GAVE_UP = DENIED

# --- events

EVENT_KINDS = START_DUE, RETRY_DUE, ARRIVAL, AT_SERVER, SERVED, WRITE, ANSWER, HEDGE_DUE, TURN_DUE, EXPIRY = range(10)
"""Kinds of events; a row of `clients`, `requests` or `tries` belongs to each."""

ORDER_SHIFT, KIND_SHIFT, KIND_MASK, ROW_MASK = 28, 24, 15, 2**24 - 1
"""Parts of an event: its order among those of one time, its kind and its row."""

EXPIRY_ORDER = 2**34
"""Added to the order of expiries, which follow all other events of their time."""

MAX_WORLD_ROWS = 2**24


@dataclass(slots=True)
class World:
    """Everything that the event loop reads and writes.

    The columns of tries begin with `row_`, those of requests with `request_`. Most values are never written, and memory
    that is never written takes no space: times in `row_sent`, `row_ended`, `row_served` and `request_ended` are one
    later, the latter negative if the client gave up, and costs and tries of a request one less. Where 0 stands for a
    time, a try was sent when it arrived, and it ended then, and was served, if it has a result; a request is pending.
    """

    totals: Any
    behaviors: Any
    delays: Any
    chances: Any
    values: Any
    backoffs: Any
    clients: Any
    requests: Any
    tries: Any
    windows: Any
    streams: Any
    changes: Any
    server: Any
    heap: Any
    limiter: Any
    error_chance: float
    duration: int
    origin: int
    first_times: Any
    first_clients: Any
    first_costs: Any
    row_times: Any
    row_requests: Any
    row_numbers: Any
    row_sent: Any
    row_ended: Any
    row_results: Any
    row_served: Any
    row_wasted: Any
    row_allowed: Any
    row_delays: Any
    request_clients: Any
    request_costs: Any
    request_started: Any
    request_ended: Any
    request_tries: Any
    buckets: Any = ()
    blocks: Any = ()
