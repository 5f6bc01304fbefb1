"""Lines written without ever waiting for who reads them."""

from __future__ import annotations

import os
from contextlib import suppress
from queue import Full, Queue
from threading import Thread

MOST_WAITING = 10_000
"""Lines that wait to be written; while there are so many, further ones are dropped."""


class LineWriter:
    """Write lines to a file descriptor from a thread of its own, so that a reader who stalls stops nobody else."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._waiting: Queue[str | None] = Queue(MOST_WAITING)
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def __call__(self, line: str) -> None:
        """Have a line written."""
        with suppress(Full):
            self._waiting.put_nowait(line)

    def close(self) -> None:
        """Write what is waiting, if the reader takes it within a second."""
        try:
            self._waiting.put(None, timeout=1)
        except Full:
            return
        self._thread.join(timeout=1)

    def _run(self) -> None:
        try:
            while (line := self._waiting.get()) is not None:
                data = f"{line}\n".encode()
                while data:
                    data = data[os.write(self._descriptor, data) :]
        except OSError:  # who read the lines has gone
            while self._waiting.get() is not None:
                pass  # nobody reads the line, and it is to take no room
