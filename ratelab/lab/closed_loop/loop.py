"""Event loop of a closed loop: clients that send requests, meet a limiter and a server, and try again.

The source runs as it is over lists, and compiled over arrays. Events are processed in the order of their time, those of
one time in the order in which they were scheduled; a first try of an open client precedes other events of its time,
and an expiry follows them. Without a network, a try reaches the limiter when it is sent, and the client knows a denial
at once, and without a server also a success; these are one event.
"""

from __future__ import annotations

from typing import Any

from ratelab.lab.closed_loop import gates, service
from ratelab.lab.closed_loop import state as at
from ratelab.lab.closed_loop.answers import expire, free_try, leave, read_wait, receive, settle, watch
from ratelab.lab.closed_loop.schedule import first_event, first_time, remove_first, schedule
from ratelab.lab.closed_loop.state import World
from ratelab.lab.closed_loop.streams import COST, draw_delay

FINISHED, PAUSED, RESTARTED = range(3)
"""Why `run` returns: no event is left before the end, it processed as many as asked, or the limiter restarts."""


def run(world: World, events: int) -> int:
    """Process up to this many events; return `FINISHED`, `PAUSED` or `RESTARTED`."""
    totals, heap, first_times = world.totals, world.heap, world.first_times
    firsts, duration = len(first_times), world.duration
    change, last_change = totals[at.CHANGE], len(world.changes) - 1
    change_time = world.changes[change + 1][at.CHANGE_TIME] if change < last_change else duration
    place = totals[at.NEXT_FIRST]
    first_due = first_times[place] if place < firsts else duration
    for _ in range(events):
        if totals[at.REPLACES_FIRST]:
            totals[at.REPLACES_FIRST] = 0
            remove_first(world)
        time = first_time(world)
        is_first = time < 0 or first_due <= time
        if is_first:
            time = first_due
        if time >= change_time:
            if change_time >= duration:
                return FINISHED
            totals[at.CHANGE] = change = change + 1
            restarts = world.changes[change][at.RESTARTS]
            change_time = world.changes[change + 1][at.CHANGE_TIME] if change < last_change else duration
            if restarts:
                return RESTARTED
            continue
        totals[at.EVENTS] += 1
        if time > totals[at.NOW]:
            totals[at.NOW] = time
            totals[at.STALLED] = 0
        else:
            totals[at.STALLED] += 1
        sender = owner = waiting = at.NONE
        result = at.PENDING
        if is_first:
            place += 1
            totals[at.NEXT_FIRST] = place
            first_due = first_times[place] if place < firsts else duration
            sender = take_request(world)
            begin_request(world, sender, world.first_clients[place - 1], world.first_costs[place - 1], time)
        else:
            event = first_event(heap)
            totals[at.REPLACES_FIRST] = 1
            kind, row = event >> at.KIND_SHIFT & at.KIND_MASK, event & at.ROW_MASK
            if kind == at.RETRY_DUE:
                sender = row
            elif kind == at.START_DUE:
                begin_serial(world, row, time)
                sender = row
            elif kind == at.ANSWER:
                result = receive(world, row, time)
            elif kind == at.ARRIVAL:
                reach_limiter(world, row, time)
            elif kind == at.SERVED:
                service.finish(world, row, time)
            elif kind == at.AT_SERVER:
                service.reach(world, row, time)
            elif kind == at.EXPIRY:
                result = expire(world, row, time, (event >> at.ORDER_SHIFT) - at.EXPIRY_ORDER)
            elif kind == at.WRITE:
                service.write(world, row, time)
            elif kind == at.HEDGE_DUE:
                sender = hedge(world, row, event)
            else:
                sender, waiting = take_over(world, row), row
            if result != at.PENDING:
                owner = world.tries[row][at.OWNER]
        if sender != at.NONE:
            owner = sender
            result = send(world, sender, waiting, time)
        if result != at.PENDING:
            settle(world, owner, result, time)
    return PAUSED


# --- requests


def begin_serial(world: World, client: int, now: int) -> None:
    """Begin the next request of a serial client; its first try is to be sent."""
    behavior = world.behaviors[world.clients[client][at.BEHAVIOR]]
    delay = world.delays[behavior[at.COST_DELAY]]
    cost = draw_delay(delay, world.chances, world.values, world.streams[client], COST)
    begin_request(world, client, client, cost, now)


def take_request(world: World) -> int:
    """Return an unused row of `requests`."""
    row: int = world.totals[at.FREE_REQUESTS]
    if row == at.NONE:
        row = world.totals[at.USED_REQUESTS]
        world.totals[at.USED_REQUESTS] = row + 1
    else:
        world.totals[at.FREE_REQUESTS] = world.requests[row][at.FIRST_TRY]
    return row


def begin_request(world: World, row: int, client: int, cost: int, now: int) -> None:
    """Begin a request; its first try is to be sent."""
    request, state = world.requests[row], world.clients[client]
    behavior = world.behaviors[state[at.BEHAVIOR]]
    number = world.totals[at.REQUEST_ROWS]
    world.totals[at.REQUEST_ROWS] = number + 1
    world.request_clients[number] = client
    world.request_started[number] = now
    if cost != 1:
        world.request_costs[number] = cost - 1
    request[at.REQUEST_CLIENT] = client
    request[at.REQUEST_COST] = cost
    request[at.REQUEST_NUMBER] = number
    request[at.START_TIME] = now
    request[at.TRIES] = request[at.RETRIES] = 0
    request[at.FIRST_TRY] = at.NONE
    if behavior[at.RETRY_POLICY] == at.DECORRELATED:
        request[at.PREVIOUS_WAIT] = behavior[at.BASE]
    if behavior[at.HEDGE_AFTER] != at.NONE:
        request[at.HEDGES] = 0
        request[at.HEDGE_ORDER] = at.NONE
    state[at.STARTED] += 1
    if behavior[at.RATIO] and not behavior[at.PAID_BY_SUCCESS]:
        gates.deposit(state, behavior)
    if behavior[at.BREAKER] == at.STOPS_RETRIES:
        gates.count_calls(world, state, behavior, 1, 0, now)


# --- tries


def send(world: World, row: int, waiting: int, now: int) -> int:
    """Send a try of a request, unless the client holds it back; return its result if that is known at once.

    `waiting` is its row of `tries` if it has had its turn.
    """
    request = world.requests[row]
    client = request[at.REQUEST_CLIENT]
    state = world.clients[client]
    behavior = world.behaviors[state[at.BEHAVIOR]]
    if behavior[at.AIMD_RATE] and waiting == at.NONE:
        turn = gates.take_turn(state, now)
        if turn > now:
            world.request_tries[request[at.REQUEST_NUMBER]] = request[at.TRIES] - 1
            schedule(world, turn, at.TURN_DUE, add_try(world, row))
            return at.PENDING
    request[at.TRIES] += 1
    request[at.ASKED] = 0
    if behavior[at.LEARNS]:
        request[at.PROBES] = 0
    if request[at.TRIES] > 1 or behavior[at.AIMD_RATE]:
        world.request_tries[request[at.REQUEST_NUMBER]] = request[at.TRIES] - 1
    result = at.PENDING
    place = number = at.NONE
    delay = 0
    allowed = True
    if behavior[at.HAS_GATES] and is_held_back(world, client, request, now):
        result = at.LOCAL
    else:
        number = world.totals[at.TRY_COUNT]
        world.totals[at.TRY_COUNT] = number + 1
        if behavior[at.LATENCY] == at.NONE:
            place, allowed, delay, request[at.ASKED] = record(
                world, client, request[at.REQUEST_NUMBER], request[at.TRIES], now, request[at.REQUEST_COST], now
            )
            if not allowed:
                result = at.DENIED
            elif not delay and not world.server[at.WORKERS]:
                result = at.SUCCESS
            world.row_results[place] = result
    if result != at.PENDING:
        if waiting != at.NONE:
            leave(world, waiting, result, now)
            free_try(world, waiting)
        return result
    sent = add_try(world, row) if waiting == at.NONE else waiting
    entry = world.tries[sent]
    entry[at.NUMBER] = request[at.TRIES]
    entry[at.ROW] = place
    entry[at.SENT_TIME] = now
    entry[at.TRY_ID] = number
    if behavior[at.LEARNS]:
        entry[at.IS_PROBE] = request[at.PROBES]
    if behavior[at.TIMEOUT] != at.NONE:
        watch(world, sent, now + behavior[at.TIMEOUT])
    if behavior[at.HEDGE_AFTER] != at.NONE and request[at.HEDGES] < behavior[at.MAX_HEDGES]:
        request[at.HEDGE_ORDER] = schedule(world, now + behavior[at.HEDGE_AFTER], at.HEDGE_DUE, row)
    if place == at.NONE:
        schedule(world, now + service.draw_latency(world, client, behavior), at.ARRIVAL, sent)
    elif delay:
        schedule(world, now + delay, at.AT_SERVER, sent)
    else:
        service.reach(world, sent, now)
    return at.PENDING


def is_held_back(world: World, client: int, request: Any, now: int) -> bool:
    """Return whether the client rejects a try itself; otherwise note whether it is the probe of a breaker."""
    state = world.clients[client]
    throttled = world.behaviors[state[at.BEHAVIOR]][at.THROTTLE_K] and gates.throttles(world, client, now)
    breaker = gates.find_breaker_state(state, now)
    if throttled or breaker == gates.OPEN:
        world.totals[at.REJECTED] += 1
        return True
    if breaker == gates.HALF_OPEN:
        state[at.PROBING] = request[at.PROBES] = 1
    return False


def add_try(world: World, row: int) -> int:
    """Return a new try of a request that awaits its answer."""
    added: int = world.totals[at.FREE_TRIES]
    if added == at.NONE:
        added = world.totals[at.USED_TRIES]
        world.totals[at.USED_TRIES] = added + 1
    else:
        world.totals[at.FREE_TRIES] = world.tries[added][at.SIBLING]
    entry, request = world.tries[added], world.requests[row]
    entry[at.OWNER] = row
    entry[at.IS_AWAITED] = 1
    entry[at.TRY_CLIENT] = request[at.REQUEST_CLIENT]
    entry[at.TRY_COST] = request[at.REQUEST_COST]
    entry[at.TRY_REQUEST] = request[at.REQUEST_NUMBER]
    entry[at.ROW] = entry[at.TRY_ID] = at.NONE
    entry[at.OUTCOME] = at.PENDING
    entry[at.WAIT] = 0
    entry[at.EXPIRY_TIME] = at.NONE
    entry[at.IS_PROBE] = 0
    entry[at.SIBLING] = request[at.FIRST_TRY]
    request[at.FIRST_TRY] = added
    return added


def take_over(world: World, row: int) -> int:
    """Return the request of a try whose turn has come, and which is to be sent unless its request has ended."""
    owner: int = world.tries[row][at.OWNER]
    if not world.tries[row][at.IS_AWAITED]:
        free_try(world, row)
        owner = at.NONE
    return owner


def hedge(world: World, row: int, event: int) -> int:
    """Return a request that still waits for its last try, of which a further try is to be sent."""
    request = world.requests[row]
    if request[at.HEDGE_ORDER] != event:
        return at.NONE
    request[at.HEDGE_ORDER] = at.NONE
    request[at.HEDGES] += 1
    return row


# --- the limiter


def reach_limiter(world: World, row: int, now: int) -> None:
    """Let the limiter decide a try that arrives."""
    entry = world.tries[row]
    client = entry[at.TRY_CLIENT]
    place, allowed, delay, asked = record(
        world, client, entry[at.TRY_REQUEST], entry[at.NUMBER], entry[at.SENT_TIME], entry[at.TRY_COST], now
    )
    entry[at.ROW] = place
    world.row_results[place] = entry[at.OUTCOME]
    if not entry[at.IS_AWAITED]:
        world.row_ended[place] = entry[at.END_TIME] + 1
    if not allowed:
        if entry[at.IS_AWAITED]:
            entry[at.WAIT] = asked
            service.answer(world, row, at.DENIED, now)
        else:
            free_try(world, row)
    elif delay:
        schedule(world, now + delay, at.AT_SERVER, row)
    else:
        service.reach(world, row, now)


def record(world: World, client: int, request: int, number: int, sent: int, cost: int, now: int) -> Any:
    """Let the limiter decide a try, and write it into the columns.

    Return its place there, whether it is allowed, its delay, and the wait that a denial asks for.
    """
    place: int = world.totals[at.TRY_ROWS]
    world.totals[at.TRY_ROWS] = place + 1
    state = world.clients[client]
    allowed, _, retry_after, reset_after, delay = decide_hit(world.limiter, state[at.KEY], now + world.origin, cost)
    asked = 0 if allowed else read_wait(world.behaviors[state[at.BEHAVIOR]], retry_after, reset_after)
    world.row_times[place] = now
    world.row_requests[place] = request
    world.row_numbers[place] = number
    world.row_allowed[place] = allowed
    if sent != now:  # memory that is never written takes no space
        world.row_sent[place] = sent + 1
    if delay:
        world.row_delays[place] = delay
    return place, allowed, delay, asked


def decide_hit(limiter: Any, key: int, now: int, cost: int) -> Any:
    """Decide a hit; without a limiter, everything is allowed."""
    return (1, 0, 0, 0, 0) if limiter is None else limiter.decide(key, now, cost)
