"""Text stream that never blocks: a thread writes the lines, and drops those that the reader does not take in time."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from os.path import sameopenfile
from queue import SimpleQueue
from select import select
from threading import Thread
from time import monotonic
from typing import Literal, TextIO, cast

MAX_QUEUED_TEXTS = 10_000
"""Texts, usually lines, that may wait for a slow reader; further ones are dropped until half of them are written."""

CLOSE_TIMEOUT_S = 1.0
"""Seconds that the reader has for the rest at the end."""


class LineWriter:
    """A stream in place of `sys.stdout` or `sys.stderr` that writes to `descriptor` from a thread.

    Neither a write nor the end of the program waits for a reader that has stalled, such as a terminal after Ctrl-S or a
    full pipe. When the reader is back, a line states how many were dropped. The descriptor keeps its blocking mode,
    since other processes may share it.
    """

    errors = "replace"

    def __init__(self, descriptor: int, encoding: str = "utf-8") -> None:
        self.encoding = encoding
        self._descriptor = descriptor
        # a queue without a lock that a signal handler or a fork could find held
        self._queue: SimpleQueue[str | None] = SimpleQueue()
        self._full = False
        self._dropped = self._reported = 0  # lines
        self._writing_since: float | None = None
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def is_behind(self) -> bool:
        """Whether text waits for the reader."""
        return self._writing_since is not None or not self._queue.empty()

    def write(self, text: str) -> int:
        """Queue `text`, or drop it if the reader is too far behind."""
        if not isinstance(text, str):
            raise TypeError(f"a text stream takes text, got {type(text).__name__}")
        self._full = self._queue.qsize() >= (MAX_QUEUED_TEXTS // 2 if self._full else MAX_QUEUED_TEXTS)
        if self._full:
            self._dropped += text.count("\n")
        else:
            self._queue.put(text)
        return len(text)

    def flush(self) -> None:
        """Do nothing: the thread writes as fast as the reader reads."""

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Return whether the reader is a terminal."""
        return os.isatty(self._descriptor)

    def finish(self) -> None:
        """Write the rest, unless the reader has stalled or stalls for `CLOSE_TIMEOUT_S`."""
        self._queue.put(None)
        stalled = self._writing_since
        self._thread.join(max(0, (stalled or monotonic()) + CLOSE_TIMEOUT_S - monotonic()))
        while self._thread.is_alive() and self._is_writable():  # this process has stalled, not the reader
            self._thread.join(CLOSE_TIMEOUT_S / 10)

    def _is_writable(self) -> bool:
        """Return whether the reader would take text; False where that is not known."""
        try:
            return bool(select([], [self._descriptor], [], 0)[1])
        except (OSError, ValueError):  # not a socket on Windows, or a descriptor that `select` cannot take
            return False

    def _run(self) -> None:
        try:
            while (text := self._queue.get()) is not None:
                self._write_all(text)
                self._report_dropped()
        except OSError:  # the reader is gone: empty the queue so that it takes no memory
            while self._queue.get() is not None:
                pass

    def _report_dropped(self) -> None:
        """Report the lines dropped since the last report, once new ones are queued again."""
        count = self._dropped - self._reported
        if count and self._queue.qsize() < MAX_QUEUED_TEXTS // 2:
            self._reported += count
            lines = "1 line was" if count == 1 else f"{count:,} lines were"
            self._write_all(f"{lines} dropped because the reader of this output stalled\n")

    def _write_all(self, text: str) -> None:
        data = text.encode(self.encoding, self.errors)
        self._writing_since = monotonic()
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:  # another process has put the shared descriptor in non-blocking mode
                select([], [self._descriptor], [])
        self._writing_since = None


@contextmanager
def use_line_writers(*names: Literal["stdout", "stderr"]) -> Iterator[None]:
    """Replace these streams of `sys` by line writers in the block; by one, if they are the same file."""
    stdout, stderr = sys.stdout, sys.stderr
    writers: list[LineWriter] = []
    try:
        for name in names:
            stream: TextIO | None = getattr(sys, name)
            if stream is None:
                continue
            stream.flush()
            descriptor = stream.fileno()
            if not writers or not sameopenfile(writers[0].fileno(), descriptor):
                writers.append(LineWriter(descriptor, stream.encoding))
            setattr(sys, name, cast("TextIO", writers[-1]))
        yield
    finally:
        sys.stdout, sys.stderr = stdout, stderr
        for writer in writers:
            writer.finish()
