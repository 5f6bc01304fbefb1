"""Distributed runs have the same results as one process, for any number of pieces and partitions."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inline_engine import InlineEngine, write_random_log

from ratelab.algorithms import ALGORITHMS, COMPARED, build_policy, parse_policy
from ratelab.lab import comparison, sweep
from ratelab.lab.cluster import results
from ratelab.lab.cluster.run import DistributedRun, ReadFiles
from ratelab.lab.metrics import DEFAULT_CLIENT_TIMEOUT
from ratelab.lab.sweep import build_policies, parse_quotas
from ratelab.lab.traces import Trace, TraceOptions, read_traces
from ratelab.lab.traces.files import read_section
from ratelab.lab.tune.difference import compare_policies
from ratelab.quota import Quota
from ratelab.report.difference import serialize_difference
from ratelab.report.serialize import serialize_comparison
from ratelab.report.sweep import serialize_sweep

pytest.importorskip("pyarrow")

KINDS = [ALGORITHMS[name] for name in COMPARED]
POLICIES = [build_policy(kind, Quota.parse("2/s", 3)) for kind in KINDS]
SWEPT = build_policies(KINDS, parse_quotas("1/s,30/min", "2,5", 2))
OLD, NEW = parse_policy("token-bucket:2/s:3"), parse_policy("leaky-bucket:1/s:9")

UNITS = {
    "seconds": ("s",),
    "milliseconds": ("ms",),
    "minutes": ("min",),
    "mixed times": ("mixed",),
    "files of several units": ("s", "ms", "min", "s", "mixed"),
}


@pytest.fixture(params=UNITS)
def paths(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    files = [tmp_path / f"{number}.jsonl" for number in range(len(UNITS[request.param]))]
    for seed, (path, unit) in enumerate(zip(files, UNITS[request.param], strict=True)):
        write_random_log(path, seed, 100, unit=unit, late=1 + 9 * seed, first=13 * seed)
    return [*map(str, files)]


def read(
    folder: Path,
    paths: list[str],
    options: TraceOptions,
    partitions: int,
    piece: int,
    engine: InlineEngine | None = None,
) -> ReadFiles:
    run = DistributedRun(engine or InlineEngine(), str(folder / "exchange"), partitions, piece)
    return run.read(paths, options, lambda _: None)


def without_traffic(trace: Trace) -> dict[str, Any]:
    return {name: value for name, value in vars(trace).items() if name != "traffic"}


def compare_columns(trace: Trace) -> list[Any]:
    traffic = trace.traffic
    columns = [column.tolist() for column in (traffic.times, traffic.clients, traffic.costs, traffic.keys)]
    return [*columns, traffic.names, traffic.origin, traffic.duration]


@pytest.mark.parametrize(
    ("partitions", "within_second"),
    [
        (3, "spread"),
        pytest.param(1, "spread", marks=pytest.mark.slow),
        pytest.param(16, "start", marks=pytest.mark.slow),
    ],
)
def test_every_figure_is_that_of_one_process(
    paths: list[str], tmp_path: Path, partitions: int, within_second: str
) -> None:
    options = TraceOptions(cost="cost", within_second=within_second)
    expected = read_traces(paths, options)
    files = read(tmp_path, paths, options, partitions, 1_200)
    assert len(files.files[0][1]) > 3  # pieces
    assert without_traffic(files.trace) == without_traffic(expected)
    assert compare_columns(files.trace) == compare_columns(expected)

    trace, found = results.compare(POLICIES, DEFAULT_CLIENT_TIMEOUT, files, lambda _: None)
    assert without_traffic(trace) == without_traffic(expected)
    wanted = comparison.compare(POLICIES, expected.traffic)
    assert serialize_comparison(found, {}) == serialize_comparison(wanted, {})
    assert [result.fullest for result in found.results] == [result.fullest for result in wanted.results]


@pytest.mark.slow
def test_sweep_and_diff_count_as_one_process(paths: list[str], tmp_path: Path) -> None:
    options = TraceOptions(cost="cost")
    traffic = read_traces(paths, options).traffic
    files = read(tmp_path, paths, options, 5, 1_200)
    trace, swept = results.sweep(SWEPT, files, lambda _: None)
    assert serialize_sweep(trace.traffic, swept, {}) == serialize_sweep(traffic, sweep.sweep(SWEPT, traffic), {})
    _, difference = results.diff(OLD, NEW, files, lambda _: None)
    expected = compare_policies(OLD, NEW, traffic)
    assert serialize_difference(difference, {}, 0.1, 99) == serialize_difference(expected, {}, 0.1, 99)


@pytest.mark.parametrize("text", [b"", b"a", b"a\n", b"\n\nab\nc", b"abc\n\n\nde\n" + 9 * b"f"])
def test_each_line_is_in_the_section_in_which_it_starts(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(text)
    starts = {0, *(place + 1 for place, byte in enumerate(text) if byte == ord("\n"))}
    for begin, end in combinations(range(len(text) + 1), 2):
        read = b"\n".join(block.text for block in read_section(str(path), begin, end)).strip(b"\n")
        lines = [text[start:].partition(b"\n")[0] for start in sorted(starts) if begin <= start < end]
        assert read == b"\n".join(lines).strip(b"\n"), (begin, end)


def test_requests_of_equal_time_keep_their_order(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("".join(f'{{"time": 1700000000.5, "ip": "c{n % 9}", "cost": {n + 1}}}\n' for n in range(99)))
    options = TraceOptions(cost="cost")
    files = read(tmp_path, [str(path)], options, 4, 700)
    assert np.array_equal(files.trace.traffic.costs, np.arange(1, 100))


def test_a_spread_request_goes_before_one_at_exactly_its_time(tmp_path: Path) -> None:
    path, policies = tmp_path / "log.jsonl", [parse_policy("token-bucket:3/day:3")]
    requests = [(".5", 1), ("", 1), ("", 2)]  # of the whole second, the latter is moved to its middle
    path.write_text("".join(f'{{"time": 1700000000{time}, "ip": "a", "cost": {cost}}}\n' for time, cost in requests))
    options = TraceOptions(cost="cost")
    wanted = comparison.compare(policies, read_traces([str(path)], options).traffic)
    _, found = results.compare(
        policies, DEFAULT_CLIENT_TIMEOUT, read(tmp_path, [str(path)], options, 1, piece=40), lambda _: None
    )
    assert found.results[0].fullest == wanted.results[0].fullest
    assert serialize_comparison(found, {}) == serialize_comparison(wanted, {})
