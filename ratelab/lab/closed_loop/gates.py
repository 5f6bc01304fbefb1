"""Gates in a client: adaptive throttling, the circuit breaker, the rate of tries, and the budget of retries."""

from __future__ import annotations

from typing import Any

from ratelab.lab.closed_loop import state as at
from ratelab.lab.closed_loop import windows
from ratelab.lab.closed_loop.state import World
from ratelab.lab.closed_loop.streams import THROTTLE, draw_uniform
from ratelab.quota import NS_PER_S

MILLION = 1_000_000

MIN_CALLS = 10
"""Tries in the window from which on a breaker may open."""

MIN_RATE, MAX_RATE = MILLION // 10, MILLION**2
"""Bounds of a client's rate of tries, in millionths of a try a second."""

CLOSED, HALF_OPEN, OPEN = range(3)
"""States of a breaker that stops calls."""


# --- adaptive throttling


def throttles(world: World, client: int, now: int) -> bool:
    """Count a try, and return whether the client rejects it itself (Google SRE book, "Handling overload")."""
    state = world.clients[client]
    behavior = world.behaviors[state[at.BEHAVIOR]]
    window = world.windows[state[at.THROTTLE_WINDOW]]
    bucket = now // behavior[at.THROTTLE_WIDTH]
    windows.advance(window, bucket)
    tries, accepts = window[windows.FIRST_SUM], window[windows.SECOND_SUM]
    windows.count(window, bucket, 1, 0)
    excess = MILLION * tries - behavior[at.THROTTLE_K] * accepts
    if excess <= 0:
        return False
    return draw_uniform(world.streams[client], THROTTLE) <= float(excess) / float(MILLION * (tries + 1))


# --- the circuit breaker


def find_breaker_state(client: Any, now: int) -> int:
    """Return the state of a client's breaker."""
    if client[at.OPEN_UNTIL] == at.NONE:
        return CLOSED
    return OPEN if now < client[at.OPEN_UNTIL] or client[at.PROBING] else HALF_OPEN


def count_calls(world: World, client: Any, behavior: Any, calls: int, failed: int, now: int) -> None:
    """Count calls and failed tries for the breaker, in its window or in all."""
    if behavior[at.BREAKER_WIDTH]:
        windows.count(world.windows[client[at.BREAKER_WINDOW]], now // behavior[at.BREAKER_WIDTH], calls, failed)
    else:
        client[at.CALLS] += calls
        client[at.FAILED] += failed


def exceeds_share(world: World, client: Any, behavior: Any, min_calls: int, now: int) -> bool:
    """Return whether the failed tries exceed the breaker's share of the calls."""
    calls, failed = client[at.CALLS], client[at.FAILED]
    if behavior[at.BREAKER_WIDTH]:
        window = world.windows[client[at.BREAKER_WINDOW]]
        windows.advance(window, now // behavior[at.BREAKER_WIDTH])
        calls, failed = window[windows.FIRST_SUM], window[windows.SECOND_SUM]
    return bool(calls >= min_calls and failed * MILLION > behavior[at.BREAKER_SHARE] * calls)


def trip(world: World, client: Any, behavior: Any, result: int, is_probe: int, now: int) -> None:
    """Count the result of a try, and open or close a breaker that stops calls."""
    failed = 0 if result == at.SUCCESS else 1
    if is_probe:
        client[at.PROBING] = 0
        if failed:
            client[at.OPEN_UNTIL] = now + behavior[at.PAUSE]
            return
        client[at.OPEN_UNTIL] = at.NONE
        client[at.CALLS] = client[at.FAILED] = 0
        if behavior[at.BREAKER_WIDTH]:
            windows.clear(world.windows[client[at.BREAKER_WINDOW]])
    elif client[at.OPEN_UNTIL] == at.NONE:
        count_calls(world, client, behavior, 1, failed, now)
        if failed and exceeds_share(world, client, behavior, MIN_CALLS, now):
            client[at.OPEN_UNTIL] = now + behavior[at.PAUSE]


# --- results


def learn(world: World, client: Any, behavior: Any, result: int, is_probe: int, now: int) -> None:
    """Update the gates of a client by the result of a try that was sent."""
    if behavior[at.THROTTLE_K] and result in (at.SUCCESS, at.FAULT):
        windows.count(world.windows[client[at.THROTTLE_WINDOW]], now // behavior[at.THROTTLE_WIDTH], 0, 1)
    if behavior[at.BREAKER] == at.STOPS_CALLS:
        trip(world, client, behavior, result, is_probe, now)
    elif behavior[at.BREAKER] == at.STOPS_RETRIES and result != at.SUCCESS:
        count_calls(world, client, behavior, 0, 1, now)
    if behavior[at.AIMD_RATE]:
        adapt_rate(client, behavior, result, now)


# --- the rate of tries: additive increase, multiplicative decrease


def adapt_rate(client: Any, behavior: Any, result: int, now: int) -> None:
    """Raise or lower the rate of tries, each at most once a second."""
    if result == at.SUCCESS and now >= client[at.RAISED_AT] + NS_PER_S:
        client[at.RAISED_AT] = now
        client[at.RATE] = min(client[at.RATE] + behavior[at.AIMD_INCREASE], MAX_RATE)
    elif result in (at.DENIED, at.SHED) and now >= client[at.LOWERED_AT] + NS_PER_S:
        client[at.LOWERED_AT] = now
        client[at.RATE] = max(client[at.RATE] * behavior[at.AIMD_DECREASE] // MILLION, MIN_RATE)


def take_turn(client: Any, now: int) -> int:
    """Return the time at which a client may send its next try, and reserve it."""
    turn: int = max(client[at.TURN], now)
    client[at.TURN] = turn + NS_PER_S * MILLION // client[at.RATE]
    return turn


# --- the budget of retries


def deposit(client: Any, behavior: Any) -> None:
    """Add the ratio of a budget to its tokens."""
    client[at.TOKENS] = min(client[at.TOKENS] + behavior[at.RATIO], behavior[at.MAX_TOKENS])


def pay_retry(client: Any, behavior: Any) -> bool:
    """Take the tokens of a retry, and return whether there were enough."""
    if client[at.TOKENS] < behavior[at.TOKENS_PER_RETRY]:
        return False
    client[at.TOKENS] -= behavior[at.TOKENS_PER_RETRY]
    return True
