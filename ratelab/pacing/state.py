"""State of a pace: the protocol of any, and one of this process."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import ClassVar, Protocol, TypeVar

from ratelab.clock import Clock
from ratelab.pacing.pace import LearnedPace
from ratelab.stores.fork import reset_in_children

Result = TypeVar("Result")
Action = Callable[[LearnedPace, int], Result]
"""A change of a pace at a time; in a store, it may be repeated on a newer state."""


class PaceState(Protocol):
    """A pace, and the ways to change it."""

    ahead: ClassVar[int]
    """How early the time of a request is taken, in nanoseconds."""
    blocking: ClassVar[bool]
    """Whether a change may wait for a store."""
    clock: Clock
    pace: LearnedPace
    """The pace after the last change by this process."""

    def change(self, action: Action[Result]) -> Result:
        """Apply an action, and return its result."""
        ...

    def learn(self, action: Action[None]) -> None:
        """Apply an action, perhaps later; in an event loop, without waiting for a store."""
        ...


class LocalState:
    """A pace of this process."""

    ahead: ClassVar[int] = 0
    blocking: ClassVar[bool] = False

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.pace = LearnedPace()
        self._lock = Lock()
        reset_in_children(self)

    def reset_after_fork(self) -> None:
        """Forget the requests of the parent process, which have their responses there."""
        self._lock = Lock()
        self.pace.in_flight = 0

    def change(self, action: Action[Result]) -> Result:
        """Apply an action, and return its result."""
        with self._lock:
            return action(self.pace, self.clock())

    def learn(self, action: Action[None]) -> None:
        """Apply an action."""
        self.change(action)
