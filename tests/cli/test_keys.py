"""`ratelab keys`: the most limited clients of a service or a store; one of them; its reset."""

from __future__ import annotations

import os
import signal
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from cli_runner import get_error, get_json, get_output
from durations import find_quiet_zone
from serve_process import run_server, wait_until

from ratelab.http.identity import SECRET, Identity
from ratelab.stores.valkey.server import ValkeyServer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="has no Unix sockets")

TWO_A_DAY = ("--rate", "2/day", "--key", "header:X-User")


@pytest.fixture
def path() -> Iterator[Path]:
    """Return a path that is short enough for a socket."""
    with TemporaryDirectory(prefix="r") as folder:
        yield Path(folder) / "admin"


def test_a_service_lists_shows_and_resets_its_clients(path: Path) -> None:
    with run_server(*TWO_A_DAY, "--admin-socket", path, "--metrics-port", 0) as server:
        assert server.banner["admin"] == f"ratelab keys list --socket {path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        server.get_statuses(5, X_User="alice/smith ?")
        server.get_statuses(3, X_User="bob")
        server.get_statuses(2, X_User="carol")
        listed = get_json("keys", "list", "--socket", path)
        assert [(row["denied"], row["error"], row["remaining"]) for row in listed["keys"]] == [(3, 0, 0), (1, 0, 0)]
        assert listed["unlisted_at_most"] == 0
        offenders = server.get_metrics("/offenders").body
        assert b"alice" not in offenders
        assert listed["keys"][0]["key"].encode() in offenders

        (alice,) = get_json("keys", "show", "alice/smith ?", "--socket", path)["keys"]
        assert alice["key"] == listed["keys"][0]["key"]
        (by_key,) = get_json("keys", "show", alice["key"], "--hashed", "--socket", path)["keys"]
        assert by_key["denied"] == 3
        assert 0 < by_key["reset_after"] <= alice["reset_after"]
        (carol,) = get_json("keys", "show", "carol", "--socket", path)["keys"]
        assert (carol["denied"], carol["remaining"]) == (0, 0)

        (alice,) = get_json("keys", "reset", "alice/smith ?", "--socket", path)["keys"]
        assert (alice["remaining"], alice["reset_after"]) == (2, 0)
        assert server.get_statuses(3, X_User="alice/smith ?") == [200, 200, 429]
        table = get_output("keys", "list", "--socket", path, "--limit", "1")
        assert table.split("\n")[0].split() == ["key", "denied", "remaining", "full", "in"]
        assert table.split("\n")[1].split()[1:3] == ["4", "0"]
        assert server.get("/keys").status == 404  # only on the socket
        server.process.send_signal(signal.SIGTERM)
        server.process.wait()
    assert not path.exists()


@pytest.mark.slow
def test_the_socket_of_a_killed_service_is_replaced(path: Path) -> None:
    with run_server("--admin-socket", path) as server:
        error = get_error("serve", "--port", "0", "--admin-socket", path)
        assert error == f"--admin-socket {path} is in use by another process: choose another path\n"
        server.process.kill()
        server.process.wait()
    assert path.exists()
    with run_server("--admin-socket", path):
        assert get_json("keys", "list", "--socket", path)["keys"] == []


def test_invalid_sockets_are_rejected_in_one_line(path: Path) -> None:
    path.write_text("data")
    assert "must name a new file" in get_error("serve", "--port", "0", "--admin-socket", path)
    assert path.read_text() == "data"
    assert "cannot be created (No such file or directory)" in get_error(
        "serve", "--port", "0", "--admin-socket", path.parent / "a/b"
    )
    assert "must have at most 100 bytes" in get_error("serve", "--port", "0", "--admin-socket", "a" * 101)
    assert "leave out one" in get_error(
        "serve", "--port", "0", "--admin-socket", path, "--record", path.parent / "recording"
    )


def test_invalid_sources_are_rejected_in_one_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SECRET, raising=False)
    assert "give --socket PATH or --store URL" in get_error("keys", "list")
    assert "give --socket PATH or --store URL" in get_error("keys", "list", "--socket", path, "--store", "valkey://x")
    assert "(No such file or directory)" in get_error("keys", "show", "alice", "--socket", path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))  # without a listener
        assert "(Connection refused)" in get_error("keys", "list", "--socket", path)
    assert "CLIENT must not be empty" in get_error("keys", "show", "", "--socket", path)
    assert f"{SECRET} is not set" in get_error("keys", "show", "alice", "--store", "valkey://127.0.0.1:1")
    assert "the store failed (unreachable)" in get_error("keys", "list", "--store", "valkey://127.0.0.1:1")


@pytest.fixture
def store() -> Iterator[ValkeyServer]:
    with TemporaryDirectory(prefix="v") as directory:
        server = ValkeyServer(Path(directory))
        server.start()
        yield server
        server.stop()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="workers need fork")
def test_workers_answer_as_one_service(path: Path, store: ValkeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECRET, "secret")
    options = (*TWO_A_DAY, "--store", store.url, "--workers", 3, "--admin-socket", path, "--metrics-port", 0)
    with run_server(*options, **{SECRET: "secret"}) as server:
        for _ in range(30):
            server.get(X_User="alice")
        server.get(X_User="bob")

        def denied() -> list[int]:
            return [row["denied"] for row in get_json("keys", "list", "--socket", path)["keys"]]

        wait_until(lambda: denied() == [28])
        by_store = ("--store", store.url, "--rate", "2/day", "--key", "header:X-User")
        listed = get_json("keys", "list", *by_store)["keys"]
        assert [row["remaining"] for row in listed] == [0, 1]
        (alice,) = get_json("keys", "show", "alice", *by_store)["keys"]
        assert (alice["key"], alice["remaining"]) == (Identity("header:X-User").key_of("alice"), 0)
        assert "needs --socket" in get_error("keys", "show", "alice", "--hashed", *by_store)
        assert get_json("keys", "reset", "alice", *by_store)["keys"][0]["remaining"] == 2
        assert server.get_statuses(3, X_User="alice") == [200, 200, 429]
        assert get_json("keys", "list", *by_store, "--name", "other")["keys"] == []
        os.kill(server.process.pid, signal.SIGTERM)
        server.process.wait()
    assert not path.exists()


POLICIES = """\
version: 1
policies:
  - {name: login, algorithm: gcra, rate: 2/day, penalty: {after: 1, within: 1min, for: 2day}}
  - {name: month, algorithm: fixed-window, rate: 100/month, timezone: ZONE}
  - {name: all of them, key: all, algorithm: gcra, rate: 100/s}
"""


@pytest.mark.parametrize("store", [(), pytest.param(("--store", "embedded"), marks=pytest.mark.slow)])
def test_a_service_with_several_policies_shows_each_of_them(path: Path, store: tuple[str, ...]) -> None:
    file = path.parent / "policies.yaml"
    file.write_text(POLICIES.replace("ZONE", find_quiet_zone()))
    with run_server("--policies", file, "--key", "header:X-User", "--admin-socket", path, *store) as server:
        assert server.get_statuses(4, X_User="alice") == [200, 200, 429, 429]
        (alice,) = get_json("keys", "show", "alice", "--socket", path)["keys"]
        assert alice["denied"] == 2
        assert {name: state["remaining"] for name, state in alice["policies"].items()} == {"login": 0, "month": 98}
        assert 4 * 86_400 - 60 < alice["policies"]["login"]["reset_after"] <= 4 * 86_400
        assert [line.split()[0] for line in get_output("keys", "show", "alice", "--socket", path).splitlines()] == [
            "key", alice["key"], "login", "month",
        ]  # fmt: skip
        get_json("keys", "reset", "alice", "--socket", path)
        assert server.get_statuses(3, X_User="alice") == [200, 200, 429]


PLANS = """\
version: 1
policies:
  - {name: minute, algorithm: token-bucket, rate: 10/day}
  - {name: tiny, algorithm: gcra, rate: 1/day, key: ip, match: /other}
plan: {header: X-Plan}
plans:
  premium: {minute: {rate: 1000/day}}
"""


@pytest.mark.slow
@pytest.mark.parametrize("store", [(), pytest.param(("--store", "embedded"), marks=pytest.mark.slow)])
def test_a_look_at_a_client_of_a_plan_charges_nothing(path: Path, store: tuple[str, ...]) -> None:
    file = path.parent / "policies.yaml"
    file.write_text(PLANS)
    with run_server("--policies", file, "--key", "header:X-User", "--admin-socket", path, *store) as server:
        server.get_statuses(2, X_User="alice", X_Plan="premium")
        server.get_statuses(11, X_User="bob")
        for _ in range(3):
            (alice,) = get_json("keys", "show", "alice", "--socket", path)["keys"]
            assert (alice["remaining"], alice["bound_by"]) == (998, "minute")
            (bob,) = get_json("keys", "list", "--socket", path)["keys"]
            assert (bob["denied"], bob["remaining"], bob["bound_by"]) == (1, 0, "minute")
        assert server.get(X_User="alice", X_Plan="premium").headers["ratelimit"].startswith('"minute";r=997;')


IN_A_STORE = """\
version: 1
policies:
  - {name: minute, algorithm: token-bucket, rate: 10/day}
  - {name: day, algorithm: sliding-log, rate: 20/day}
  - {name: address, algorithm: fixed-window, rate: 39/2500day, key: ip}
  - {name: account, algorithm: gcra, rate: 30/day, key: account}
  - {name: global, algorithm: gcra, rate: 5/day, key: all, shadow: true}
account: {header: X-Account}
plan: {header: X-Plan, default: free}
plans:
  free: {}
  premium: {minute: {rate: 100/day}}
overrides:
  carol: {minute: {rate: 3/day}}
"""


@pytest.mark.slow
def test_policies_in_a_store_are_listed_shown_and_reset(
    path: Path, store: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SECRET, "secret")
    file = path.parent / "policies.yaml"
    file.write_text(IN_A_STORE)
    options = ("--policies", file, "--store", store.url, "--key", "header:X-User")
    with run_server(*options, **{SECRET: "secret"}) as server:
        assert server.get_statuses(11, X_User="alice", X_Account="acme")[-2:] == [200, 429]
        for _ in range(7):
            server.get(X_User="bob", X_Plan="premium")
    before = get_json("keys", "show", "bob", *options)
    listed = get_json("keys", "list", *options)["keys"]
    found = {(row["bound_by"], row["remaining"], row["denied"]) for row in listed}
    assert found == {
        ("minute", 0, None), ("day", 13, None), ("account", 20, None), ("address", 22, None), (None, 0, None),
    }  # fmt: skip
    assert listed[0]["bound_by"] == "minute"
    assert [row["key"] for row in listed if row["bound_by"] is None] == ["all"] == [listed[-1]["key"]]
    assert get_json("keys", "list", *options, "--limit", "1")["keys"][0]["key"] == listed[0]["key"]

    (alice,) = get_json("keys", "show", "alice", *options)["keys"]
    assert (alice["remaining"], alice["bound_by"]) == (0, "minute")
    assert {name: state["remaining"] for name, state in alice["policies"].items()} == {"minute": 0, "day": 10}
    (bob,) = before["keys"]
    assert {name: state["remaining"] for name, state in bob["policies"].items()} == {"minute": 93, "day": 13}
    (carol,) = get_json("keys", "show", "carol", *options)["keys"]
    assert {name: state["remaining"] for name, state in carol["policies"].items()} == {"minute": 3, "day": 20}
    assert carol["bound_by"] is None

    def show(client: str, policy: str, command: str = "show") -> int:
        (row,) = get_json("keys", command, client, *options, "--policy", policy)["keys"]
        assert [*row["policies"]] == [policy]
        remaining: int = row["policies"][policy]["remaining"]
        return remaining

    by_proxy = (*options[:-1], "header:CF-Connecting-IP")
    (address,) = get_json("keys", "show", "127.0.0.1", *by_proxy)["keys"]
    assert address["policies"]["address"]["remaining"] == 22
    assert [show("127.0.0.1", "address"), show("acme", "account"), show("all", "global")] == [22, 20, 0]
    assert show("bob", "day", "reset") == 20
    assert show("bob", "minute") == 93
    assert show("all", "global", "reset") == 5
    get_json("keys", "reset", "alice", *options)
    with run_server(*options, **{SECRET: "secret"}) as server:
        assert server.get_statuses(11, X_User="alice", X_Account="acme")[-2:] == [200, 429]
    table = get_output("keys", "show", "alice", *options).splitlines()
    assert [table[0].split()[-2:], table[1].split()[-1]] == [["bound", "by"], "minute"]
    assert [line.split()[0] for line in table[2:]] == ["minute", "day"]


def test_invalid_uses_of_a_policy_file_are_rejected_in_one_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECRET, "secret")
    file = path.parent / "policies.yaml"
    file.write_text(IN_A_STORE)
    nowhere = ("--policies", file, "--store", "valkey://127.0.0.1:1")
    assert get_error("keys", "list", "--policies", file, "--socket", path).startswith(
        f"--policies {file} needs --store"
    )
    assert "--policy day needs the file" in get_error("keys", "list", "--policy", "day", *nowhere[2:])
    assert "--rate must be left out with --policies" in get_error("keys", "list", *nowhere, "--rate", "2/s")
    assert "has no policy 'dya': choose one of minute, day," in get_error("keys", "list", *nowhere, "--policy", "dya")
    one_counter = get_error("keys", "reset", "alice", *nowhere, "--policy", "global")
    assert one_counter == "policy global has one counter for all clients, got 'alice': name all\n"
    assert "--hashed needs --socket" in get_error("keys", "show", "alice", "--hashed", *nowhere)
    file.write_text(
        IN_A_STORE.replace("rate: 10/day", "rate: 10/day, key: account").replace(
            "rate: 20/day", "rate: 9/s, key: account"
        )
    )
    by_user = ("--key", "header:X-User")
    assert "counts clients by header:x-user: choose one with --policy" in get_error(
        "keys", "show", "x", *nowhere, *by_user
    )
    assert "the store failed (unreachable)" in get_error("keys", "list", *nowhere)
    monkeypatch.delenv(SECRET)
    assert f"{SECRET} is not set" in get_error("keys", "show", "acme", *nowhere, "--policy", "day")
