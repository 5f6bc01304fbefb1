"""`ratelab verify` against live servers: correct ones agree, and errors of dishonest ones are found."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cli_runner import BURST, get_error, get_output, invoke
from dishonest_server import BURST as DISHONEST_BURST
from dishonest_server import RATE as DISHONEST_RATE
from dishonest_server import run_dishonest_server
from serve_process import run_server

from ratelab import ALGORITHMS
from ratelab.cli.output import LateProgress

KEY = ("--key", "header:X-API-Key")
SHORT = """\
name: short
duration: 2s
quota: {rate: 1/s, burst: 3}
clients:
  - name: alice
    count: COUNT
    traffic:
      - {pattern: burst, at: 13ms, size: 5, spacing: 40ms}
      - {pattern: burst, at: 1513ms, size: 4, spacing: 40ms}
"""
SPACING_S = 0.04
"""Each request is at least this far away from the next, and from a time at which the decision would be different."""

SLOW = SHORT.replace("1/s", "6/h").replace("2s", "1s").replace("1513ms", "413ms")
"""The same with decisions that no delay changes."""

MAX_ATTEMPTS = 9
"""How often a run is repeated that a busy machine has delayed."""

DISHONEST = f"""\
name: dishonest
duration: 100ms
quota: {{rate: {DISHONEST_RATE}, burst: {DISHONEST_BURST}}}
clients: [{{name: alice, traffic: [{{pattern: burst, at: 0s, size: 4, spacing: 25ms}}]}}]
"""


@pytest.fixture(scope="module")
def dishonest_url() -> Iterator[str]:
    with run_dishonest_server() as url:
        yield url


@pytest.fixture
def immediate_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start without waiting for a clock window, which a sliding log does not have."""
    monkeypatch.setattr("ratelab.verify.schedule.MAX_ALIGNMENT_NS", 0)
    monkeypatch.setattr("ratelab.verify.client.CONNECT_LEAD_NS", 50_000_000)


def write_scenario(folder: Path, text: str) -> str:
    (folder / "scenario.yaml").write_text(text)
    return str(folder / "scenario.yaml")


def verify_json(*arguments: str) -> tuple[int, dict[str, Any]]:
    """Return the exit status and the JSON object."""
    result = invoke("verify", *arguments, "--json")
    assert result.stderr == "", result.stderr
    return result.exit_code, json.loads(result.stdout)


# --- ratelab serve


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Future[dict[str, Any]]]:
    """Verify a server of each algorithm, all at once and each in its own process, again if a delay changed it."""
    scenario = write_scenario(tmp_path_factory.mktemp("verify"), SHORT.replace("COUNT", "2"))

    def verify(name: str) -> dict[str, Any]:
        for _ in range(MAX_ATTEMPTS):
            with run_server("--algo", name, "--rate", "1/s", "--burst", 3, *KEY) as server:
                command = [sys.executable, "-m", "ratelab", "verify", scenario, "--json"]
                done = subprocess.run(
                    [*command, "--url", server.banner["serving"]], capture_output=True, text=True, timeout=300
                )
            report: dict[str, Any] = json.loads(done.stdout)
            if not report["differing"] or report["lateness"]["max"] + report["latency"]["max"] < SPACING_S:
                break
        return report

    with ThreadPoolExecutor(len(ALGORITHMS)) as pool:
        return {name: pool.submit(verify, name) for name in ALGORITHMS}


@pytest.mark.slow
@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_server_of_each_algorithm_agrees_with_its_simulation(
    name: str, reports: dict[str, Future[dict[str, Any]]]
) -> None:
    report = reports[name].result()
    assert (report["differing"], report["faults"], report["errors"]) == ([], [], 0)
    assert (report["algorithm"], report["requests"], report["agreeing"], report["agreement"]) == (name, 18, 18, 1)
    assert 0 < report["latency"]["p50"] <= report["latency"]["max"] < 60


@pytest.mark.slow
@pytest.mark.usefixtures("immediate_start", "in_turn")
def test_one_client_is_verified_ten_times_as_fast_by_address(tmp_path: Path) -> None:
    scenario = write_scenario(tmp_path, Path(BURST).read_text(encoding="utf-8").replace("rate: 2/s", "rate: 5/h"))
    with run_server("--algo", "sliding-log", "--rate", "5/h") as server:  # no delay changes a decision
        url = server.banner["serving"]
        text = get_output("verify", scenario, "--url", url, "--speed", "10")
    assert f"burst against {url}, sliding-log\n30 requests from 1 client in 1 s\n" in text
    assert "\n30 of 30 responses as simulated (100 %)\nheader fields correct\nlatency:      p50 " in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.slow
@pytest.mark.usefixtures("in_turn")
def test_a_custom_algorithm_of_the_server_must_be_named(toll: str, tmp_path: Path) -> None:
    with run_server("--algo", toll, "--rate", "6/h", "--burst", 3, *KEY) as server:
        arguments = (write_scenario(tmp_path, SLOW.replace("COUNT", "1")), "--url", server.banner["serving"])
        assert "unknown algorithm 'toll'" in get_error("verify", *arguments)
        status, report = verify_json(*arguments, "--algo", toll)
    assert (status, report["algorithm"], report["agreeing"]) == (0, "toll", 9)


@pytest.mark.slow
@pytest.mark.usefixtures("in_turn")
def test_clients_with_one_address_are_advised_to_use_a_header(tmp_path: Path) -> None:
    scenario = write_scenario(tmp_path, SLOW.replace("COUNT", "2"))
    with run_server("--rate", "6/h", "--burst", 3) as server:
        result = invoke("verify", scenario, "--url", server.banner["serving"])
    assert result.exit_code == 1
    assert "1 of 2 clients started with a used quota, as if they shared it" in result.stdout
    assert "run the server with --key header:X-API-Key" in " ".join(result.stdout.split())
    assert max(map(len, result.stdout.splitlines())) <= 80


# --- dishonest servers


def options_for(url: str, error: str) -> tuple[str, ...]:
    return ("--url", f"{url}?{error}", "--key", "header:X-Client")


@pytest.mark.usefixtures("immediate_start", "in_turn")
@pytest.mark.parametrize(
    ("error", "found"),
    [
        ("none", {}),
        ("no-ratelimit", {"missing-ratelimit": 4}),
        ("no-retry-after", {"missing-retry-after": 2}),
        ("half-a-second", {"bad-retry-after": 2}),
        ("early", {"early-retry-after": 2}),
        ("late", {"late-retry-after": 2}),
        ("rising", {"remaining-when-denied": 2, "remaining-rises": 1}),
    ],
)
def test_each_error_of_a_dishonest_server_is_found(
    error: str, found: dict[str, int], dishonest_url: str, tmp_path: Path
) -> None:
    scenario = write_scenario(tmp_path, DISHONEST)
    status, report = verify_json(scenario, "--algo", "sliding-log", *options_for(dishonest_url, error))
    assert {fault["kind"]: fault["count"] for fault in report["faults"]} == found
    assert (report["agreeing"], status) == (4, int(bool(found)))


@pytest.mark.usefixtures("immediate_start", "in_turn")
def test_failures_are_differences(dishonest_url: str, tmp_path: Path) -> None:
    scenario = write_scenario(tmp_path, DISHONEST)
    status, report = verify_json(scenario, *options_for(dishonest_url, "failing"))
    assert (status, report["errors"], report["differing"][0]["answered"]) == (1, 2, "status 503")


def test_progress_follows_the_times_of_requests(
    dishonest_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, immediate_start: None
) -> None:
    done: list[int] = []

    class Recorder(LateProgress):
        def __call__(self, more: int) -> None:
            done.append(more)

    monkeypatch.setattr("ratelab.cli.verify.LateProgress", Recorder)
    invoke("verify", write_scenario(tmp_path, DISHONEST), "--url", dishonest_url)
    assert done == [0, 25_000_000, 25_000_000, 25_000_000]
