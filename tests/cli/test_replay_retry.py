"""`ratelab replay --retry`: each request of a log is a first try of a client that reacts to its answers."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_runner import get_error, get_json, get_output

ALGO = ("--algo", "token-bucket")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Return a log: forty requests of one client in four seconds, then one of another after a minute."""
    path = tmp_path / "log.jsonl"
    rows = [f'{{"time": {number / 10}, "ip": "10.0.0.1"}}' for number in range(40)]
    path.write_text("\n".join([*rows, '{"time": 60, "ip": "10.0.0.2"}']) + "\n")
    return path


def test_each_request_of_the_log_is_a_first_try(log: Path) -> None:
    document = get_json("replay", log, "--rate", "2/s", "--retry", "full-jitter,base=1s,attempts=5", *ALGO)
    (result,) = document["results"]
    assert (document["trace"], result["first_tries"], result["clients"]) == (str(log), 41, 2)
    assert result["attempts"] > 41
    assert result["successes"] > get_json("replay", log, "--rate", "2/s", *ALGO)["results"][0]["admitted"]
    text = " ".join(get_output("replay", log, "--rate", "2/s", "--retry", "fixed", *ALGO).split())
    assert "each request of the log is a first try; tries end with the log" in text
    assert "each client: waits 10 s for an answer; retries after 100 ms, 3 tries at most" in text
    assert "do not react" not in text


def test_without_retries_the_decisions_are_those_of_a_replay(log: Path) -> None:
    (result,) = get_json("replay", log, "--rate", "2/s", "--retry", "none", *ALGO)["results"]
    (replayed,) = get_json("replay", log, "--rate", "2/s", *ALGO)["results"]
    names = ("denied", "peak_in_window", "overshoot", "fairness", "clients")
    assert [result[name] for name in names] == [replayed[name] for name in names]
    assert (result["attempts"], result["successes"]) == (replayed["offered"], replayed["admitted"])


def test_clients_wait_for_the_client_timeout_unless_retry_has_one(log: Path) -> None:
    def count(*options: str) -> int:
        leaky = ("--rate", "2/s", "--burst", "30", "--algo", "leaky-bucket")
        timeouts: int = get_json("replay", log, *leaky, *options)["results"][0]["timeouts"]
        return timeouts

    assert count("--retry", "none") > 0
    assert count("--retry", "none", "--client-timeout", "1min") == 0
    assert count("--retry", "none,timeout=1min") == 0


def test_only_the_worst_served_clients_are_listed(log: Path) -> None:
    options = ("--rate", "2/s", "--retry", "none", *ALGO)
    assert len(get_json("replay", log, *options, "--top", "1")["results"][0]["per_client"]) == 1
    assert "10.0.0.1" in get_output("replay", log, *options)


def test_a_preset_is_a_policy(log: Path) -> None:
    text = " ".join(get_output("replay", log, "--rate", "2/s", "--retry", "botocore-legacy,attempts=2", *ALGO).split())
    assert "full jitter" in text
    assert "2 tries at most" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("jitter", "unknown policy 'jitter'; did you mean 'full-jitter'?"),
        ("", "unknown policy ''; choose one of none, immediate, "),
        ("fixed,base", "expected key=value, got 'base': write it as in full-jitter,base=1s,attempts=5"),
        ("fixed,base=1s,base=2s", "base is given twice: remove one"),
        ("fixed,base=soon", "base: a duration must look like 10s, 0.5s or 2min, got 'soon'"),
        ("fixed,bse=1s", "bse: unknown key; did you mean 'base'?"),
        ("fixed,cap=1s", "cap: cap has no effect with the policy fixed: remove it"),
        ("fixed,attempts=1", "attempts: expected "),
        ("fixed,retry_on=denied+lost", "retry_on: expected one of denied, error, timeout, shed, got 'lost'"),
        ("fixed,timeout=-1s", "timeout: "),
        ("immediate,attempts=unlimited", "retries at once and without a limit never end: give a base or a number of"),
    ],
)
def test_invalid_retries_are_one_line(log: Path, text: str, message: str) -> None:
    assert get_error("replay", log, "--rate", "2/s", "--retry", text).startswith(f"--retry: {message}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rate", "2/s", "--accuracy"], "--accuracy compares decisions on the same requests"),
        (["--policies", "policies.yaml"], "--retry is for algorithms at one quota: leave out --retry or --policies"),
        (["--format", "recording"], "--retry is for algorithms at one quota: leave out --retry or --format recording"),
        ([], "missing --rate"),
    ],
)
def test_retry_needs_a_rate_and_rejects_other_kinds_of_replays(log: Path, options: list[str], message: str) -> None:
    assert get_error("replay", log, "--retry", "fixed", *options).startswith(message)


def test_two_timeouts_contradict(log: Path) -> None:
    error = get_error("replay", log, "--rate", "2/s", "--retry", "fixed,timeout=1s", "--client-timeout", "2s")
    assert error == "--retry has a timeout: leave out --client-timeout\n"
