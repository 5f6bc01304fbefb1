"""`ratelab diff`: the requests that only one of two limits denies, and the exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from access_log_lines import CROWD, write_log
from cli_runner import get_error, get_json, get_output, invoke

from ratelab.algorithms import create
from ratelab.lab.replay import replay
from ratelab.lab.traces import read_trace

OLD, NEW = "token-bucket:10/min:20", "fixed-window:20/min:5"


def test_differences_are_those_of_two_replays(tmp_path: Path) -> None:
    log = write_log(tmp_path, CROWD)
    document = json.loads(invoke("diff", OLD, NEW, log, "--json").stdout)
    traffic = read_trace(str(log)).traffic
    before = replay(create("token-bucket", "10/min", 20), traffic).decisions["allowed"]
    after = replay(create("fixed-window", "20/min", 5), traffic).decisions["allowed"]
    assert document["newly_denied"] == int((before & ~after).sum())
    assert document["newly_admitted"] == int((after & ~before).sum())
    assert (document["old"]["denied"], document["new"]["denied"]) == (int((~before).sum()), int((~after).sum()))
    assert sum(row["newly_denied"] for row in document["per_client"]) == document["newly_denied"]
    assert document["clients_newly_denied"] == len({*traffic.clients[before & ~after].tolist()})


@pytest.mark.parametrize(("tolerated", "status"), [("0", 1), ("0.1%", 1), ("99%", 0)])
def test_too_many_newly_denied_requests_are_status_1(tmp_path: Path, tolerated: str, status: int) -> None:
    log = write_log(tmp_path, CROWD)
    result = invoke("diff", OLD, "token-bucket:10/min:5", log, "--max-newly-denied", tolerated)
    assert (result.exit_code, result.stderr) == (status, "")
    assert ("Failed: " if status else "Passed: ") in result.stdout


def test_equal_limits_have_no_differences(tmp_path: Path) -> None:
    log = write_log(tmp_path, CROWD)
    document = get_json("diff", "gcra:10/min:20", OLD, log)
    assert (document["newly_denied"], document["newly_admitted"], document["per_client"]) == (0, 0, [])
    assert "Newly denied: no request." in get_output("diff", OLD, OLD, log)


@pytest.mark.parametrize(
    ("limit", "line"),
    [
        ("token-bucket", "a policy must look like ALGORITHM:RATE:BURST, such as token-bucket:100/min:40"),
        ("token-bucket:1/s:0", "burst must be a whole number from 1 to 2**62 - 1, got 0"),
        ("token-bucket:1/x:5", "unknown unit 'x'"),
        ("token:1/s:5", "unknown algorithm 'token': did you mean token-bucket?"),
        ("token-bucket:1/s:-5", "a policy must look like"),
    ],
)
def test_an_invalid_limit_is_one_line(tmp_path: Path, limit: str, line: str) -> None:
    assert line in get_error("diff", OLD, limit, write_log(tmp_path, CROWD))
