"""Server of a closed loop: workers, a queue, and faults. It knows nothing of its callers but their tries."""

from __future__ import annotations

from typing import Any

from ratelab.lab.closed_loop import state as at
from ratelab.lab.closed_loop.schedule import schedule
from ratelab.lab.closed_loop.state import World
from ratelab.lab.closed_loop.streams import ERROR, NETWORK, SERVICE, draw_delay, draw_uniform


def reach(world: World, row: int, now: int) -> None:
    """Let a try reach the server, which begins it, queues it or sheds it."""
    totals, server = world.totals, world.server
    change = world.changes[totals[at.CHANGE]]
    if change[at.REJECTS] and server[at.WORKERS]:
        answer(world, row, at.SHED, now)
    elif change[at.HOLDS_UNTIL] > now and server[at.WORKERS]:
        schedule(world, change[at.HOLDS_UNTIL], at.AT_SERVER, row)
    elif not server[at.WORKERS]:
        succeed(world, row, now)
    elif server[at.IS_OPTIMISTIC]:
        read(world, row, now)
    elif totals[at.IN_SERVICE] < server[at.WORKERS]:
        begin_service(world, row, now)
    elif totals[at.WAITING] >= server[at.QUEUE]:
        answer(world, row, at.SHED, now)
    else:
        enqueue(world, row, now)


def succeed(world: World, row: int, now: int) -> None:
    """Answer a try with success, where there is no server."""
    entry = world.tries[row]
    world.row_served[entry[at.ROW]] = now + 1
    if not entry[at.IS_AWAITED]:
        world.row_wasted[entry[at.ROW]] = 1
    answer(world, row, at.SUCCESS, now)


def answer(world: World, row: int, result: int, now: int) -> None:
    """Send the answer to the client; drop it if the client has left."""
    entry = world.tries[row]
    if not entry[at.IS_AWAITED]:
        entry[at.SIBLING] = world.totals[at.FREE_TRIES]
        world.totals[at.FREE_TRIES] = row
        return
    entry[at.ANSWERED] = result
    client = entry[at.TRY_CLIENT]
    behavior = world.behaviors[world.clients[client][at.BEHAVIOR]]
    schedule(world, now + draw_latency(world, client, behavior), at.ANSWER, row)


def draw_latency(world: World, client: int, behavior: Any) -> int:
    """Draw the latency of one way between a client and the limiter, or the server."""
    if behavior[at.LATENCY] == at.NONE:
        return 0
    delay = world.delays[behavior[at.LATENCY]]
    return draw_delay(delay, world.chances, world.values, world.streams[client], NETWORK)


# --- service


def begin_service(world: World, row: int, now: int) -> None:
    """Begin to serve a try."""
    totals, server = world.totals, world.server
    totals[at.IN_SERVICE] += 1
    delay = world.delays[server[at.SERVICE_DELAY]]
    streams = world.streams[world.tries[row][at.TRY_CLIENT]]
    time = draw_delay(delay, world.chances, world.values, streams, SERVICE)
    time += server[at.SLOWDOWN] * totals[at.IN_SERVICE]
    schedule(world, now + time * world.changes[totals[at.CHANGE]][at.SLOWNESS], at.SERVED, row)


def finish(world: World, row: int, now: int) -> None:
    """Answer a try that was served, and begin the next of the queue."""
    entry = world.tries[row]
    world.totals[at.IN_SERVICE] -= 1
    fails = False
    if world.error_chance > 0.0:
        fails = draw_uniform(world.streams[entry[at.TRY_CLIENT]], ERROR) <= world.error_chance
    world.row_served[entry[at.ROW]] = now + 1
    if not fails and not entry[at.IS_AWAITED]:
        world.row_wasted[entry[at.ROW]] = 1
    answer(world, row, at.FAULT if fails else at.SUCCESS, now)
    dequeue(world, now)


# --- the queue: tries linked from the oldest to the newest


def enqueue(world: World, row: int, now: int) -> None:
    """Add a try to the queue; shed the oldest ones if too many wait."""
    totals, entry = world.totals, world.tries[row]
    entry[at.QUEUED_AT] = now
    entry[at.OLDER] = totals[at.NEWEST]
    entry[at.NEWER] = at.NONE
    if totals[at.NEWEST] == at.NONE:
        totals[at.OLDEST] = row
    else:
        world.tries[totals[at.NEWEST]][at.NEWER] = row
    totals[at.NEWEST] = row
    totals[at.WAITING] += 1
    while world.server[at.DROP] == at.DROP_OLDEST and totals[at.WAITING] > world.server[at.DROP_LIMIT]:
        oldest = totals[at.OLDEST]
        unlink(world, oldest)
        answer(world, oldest, at.SHED, now)


def unlink(world: World, row: int) -> None:
    """Remove a try from the queue."""
    totals, entry = world.totals, world.tries[row]
    if entry[at.OLDER] == at.NONE:
        totals[at.OLDEST] = entry[at.NEWER]
    else:
        world.tries[entry[at.OLDER]][at.NEWER] = entry[at.NEWER]
    if entry[at.NEWER] == at.NONE:
        totals[at.NEWEST] = entry[at.OLDER]
    else:
        world.tries[entry[at.NEWER]][at.OLDER] = entry[at.OLDER]
    totals[at.WAITING] -= 1


def dequeue(world: World, now: int) -> None:
    """Begin the next try of the queue; drop those that are not to be served."""
    totals, server = world.totals, world.server
    while totals[at.WAITING] > 0:
        row = totals[at.NEWEST] if server[at.IS_LIFO] else totals[at.OLDEST]
        entry = world.tries[row]
        unlink(world, row)
        if (server[at.DROP] == at.DROP_STALE and not entry[at.IS_AWAITED]) or (
            server[at.DROP] == at.DROP_LATE and now - entry[at.QUEUED_AT] > server[at.DROP_LIMIT]
        ):
            answer(world, row, at.SHED, now)
        else:
            begin_service(world, row, now)
            return


# --- optimistic concurrency


def read(world: World, row: int, now: int) -> None:
    """Read the version of the shared row, whose write arrives after two further latencies."""
    entry = world.tries[row]
    client = entry[at.TRY_CLIENT]
    behavior = world.behaviors[world.clients[client][at.BEHAVIOR]]
    entry[at.VERSION] = world.totals[at.ROW_VERSION]
    back = draw_latency(world, client, behavior)
    schedule(world, now + back + draw_latency(world, client, behavior), at.WRITE, row)


def write(world: World, row: int, now: int) -> None:
    """Write the shared row; it fails if another try wrote since it was read."""
    entry = world.tries[row]
    fails = entry[at.VERSION] != world.totals[at.ROW_VERSION]
    if not fails:
        world.totals[at.ROW_VERSION] += 1
        if not entry[at.IS_AWAITED]:
            world.row_wasted[entry[at.ROW]] = 1
    world.row_served[entry[at.ROW]] = now + 1
    answer(world, row, at.FAULT if fails else at.SUCCESS, now)
