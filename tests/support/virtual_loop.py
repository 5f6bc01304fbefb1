"""An event loop of asyncio in virtual time: nothing in it takes time but sleeping, and no sleep takes real time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any

NS_PER_S = 10**9


class _Selector(selectors.SelectSelector):
    """A selector that moves the time of its loop instead of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NS_PER_S

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0 if timeout is not None else 1)
        if not ready and timeout is not None and timeout > 0:
            self.now += round(timeout * NS_PER_S) + 1
        assert ready or timeout is not None, "every task waits for something that never happens"
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop; `clock` returns its time in nanoseconds."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)
        self._clock_resolution = 1e-9  # an attribute of asyncio's event loops: timers due by then run now

    def time(self) -> float:
        return self._virtual.now / NS_PER_S

    def clock(self) -> int:
        return self._virtual.now


def run_virtually(main: Any) -> Any:
    """Run the coroutine function `main` with the clock of a new loop, and return its result."""
    loop = VirtualLoop()
    try:
        coroutine: Coroutine[Any, Any, Any] = main(loop.clock)
        return loop.run_until_complete(coroutine)
    finally:
        for task in asyncio.all_tasks(loop):  # of a test that failed
            task.cancel()
            loop.run_until_complete(asyncio.wait([task]))
        loop.close()
