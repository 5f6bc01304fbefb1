"""Compiled engine of closed loops: the event loop of `closed_loop.loop` as machine code, over arrays.

Numba compiles the source that runs in plain Python. Only what differs between lists and arrays is written again:
here the draws of 64-bit integers and the step of the algorithm, in `event_heap` the heap of events.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
from numba.extending import overload, register_jitable
from numpy.typing import NDArray

from ratelab.algorithms import Policy, traits_of
from ratelab.algorithms.penalty import Penalized
from ratelab.lab.bounds import check_bound
from ratelab.lab.closed_loop import answers, gates, loop, schedule, service, state, streams, tables, windows
from ratelab.lab.closed_loop.behavior import Population
from ratelab.lab.closed_loop.engine import BOOLEANS, REQUEST_COLUMNS, ROW_COLUMNS, check_rows
from ratelab.lab.closed_loop.state import NONE, World
from ratelab.lab.compiled import event_heap, specialize
from ratelab.lab.compiled.intrinsics import CompilerError, compile_for, declare_memory, jit, keep, slice_unchecked
from ratelab.lab.compiled.loops import find_begin, step
from ratelab.lab.compiled.specialize import create_stand_in
from ratelab.lab.compiled.states import MIN_LONG_STATE
from ratelab.lab.step_source import UnfitError
from ratelab.limiter import Algorithm

MAX_LOOP_INTEGERS = 1 << 28
"""Integers in the states of all keys, 2 GB."""

MAX_RESERVED_ROWS = 20_000_000
"""Rows of a column for which there is memory before there are half as many."""

PUSHES_PER_EVENT = 5
"""Events that one event schedules at most, not counting those of tries that leave the queue."""

MEMORY_KINDS: dict[str, tuple[str, int]] = {
    **dict.fromkeys((field.name for field in dataclasses.fields(World)), ("int64", 0)),
    **{name: ({"q": "int64", "i": "int32", "b": "int8"}[kind], 0)
       for name, kind in (ROW_COLUMNS | REQUEST_COLUMNS).items()},
    "chances": ("float64", 0), "behaviors": ("int64", len(state.BEHAVIOR_FIELDS)),
    "streams": ("uint64", event_heap.ROW_WIDTH), "requests": ("int64", event_heap.ROW_WIDTH),
    "clients": ("int64", event_heap.ROW_WIDTH), "tries": ("int64", event_heap.TRY_WIDTH),
    "delays": ("int64", len(streams.DELAY_FIELDS)), "windows": ("int64", windows.WINDOW_WIDTH),
    "changes": ("int64", len(state.CHANGE_FIELDS)), "blocks": ("int64", event_heap.BLOCK_WIDTH),
}  # fmt: skip
"""The type of each field of a world, and the number of integers in its rows, 0 for a column."""

SCALARS: dict[str, Any] = {"duration": numba.int64, "origin": numba.int64, "error_chance": numba.float64}
"""The fields that are in the directory; of all others but the limiter, it has the address and the length."""

MEMORY = {name: kind for name, kind in MEMORY_KINDS.items() if name not in (*SCALARS, "limiter")}

ROW_TABLES = ("streams", "requests", "clients")
"""The fields that are parts of the same rows."""


class WorldKind(NamedTuple):
    """What compiled code needs to know of a class of worlds."""

    limiter: Any
    """The type of the limiter."""
    is_instant: bool
    """Whether clients know each result at once, and learn nothing from it but whether to try again."""


WORLDS: dict[type, WorldKind] = {}
"""By class of worlds."""

LIMITER_WORD = 2 * len(MEMORY) + len(SCALARS)  # the address of the limiter, the last word of the directory


class CompiledEngine:
    """Runs the event loop over arrays. Raises `UnfitError` if plain Python must run it."""

    def __init__(self, policy: Policy | None, population: Population) -> None:
        fields = tables.create_world_fields(population)
        pairs = np.stack(fields.pop("heap"), axis=1).astype(np.int64)
        fields["heap"] = [0] * 2 * event_heap.HEAP_BEGIN
        fields["buckets"] = event_heap.create_buckets(len(fields["clients"]))
        fields["blocks"] = event_heap.fill_blocks(pairs, fields["buckets"], fields["totals"])
        self._limiter = None if policy is None else CompiledLimiter(policy.algorithm, population)
        fields["limiter"] = self._limiter and self._limiter.arrays
        for name, (kind, width) in MEMORY.items():
            if name not in ROW_TABLES:
                fields[name] = _align(np.array(fields.get(name, ()), kind), width)
        self._clients = len(fields["clients"])
        self._rows = _allocate((self._clients, event_heap.ROW_WIDTH), np.int64)
        self.world = World(**fields, requests=self._rows)
        self._share_rows()
        self.world.streams[:], self.world.clients[:] = fields["streams"], fields["clients"]
        self._directory = np.zeros(LIMITER_WORD + 1, np.int64)
        for place, (name, scalar) in enumerate(SCALARS.items(), 2 * len(MEMORY)):
            self._directory[place : place + 1].view(scalar.name)[:] = fields[name]
        limiter_kind = numba.typeof(self.world.limiter)  # type: ignore[no-untyped-call]
        world_kind = WorldKind(limiter_kind, _is_instant(self.world, policy))
        self._passed = _find_world_class(world_kind)(self._directory.ctypes.data)
        try:
            self._run = _compile_run(
                numba.typeof(self._passed),  # type: ignore[no-untyped-call]
                limiter_kind,
                allocates=policy is not None and isinstance(policy.algorithm, Penalized),
            )
        except CompilerError as error:
            raise UnfitError("its step cannot be compiled") from error

    def run(self, events: int) -> int:
        """Process up to this many events; return why it stopped, as `loop.run` does."""
        self._grow(events)
        for place, name in enumerate(MEMORY):
            column = getattr(self.world, name)
            self._directory[2 * place : 2 * place + 2] = column.ctypes.data, len(column)
        status: int = self._run(self._passed, self.world.limiter, events)
        if status == loop.RESTARTED and self._limiter is not None:
            self._limiter.restart()
        return status

    def _grow(self, events: int) -> None:
        """Make room for what this many events may add."""
        world, totals = self.world, self.world.totals
        for used in (state.USED_TRIES, state.USED_REQUESTS):
            check_rows(int(totals[used]))
        world.tries = _extend(world.tries, int(totals[state.USED_TRIES]) + events, NONE)
        size = int(totals[state.USED_REQUESTS]) + events
        if size > len(self._rows):
            self._rows = _copy(self._rows, len(self._rows), 2 * size)
            self._share_rows()
        for columns, field in ((ROW_COLUMNS, state.TRY_ROWS), (REQUEST_COLUMNS, state.REQUEST_ROWS)):
            used = int(totals[field])
            if len(getattr(world, next(iter(columns)))) < used + events:
                room = self._estimate_rows(used, events)
                for name in columns:
                    setattr(world, name, _copy(getattr(world, name), used, room))
        pushes = PUSHES_PER_EVENT * events + int(totals[state.WAITING])
        size = int(totals[state.HEAP_SIZE])
        room = size + int(totals[state.LATER]) + pushes
        if 2 * (room + event_heap.HEAP_BEGIN) > len(world.heap):
            world.heap = _copy(
                world.heap, 2 * (size + event_heap.HEAP_BEGIN), 2 * (room + room // 2 + event_heap.HEAP_BEGIN)
            )
        blocks = int(totals[state.USED_BLOCKS])
        room = blocks + len(world.buckets) + pushes // event_heap.EVENTS_PER_BLOCK + 2
        if room > len(world.blocks):
            world.blocks = _copy(world.blocks, blocks, room + room // 2)

    def _share_rows(self) -> None:
        """Let streams, requests and clients be parts of the same rows."""
        rows, own = self._rows, self._rows[: self._clients]
        self.world.streams = own[:, : event_heap.REQUEST_PLACE].view(np.uint64)
        self.world.requests = rows[:, event_heap.REQUEST_PLACE : event_heap.CLIENT_PLACE]
        self.world.clients = own[:, event_heap.CLIENT_PLACE : event_heap.CLIENT_PLACE + len(state.CLIENT_FIELDS)]

    def _estimate_rows(self, used: int, events: int) -> int:
        """Return how many rows a column needs to the end if the run goes on as so far, or a limit.

        Memory that is allocated and never written takes no space.
        """
        now = max(1, int(self.world.totals[state.NOW]))
        expected = used * self.world.duration // now
        needed = used + events
        return max(needed + needed // 2, min(expected + expected // 8, 64 * needed, MAX_RESERVED_ROWS))

    def column(self, name: str) -> NDArray[Any]:
        """Return a column of the tries or the requests."""
        used = int(self.world.totals[state.TRY_ROWS if name in ROW_COLUMNS else state.REQUEST_ROWS])
        values: NDArray[Any] = getattr(self.world, name)[:used]
        return values.view(np.bool_) if name in BOOLEANS else values


def _is_instant(world: World, policy: Policy | None) -> bool:
    """Return whether no event can follow a try but a retry, or the next request."""
    if world.server[state.WORKERS] or (policy is not None and traits_of(policy.algorithm).queues):
        return False
    return bool((world.behaviors[:, state.LATENCY] == NONE).all() and not world.behaviors[:, state.LEARNS].any())


def _allocate(shape: tuple[int, ...], kind: Any) -> NDArray[Any]:
    """Allocate an array of zeros that begins at a line of the cache."""
    item = np.dtype(kind).itemsize
    memory = np.zeros(math.prod(shape) + 64 // item, kind)
    begin = -(memory.ctypes.data // item) % (64 // item)
    return memory[begin : begin + math.prod(shape)].reshape(shape)


def _align(values: NDArray[Any], width: int) -> NDArray[Any]:
    """Return values in memory of their own, as rows of `width` if it is not 0."""
    aligned = _allocate((len(values), width) if width else (len(values),), values.dtype)
    if len(values):
        aligned[..., : values.shape[-1]] = values
    return aligned


def _extend(rows: NDArray[Any], size: int, fill: int) -> NDArray[Any]:
    """Return rows with room for `size`; the room doubles, filled with `fill`."""
    if size <= len(rows):
        return rows
    extended = _copy(rows, len(rows), 2 * size)
    extended[len(rows) :] = fill
    return extended


def _copy(column: NDArray[Any], used: int, size: int) -> NDArray[Any]:
    """Return the first values of a column, or rows, in memory with room for `size`; the rest is 0."""
    copy = _allocate((size, *column.shape[1:]), column.dtype)
    copy[:used] = column[:used]
    return copy


class CompiledLimiter:
    """The stand-in of an algorithm, and the states of all keys in one array."""

    def __init__(self, algorithm: Algorithm, population: Population) -> None:
        if traits_of(algorithm).bound is None:
            raise UnfitError("it declares no bound of its integers")
        traffic = population.first_tries
        try:
            check_bound(algorithm, traffic, population.max_cost)
        except OverflowError as error:
            raise UnfitError("integer overflow: values exceed 2**63 - 1") from error
        self._first = np.array(algorithm.start(traffic.origin), np.int64)
        width, keys = len(self._first), traffic.key_count
        if width * keys > MAX_LOOP_INTEGERS:
            raise UnfitError(f"the states of {keys:,} keys have {width * keys:,} integers")
        begins = None if width < MIN_LONG_STATE else np.arange(keys + 1) * width
        self._states = np.tile(self._first, keys)
        self.arrays = (create_stand_in(algorithm, width, complete=True), self._states, begins)

    def restart(self) -> None:
        """Begin every key again."""
        self._states.reshape(-1, len(self._first))[:] = self._first


# --- compilation


@cache
def _find_world_class(kind: WorldKind) -> Any:
    """Return the class of worlds of a kind; a digest of the sources is for the cache of machine code."""
    modules = (answers, gates, loop, schedule, service, state, streams, windows)
    files = [Path(module.__file__ or "") for module in modules] + sorted(Path(__file__).parent.glob("*.py"))
    source = b"".join(path.read_bytes() for path in files) + str(kind).encode()
    digest = blake2b(source, digest_size=12).hexdigest()
    world_class = specialize.__getattr__("-".join(("World", digest, "directory")))
    WORLDS[world_class] = kind
    return world_class


@cache
def _compile_run(world: Any, limiter: Any, allocates: bool) -> Callable[[Any, Any, int], int]:
    """Compile the event loop for types of worlds and limiters; see `jit` for `allocates`."""
    return compile_for(jit(_run, allocates), numba.int64(world, limiter, numba.int64))


def _run(world: Any, limiter: Any, events: int) -> int:
    keep(world, LIMITER_WORD, limiter)
    return loop.run(world, events)


def _register_spared(function: Callable[..., Any], result: Any) -> None:
    """Let machine code call a function of a world, which just returns `result` where it is never called."""

    def spare(*_: Any) -> Any:
        return result

    def choose(world: Any, *_: Any) -> Any:
        return spare if WORLDS[world.instance_class].is_instant else function

    options: Any = {"no_cfunc_wrapper": True}
    overload(function, strict=False, jit_options=options)(choose)


for _function in (
    streams.negative_log, streams.draw_exponential, streams.draw_normal, streams.draw_delay, streams.draw_part,
    windows.advance, windows.count, windows.clear, schedule.schedule, schedule.schedule_expiry,
    gates.throttles, gates.find_breaker_state, gates.trip, gates.adapt_rate, gates.take_turn, gates.deposit,
    gates.pay_retry,
    service.succeed, service.answer, service.begin_service, service.enqueue, service.unlink, service.dequeue,
    service.read,
    answers.settle, answers.retry, answers.end_request, answers.read_wait, answers.find_wait, answers.add_jitter,
    loop.run, loop.begin_serial, loop.take_request, loop.begin_request, loop.send, loop.record,
):  # fmt: skip
    register_jitable(no_cfunc_wrapper=True)(_function)  # machine code alone calls it

_SPARED: dict[Callable[..., Any], Any] = {
    gates.count_calls: None, gates.exceeds_share: False, gates.learn: None, loop.is_held_back: False,
    service.reach: None, service.draw_latency: 0, service.finish: None, service.write: None,
    answers.receive: state.PENDING, answers.expire: state.PENDING, answers.watch: None, answers.leave: None,
    answers.free_try: None, loop.add_try: 0, loop.take_over: 0, loop.hedge: 0, loop.reach_limiter: None,
}  # fmt: skip
for _spared in _SPARED.items():
    _register_spared(*_spared)


declare_memory(
    numba.types.NamedUniTuple,
    "World",
    {
        name: (numba.types.Array(getattr(numba, kind), 2 if width else 1, "C"), width)
        for name, (kind, width) in MEMORY.items()
    },
    SCALARS,
    ("limiter", WORLDS),
)


# --- draws and steps over arrays


@overload(loop.decide_hit, strict=False, jit_options={"forceinline": True})
def _overload_decide_hit(limiter: Any, key: Any, now: Any, cost: Any) -> Callable[..., Any]:  # noqa: ARG001
    if limiter == numba.none:
        return lambda limiter, key, now, cost: (True, 0, 0, 0, 0)  # noqa: ARG005

    def decide(limiter: Any, key: Any, now: Any, cost: Any) -> Any:
        algorithm, states, begins = limiter
        begin = find_begin(algorithm, begins, key)
        own = slice_unchecked(states, begin, find_begin(algorithm, begins, key + 1) - begin)
        return step(algorithm, own, now, cost)

    return decide


@overload(streams.draw_uniform, strict=False)
def _overload_draw_uniform(streams: Any, stream: Any) -> Callable[..., Any]:  # noqa: ARG001
    gamma, first, second = (np.uint64(word) for word in (_STREAMS.GAMMA, _STREAMS.FIRST_FACTOR, _STREAMS.SECOND_FACTOR))

    def draw(streams: Any, stream: Any) -> Any:
        word = streams[stream] + gamma
        streams[stream] = word
        word = (word ^ (word >> np.uint64(30))) * first
        word = (word ^ (word >> np.uint64(27))) * second
        return float(((word ^ (word >> np.uint64(31))) >> np.uint64(11)) + np.uint64(1)) * 2.0**-53

    return draw


_STREAMS = streams
