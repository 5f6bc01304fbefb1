"""Event loop in plain Python for clients that know each result at once, several times as fast as the general one.

Without a server, a network and a limiter that delays, a try is one event, and a request in progress is no more than its
next event. Events are processed in batches. NumPy sorts a batch, and reads the states of its keys and the next draws of
its clients from compact columns. So the loop in Python reads and writes little memory, which
otherwise takes most of the time if there are many clients.
"""

from __future__ import annotations

import dataclasses
import gc
from collections import defaultdict
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from heapq import heappush
from itertools import count, islice, repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratelab.algorithms import Policy, traits_of
from ratelab.lab.closed_loop import loop, state, streams, tables
from ratelab.lab.closed_loop.answers import find_wait, read_wait
from ratelab.lab.closed_loop.batches import (
    CLIENT,
    COST,
    EVENT_FIELDS,
    NUMBER,
    REQUEST,
    TIME,
    Agenda,
    KeyStates,
    create_states,
    merge,
    to_events,
)
from ratelab.lab.closed_loop.behavior import Population
from ratelab.lab.closed_loop.engine import BOOLEANS, REQUEST_COLUMNS, ROW_COLUMNS
from ratelab.lab.closed_loop.state import NONE, UNLIMITED, World
from ratelab.lab.closed_loop.streams import RETRY, STREAMS, THINK, draw_delay, draw_uniform
from ratelab.lab.scenarios.arrivals import negative_logs
from ratelab.lab.spill import Integers
from ratelab.limiter import Row, State

MIN_AHEAD = 64
"""Events from which on it pays to have NumPy draw for them."""


def answers_at_once(policy: Policy | None, population: Population) -> bool:
    """Return whether each result is known at once, and clients do no more than to think, and to wait for a retry."""
    if tables.find_server(population) is not None:
        return False
    traits = None if policy is None else traits_of(policy.algorithm)
    if traits is not None and (traits.queues or traits.bound is None):
        return False
    return not any(
        each.latency or each.pace or each.breaker or each.adaptive or each.aimd
        or each.retry.budget or each.retry.deadline is not None or each.retry.policy == "decorrelated-jitter"
        for each in population.behaviors
    )  # fmt: skip


# --- reactions


@dataclass(frozen=True, slots=True)
class Reaction:
    """The reaction of clients to the result of a try."""

    behavior: list[int]
    thinks: list[int]
    """The think time, as a row of `delays`."""
    costs: list[int]
    cost: int
    """The cost of each request of a serial client, `NONE` if it is drawn from `costs`."""
    attempts: int
    """The number of the try whose denial ends a request."""
    waits: list[tuple[int, int]]
    """The least wait before each retry, and the length of the part that is drawn in addition; the last is repeated."""
    is_jittered: bool
    heeds_denials: bool
    """Whether the wait depends on the one that a denial asks for."""
    is_serial: bool
    most_requests: int


def create_reaction(behavior: list[int], delays: list[list[int]], backoffs: list[int]) -> Reaction:
    """Return the reaction of clients with this behavior."""
    policy, jitter = behavior[state.RETRY_POLICY], behavior[state.JITTER]
    waits = backoffs[behavior[state.BACKOFFS] : behavior[state.BACKOFFS_END]]
    if policy in (state.IMMEDIATE, state.FIXED):
        waits = [behavior[state.BASE]]
    adds = jitter if policy in (state.FIXED, state.BACKOFF) else state.NO_JITTER
    if policy == state.FULL_JITTER or adds == state.ADD_FULL:
        parts = [(0, wait) for wait in waits]
    elif policy == state.EQUAL_JITTER or adds == state.ADD_HALF:
        parts = [(wait // 2, wait - wait // 2) for wait in waits]
    else:
        parts = [(wait, 0) for wait in waits]
    costs = delays[behavior[state.COST_DELAY]]
    return Reaction(
        behavior=behavior,
        thinks=[streams.CONSTANT, 0] if behavior[state.THINK_DELAY] == NONE else delays[behavior[state.THINK_DELAY]],
        costs=costs,
        cost=costs[streams.MEAN] if costs[streams.KIND] == streams.CONSTANT else NONE,
        attempts=behavior[state.ATTEMPTS] if behavior[state.RETRIED] >> state.DENIED & 1 else 0,
        waits=parts,
        is_jittered=policy in (state.FULL_JITTER, state.EQUAL_JITTER) or adds != state.NO_JITTER,
        heeds_denials=policy == state.RETRY_AFTER or behavior[state.HONORS] != state.NO_HONOR,
        is_serial=bool(behavior[state.IS_SERIAL]),
        most_requests=behavior[state.MAX_REQUESTS],
    )


# --- the event loop


@contextmanager
def pause_collector() -> Iterator[None]:
    """Pause the collection of cyclic garbage, of which a batch makes none, but many objects."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def allow(state: State, now: int, cost: int) -> Row:  # noqa: ARG001
    """Decide a hit where there is no limiter."""
    return True, 0, 0, 0, 0


class _StreamRows:
    """The streams of each client, in one column of all."""

    def __init__(self, column: Any) -> None:
        self._column = column

    def __getitem__(self, client: int) -> Any:
        return self._column[client * STREAMS : (client + 1) * STREAMS]


class InstantEngine:
    """Runs the events of clients that know each result at once."""

    def __init__(self, policy: Policy | None, population: Population) -> None:
        fields = tables.create_world_fields(population)
        self._streams = fields["streams"].reshape(-1)
        self._integers: Any = memoryview(self._streams)  # whose items are integers of Python
        self._key_of = population.first_tries.keys
        self._behavior_of = population.behavior_of
        behaviors, delays = fields["behaviors"].tolist(), fields["delays"]
        self._reactions = [create_reaction(behavior, delays, fields["backoffs"]) for behavior in behaviors]
        thinks = np.array([reaction.thinks[: streams.DEVIATION] for reaction in self._reactions], np.int64).T
        self._is_drawn, self._means = thinks[streams.KIND] == streams.EXPONENTIAL, thinks[streams.MEAN]
        self._draws_ahead = all(
            reaction.is_serial and reaction.thinks[streams.KIND] in (streams.CONSTANT, streams.EXPONENTIAL)
            for reaction in self._reactions
        )
        times, events = fields.pop("heap")
        starts = np.full((len(times), len(EVENT_FIELDS)), NONE)
        starts[:, TIME], starts[:, CLIENT], starts[:, NUMBER] = times, events & state.ROW_MASK, 1
        costs = np.array([reaction.cost for reaction in self._reactions])
        starts[:, COST] = costs[self._behavior_of[starts[:, CLIENT]]]
        firsts = tuple(fields[name] for name in ("first_times", "first_clients", "first_costs"))
        self._agenda = Agenda(firsts, starts)
        self._ended: defaultdict[int, int] = defaultdict(int)
        self._step = allow if policy is None else policy.algorithm.step
        self._states = (
            KeyStates(list, 0, is_table=False) if policy is None else create_states(policy.algorithm, population)
        )
        self._tries: list[Integers] = []
        self._allowed: list[NDArray[np.bool_]] = []
        fields["streams"] = _StreamRows(self._integers)
        self.world = World(**dict.fromkeys((field.name for field in dataclasses.fields(World)), ()) | fields)

    @property
    def _spike(self) -> int:
        """The divisor of think times."""
        spike: int = self.world.changes[self.world.totals[state.CHANGE]][state.SPIKE]
        return spike

    def run(self, events: int) -> int:
        """Process up to this many events; return why it stopped, as `loop.run` does."""
        with pause_collector():
            return self._run(events)

    def _run(self, events: int) -> int:
        totals, changes = self.world.totals, self.world.changes
        while events:
            following = totals[state.CHANGE] + 1
            limit = changes[following][state.CHANGE_TIME] if following < len(changes) else self.world.duration
            limit = min(limit, self.world.duration)
            batch, end = self._agenda.take(limit)
            if len(batch):
                events -= self._process(batch, end, events)
            elif limit == self.world.duration:
                return loop.FINISHED
            else:
                events -= 1  # as in `loop.run`
                totals[state.CHANGE] = following
                if changes[following][state.RESTARTS]:
                    self._states.restart()
                    return loop.RESTARTED
        return loop.PAUSED

    def _process(self, batch: Integers, end: int, most: int) -> int:
        """Process up to `most` events of a batch, and those that become due before its end; return their number."""
        clients = batch[:, CLIENT]
        behaviors, keys = self._behavior_of[clients], self._key_of[clients]
        reactions = map(self._reactions.__getitem__, behaviors.tolist())
        thinks, parts = self._draw_ahead(clients, behaviors)
        soon: list[tuple[int, int, Any]] = []
        entries = merge(zip(*batch.T.tolist(), keys.tolist(), reactions, thinks, parts, strict=False), soon)
        own = self._states.read(keys)
        tries, allowed, later, spent = self._decide(islice(entries, most), soon, own, end)
        self._states.write(own)
        moved = np.array(spent, np.int64)
        self._streams[moved[moved != NONE]] += np.uint64(streams.GAMMA)
        self._agenda.add(to_events([field for entry in entries for field in entry[: len(EVENT_FIELDS)]]))
        self._agenda.add(to_events(later))
        self._note(to_events(tries), np.array(allowed, np.bool_))
        return len(allowed)

    def _draw_ahead(self, clients: Integers, behaviors: Integers) -> Any:
        """Return the next think time of each client, and the next draw for a retry; `None` if it is not drawn ahead.

        The streams do not move on before a draw is used. A serial client has one event in a batch.
        """
        if not self._draws_ahead or len(clients) < MIN_AHEAD:
            return repeat(None), repeat(None)
        places = clients * STREAMS
        means = self._means[behaviors]
        drawn = means * negative_logs(streams.look_ahead(self._streams, places + THINK))
        thinks = np.where(self._is_drawn[behaviors], np.minimum(drawn, UNLIMITED).astype(np.int64), means)
        return (thinks // self._spike).tolist(), streams.look_ahead(self._streams, places + RETRY).tolist()

    def _decide(self, entries: Iterator[Any], soon: list[Any], own: MutableMapping[int, State], end: int) -> Any:
        """Let the limiter decide tries, and clients react; see `_process`."""
        world, step = self.world, self._step
        origin, duration = world.origin, world.duration
        tries, later = list[int](), list[int]()
        allowed, spent = list[bool](), list[int]()
        request_rows, order = world.totals[state.REQUEST_ROWS], count()
        for time, client, request, number, cost, key, reaction, think, part in entries:
            if request == NONE:
                request = request_rows
                request_rows += 1
                if cost == NONE:
                    cost = self._draw(reaction.costs, client, streams.COST)
            decision = step(own[key], time + origin, cost)
            tries += time, client, request, number, cost
            allowed.append(decision[0])
            stream = NONE
            if decision[0] or number >= reaction.attempts:
                if not reaction.is_serial or (reaction.most_requests != UNLIMITED and self._is_last(reaction, client)):
                    continue
                if think is None:
                    think = self._draw(reaction.thinks, client, THINK) // self._spike
                else:
                    stream = client * STREAMS + THINK
                due, number, request, cost = time + think, 0, NONE, reaction.cost
            else:
                if reaction.heeds_denials:
                    wait = self._find_wait(reaction, client, number, decision)
                else:
                    wait, most = reaction.waits[number - 1 if number < len(reaction.waits) else -1]
                    if reaction.is_jittered:
                        stream = client * STREAMS + RETRY
                        if part is None:
                            part, stream = draw_uniform(self._integers, stream), NONE
                        wait += int(most * part)
                due = time + wait
            if end <= due < duration:
                later += due, client, request, number + 1, cost
                spent.append(stream)
            elif due < end:
                if stream != NONE:
                    draw_uniform(self._integers, stream)  # again, as it is about to be drawn from
                heappush(soon, (due, next(order), (due, client, request, number + 1, cost, key, reaction, None, None)))
        return tries, allowed, later, spent

    def _draw(self, delay: list[int], client: int, purpose: int) -> int:
        world = self.world
        return draw_delay(delay, world.chances, world.values, self._integers, client * STREAMS + purpose)

    def _is_last(self, reaction: Reaction, client: int) -> bool:
        """Count a request that ended, and return whether it was the last of a serial client."""
        self._ended[client] += 1
        return self._ended[client] >= reaction.most_requests

    def _find_wait(self, reaction: Reaction, client: int, number: int, decision: Row) -> int:
        """Return the wait before a retry if it depends on the one that a denial asks for."""
        request = [0] * len(state.REQUEST_FIELDS)
        request[state.RETRIES] = number - 1
        request[state.ASKED] = read_wait(reaction.behavior, decision[2], decision[3])
        return find_wait(self.world, client, request, reaction.behavior)

    def _note(self, tries: Integers, allowed: NDArray[np.bool_]) -> None:
        """Keep the tries that were processed."""
        totals, times = self.world.totals, tries[:, TIME]
        now = int(times[-1])
        latest = len(times) - int(np.searchsorted(times, now))
        totals[state.STALLED] = latest - 1 if now > totals[state.NOW] else totals[state.STALLED] + latest
        totals[state.NOW] = now
        totals[state.REQUEST_ROWS] += int(np.count_nonzero(tries[:, NUMBER] == 1))
        for total in (state.EVENTS, state.TRY_ROWS, state.TRY_COUNT):
            totals[total] += len(tries)
        self._tries.append(tries)
        self._allowed.append(allowed)

    def column(self, name: str) -> NDArray[Any]:
        """Return a column of the tries or the requests, at the end of the run."""
        if name in self._columns:
            return self._columns[name]
        used = self.world.totals[state.TRY_ROWS if name in ROW_COLUMNS else state.REQUEST_ROWS]
        kind = np.bool_ if name in BOOLEANS else np.dtype((ROW_COLUMNS | REQUEST_COLUMNS)[name])
        return np.zeros(used, kind)

    @cached_property
    def _columns(self) -> dict[str, NDArray[Any]]:
        """The columns that are not 0; see `state.World`."""
        tries = np.concatenate(self._tries or [to_events([])])
        allowed = np.concatenate(self._allowed or [np.zeros(0, np.bool_)])
        attempts = np.array([reaction.attempts for reaction in self._reactions])[self._behavior_of[tries[:, CLIENT]]]
        ends = allowed | (tries[:, NUMBER] >= attempts)
        requests = tries[:, REQUEST]
        first, last = tries[tries[:, NUMBER] == 1], tries[ends]
        ended = np.zeros(len(first), np.int64)
        ended[last[:, REQUEST]] = np.where(allowed[ends], last[:, TIME] + 1, -last[:, TIME] - 1)
        return {
            "row_times": tries[:, TIME].copy(),
            "row_requests": requests,
            "row_numbers": tries[:, NUMBER].astype(np.int32),
            "row_results": np.where(allowed, state.SUCCESS, state.DENIED).astype(np.int8),
            "row_allowed": allowed,
            "request_clients": first[:, CLIENT],
            "request_costs": first[:, COST] - 1,
            "request_started": first[:, TIME].copy(),
            "request_ended": ended,
            "request_tries": np.bincount(requests, minlength=len(first)).astype(np.int32) - np.int32(1),
        }
