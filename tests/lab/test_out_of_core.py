"""Traffic larger than memory: the same figures for batches of any size, and bounded memory."""

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
from ratelab.lab.spill import Gathering
from ratelab.lab.sweep import build_policies, quotas, sweep
from ratelab.lab.traces import TraceOptions, read_trace, reader

SIZES = (1, 7, 1000)


def set_batch_size(patch: pytest.MonkeyPatch, size: int, in_memory: bool = False) -> None:
    """Set the batch size, and the number of requests that are sorted in memory."""
    patch.setattr("ratelab.lab.traffic.BATCH_REQUESTS", size)
    patch.setattr("ratelab.lab.windows.TURN", size)
    patch.setattr("ratelab.lab.spill.IN_MEMORY", 10**9 if in_memory else size)


def written(folder: Path, form: str) -> Path:
    """Write requests slightly out of order, several in some seconds; `form` ends each time."""
    random = np.random.default_rng(5)
    times = np.cumsum(random.choice([0, 0, 0, 0, 0, 0, 1, 9], 80)) + random.choice([0, 0, 0, -3, 40], 80)
    who, costs = random.integers(0, 6, 80) ** 2 // 9, random.choice([1, 1, 2, 5], 80)
    rows = zip(times.tolist(), who.tolist(), costs.tolist(), strict=True)
    path = folder / "trace.csv"
    lines = (f"{1_000_000 + at}{form},client-{client},{cost}\n" for at, client, cost in rows)
    path.write_text("time,ip,cost\n" + "".join(lines))
    return path


QUOTA = ("--rate", "2/10s", "--burst", "6", "--cost", "cost")
ARGUMENTS = (*QUOTA, "--accuracy", "--equalize", "peak", "-a", "leaky-bucket", "-a", "sliding-counter")


@pytest.mark.slow
@pytest.mark.parametrize(("form", "in_memory"), [("", False), (".5", True)], ids=["seconds on disk", "exact in memory"])
def test_figures_are_the_same_for_batches_of_any_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, in_memory: bool
) -> None:
    path = written(tmp_path, form)
    expected = get_json("replay", path, *ARGUMENTS)
    assert expected["reordered"] > 5
    for size in SIZES:
        set_batch_size(monkeypatch, size, in_memory)
        assert get_json("replay", path, *ARGUMENTS) == expected


def test_compiled_code_keeps_states_from_batch_to_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "")
    expected = get_json("replay", path, *ARGUMENTS)
    monkeypatch.setattr("ratelab.lab.replay.MIN_COMPILED_REQUESTS", 0)
    monkeypatch.setattr("ratelab.lab.partition.LARGEST_TABLE", 20)
    set_batch_size(monkeypatch, 7)
    assert get_json("replay", path, *ARGUMENTS) == expected


def test_a_sweep_is_the_same_in_batches_with_any_number_of_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(written(tmp_path, ""))
    policies = build_policies([find(name) for name in COMPARED], quotas("2/10s,1/s", "1,6", 2))
    expected = sweep(policies, read_trace(path).traffic)
    set_batch_size(monkeypatch, 7)
    traffic = read_trace(path).traffic
    assert [sweep(policies, traffic, workers=workers) for workers in (1, 4)] == [expected] * 2


@settings(max_examples=60)
@given(st.lists(st.integers(0, 4), max_size=40), st.integers(1, 9))
def test_sorting_on_disk_is_stable(times: list[int], held: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ratelab.lab.spill.IN_MEMORY", held)
        assert in_order(times) == sorted((time, place) for place, time in enumerate(times))


def in_order(times: list[int]) -> list[tuple[int, int]]:
    """Gather requests one by one; return their times and places in order."""
    gathered = Gathering()
    for place, time in enumerate(times):
        gathered.add(*(np.array([value]) for value in (time, place, 1)))
    rows = gathered.in_order()
    return [(time, place) for time, place, _ in rows[0 : len(rows)].tolist()]


def times_in(path: Path) -> list[int]:
    times: list[int] = read_trace(str(path), TraceOptions(cost="cost")).traffic.whole().times.tolist()
    return times


MUTANTS = {
    "requests of one time overtake each other": (spill, "_next_of", '"left"', '"right"'),
    "a window forgets what came before": (windows, "_turned", "held[keys[firsts]] = sums[lasts]", "pass"),
    "a request leaves as the next one comes": (windows, "_turned", '- length, "right"', "- length"),
    "a second ends with a part": (reader, "spread_within_seconds", "if times[-1] != second", "if False"),
    "a second begins with a part": (reader, "spread_within_seconds", "if times[0] == second", "if False"),
    "a window of the clock begins with a part": (counter_estimate.TwoWindows, "_follow", "totals + carried", "totals"),
}


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS.keys())
def test_a_mistake_at_the_edges_of_batches_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mutant: Any
) -> None:
    place, name, right, wrong = mutant
    path, ties = written(tmp_path, ""), [0, 1, 1, 0, 1, 0, 1, 1, 0] * 2
    expected = [invoke("replay", path, *ARGUMENTS).output, times_in(path), in_order(ties)]
    monkeypatch.setattr(place, name, rewritten(getattr(place, name), right, wrong))
    set_batch_size(monkeypatch, 7)
    monkeypatch.setattr("ratelab.lab.spill.IN_MEMORY", 3)
    agree = [invoke("replay", path, *ARGUMENTS).output, times_in(path), in_order(ties)] == expected
    assert not agree


# --- disk and memory


def test_a_full_disk_is_reported_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> None:
        raise OSError(ENOSPC, "No space left on device")

    set_batch_size(monkeypatch, 7)
    monkeypatch.setattr("ratelab.lab.spill.TemporaryFile", full)
    message = get_error("replay", written(tmp_path, ""), "--rate", "1/s")
    assert "(No space left on device): name a folder with more room by TMPDIR" in message


def test_a_missing_temporary_folder_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_batch_size(monkeypatch, 7)
    path = written(tmp_path, "")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "none"))
    message = get_error("replay", path, "--rate", "1/s")
    assert f"kept in {tmp_path / 'none'} meanwhile, which fails (No such file or directory)" in message


REQUESTS = 1_000_000
LIMITED = f"""
import resource, sys
import numpy as np
from ratelab.algorithms import create
from ratelab.lab import replay, spill, traffic, windows
from ratelab.lab.comparison import compare
from ratelab.lab.spill import Gathering
from ratelab.lab.traffic import LongTraffic, from_rows

spill.IN_MEMORY, traffic.BATCH_REQUESTS, windows.TURN, replay.MIN_COMPILED_REQUESTS = 100_000, 50_000, 50_000, 0
policies = [create("leaky-bucket", "5/s", 5), create("token-bucket", "5/s", 5)]

def run(requests):
    gathered, random = Gathering(), np.random.default_rng(1)
    for begin in range(0, requests, 50_000):
        times = np.arange(begin, begin + 50_000) * 100_000 + random.integers(0, 10**9, 50_000)
        gathered.add(times, random.integers(0, 1000, 50_000), np.ones(50_000, np.int64))
    rows, keys = gathered.in_order(), np.arange(1000)
    names, duration = tuple(map(str, keys.tolist())), requests * 100_000 + 10**9
    made = (from_rows if requests <= 100_000 else LongTraffic)(rows, names, keys, duration, 0, *MORE[requests])
    return compare(policies, made)

MORE = {{100_000: (), {REQUESTS}: (1,)}}  # the largest cost
run(100_000)
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + {REQUESTS} * 20, resource.RLIM_INFINITY))
print([result.offered for result in run({REQUESTS}).results])
run({REQUESTS}).traffic.whole()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_long_traffic_takes_less_memory_than_its_columns() -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == str([REQUESTS] * 2), done.stderr
    assert "MemoryError" in done.stderr  # all of it at once does not fit
