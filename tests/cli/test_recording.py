"""Recordings: a replay makes exactly the recorded decisions, or reports the first difference."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
from cli_runner import get_error, get_json, get_output, invoke
from custom_algorithms import TOLL, written

from ratelab import ALGORITHMS, ManualClock, Quota, create
from ratelab.lab.recording import RecordingLines, read_recording
from ratelab.stores.recording import RecordingLimiter

QUOTA = Quota.parse("2/s", 5)


def record(file: Path, name: str = "token-bucket", hits: int = 300, max_keys: int = 1000) -> list[dict[str, Any]]:
    """Record hits of a few keys at irregular times, and return the lines."""
    random, clock = Random(7), ManualClock(123_456_789_012_345)
    with file.open("x") as stream:
        limiter = RecordingLimiter(create(name, QUOTA), stream, clock, max_keys)
        for _ in range(hits):
            clock.advance(random.choice([0, 1, 10**6, 4 * 10**8, 25 * 10**8, 10**10]))
            limiter.hit(f"key-{random.randrange(4)}", random.choice([1, 1, 1, 2, 6]))
        assert limiter.failure is None
    return [json.loads(line) for line in file.read_text().splitlines()]


def format_changed(lines: list[dict[str, Any]], number: int, **fields: Any) -> str:
    """Format the lines after a change to the fields of one, counted from 1."""
    lines = [*lines]
    lines[number - 1] = lines[number - 1] | fields
    return "".join(json.dumps(line) + "\n" for line in lines)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_recording_replays_to_exactly_the_same_decisions(tmp_path: Path, name: str) -> None:
    file = tmp_path / "live.jsonl"
    lines = record(file, name)
    verdict = get_json("replay", file, "--format", "recording")["recording"]
    assert (verdict["algorithm"], verdict["decisions"], verdict["differing"]) == (name, 300, 0)
    assert verdict["recorded_sha256"] == verdict["replayed_sha256"]
    assert {True, False} == {line["allowed"] for line in lines[1:]}


def test_a_recording_has_the_quota_and_then_each_decision(tmp_path: Path) -> None:
    header, first, *_ = record(tmp_path / "live.jsonl")
    assert header | {"started": ""} == {
        "recording": 1, "algorithm": "token-bucket", "rate": "2/s", "burst": 5, "started": ""
    }  # fmt: skip
    assert [*first] == [
        "at_ns", "key", "cost", "allowed", "remaining", "retry_after_ns", "reset_after_ns", "delay_ns"
    ]  # fmt: skip


def test_text_has_both_digests_and_the_number_of_differences(tmp_path: Path) -> None:
    record(tmp_path / "live.jsonl")
    text = get_output("replay", tmp_path / "live.jsonl", "--format", "recording")
    live, replayed = (line.split()[-1] for line in text.splitlines() if line.startswith("sha256"))
    assert live == replayed
    assert len(live) == 64
    assert "300 decisions by token-bucket replayed, no differences" in text


@pytest.mark.parametrize("field", ["allowed", "remaining", "retry_after_ns", "reset_after_ns", "delay_ns", "at_ns"])
def test_one_changed_number_is_found(tmp_path: Path, field: str) -> None:
    lines = record(tmp_path / "live.jsonl")
    other = lines[199]["at_ns"] - 1 if field == "at_ns" else 1 - lines[199][field]
    (tmp_path / "other.jsonl").write_text(format_changed(lines, 200, **{field: abs(other)}))
    result = invoke("replay", tmp_path / "other.jsonl", "--format", "recording")
    if field != "at_ns":
        assert "1 of 300 decisions by token-bucket differ, the first in line 200:\n  recorded: " in result.stdout
    assert (result.exit_code, "no differences" in result.stdout) == (1, False)


def test_a_recording_is_replayed_through_its_algorithm_and_the_usual_ones(tmp_path: Path) -> None:
    record(tmp_path / "live.jsonl", "gcra")
    results = get_json("replay", tmp_path / "live.jsonl", "--format", "recording")["results"]
    algorithms = [result["algorithm"] for result in results]
    assert (algorithms[0], len(algorithms)) == ("gcra", 6)


def test_an_incomplete_last_line_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "live.jsonl"
    record(file)
    file.write_bytes(file.read_bytes()[:-20])
    verdict = get_json("replay", file, "--format", "recording")["recording"]
    assert (verdict["decisions"], verdict["differing"], verdict["unfinished"]) == (299, 0, True)


def test_decisions_on_shared_buckets_are_counted(tmp_path: Path) -> None:
    lines = record(tmp_path / "live.jsonl", max_keys=1)
    result = invoke("replay", tmp_path / "live.jsonl", "--format", "recording", "--json")
    assert json.loads(result.stdout)["recording"]["shared"] == sum("shared" in line for line in lines) > 0


INVALID: dict[str, tuple[str | dict[str, Any], str]] = {
    "empty": ("", "not a recording of version 1"),
    "a log": ('1.2.3.4 - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 1\n', "not a recording of version 1"),
    "another version": ('{"recording": 2, "algorithm": "gcra", "rate": "2/s", "burst": 5}\n', "version 1"),
    "no decision": ('{"recording": 1, "algorithm": "gcra", "rate": "2/s", "burst": 5}\n', "has no decisions"),
    "no rate": ('{"recording": 1, "algorithm": "gcra", "burst": 5}\n', "rate must look like"),
    "an unknown algorithm": ({"algorithm": "tokenbucket"}, "recorded with 'tokenbucket', which is not built in"),
}


@pytest.mark.parametrize("name", INVALID)
def test_an_invalid_recording_is_rejected(tmp_path: Path, name: str) -> None:
    content, message = INVALID[name]
    file = tmp_path / "live.jsonl"
    if isinstance(content, dict):
        content = format_changed(record(tmp_path / "good.jsonl"), 1, **content)
    file.write_text(content)
    assert message in get_error("replay", file, "--format", "recording")


INVALID_FIELDS: dict[str, dict[str, Any]] = {
    "a time that falls": {"at_ns": 1},
    "a huge time": {"at_ns": 2**62},
    "a fraction": {"remaining": 0.5},
    "a negative number": {"delay_ns": -1},
    "a cost of 0": {"cost": 0},
    "no key": {"key": None},
}


@pytest.mark.parametrize("name", INVALID_FIELDS)
def test_an_invalid_line_is_named(tmp_path: Path, name: str) -> None:
    lines = record(tmp_path / "good.jsonl")
    (tmp_path / "bad.jsonl").write_text(format_changed(lines, 100, **INVALID_FIELDS[name]))
    assert f"{tmp_path / 'bad.jsonl'}:100: " in get_error("replay", tmp_path / "bad.jsonl", "--format", "recording")


@pytest.mark.parametrize("name", ["mine.py:Toll", "os:system", "toll", "./mine.py:Toll"])
def test_a_recording_chooses_no_code_to_run(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = record(tmp_path / "live.jsonl", hits=1)
    (tmp_path / "mine.py").write_text(f"open('ran', 'w').close()\n{TOLL}")
    (tmp_path / "live.jsonl").write_text(format_changed(lines, 1, algorithm=name))
    problem = f"live.jsonl was recorded with '{name}', which is not built in: give it with --algo"
    assert problem in get_error("replay", "live.jsonl", "--format", "recording")
    assert not (tmp_path / "ran").exists()


def test_a_recording_of_a_custom_algorithm_is_replayed_with_that_of_the_command_line(tmp_path: Path) -> None:
    toll = written(tmp_path, 'toll"', 'toll"')
    with (tmp_path / "live.jsonl").open("x") as stream:
        limiter = RecordingLimiter(create(toll, QUOTA), stream, ManualClock(1))
        for _ in range(4):
            limiter.hit("a")
    document = get_json("replay", tmp_path / "live.jsonl", "--format", "recording", "--algo", toll)
    assert (document["recording"]["algorithm"], document["recording"]["differing"]) == ("toll", 0)


def test_options_that_a_recording_replaces_are_rejected(tmp_path: Path) -> None:
    record(tmp_path / "live.jsonl")
    for option in ("--rate", "--burst"):
        message = get_error("replay", tmp_path / "live.jsonl", "--format", "recording", option, "5")
        assert "leave out --rate and --burst" in message
    assert "add --format recording" in get_error("replay", tmp_path / "live.jsonl", "--rate", "2/s")
    assert "missing --rate: give the quota" in get_error("replay", tmp_path / "live.jsonl")


class FullDisk(io.StringIO):
    """A file on a disk that is full after 500 characters."""

    def write(self, text: str) -> int:
        if self.tell() > 500:
            raise OSError(28, "No space left on device")
        return super().write(text)


def test_a_full_disk_ends_the_recording_but_not_the_decisions() -> None:
    limiter = RecordingLimiter(create("token-bucket", QUOTA), FullDisk(), ManualClock())
    decisions = [limiter.hit("alice").allowed for _ in range(10)]
    assert decisions == [True] * 5 + [False] * 5
    assert limiter.failure == "No space left on device"


def test_the_recorded_time_is_the_time_of_the_decision(tmp_path: Path) -> None:
    times = iter(range(10**9, 10**9 + 100))
    with (tmp_path / "live.jsonl").open("x") as file:
        limiter = RecordingLimiter(create("token-bucket", QUOTA), file, lambda: next(times))
        for _ in range(9):
            limiter.hit("alice")
    recording = read_recording(RecordingLines(str(tmp_path / "live.jsonl")))
    assert (recording.traffic.origin, recording.traffic.times.tolist()) == (10**9 + 4, [*range(9)])


class HittingClock:
    """A clock whose reading calls `hit` once, as a signal handler may."""

    def __init__(self) -> None:
        self.hit: Callable[[], object] | None = None
        self.now = 10**9

    def __call__(self) -> int:
        self.now += 1
        now, hit, self.hit = self.now, self.hit, None
        if hit is not None:
            hit()
        return now


@pytest.mark.parametrize("inner", ["alice", "bob"])
def test_hits_within_a_hit_are_recorded_in_the_order_of_their_decisions(tmp_path: Path, inner: str) -> None:
    file, clock = tmp_path / "live.jsonl", HittingClock()
    with file.open("x") as stream:
        limiter = RecordingLimiter(create("token-bucket", QUOTA), stream, clock)
        for key in ("alice", "alice", "carol", "bob", "alice"):
            clock.hit = partial(limiter.hit, inner)
            limiter.hit(key)
    verdict = get_json("replay", file, "--format", "recording")["recording"]
    assert (verdict["decisions"], verdict["differing"]) == (10, 0)
