"""Keys as they are pressed, where there is a keyboard."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Wait = Callable[[float], str]
"""Waits so many seconds at most, and returns the letters of the keys pressed, maybe none."""


@contextmanager
def keyboard() -> Iterator[Wait]:
    """Take keys one by one, unseen, until the end of the block; without a keyboard, there is never one."""
    if sys.platform == "win32" or sys.stdin is None or not sys.stdin.isatty():
        yield _only_wait
        return
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor, termios.TCSADRAIN)  # what was typed before counts
    try:
        yield lambda patience: _read(descriptor, patience)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _only_wait(patience: float) -> str:
    time.sleep(patience)
    return ""


def _read(descriptor: int, patience: float) -> str:
    from select import select

    ready, _, _ = select([descriptor], [], [], patience)
    return os.read(descriptor, 64).decode("ascii", "ignore") if ready else ""
