"""Event loop in plain Python for clients that know each result at once, several times as fast as the general one.

Without a server, a network and a limiter that delays, a try is one event, and a request in progress is no more than its
next event. Events are processed in batches. NumPy sorts a batch, reads the states of its keys from compact columns, and
finds out when the next try of each client is due after a success and after a denial. So the loop in Python only decides
the tries of a batch. It lets a client react on its own only if its next try becomes due before the end of the batch, or
if the wait depends on the decision.
"""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from heapq import heappop, heappush
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
    TryBatch,
    create_states,
    to_events,
)
from ratelab.lab.closed_loop.behavior import Population
from ratelab.lab.closed_loop.engine import BOOLEANS, REQUEST_COLUMNS, ROW_COLUMNS
from ratelab.lab.closed_loop.reactions import Reaction, ReactionTable, create_reaction
from ratelab.lab.closed_loop.state import NONE, UNLIMITED, World
from ratelab.lab.closed_loop.streams import RETRY, STREAMS, THINK, draw_delay, draw_uniform
from ratelab.lab.spill import Integers
from ratelab.limiter import Row, State


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
        reactions = [create_reaction(behavior, delays, fields["backoffs"]) for behavior in behaviors]
        self._table = ReactionTable(reactions)
        self._reaction_of = [*map(reactions.__getitem__, self._behavior_of.tolist())]
        times, events = fields.pop("heap")
        starts = np.full((len(times), len(EVENT_FIELDS)), NONE)
        starts[:, TIME], starts[:, CLIENT], starts[:, NUMBER] = times, events & state.ROW_MASK, 1
        starts[:, COST] = self._table.costs[self._behavior_of[starts[:, CLIENT]]]
        firsts = tuple(fields[name] for name in ("first_times", "first_clients", "first_costs"))
        self._agenda = Agenda(firsts, starts)
        self._ended = np.zeros(len(self._behavior_of), np.int64)
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

    def _process(self, events: Integers, end: int, most: int) -> int:
        """Process up to `most` events of a batch, and those that become due before its end; return their number."""
        behaviors, keys = self._behavior_of[events[:, CLIENT]], self._key_of[events[:, CLIENT]]
        for place in np.flatnonzero(events[:, COST] == NONE).tolist():
            client = int(events[place, CLIENT])
            events[place, COST] = self._draw(self._reaction_of[client].costs, client, streams.COST)
        foreseen = self._table.foresee(events, behaviors, self._streams, self._ended, self._spike)
        batch, own = TryBatch(events, end, most), self._states.read(keys)
        self._decide(batch, [*map(own.__getitem__, keys.tolist())], foreseen)
        self._states.write(own)
        tries, is_own = batch.list_tries(self.world.totals[state.REQUEST_ROWS])
        allowed = np.array(batch.allowed, np.bool_)
        known = np.full(len(tries), NONE)
        known[is_own] = np.where(allowed[is_own], *(times[: np.count_nonzero(is_own)] for times in foreseen))
        self._agenda.add(batch.list_rest(tries))
        self._agenda.add(self._list_next(batch, tries, allowed, known))
        self._note(tries, allowed)
        return len(tries)

    def _decide(self, batch: TryBatch, states: list[State], foreseen: tuple[Integers, Integers]) -> None:
        """Let the limiter decide the tries of a batch, and those that become due before its end."""
        step, origin, end = self._step, self.world.origin, batch.end
        events, soon, note = batch.events, batch.soon, batch.allowed.append
        times = events[:, TIME].tolist()
        columns = (times, [*times[1:], end], events[:, COST].tolist(), states, *(each.tolist() for each in foreseen))
        for position, time, following, cost, own, success, denial in zip(batch.positions, *columns, strict=False):
            decision = step(own, time + origin, cost)
            note(decision[0])
            if (success if decision[0] else denial) < end:
                event = events[position - len(batch.further)].tolist()
                self._react(batch, position, event, own, decision)
            if soon[0][0] < following:
                self._decide_soon(batch, following)

    def _decide_soon(self, batch: TryBatch, end: int) -> None:
        """Let the limiter decide those tries that became due during a batch, and are due before `end`."""
        step, origin, soon = self._step, self.world.origin, batch.soon
        note, react = batch.allowed.append, self._react
        while soon[0][0] < end:
            position = next(batch.positions, None)
            if position is None:
                return
            time, _, event, own = heappop(soon)
            decision = step(own, time + origin, event[COST])
            note(decision[0])
            batch.further[position] = event
            react(batch, position, event, own, decision)

    def _react(self, batch: TryBatch, position: int, event: Sequence[int], own: State, decision: Row) -> None:
        """Let a client react to the result of a try, with draws one by one."""
        time, client, request, number, cost = event
        reaction = self._reaction_of[client]
        if decision[0] or number >= reaction.attempts:
            if not reaction.is_serial or (reaction.most_requests != UNLIMITED and self._is_last(reaction, client)):
                return
            due = time + self._draw(reaction.thinks, client, THINK) // self._spike
            request, number, cost = NONE, 1, reaction.cost
        else:
            if reaction.heeds_denials:
                due = time + self._find_wait(reaction, client, number, decision)
            else:
                wait, most = reaction.waits[number - 1 if number < len(reaction.waits) else -1]
                due = time + wait
                if reaction.is_jittered:
                    due += int(most * draw_uniform(self._integers, client * STREAMS + RETRY))
            request, number = request if number > 1 else NONE - 1 - position, number + 1
        if due < batch.end:
            if cost == NONE:
                cost = self._draw(reaction.costs, client, streams.COST)
            heappush(batch.soon, (due, position, (due, client, request, number, cost), own))
        elif due < self.world.duration:
            batch.dues[position] = due

    def _list_next(self, batch: TryBatch, tries: Integers, allowed: NDArray[np.bool_], known: Integers) -> Integers:
        """Return the tries that follow those of a batch after its end; `known` has their times that are known ahead."""
        clients, numbers = tries[:, CLIENT], tries[:, NUMBER]
        behaviors = self._behavior_of[clients]
        ends = allowed | (numbers >= self._table.attempts[behaviors])
        is_known = (known >= batch.end) & (known < self.world.duration)
        used = clients * STREAMS + np.where(ends, THINK, RETRY)
        self._streams[used[is_known]] += np.uint64(streams.GAMMA)
        self._ended[clients[is_known & ends]] += 1
        dues = known.copy()
        dues[list(batch.dues)] = list(batch.dues.values())
        columns = (
            dues,
            clients,
            np.where(ends, NONE, tries[:, REQUEST]),
            np.where(ends, 1, numbers + 1),
            np.where(ends, self._table.costs[behaviors], tries[:, COST]),
        )
        following: Integers = np.column_stack(columns)[(dues >= batch.end) & (dues < self.world.duration)]
        return following

    def _draw(self, delay: list[int], client: int, purpose: int) -> int:
        world = self.world
        return draw_delay(delay, world.chances, world.values, self._integers, client * STREAMS + purpose)

    def _is_last(self, reaction: Reaction, client: int) -> bool:
        """Count a request that ended, and return whether it was the last of a serial client."""
        self._ended[client] += 1
        return bool(self._ended[client] >= reaction.most_requests)

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
        attempts = self._table.attempts[self._behavior_of[tries[:, CLIENT]]]
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
