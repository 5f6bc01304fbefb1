"""Outcome of a closed loop: every try, every request, and the decisions of the limiter."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ratelab.algorithms import Policy
from ratelab.algorithms.plugins import FAILURES, attributed_error
from ratelab.errors import InputError, SlowWarning
from ratelab.lab.closed_loop import loop, state
from ratelab.lab.closed_loop.behavior import Population
from ratelab.lab.closed_loop.engine import Engine, PythonEngine
from ratelab.lab.closed_loop.instant_loop import InstantEngine, answers_at_once
from ratelab.lab.closed_loop.state import GAVE_UP as GAVE_UP  # also for those who read outcomes
from ratelab.lab.decisions import Columns, Outcome, Progress
from ratelab.lab.replay import has_compiler, replay
from ratelab.lab.spill import Integers
from ratelab.lab.traffic import Traffic
from ratelab.limiter import ROW_FIELDS
from ratelab.quota import NS_PER_S

NO_LIMIT = "no-limit"
"""The name of a run without a limiter."""

MAX_TRIES = 20_000_000
"""Tries of a closed loop, with those that clients reject themselves."""

MAX_STALLED_EVENTS = 1_000_000
"""Events at one time, in addition to some for each client."""

STALLED_EVENTS_PER_CLIENT = 20

MIN_COMPILED_TRIES = 500_000
"""Tries from which on loading the compiled loop takes less time than it saves."""

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
    admissions: Columns
    """Whether each try was allowed, and its delay."""
    tries: Tries
    requests: Requests
    locally_rejected: int
    """Tries that clients did not send, because of adaptive throttling or an open breaker."""
    events: int
    """Events that were processed."""
    restarts: tuple[int, ...] = ()
    """The numbers of tries before each restart of the limiter."""

    @property
    def algorithm(self) -> str:
        """The name of the algorithm of the limiter, or `NO_LIMIT`."""
        return NO_LIMIT if self.policy is None else self.policy.name

    @cached_property
    def decisions(self) -> Columns:
        """The decision on each try; all fields come from a replay of the tries."""
        if self.policy is None:
            nothing = np.broadcast_to(np.int64(0), len(self.tries))
            return {name: self.admissions.get(name, nothing) for name in ROW_FIELDS}
        edges = (0, *self.restarts, len(self.tries))
        replays = [replay(self.policy, self.traffic[slice(*edge)]).decisions for edge in pairwise(edges)]
        return {name: np.concatenate([decisions[name] for decisions in replays]) for name in ROW_FIELDS}

    @cached_property
    def outcome(self) -> Outcome:
        """The tries at the limiter as the outcome of a replay; raise `ValueError` without a limiter."""
        if self.policy is None:
            raise ValueError("there is no limiter")
        return Outcome(self.policy, self.traffic, self.decisions)


def run_loop(
    policy: Policy | None, population: Population, progress: Progress = lambda _: None, expected_tries: int = 0
) -> LoopOutcome:
    """Let the clients of a population send requests until its end; without a policy, nothing limits them.

    `progress` is called with the simulated nanoseconds that have passed since its last call, of `population.duration`
    in all. The loop is compiled if that is likely to take less time: for `expected_tries` in this and further runs of
    the algorithm, or once retries have made a run long. Raises `InputError` if there are more than `MAX_TRIES` tries,
    if events never end at one time, or if a third-party algorithm fails.
    """
    compiled = is_compiled(max(expected_tries, estimate_tries(population)))
    return advance(create_engine(policy, population, compiled), policy, population, progress, may_grow=True)


def run_loops(
    pairs: Sequence[tuple[Policy | None, Population]], progress: Progress = lambda _: None
) -> Iterator[LoopOutcome]:
    """Run each policy with its population, as `run_loop` does; those of an algorithm are compiled for all together."""
    expected = Counter[str]()
    for policy, population in pairs:
        expected[policy.name if policy else NO_LIMIT] += estimate_tries(population)
    for policy, population in pairs:
        yield run_loop(policy, population, progress, expected[policy.name if policy else NO_LIMIT])


def is_compiled(tries: int) -> bool:
    """Return whether compiled code, if there can be some, simulates this number of tries, in one or several runs."""
    return tries >= MIN_COMPILED_TRIES and has_compiler()


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
    return (InstantEngine if answers_at_once(policy, population) else PythonEngine)(policy, population)


def observe_server(outcome: LoopOutcome) -> Integers:
    """Return the times at which the server was observed, and the numbers of tries in service and in the queue then.

    The run is repeated. Up to `MAX_OBSERVATIONS` events, the server is observed after each of them.
    """
    engine = create_engine(outcome.policy, outcome.population, is_compiled(outcome.events))
    totals, events = engine.world.totals, -(-outcome.events // MAX_OBSERVATIONS)
    rows, status = [(0, 0, 0)], loop.PAUSED
    while status != loop.FINISHED:
        status = engine.run(max(1, events))
        rows.append((totals[state.NOW], totals[state.IN_SERVICE], totals[state.WAITING]))
    return np.array(rows, np.int64).T


def estimate_tries(population: Population) -> int:
    """Return about how many tries there are without retries."""
    tries = len(population.first_tries)
    service = None if population.server is None else population.server.service
    for number, behavior in enumerate(population.behaviors):
        if behavior.loop == "serial":
            clients = int(np.count_nonzero(population.behavior_of == number))
            delays = (behavior.think, behavior.latency, behavior.latency, service)
            pace = behavior.pace.mean if behavior.pace else 0
            gap = max(MIN_GAP, pace, sum(delay.mean for delay in delays if delay is not None))
            most = population.duration // gap
            tries += clients * (most if behavior.requests is None else min(most, behavior.requests))
    return tries


def advance(
    engine: Engine, policy: Policy | None, population: Population, progress: Progress, may_grow: bool = False
) -> LoopOutcome:
    """Run an engine to the end, and return the outcome; see `run_loop`.

    If it `may_grow`, a compiled engine begins again when plain Python has made `MIN_COMPILED_TRIES` tries within the
    first half of the time.
    """
    may_grow = may_grow and has_compiler() and isinstance(engine, PythonEngine | InstantEngine)
    reported, restarts = 0, list[int]()
    try:
        for now in _advance(engine, population, restarts):
            if now > reported:
                progress(now - reported)
                reported = now
            if may_grow and 2 * now < population.duration and count_tries(engine) >= MIN_COMPILED_TRIES:
                may_grow = False
                larger = create_engine(policy, population, compiled=True)
                if not isinstance(larger, PythonEngine | InstantEngine):
                    return advance(larger, policy, population, _leave_out(reported, progress))
    except FAILURES as error:
        if policy is None or isinstance(error, InputError):
            raise
        raise attributed_error(error, policy.algorithm) from error
    return _create_outcome(engine, policy, population, tuple(restarts))


def count_tries(engine: Engine) -> int:
    """Return the tries so far, with those that clients reject themselves."""
    totals = engine.world.totals
    return int(totals[state.TRY_COUNT] + totals[state.REJECTED])


def _leave_out(reported: int, progress: Progress) -> Progress:
    """Return a callback that begins to report after this many simulated nanoseconds."""
    passed = 0

    def report(step: int) -> None:
        nonlocal passed
        passed += step
        if passed > reported:
            progress(min(step, passed - reported))

    return report


def _advance(engine: Engine, population: Population, restarts: list[int]) -> Iterator[int]:
    """Process all events; yield the simulated time now and then, and at the end.

    Add to `restarts` the number of tries before each restart of the limiter.
    """
    events, status = FIRST_EVENTS, loop.PAUSED
    firsts = len(engine.world.first_times)
    most_stalled = MAX_STALLED_EVENTS + STALLED_EVENTS_PER_CLIENT * (len(population.behavior_of) + firsts)
    while status != loop.FINISHED:
        status = engine.run(events)
        events = min(2 * events, MOST_EVENTS)
        totals = engine.world.totals
        if status == loop.RESTARTED:
            restarts.append(int(totals[state.TRY_ROWS]))
        if count_tries(engine) > MAX_TRIES:
            raise InputError(
                f"a closed loop may have at most {MAX_TRIES:,} tries, got more: "
                "shorten the duration, have fewer clients or fewer retries"
            )
        if totals[state.STALLED] > most_stalled:
            raise InputError(
                f"clients must not try again without end at one time, got more than {most_stalled:,} events "
                f"at {totals[state.NOW]} ns: give them a think time, a retry base or fewer attempts"
            )
        yield int(totals[state.NOW])
    yield population.duration


def _create_outcome(
    engine: Engine, policy: Policy | None, population: Population, restarts: tuple[int, ...]
) -> LoopOutcome:
    tries, requests = _read_tries(engine), _read_requests(engine)
    costs = engine.column("request_costs")
    traffic = replace(
        population.first_tries,
        times=engine.column("row_times"),
        clients=requests.clients[tries.requests],
        costs=costs[tries.requests] + 1 if costs.any() else np.broadcast_to(np.int64(1), len(tries)),
    )
    return LoopOutcome(
        policy=policy,
        population=population,
        traffic=traffic,
        admissions={"allowed": engine.column("row_allowed"), "delay_ns": engine.column("row_delays")},
        tries=tries,
        requests=requests,
        locally_rejected=int(engine.world.totals[state.REJECTED]),
        events=int(engine.world.totals[state.EVENTS]),
        restarts=restarts,
    )


def _read_tries(engine: Engine) -> Tries:
    times, results = engine.column("row_times"), engine.column("row_results")
    return Tries(
        requests=engine.column("row_requests").astype(np.int64),
        numbers=engine.column("row_numbers"),
        sent=_read_times(engine.column("row_sent"), times),
        ended=_read_times(engine.column("row_ended"), np.where(results == PENDING, state.NONE, times)),
        results=results,
        served=_read_times(engine.column("row_served"), np.where(results == SUCCESS, times, state.NONE)),
        wasted=engine.column("row_wasted"),
    )


def _read_requests(engine: Engine) -> Requests:
    ended = engine.column("request_ended")
    return Requests(
        clients=engine.column("request_clients").astype(np.int64),
        started=engine.column("request_started"),
        ended=np.abs(ended) - 1,
        tries=engine.column("request_tries") + np.int32(1),
        results=np.array([PENDING, SUCCESS, GAVE_UP], np.int8)[np.sign(ended)],
    )


def _read_times(column: Integers, unwritten: Integers) -> Integers:
    """Return times of a column that are one later there, and those that were never written; see `state.World`."""
    return np.where(column > 0, column - 1, unwritten) if column.any() else unwritten
