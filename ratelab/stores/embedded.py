"""A store of this process's own: nothing of it is left when the process has ended, however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from select import select
from shutil import rmtree
from tempfile import mkdtemp
from typing import Self

from ratelab.errors import InputError
from ratelab.stores.valkey.server import Server, binary

BETWEEN_LOOKS = 0.5
"""Seconds after which a server that has ended is noticed."""


class Keeper:
    """A server for as long as the block and no longer than this process, even if it is killed; `url` is where.

    A small process keeps it, which waits for the end of a pipe whose other end this process alone has, and starts the
    server again, empty, if it should end. Raises `InputError` if there is none or it cannot start.
    """

    def __init__(self) -> None:
        self._program = binary()
        self._directory = mkdtemp(prefix="ratelab-")
        self._process = self._started()
        os.register_at_fork(after_in_child=self._let_go)

    def __enter__(self) -> Self:
        assert self._process.stdout is not None  # noqa: S101  (for the type checker)
        told = json.loads(self._process.stdout.readline() or '{"error": "the keeper of the embedded store has ended"}')
        if "error" in told:
            self.__exit__()
            raise InputError(told["error"])
        self.url: str = told["url"]
        return self

    def __exit__(self, *_: object) -> None:
        self._let_go()
        self._process.wait()
        rmtree(self._directory, ignore_errors=True)  # if it could not do that itself

    def look(self) -> str | None:
        """Start another process, at the same place, if the one that keeps the server has ended; return what to say."""
        if self._process.poll() is None:
            return None
        self._let_go()
        self._process = self._started()
        return "the keeper of the embedded store has ended: another takes its place, and every quota is new"

    def _started(self) -> subprocess.Popen[bytes]:
        given = f"{self._program!r}, {self._directory!r}"
        code = f"import sys; sys.path[:] = {sys.path}; from ratelab.stores.embedded import keep; keep({given})"
        command = [sys.executable, "-P", "-c", code]
        pipe = subprocess.PIPE
        return subprocess.Popen(  # noqa: S603  (this file)
            command, bufsize=0, stdin=pipe, stdout=pipe, start_new_session=True
        )

    def _let_go(self) -> None:
        """Close our ends of the pipes, which tells the process to end unless others have them."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


@contextmanager
def embedded() -> Iterator[str]:
    """Run a server for as long as the block, as `Keeper` does; yield its URL."""
    with Keeper() as keeper:
        yield keeper.url


def keep(program: str, directory: str) -> None:
    """Keep a server running in a directory until nobody holds the other end of standard input; tell its URL."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # they mean the process that we serve, which has to end first
    try:
        server = Server(Path(directory), program=program)
        server.start()
        _tell(url=server.url)
        while not select([sys.stdin], [], [], BETWEEN_LOOKS)[0]:
            if not server.runs:
                with suppress(InputError):  # there may be room for it later
                    server.start()
        server.stop()
    except InputError as error:
        _tell(error=str(error))
    finally:
        rmtree(directory, ignore_errors=True)


def _tell(**told: str) -> None:
    sys.stdout.write(f"{json.dumps(told)}\n")
    sys.stdout.flush()
