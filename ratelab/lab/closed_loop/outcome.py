"""Outcome of a closed loop: every try, every request, and the decisions of the limiter."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ratelab.algorithms import Policy
from ratelab.algorithms.plugins import FAILURES, attributed_error
from ratelab.errors import InputError, SlowWarning
from ratelab.lab.closed_loop import loop, state
from ratelab.lab.closed_loop.behavior import Population
from ratelab.lab.closed_loop.engine import Engine, PythonEngine
from ratelab.lab.closed_loop.state import GAVE_UP as GAVE_UP  # also for those who read outcomes
from ratelab.lab.decisions import Columns, Outcome, Progress
from ratelab.lab.replay import has_compiler
from ratelab.lab.spill import Integers
from ratelab.lab.traffic import Traffic
from ratelab.limiter import ROW_FIELDS
from ratelab.quota import NS_PER_S

MAX_TRIES = 20_000_000
"""Tries of a closed loop, with those that clients reject themselves."""

MAX_STALLED_EVENTS = 1_000_000
"""Events at one time, in addition to some for each client."""

STALLED_EVENTS_PER_CLIENT = 20

MIN_COMPILED_TRIES = 500_000
"""Estimated tries from which on loading the compiled loop takes less time than it saves."""

MIN_GAP = NS_PER_S // 1000
"""The shortest time between two requests of a client that an estimate assumes, in nanoseconds."""

FIRST_EVENTS, MOST_EVENTS = 1_000, 50_000
"""Events between two looks at the memory, at first and later."""

MAX_OBSERVATIONS = 100_000
"""Observations of the server, about."""

SUCCESS, DENIED, ERROR, SHED, TIMEOUT, PENDING, ABANDONED = range(7)
"""Results of a try. A hedged try is abandoned when another try of its request succeeds. A request ends with `SUCCESS`
or `GAVE_UP`, or is `PENDING`."""


@dataclass(frozen=True, eq=False)
class Tries:
    """The tries that reached the limiter, as columns in the order of their arrival there."""

    requests: Integers
    """The request of each try, as an index into the columns of `Requests`."""
    numbers: NDArray[np.int32]
    """The number of each among the tries of its request, from 1; those that the client rejected itself count."""
    sent: Integers
    """Time at which the client sent it."""
    ended: Integers
    """Time at which the client knew its result, or gave it up; -1 if it still waits."""
    results: NDArray[np.int8]
    """`SUCCESS`, `DENIED`, `ERROR`, `SHED`, `TIMEOUT`, `PENDING` or `ABANDONED`."""
    served: Integers
    """Time at which the server had finished it, with success or an error; -1 if it did not."""
    wasted: NDArray[np.bool_]
    """Whether it was served with success after its client had left."""

    def __len__(self) -> int:
        return len(self.requests)


@dataclass(frozen=True, eq=False)
class Requests:
    """The requests of all clients, as columns in the order in which they began."""

    clients: Integers
    """The client of each, as an index into the names of the traffic."""
    started: Integers
    """Time of the first try."""
    ended: Integers
    """Time at which the client knew of a success, or gave up; -1 if it is pending."""
    tries: NDArray[np.int32]
    """The number of tries, with those that the client rejected itself."""
    results: NDArray[np.int8]
    """`SUCCESS`, `GAVE_UP` or `PENDING`."""

    def __len__(self) -> int:
        return len(self.clients)


@dataclass(frozen=True, eq=False)
class LoopOutcome:
    """What became of the requests of a population."""

    policy: Policy | None
    """The policy of the limiter; None without one."""
    population: Population
    traffic: Traffic
    """The tries as they reach the limiter."""
    decisions: Columns
    """The decision on each try."""
    tries: Tries
    requests: Requests
    locally_rejected: int
    """Tries that clients did not send, because of adaptive throttling or an open breaker."""
    events: int
    """Events that were processed."""

    @cached_property
    def outcome(self) -> Outcome:
        """The tries at the limiter as the outcome of a replay; raise `ValueError` without a limiter."""
        if self.policy is None:
            raise ValueError("there is no limiter")
        return Outcome(self.policy, self.traffic, self.decisions)


def run_loop(policy: Policy | None, population: Population, progress: Progress = lambda _: None) -> LoopOutcome:
    """Let the clients of a population send requests until its end; without a policy, nothing limits them.

    `progress` is called with the simulated nanoseconds that have passed since its last call, of `population.duration`
    in all. Raises `InputError` if there are more than `MAX_TRIES` tries, if events never end at one time, or if a
    third-party algorithm fails.
    """
    engine = create_engine(policy, population, estimate_tries(population) >= MIN_COMPILED_TRIES and has_compiler())
    return advance(engine, policy, population, progress)


def create_engine(policy: Policy | None, population: Population, compiled: bool) -> Engine:
    """Return the engine that runs a population: compiled, if it can be compiled and should be, or in plain Python."""
    if compiled:
        from ratelab.lab.compiled import UnfitError  # it needs Numba, which is optional, and slow to import
        from ratelab.lab.compiled.closed_loops import CompiledEngine

        try:
            return CompiledEngine(policy, population)
        except UnfitError as error:
            name = "the loop" if policy is None else policy.algorithm.name
            warnings.warn(f"{name} runs in plain Python, ten times slower: {error}", SlowWarning, stacklevel=4)
    return PythonEngine(policy, population)


def observe_server(outcome: LoopOutcome) -> Integers:
    """Return the times at which the server was observed, and the numbers of tries in service and in the queue then.

    The run is repeated. Up to `MAX_OBSERVATIONS` events, the server is observed after each of them.
    """
    engine = create_engine(outcome.policy, outcome.population, outcome.events >= MIN_COMPILED_TRIES and has_compiler())
    totals, events = engine.world.totals, -(-outcome.events // MAX_OBSERVATIONS)
    rows, status = [(0, 0, 0)], loop.PAUSED
    while status != loop.FINISHED:
        status = engine.run(max(1, events))
        rows.append((totals[state.NOW], totals[state.IN_SERVICE], totals[state.WAITING]))
    return np.array(rows, np.int64).T


def estimate_tries(population: Population) -> int:
    """Return about how many tries there are without retries."""
    tries = len(population.first_tries)
    for number, behavior in enumerate(population.behaviors):
        if behavior.loop == "serial":
            clients = int(np.count_nonzero(population.behavior_of == number))
            delays = (behavior.think, behavior.pace, behavior.latency)
            gap = max(MIN_GAP, *(delay.mean for delay in delays if delay is not None), 0)
            most = population.duration // gap
            tries += clients * (most if behavior.requests is None else min(most, behavior.requests))
    return tries


def advance(engine: Engine, policy: Policy | None, population: Population, progress: Progress) -> LoopOutcome:
    """Run an engine to the end, and return the outcome; see `run_loop`."""
    try:
        for passed in _advance(engine, population):
            progress(passed)
    except FAILURES as error:
        if policy is None or isinstance(error, InputError):
            raise
        raise attributed_error(error, policy.algorithm) from error
    return _create_outcome(engine, policy, population)


def _advance(engine: Engine, population: Population) -> Iterator[int]:
    """Process all events; yield the simulated time that has passed, from time to time."""
    events, now, status = FIRST_EVENTS, 0, loop.PAUSED
    firsts = len(engine.world.first_times)
    most_stalled = MAX_STALLED_EVENTS + STALLED_EVENTS_PER_CLIENT * (len(population.behavior_of) + firsts)
    while status != loop.FINISHED:
        status = engine.run(events)
        events = min(2 * events, MOST_EVENTS)
        totals = engine.world.totals
        if totals[state.TRY_COUNT] + totals[state.REJECTED] > MAX_TRIES:
            raise InputError(
                f"a closed loop may have at most {MAX_TRIES:,} tries, got more: "
                "shorten the duration, have fewer clients or fewer retries"
            )
        if totals[state.STALLED] > most_stalled:
            raise InputError(
                f"clients must not try again without end at one time, got more than {most_stalled:,} events "
                f"at {totals[state.NOW]} ns: give them a think time, a retry base or fewer attempts"
            )
        yield int(totals[state.NOW]) - now
        now = int(totals[state.NOW])
    yield population.duration - now


def _create_outcome(engine: Engine, policy: Policy | None, population: Population) -> LoopOutcome:
    column = engine.column
    traffic = replace(
        population.first_tries, times=column("row_times"), clients=column("row_clients"), costs=column("row_costs")
    )
    return LoopOutcome(
        policy=policy,
        population=population,
        traffic=traffic,
        decisions={name: column(f"row_{state.DECISION_COLUMNS[name]}") for name in ROW_FIELDS},
        tries=Tries(*(column(f"row_{name}") for name in Tries.__dataclass_fields__)),
        requests=Requests(*(column(f"request_{name}") for name in Requests.__dataclass_fields__)),
        locally_rejected=int(engine.world.totals[state.REJECTED]),
        events=int(engine.world.totals[state.EVENTS]),
    )
