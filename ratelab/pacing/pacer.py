"""Pacer: sends requests to a service at the pace that its limit permits, without knowing the limit beforehand."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager
from threading import Lock
from types import EllipsisType
from typing import Any, Self

from ratelab.clock import Clock, default_clocks
from ratelab.errors import InputError, short_repr
from ratelab.pacing.lane import Permit, RequestLane, Take, Turn
from ratelab.pacing.state import LocalState, PaceState
from ratelab.stores.arguments import check_clock, parse_timeout
from ratelab.stores.fork import reset_in_children
from ratelab.stores.sleepers import (
    ThreadSleeper,
    call_in_thread,
    create_sleeper,
    run_in_task,
    run_in_thread,
    set_alarm,
)
from ratelab.stores.waiting_lines import Sleep

DEFAULT_TIMEOUT_S = 300.0
"""The longest wait of a request, unless its caller names another."""

MAX_KEYS = 10_000
"""The keys whose pace is kept, by default."""

Timeout = float | None | EllipsisType
"""Seconds, None for no limit, or `...` for the time-out of the pacer."""


class Pacer:
    """Pace requests to rate-limited services, whose limits it learns from their responses.

    Requests with the same `key`, such as the name of a host or a host with an API key, share a limit. They are sent in
    the order in which they came, from threads and tasks alike. Of more than `max_keys` keys, those that were not used
    for longest are forgotten.

    A request that would have to wait for more than `timeout` seconds raises `RateLimitExceeded` at once; with None, it
    waits without limit. `clock` returns nanoseconds. With `store`, a URL such as `valkey://host` or a `ValkeyLimiter`
    whose connections are used, processes share the paces under `name`; while the store is down, each paces alone.

    Raises `InputError` for an invalid argument.
    """

    def __init__(
        self,
        *,
        timeout: float | None = DEFAULT_TIMEOUT_S,
        clock: Clock | None = None,
        store: Any = None,
        name: str = "pacer",
        max_keys: int = MAX_KEYS,
    ) -> None:
        if isinstance(max_keys, bool) or not isinstance(max_keys, int) or max_keys < 1:
            raise InputError(f"max_keys must be a whole number >= 1, got {short_repr(max_keys)}")
        if not isinstance(name, str) or not name:
            raise InputError(f"name must be text such as 'pacer', got {short_repr(name)}")
        parse_timeout(timeout)
        if clock is not None:
            check_clock(clock)
        self._timeout = timeout
        self._clock: Clock = clock or (_read_steady_clock if store is None else _read_wall_clock)
        self._create_state: Callable[[str], PaceState] = lambda _: LocalState(self._clock)
        self._close: Callable[[], object] = lambda: None
        if store is not None:
            from ratelab.pacing.shared_state import SharedState, open_store  # it needs the package valkey

            shared = open_store(store, name)
            self._create_state = lambda key: SharedState(self._clock, shared, key)
            self._close = shared.close
        self._max_keys = max_keys
        self._lanes: OrderedDict[str, RequestLane] = OrderedDict()
        self._lock = Lock()
        reset_in_children(self)

    def reset_after_fork(self) -> None:
        """Forget the requests and the paces of the parent process."""
        self._lock = Lock()
        self._lanes = OrderedDict()

    def request(self, key: str = "", timeout: Timeout = ...) -> PacedRequest:
        """Return a context that waits for the time of a request: `with pacer.request() as permit:`, or `async with`.

        A request whose response was not passed to the permit is abandoned. Raises as `acquire` does.
        """
        return PacedRequest(self, key, timeout)

    def acquire(self, key: str = "", timeout: Timeout = ...) -> Permit:
        """Wait in this thread for the time of a request.

        Raises `RateLimitExceeded` as soon as that is certain to be more than `timeout` seconds away.
        """
        sleeper = ThreadSleeper()
        lane, turn = self._enter(key, timeout, sleeper)
        return Permit(lane, run_in_thread(lane.admit(turn), sleeper, self._set_alarm, lambda _: lane.take()))

    async def acquire_async(self, key: str = "", timeout: Timeout = ...) -> Permit:
        """Wait in this task, of asyncio or Trio, as `acquire` does in a thread."""
        sleeper = create_sleeper()
        lane, turn = self._enter(key, timeout, sleeper)

        async def take(_: Take) -> None:
            if lane.state.blocking:
                await call_in_thread(lane.take)
            else:
                lane.take()

        return Permit(lane, await run_in_task(lane.admit(turn), sleeper, self._set_alarm, take))

    def _set_alarm(self, sleep: Sleep, wake: Callable[[], object]) -> AbstractContextManager[float | None]:
        alarms: Any = default_clocks.alarms if self._clock in _DEFAULT_CLOCKS else self._clock
        return set_alarm(sleep, wake, self._clock, alarms if hasattr(alarms, "call_at") else None)

    def _enter(self, key: str, timeout: Timeout, sleeper: Any) -> tuple[RequestLane, Turn]:
        if not isinstance(key, str):
            raise InputError(f"key must be text, got {short_repr(key)}: format it as a str")
        limit = parse_timeout(self._timeout if isinstance(timeout, EllipsisType) else timeout)
        deadline = None if limit is None else self._clock() + limit
        with self._lock:
            lane = self._lanes.get(key)
            if lane is None:
                self._forget_idle()
                lane = self._lanes[key] = RequestLane(key, self._create_state(key))
            self._lanes.move_to_end(key)
        return lane, Turn(deadline, sleeper)

    def _forget_idle(self) -> None:
        """Make place for a lane: drop those that were not used for longest, unless they are in use."""
        excess = len(self._lanes) + 1 - self._max_keys
        idle = [key for key, lane in self._lanes.items() if lane.idle] if excess > 0 else []
        for key in idle[: max(excess, len(idle) // 10)]:
            del self._lanes[key]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to the store, unless a limiter uses them."""
        self._close()


class PacedRequest:
    """A context, for `with` and `async with`, that waits for the time of a request and yields its `Permit`."""

    def __init__(self, pacer: Pacer, key: str, timeout: Timeout) -> None:
        self._pacer, self._key, self._timeout = pacer, key, timeout

    def __enter__(self) -> Permit:
        self._permit = self._pacer.acquire(self._key, self._timeout)
        return self._permit

    async def __aenter__(self) -> Permit:
        self._permit = await self._pacer.acquire_async(self._key, self._timeout)
        return self._permit

    def __exit__(self, *_: object) -> None:
        self._permit.abandon()

    async def __aexit__(self, *_: object) -> None:
        self._permit.abandon()


def _read_steady_clock() -> int:
    return default_clocks.steady()


def _read_wall_clock() -> int:
    return default_clocks.wall()


_DEFAULT_CLOCKS = _read_steady_clock, _read_wall_clock
