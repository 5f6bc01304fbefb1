"""Traffic larger than memory: the same figures for batches of any size, in bounded memory."""

from __future__ import annotations

import subprocess
import sys
from errno import ENOSPC
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_runner import get_error, get_json, invoke
from hypothesis import given, settings
from hypothesis import strategies as st
from mutate import rewritten

from ratelab.algorithms import COMPARED, find
from ratelab.lab import counter_estimate, spill, windows
from ratelab.lab.sweep import build_policies, parse_quotas, sweep
from ratelab.lab.traces import TraceOptions, merge, read_trace
from ratelab.lab.traffic import RequestSorter

pytestmark = pytest.mark.slow

SIZES = (1, 7)


def set_batch_size(patch: pytest.MonkeyPatch, size: int, in_memory: bool = False) -> None:
    """Process `size` requests at a time, and keep larger traffic on disk unless `in_memory`."""
    patch.setattr("ratelab.lab.traffic.BATCH_REQUESTS", size)
    patch.setattr("ratelab.lab.windows.MAX_STEP_ROWS", size)
    patch.setattr("ratelab.lab.spill.MAX_ROWS_IN_MEMORY", 10**9 if in_memory else size)


def write_trace(folder: Path, fraction: str) -> Path:
    """Write requests slightly out of order, several in some seconds; `fraction` ends each time."""
    random = np.random.default_rng(5)
    times = np.cumsum(random.choice([0, 0, 0, 0, 0, 0, 1, 9], 80)) + random.choice([0, 0, 0, -3, 40], 80)
    clients, costs = random.integers(0, 6, 80) ** 2 // 9, random.choice([1, 1, 2, 5], 80)
    rows = zip(times.tolist(), clients.tolist(), costs.tolist(), strict=True)
    path = folder / "trace.csv"
    lines = (f"{1_000_000 + at}{fraction},client-{client},{cost}\n" for at, client, cost in rows)
    path.write_text("time,ip,cost\n" + "".join(lines))
    return path


QUOTA = ("--rate", "2/10s", "--burst", "6", "--cost", "cost")
ARGUMENTS = (*QUOTA, "--accuracy", "--equalize", "peak", "-a", "leaky-bucket", "-a", "sliding-counter")


@pytest.mark.parametrize(
    ("fraction", "in_memory"), [("", False), (".5", True)], ids=["seconds on disk", "exact in memory"]
)
def test_figures_are_the_same_for_batches_of_any_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fraction: str, in_memory: bool
) -> None:
    path = write_trace(tmp_path, fraction)
    expected = get_json("replay", path, *ARGUMENTS)
    assert expected["reordered"] > 5
    for size in SIZES:
        set_batch_size(monkeypatch, size, in_memory)
        assert get_json("replay", path, *ARGUMENTS) == expected


def test_compiled_code_keeps_states_between_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_trace(tmp_path, "")
    expected = get_json("replay", path, *ARGUMENTS)
    monkeypatch.setattr("ratelab.lab.replay.MIN_COMPILED_DECISIONS", 0)
    monkeypatch.setattr("ratelab.lab.partition.MAX_STATE_INTEGERS", 20)
    set_batch_size(monkeypatch, 7)
    assert get_json("replay", path, *ARGUMENTS) == expected


def test_a_sweep_is_the_same_in_batches_with_any_number_of_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(write_trace(tmp_path, ""))
    policies = build_policies([find(name) for name in COMPARED], parse_quotas("2/10s,1/s", "1,6", 2))
    expected = sweep(policies, read_trace(path).traffic)
    set_batch_size(monkeypatch, 7)
    traffic = read_trace(path).traffic
    assert [sweep(policies, traffic, workers=workers) for workers in (1, 4)] == [expected] * 2


@settings(max_examples=60)
@given(st.lists(st.integers(0, 4), max_size=40), st.integers(1, 9))
def test_sorting_on_disk_is_stable(times: list[int], in_memory: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ratelab.lab.spill.MAX_ROWS_IN_MEMORY", in_memory)
        assert sort_one_by_one(times) == sorted((time, place) for place, time in enumerate(times))


def sort_one_by_one(times: list[int]) -> list[tuple[int, int]]:
    """Add requests to a sorter one by one; return their times and original places in order."""
    sorter = RequestSorter()
    for place, time in enumerate(times):
        sorter.add(*(np.array([value]) for value in (time, place, 1)))
    rows = sorter.sort()
    return [(time, place) for time, place, _ in rows.tolist()]


def read_times(path: Path) -> list[int]:
    times: list[int] = read_trace(str(path), TraceOptions(cost="cost")).traffic.times.tolist()
    return times


MUTANTS = {
    "requests of one time change places": (spill, "_take_next", '"left"', '"right"'),
    "a window forgets earlier requests": (windows, "_step", "costs[keys[firsts]] = sums[lasts]", "pass"),
    "a request leaves at the time of the next one": (windows, "_step", '- length, "right"', "- length"),
    "a second ends with a batch": (merge, "spread", "if batch[-1] != start", "if False"),
    "a second begins with a batch": (merge, "spread", "if batch[0] == start", "if False"),
    "a window of the clock begins with a batch": (counter_estimate.TwoWindows, "_follow", "totals + carried", "totals"),
}


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS.keys())
def test_a_mistake_at_the_edge_of_a_batch_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mutant: Any
) -> None:
    owner, name, right, wrong = mutant
    path, ties = write_trace(tmp_path, ""), [0, 1, 1, 0, 1, 0, 1, 1, 0] * 2
    expected = [invoke("replay", path, *ARGUMENTS).output, read_times(path), sort_one_by_one(ties)]
    monkeypatch.setattr(owner, name, rewritten(getattr(owner, name), right, wrong))
    set_batch_size(monkeypatch, 7)
    monkeypatch.setattr("ratelab.lab.spill.MAX_ROWS_IN_MEMORY", 6)
    agree = [invoke("replay", path, *ARGUMENTS).output, read_times(path), sort_one_by_one(ties)] == expected
    assert not agree


# --- disk and memory


@pytest.mark.parametrize("step", ["TemporaryFile", "_allocate"])
def test_a_full_disk_is_reported_in_one_line(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(ENOSPC, "No space left on device")

    set_batch_size(monkeypatch, 7)
    monkeypatch.setattr(f"ratelab.lab.spill.{step}", full)
    message = get_error("replay", write_trace(tmp_path, ""), "--rate", "1/s")
    assert "(No space left on device): set TMPDIR to a folder with more room" in message


def test_a_full_disk_leaves_out_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_batch_size(monkeypatch, 7)
    paths = [write_trace(tmp_path, ""), tmp_path / "short.jsonl"]
    paths[1].write_text('{"time": 1, "ip": "a"}\n')
    monkeypatch.setenv("TMPDIR", str(tmp_path / "none"))
    assert "cannot write temporary data" in get_error("replay", *paths, "--rate", "1/s")


def test_a_missing_temporary_folder_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_batch_size(monkeypatch, 7)
    path = write_trace(tmp_path, "")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "none"))
    message = get_error("replay", path, "--rate", "1/s")
    assert f"cannot write temporary data to {tmp_path / 'none'} (No such file or directory)" in message


REQUESTS = 400_000
MEASURE = f"""
import numpy as np
from ratelab.algorithms import create
from ratelab.lab import replay, spill, traffic, windows
from ratelab.lab.comparison import compare
from ratelab.lab.traces.merge import split_columns
from ratelab.lab.traffic import Traffic

spill.MAX_ROWS_IN_MEMORY = 40_000
traffic.BATCH_REQUESTS = windows.MAX_STEP_ROWS = 20_000
replay.MIN_COMPILED_DECISIONS = 0
policies = [create("leaky-bucket", "5/s", 5), create("token-bucket", "5/s", 5)]

def run(requests):
    sorter, random = traffic.RequestSorter(), np.random.default_rng(1)
    for begin in range(0, requests, 50_000):
        times = np.arange(begin, begin + 50_000) * 100_000 + random.integers(0, 10**9, 50_000)
        sorter.add(times, random.integers(0, 1000, 50_000), np.ones(50_000, np.int64))
    columns, keys = split_columns(sorter.sort(), 0, sorter.on_disk), np.arange(1000)
    return Traffic(*columns, tuple(map(str, keys)), keys, requests * 100_000 + 10**9, on_disk=sorter.on_disk)

def peak():
    lines = dict(line.split(":") for line in open("/proc/self/status"))
    return int(lines["VmHWM"].split()[0]) * 1024

compare(policies, run(100_000))
before = peak()
requests = run({REQUESTS})
print([result.offered for result in compare(policies, requests).results])
in_batches = peak()
print(in_batches - before, len(requests.times.tobytes() + requests.clients.tobytes()) and peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_traffic_on_disk_takes_less_memory_than_its_columns() -> None:
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, timeout=300)
    offered, measured = done.stdout.splitlines()
    assert offered == str([REQUESTS] * 2), done.stderr
    in_batches, at_once = map(int, measured.split())
    assert in_batches < REQUESTS * 16 < at_once  # two columns of it take more
