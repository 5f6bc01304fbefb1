"""`ratelab verify` against servers that run: honest ones agree, liars are found out, and mistakes are one red line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cli_runner import BURST, invoke, python, refused, shown
from dishonest_server import BURST as LIARS_BURST
from dishonest_server import RATE as LIARS_RATE
from dishonest_server import lying_server
from serve_process import serving

from ratelab import ALGORITHMS

KEYED = ("--key", "header:X-API-Key")
SHORT = """\
name: short
duration: 450ms
quota: {rate: 6/s, burst: 3}
clients:
  - name: alice
    count: COUNT
    traffic:
      - {pattern: burst, at: 13ms, size: 5, spacing: 7ms}
      - {pattern: burst, at: 413ms, size: 4, spacing: 7ms}
"""
"""Everything is decided at least 60 ms away from where it would be decided otherwise."""

LIARS = f"""\
name: liars
duration: 100ms
quota: {{rate: {LIARS_RATE}, burst: {LIARS_BURST}}}
clients: [{{name: alice, traffic: [{{pattern: burst, at: 0s, size: 4, spacing: 25ms}}]}}]
"""


@pytest.fixture
def short(tmp_path: Path) -> str:
    return written(tmp_path, SHORT.replace("COUNT", "2"))


@pytest.fixture(scope="module")
def liar() -> Iterator[str]:
    with lying_server() as url:
        yield url


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin soon, and without waiting for a window of the clock, by which a sliding log does not go."""
    monkeypatch.setattr("ratelab.verify.schedule.LONGEST_ALIGNMENT", 0)
    monkeypatch.setattr("ratelab.verify.client.LEAD", 50_000_000)


def written(folder: Path, text: str) -> str:
    (folder / "scenario.yaml").write_text(text)
    return str(folder / "scenario.yaml")


def verified(*arguments: str) -> tuple[int, dict[str, Any]]:
    """Return the exit status and the JSON."""
    result = invoke("verify", *arguments, "--json")
    assert result.stderr == "", result.stderr
    return result.exit_code, json.loads(result.stdout)


# --- honest servers


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Future[str]]:
    """Hold every algorithm against its server, all at once and each by a program of its own."""
    scenario = written(tmp_path_factory.mktemp("verify"), SHORT.replace("COUNT", "2"))

    def verdict(name: str) -> str:
        with serving("--algo", name, "--rate", "6/s", "--burst", 3, *KEYED) as server:
            return python("-m", "ratelab", "verify", scenario, "--url", server.banner["serving"], "--json")

    with ThreadPoolExecutor(len(ALGORITHMS)) as aside:
        return {name: aside.submit(verdict, name) for name in ALGORITHMS}


@pytest.mark.slow
@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_served_is_the_one_simulated(name: str, verdicts: dict[str, Future[str]]) -> None:
    told = json.loads(verdicts[name].result())
    assert (told["differing"], told["faults"], told["errors"]) == ([], [], 0)
    assert (told["algorithm"], told["requests"], told["agreeing"], told["agreement"]) == (name, 18, 18, 1)
    assert 0 < told["latency"]["p50"] <= told["latency"]["max"] < 60


@pytest.mark.slow
@pytest.mark.usefixtures("at_once")
def test_a_scenario_is_played_faster_and_a_server_by_address_serves_one_client() -> None:
    with serving("--algo", "sliding-log") as server:
        url = server.banner["serving"]
        text = shown("verify", BURST, "--url", url, "--speed", "10")
    assert f"burst against {url}, sliding-log\n30 requests from 1 client in 1s\n" in text
    assert "\n30 of 30 answers as simulated (100 %)\nheader fields as they should be\nlatency:      p50 " in text
    assert max(map(len, text.splitlines())) <= 80


def test_an_algorithm_of_ones_own_is_named(toll: str, tmp_path: Path) -> None:
    with serving("--algo", toll, "--rate", "6/s", "--burst", 3, *KEYED) as server:
        arguments = (written(tmp_path, SHORT.replace("COUNT", "1")), "--url", server.banner["serving"])
        assert "the server's policy: unknown algorithm 'toll'" in refused("verify", *arguments)
        status, told = verified(*arguments, "--algo", toll)
    assert (status, told["algorithm"], told["agreeing"]) == (0, "toll", 9)


def test_clients_that_share_an_address_are_told_to_use_a_header(short: str) -> None:
    with serving("--rate", "6/s", "--burst", 3) as server:
        result = invoke("verify", short, "--url", server.banner["serving"])
    assert result.exit_code == 1
    assert "1 of 2 clients were not new to the server, as if they shared a quota" in result.stdout
    assert "run the server with --key header:X-API-Key" in " ".join(result.stdout.split())
    assert max(map(len, result.stdout.splitlines())) <= 80


# --- others


def against(liar: str, lie: str, *arguments: str) -> tuple[str, ...]:
    return (*arguments, "--url", f"{liar}?{lie}", "--key", "header:X-Client")


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    ("lie", "faults"),
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
def test_each_lie_is_found_out(lie: str, faults: dict[str, int], liar: str, tmp_path: Path) -> None:
    status, told = verified(*against(liar, lie, written(tmp_path, LIARS), "--algo", "sliding-log"))
    assert {fault["kind"]: fault["count"] for fault in told["faults"]} == faults
    assert (told["agreeing"], status) == (4, int(bool(faults)))


@pytest.mark.usefixtures("at_once")
def test_answers_that_are_no_decision_differ(liar: str, tmp_path: Path) -> None:
    status, told = verified(*against(liar, "failing", written(tmp_path, LIARS)))
    assert (status, told["errors"], told["differing"][0]["answered"]) == (1, 2, "status 503")
