"""Reactions of clients that know each result at once: one by one, and those of a batch ahead, with NumPy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ratelab.lab.closed_loop import state, streams
from ratelab.lab.closed_loop.batches import CLIENT, NUMBER, TIME
from ratelab.lab.closed_loop.state import NONE, UNLIMITED
from ratelab.lab.closed_loop.streams import RETRY, STREAMS, THINK
from ratelab.lab.scenarios.arrivals import negative_logs
from ratelab.lab.spill import Integers


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


class ReactionTable:
    """The reactions to all results, in columns that have an item for each behavior."""

    def __init__(self, reactions: list[Reaction]) -> None:
        self.attempts = np.array([reaction.attempts for reaction in reactions])
        self.costs = np.array([reaction.cost for reaction in reactions])
        self._most_requests = np.array([reaction.most_requests for reaction in reactions])
        self._is_serial = np.array([reaction.is_serial for reaction in reactions])
        thinks = np.array([reaction.thinks[: streams.DEVIATION] for reaction in reactions], np.int64).T
        self._means, self._is_drawn = thinks[streams.MEAN], thinks[streams.KIND] == streams.EXPONENTIAL
        self._knows_think = self._is_drawn | (thinks[streams.KIND] == streams.CONSTANT)
        self._knows_wait = np.array(
            [not each.heeds_denials and (each.is_serial or not each.is_jittered) for each in reactions]
        )
        waits = [reaction.waits for reaction in reactions]
        self._wait_counts = np.array(list(map(len, waits)))
        self._first_waits = np.cumsum(self._wait_counts) - self._wait_counts
        self._waits, self._parts = np.array([wait for each in waits for wait in each], np.int64).T

    def foresee(
        self, events: Integers, behaviors: Integers, columns: NDArray[np.uint64], ended: Integers, spike: int
    ) -> tuple[Integers, Integers]:
        """Return when the next try of each client is due after a success, and after a denial.

        A time is `UNLIMITED` if there is none, and `NONE` if it is not known ahead. The streams in `columns` do not
        move on before a draw is used; a serial client has one event in a batch. `ended` counts the requests of each
        client that have ended.
        """
        times, clients, numbers = events[:, TIME], events[:, CLIENT], events[:, NUMBER]
        means, places = self._means[behaviors], clients * STREAMS
        drawn = means * negative_logs(streams.look_ahead(columns, places + THINK))
        thinks = np.where(self._is_drawn[behaviors], _to_integers(drawn), np.minimum(means, UNLIMITED)) // spike
        is_last = ~self._is_serial[behaviors] | (ended[clients] + 1 >= self._most_requests[behaviors])
        successes = np.where(self._knows_think[behaviors], times + thinks, NONE)
        successes[is_last] = UNLIMITED
        retries = self._first_waits[behaviors] + np.minimum(numbers, self._wait_counts[behaviors]) - 1
        parts = self._parts[retries] * streams.look_ahead(columns, places + RETRY)
        waits = np.minimum(self._waits[retries] + _to_integers(parts), UNLIMITED)
        denials = np.where(self._knows_wait[behaviors], times + waits, NONE)
        return successes, np.where(numbers >= self.attempts[behaviors], successes, denials)


def _to_integers(durations: NDArray[np.float64]) -> Integers:
    integers: Integers = np.minimum(durations, UNLIMITED).astype(np.int64)
    return integers
