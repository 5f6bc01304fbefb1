"""Clients that react to answers: the end of a request, or a further try after a wait."""

from __future__ import annotations

from typing import Any

from ratelab.lab.closed_loop import gates
from ratelab.lab.closed_loop import state as at
from ratelab.lab.closed_loop.schedule import schedule, schedule_expiry
from ratelab.lab.closed_loop.state import World
from ratelab.lab.closed_loop.streams import RETRY, THINK, draw_delay, draw_part
from ratelab.limiter import NEVER
from ratelab.quota import NS_PER_S

MAX_WAIT = 2**60
"""The longest wait that a client takes from a denial, in nanoseconds; it is beyond the end of any run."""


def receive(world: World, row: int, now: int) -> int:
    """Let a client receive the answer to a try; return the result, pending if the client has left."""
    entry = world.tries[row]
    result: int = at.PENDING
    if entry[at.IS_AWAITED]:
        request = world.requests[entry[at.OWNER]]
        request[at.ASKED], request[at.PROBES] = entry[at.WAIT], entry[at.IS_PROBE]
        result = entry[at.ANSWERED]
        leave(world, row, result, now)
    elif entry[at.ANSWERED] == at.SUCCESS:
        world.row_wasted[entry[at.ROW]] = 1
    free_try(world, row)
    return result


def watch(world: World, row: int, time: int) -> None:
    """Schedule the expiry of a try, unless an expiry of its row is due before, which then schedules it."""
    entry = world.tries[row]
    entry[at.EXPIRY_TIME] = time
    if entry[at.TIMER] == at.NONE or entry[at.TIMER] > time:
        entry[at.TIMER] = time
        entry[at.TIMER_ID] = entry[at.TRY_ID]
        schedule_expiry(world, time, entry[at.TRY_ID], row)


def expire(world: World, row: int, now: int, number: int) -> int:
    """Return that a try has timed out, and let its client leave; return that it is pending if it has not."""
    entry = world.tries[row]
    if entry[at.TIMER] != now or entry[at.TIMER_ID] != number:
        return at.PENDING
    entry[at.TIMER] = at.NONE
    if not entry[at.IS_AWAITED] or entry[at.EXPIRY_TIME] == at.NONE:
        return at.PENDING
    if entry[at.TRY_ID] != number:
        watch(world, row, entry[at.EXPIRY_TIME])
        return at.PENDING
    request = world.requests[entry[at.OWNER]]
    request[at.ASKED], request[at.PROBES] = 0, entry[at.IS_PROBE]
    leave(world, row, at.TIMED_OUT, now)
    return at.TIMED_OUT


def leave(world: World, row: int, result: int, now: int) -> None:
    """Stop awaiting the answer to a try, which has this result for the client."""
    entry = world.tries[row]
    request = world.requests[entry[at.OWNER]]
    if request[at.FIRST_TRY] == row:
        request[at.FIRST_TRY] = entry[at.SIBLING]
    else:
        other = request[at.FIRST_TRY]
        while world.tries[other][at.SIBLING] != row:
            other = world.tries[other][at.SIBLING]
        world.tries[other][at.SIBLING] = entry[at.SIBLING]
    entry[at.IS_AWAITED] = 0
    entry[at.OUTCOME] = result
    entry[at.END_TIME] = now
    if entry[at.ROW] != at.NONE:
        world.row_ended[entry[at.ROW]] = now + 1
        world.row_results[entry[at.ROW]] = result
    if result == at.ABANDONED and entry[at.IS_PROBE]:
        world.clients[entry[at.TRY_CLIENT]][at.PROBING] = 0


def free_try(world: World, row: int) -> None:
    """Make a row of `tries` available."""
    world.tries[row][at.SIBLING] = world.totals[at.FREE_TRIES]
    world.totals[at.FREE_TRIES] = row


# --- success or failure


def settle(world: World, row: int, result: int, now: int) -> None:
    """End a request after a success; after a failure, try again or give up, once none of its tries is unanswered."""
    request = world.requests[row]
    state = world.clients[request[at.REQUEST_CLIENT]]
    behavior = world.behaviors[state[at.BEHAVIOR]]
    if behavior[at.LEARNS] and result != at.LOCAL:
        gates.learn(world, state, behavior, result, request[at.PROBES], now)
    if result == at.SUCCESS:
        if behavior[at.PAID_BY_SUCCESS]:
            gates.deposit(state, behavior)
        end_request(world, row, at.SUCCESS, now)
    elif request[at.FIRST_TRY] == at.NONE:
        if behavior[at.HEDGE_AFTER] != at.NONE:
            request[at.HEDGE_ORDER] = at.NONE
        if not retry(world, row, result, now):
            end_request(world, row, at.GAVE_UP, now)


def retry(world: World, row: int, failure: int, now: int) -> bool:
    """Schedule a further try, and return whether the client may make one."""
    request = world.requests[row]
    client = request[at.REQUEST_CLIENT]
    state = world.clients[client]
    behavior = world.behaviors[state[at.BEHAVIOR]]
    if request[at.TRIES] >= behavior[at.ATTEMPTS] or not behavior[at.RETRIED] >> failure & 1:
        return False
    if behavior[at.BREAKER] == at.STOPS_RETRIES and gates.exceeds_share(world, state, behavior, 0, now):
        return False
    due = now + find_wait(world, client, request, behavior)
    if behavior[at.DEADLINE] != at.NONE and due > request[at.START_TIME] + behavior[at.DEADLINE]:
        return False
    if behavior[at.RATIO] and not gates.pay_retry(state, behavior):
        return False
    request[at.RETRIES] += 1
    schedule(world, due, at.RETRY_DUE, row)
    return True


def end_request(world: World, row: int, result: int, now: int) -> None:
    """End a request, abandon its unanswered tries, and schedule the next request of a serial client."""
    request = world.requests[row]
    client = request[at.REQUEST_CLIENT]
    number = request[at.REQUEST_NUMBER]
    world.request_ended[number] = now + 1 if result == at.SUCCESS else -now - 1
    state = world.clients[client]
    behavior = world.behaviors[state[at.BEHAVIOR]]
    if behavior[at.HEDGE_AFTER] != at.NONE:
        request[at.HEDGE_ORDER] = at.NONE
    while request[at.FIRST_TRY] != at.NONE:
        leave(world, request[at.FIRST_TRY], at.ABANDONED, now)
    if not behavior[at.IS_SERIAL]:
        request[at.FIRST_TRY] = world.totals[at.FREE_REQUESTS]
        world.totals[at.FREE_REQUESTS] = row
        return
    if state[at.STARTED] >= behavior[at.MAX_REQUESTS]:
        return
    spike = world.changes[world.totals[at.CHANGE]][at.SPIKE]
    start, streams = now, world.streams[client]
    if behavior[at.THINK_DELAY] != at.NONE:
        delay = world.delays[behavior[at.THINK_DELAY]]
        start += draw_delay(delay, world.chances, world.values, streams, THINK) // spike
    if behavior[at.PACE_DELAY] != at.NONE:
        delay = world.delays[behavior[at.PACE_DELAY]]
        pace = draw_delay(delay, world.chances, world.values, streams, THINK) // spike
        start = max(start, request[at.START_TIME] + pace)
    schedule(world, start, at.START_DUE, client)


# --- waits


def read_wait(behavior: Any, retry_after: int, reset_after: int) -> int:
    """Return the wait that a denial asks for, in nanoseconds; 0 if none.

    `Retry-After` has whole seconds, rounded up, and so has `t` of `RateLimit`, which is the wait until the key is
    replenished if no wait is enough.
    """
    wait = retry_after
    if wait == NEVER:
        wait = reset_after if behavior[at.HONORS] == at.HONOR_RATELIMIT else 0
    return min(-(-min(wait, MAX_WAIT) // NS_PER_S) * NS_PER_S, MAX_WAIT)


def find_wait(world: World, client: int, request: Any, behavior: Any) -> int:
    """Return the wait before the next retry of a request."""
    streams = world.streams[client]
    policy, jitter = behavior[at.RETRY_POLICY], behavior[at.JITTER]
    base: int = behavior[at.BASE]
    asked: int = request[at.ASKED]
    wait: int
    if policy == at.RETRY_AFTER and asked:
        return add_jitter(jitter, asked, streams)
    if policy == at.IMMEDIATE:
        wait = base
    elif policy == at.DECORRELATED:
        wait = min(behavior[at.CAP], base + draw_part(max(3 * request[at.PREVIOUS_WAIT] - base, 0), streams, RETRY))
        request[at.PREVIOUS_WAIT] = wait
    else:
        wait = base
        if policy != at.FIXED:
            wait = world.backoffs[min(behavior[at.BACKOFFS] + request[at.RETRIES], behavior[at.BACKOFFS_END] - 1)]
        if policy == at.FULL_JITTER or (policy != at.EQUAL_JITTER and jitter == at.ADD_FULL):
            wait = draw_part(wait, streams, RETRY)
        elif policy == at.EQUAL_JITTER or jitter == at.ADD_HALF:
            wait = wait // 2 + draw_part(wait - wait // 2, streams, RETRY)
    if behavior[at.HONORS] != at.NO_HONOR and asked > wait:
        return add_jitter(jitter, asked, streams)
    return wait


def add_jitter(jitter: int, wait: int, streams: Any) -> int:
    """Lengthen a wait that a denial asked for by a random part of it."""
    if jitter == at.NO_JITTER:
        return wait
    return wait + draw_part(wait if jitter == at.ADD_FULL else wait // 2, streams, RETRY)
