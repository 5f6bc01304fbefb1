"""Limiters in a forked child process, which must not use the connections and locks of its parent."""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class Forkable(Protocol):
    """An object with state that a child process must not inherit."""

    def reset_after_fork(self) -> None:
        """Start over in a child process, in which no other thread runs."""
        ...


_objects: WeakSet[Forkable] = WeakSet()


def reset_in_children(created: Forkable) -> None:
    """Call `created.reset_after_fork()` in every child process that is forked while the object exists."""
    _objects.add(created)


def _reset_all() -> None:
    for created in [*_objects]:
        created.reset_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_all)
