"""An end to a call that does not end by itself, whether it works or sleeps."""

from __future__ import annotations

import signal
from types import FrameType

PATIENCE = 1.0
"""Seconds that a call may take, but for those in which its process stands still."""

_RINGS = 20


class TooLongError(BaseException):
    """Time is up: no ordinary `except` catches it."""


class _Alarm:
    """Rings as long as a call goes on: a process that has stood still hears one ring afterwards, not all."""

    left: int | None = None
    """How often it may ring still; None if there is no call."""

    def ring(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  (what a handler takes)
        if self.left is not None:
            self.left -= 1
            if self.left <= 0:
                raise TooLongError


_alarm = _Alarm()
_CAN_RING = hasattr(signal, "setitimer")  # where it cannot, what goes on is ended from outside


def be_ready() -> None:
    """Prepare to watch calls of this thread, the main one."""
    if _CAN_RING:
        signal.signal(signal.SIGALRM, _alarm.ring)


def begin() -> None:
    """Raise `TooLongError` in this thread if what begins now has not come to its `end` in time, again and again."""
    if _CAN_RING:
        _alarm.left = _RINGS
        signal.setitimer(signal.ITIMER_REAL, PATIENCE / _RINGS, PATIENCE / _RINGS)


def end() -> None:
    """Watch no more."""
    _alarm.left = None
    if _CAN_RING:
        signal.setitimer(signal.ITIMER_REAL, 0)
