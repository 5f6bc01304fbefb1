"""A tuning on an engine has the output of one process, for any number of pieces and partitions."""

from __future__ import annotations

import gzip
import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from cli_runner import get_output, invoke
from custom_algorithms import written
from inline_engine import InlineEngine, write_random_log
from killing_task import KillingEngine
from slow_parameters import mark_slow

from ratelab.algorithms import build_policy
from ratelab.algorithms.fixed_window import FixedWindow
from ratelab.errors import InputError
from ratelab.lab import spill
from ratelab.lab.cluster.pieces import Pieces, cut_pieces
from ratelab.lab.cluster.run import DistributedRun
from ratelab.lab.cluster.tuning import RemoteDemand
from ratelab.lab.engines import TaskEngine
from ratelab.lab.engines.processes import ProcessEngine
from ratelab.lab.traces import TraceOptions, inspection, read_traces
from ratelab.lab.tune import LocalDemand
from ratelab.lab.tune.outliers import FindOutliers
from ratelab.lab.tune.queries import CountAlignedNeeds, CountDenied, CountNeeds, Span
from ratelab.lab.tune.tuning import match_keys
from ratelab.quota import NS_PER_S, Quota

pytest.importorskip("pyarrow")

LINE = '{} - - [{:%d/%b/%Y:%H:%M:%S} +0000] "GET /{} HTTP/1.1" {} 12 "-" "{}"\n'
START = datetime(2026, 11, 2, tzinfo=UTC)


def write_days(folder: Path) -> None:
    """Write the log of nine days, out of order, with a script that sends many requests at once; compress its end."""
    draw = random.Random(7)
    rows = []
    for number in range(1200):
        time = START + timedelta(seconds=number * 9 * 72 - draw.randrange(90))
        is_script = draw.random() < 0.01
        client = "192.0.2.7" if is_script else f"10.0.{draw.randrange(9)}.{int(draw.paretovariate(0.8)) % 90}"
        status, agent = draw.choice((200, 200, 404, 429, 503)), draw.choice(("Mozilla", "curl", "-", "b"))
        row = LINE.format(client, time, draw.randrange(300), status, agent)
        rows += [row] * (draw.randrange(20, 50) if is_script else draw.choice((1, 1, 1, 3)))
    middle = len(rows) // 2
    (folder / "a.log").write_text("".join(rows[:middle]))
    (folder / "b.log.gz").write_bytes(gzip.compress("".join(rows[middle:]).encode()))


def write_units(*units: str) -> Callable[[Path], None]:
    """Return a function that writes a log for each resolution of the times."""

    def write(folder: Path) -> None:
        for seed, unit in enumerate(units):
            write_random_log(folder / f"{seed}.log", seed, 400, unit=unit, late=1 + 9 * seed, first=13 * seed)

    return write


def write_sample(folder: Path) -> None:
    get_output("sample", folder / "a.log", "--lines", "2000", "--clients", "300")


def write_bursts(folder: Path) -> None:
    """Write the log of a client with more requests than give its signals, among others with few."""
    rows = [LINE.format(f"10.0.0.{number % 150}", START, number, 200, "b") for number in range(300)]
    rows += [LINE.format("192.0.2.7", START, number % 7, 404, "curl") for number in range(11_000)]
    (folder / "a.log").write_text("".join(rows))


LOGS = {
    "days": write_days,
    "sample": write_sample,
    "seconds": write_units("s"),
    "minutes and seconds": write_units("min", "s"),
    "several units": write_units("s", "ms", "mixed"),
}

OPTIONS = {
    "usual": (),
    "start": ("--within-second", "start"),
    "lists": ("--ignore", "IGNORED", "--good", "GOOD"),
    "lists at the start": ("--ignore", "IGNORED", "--good", "GOOD", "--within-second", "start"),
    "windows": ("--algo", "sliding-log", "--algo", "fixed-window", "--algo", "gcra", "--rate", "1/min..2/s"),
    "no holdout": ("--holdout", "0", "--tolerate", "2%"),
    "check": ("--check", "sliding-counter:5/s:5", "--rate", "1/s"),
}

PARTITIONS = (1, 3, 16)
FAST = ("minutes and seconds", "start", 3)
CASES = [
    (log, options, partitions)
    for shift in (0, 2)
    for log, options, partitions in zip([*LOGS, *LOGS][shift:], OPTIONS, [*PARTITIONS * 3][shift:], strict=False)
]
"""All options with two logs each, and every number of partitions."""


@contextmanager
def run_inline(piece: int = 20_000) -> Iterator[InlineEngine]:
    """Execute the tasks of engines in this process, which read small pieces."""
    engine = InlineEngine()

    def cut(paths: list[str], options: TraceOptions, _: int) -> Pieces:
        return cut_pieces(paths, options, piece)

    with (
        patch("ratelab.cli.engines.open_engine", lambda _: engine),
        patch("ratelab.lab.cluster.run.cut_pieces", cut),
    ):
        yield engine


def prepare(folder: Path, write: Callable[[Path], None], options: tuple[str, ...] = ()) -> list[str | Path]:
    """Write logs and lists of clients; return the arguments of a tuning."""
    lists = {"IGNORED": "192.0.2.7\n10.0.1.*\nclient-3\nclient-1*\n", "GOOD": "10.0.0.1\nclient-7\nclient-8\n"}
    for name, text in lists.items():
        (folder / name).write_text(text)
    logs = folder / "logs"
    logs.mkdir()
    write(logs)
    return ["tune", *sorted(logs.iterdir()), *(folder / text if text in lists else text for text in options)]


def without_command(text: str) -> str:
    """Return a report or a page without the parts that name the options of the engine."""
    return re.sub(r"--engine processes:1 --partitions \d+ ?", "", text).replace(" </", "</").rstrip()


@pytest.mark.parametrize(
    ("log", "options", "partitions"),
    [FAST, *(pytest.param(*case, marks=pytest.mark.slow) for case in CASES)],
)
def test_every_figure_of_a_tuning_is_that_of_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: str, options: str, partitions: int
) -> None:
    monkeypatch.setattr(inspection, "MAX_INSPECTED_REQUESTS", 5)
    arguments = [*prepare(tmp_path, LOGS[log], OPTIONS[options]), "--json", "--csv", tmp_path / "needs.csv"]
    expected = invoke(*arguments)
    assert expected.exit_code in (0, 1)
    table = (tmp_path / "needs.csv").read_text()
    size = sum(path.stat().st_size for path in (tmp_path / "logs").iterdir())
    with run_inline(size // 9) as engine:
        found = invoke(*arguments, "--engine", "processes:1", "--partitions", str(partitions))
    assert (found.exit_code, found.stdout) == (expected.exit_code, expected.stdout)
    assert (tmp_path / "needs.csv").read_text() == table
    assert engine.executed.count("read") > 3
    assert {*engine.executed} >= {"read", "decide", "answer", "inspect"}


@pytest.mark.parametrize("log", mark_slow(LOGS, ["minutes and seconds"]))
def test_every_answer_about_partitions_is_that_about_all_requests(tmp_path: Path, log: str) -> None:
    paths = [str(path) for path in prepare(tmp_path, LOGS[log])[1:]]
    good, ignored = ("10.0.0.*", "10.0.0.1", "client-1*"), ("10.0.1.*", "client-7", "client-2*")
    options = TraceOptions(within_second="start")
    trace = read_traces(paths, options)
    traffic = trace.traffic
    local = LocalDemand(traffic, match_keys(traffic, good), match_keys(traffic, ignored))
    files = DistributedRun(InlineEngine(), str(tmp_path), 5, 9_000).read(paths, options, lambda _: None)
    remote = RemoteDemand(files, good, ignored, lambda _: None)
    frontiers = [demand.measure_frontier(lambda _: None) for demand in (local, remote)]
    assert local.ends == remote.ends
    assert len(local.traffic) == len(remote.traffic) < len(traffic)
    for name in ("begins", "spans", "amounts"):
        assert np.array_equal(*(getattr(frontier, name) for frontier in frontiers)), name
    early = Span(end=traffic.duration // 2)
    for rate in map(Quota.parse, ("1/min", "1/s", "7/s")):
        policy = build_policy(FixedWindow, Quota.of(rate, 2))
        for query in (CountNeeds(rate, early), CountAlignedNeeds(rate, NS_PER_S)):
            found, needs = (demand.ask([query])[0] for demand in (remote, local))
            assert found.serialize() == needs.serialize()
        (denied, outliers), wanted = (
            demand.ask([CountDenied(policy, early, (rate, 3)), FindOutliers(policy)]) for demand in (remote, local)
        )
        assert denied == wanted[0]
        assert outliers[0] == wanted[1][0]
        assert [row[:1] + row[2:] for row in outliers[1]] == [row[:1] + row[2:] for row in wanted[1][1]]
        for unit in (NS_PER_S, 60 * NS_PER_S) if trace.whole_seconds else ():
            found, needs = (demand.count_spread_needs(rate, unit, lambda _: None) for demand in (remote, local))
            assert found.serialize() == needs.serialize()


@pytest.mark.slow
def test_the_report_the_page_and_the_picture_are_those_of_one_process(tmp_path: Path) -> None:
    arguments = [*prepare(tmp_path, write_days, OPTIONS["lists"]), "--html", tmp_path / "page.html"]
    arguments += ["--plot", tmp_path / "chart.svg"]
    report = get_output(*arguments)
    page, picture = (tmp_path / "page.html").read_text(), (tmp_path / "chart.svg").read_text()
    with run_inline():
        found = invoke(*arguments, "--engine", "processes:1", "--partitions", "3")
    assert without_command(found.stdout) == report.rstrip()
    assert without_command((tmp_path / "page.html").read_text()) == without_command(page)
    assert (tmp_path / "chart.svg").read_text() == picture


def test_the_client_of_a_tuning_does_not_gather_requests(tmp_path: Path) -> None:
    arguments = prepare(tmp_path, LOGS["seconds"])
    with run_inline(), patch("ratelab.lab.cluster.run.gather_file", side_effect=AssertionError):
        assert invoke(*arguments, "--engine", "processes:1").exit_code == 0


@pytest.mark.slow
def test_partitions_larger_than_memory_are_kept_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = [*prepare(tmp_path, write_days, OPTIONS["lists"]), "--json"]
    expected = get_output(*arguments)
    monkeypatch.setattr(spill, "MAX_ROWS_IN_MEMORY", 100)
    with run_inline():
        assert invoke(*arguments, "--engine", "processes:1", "--partitions", "2").stdout == expected


@pytest.mark.slow
def test_requests_for_an_algorithm_of_a_file_are_gathered(tmp_path: Path) -> None:
    algorithm = written(tmp_path, "Not of much use.", "For tests.")
    arguments = [*prepare(tmp_path, LOGS["seconds"]), "--algo", "gcra", "--algo", algorithm, "--json"]
    with run_inline() as engine:
        found = invoke(*arguments, "--engine", "processes:1")
    assert found.stdout == get_output(*arguments)
    assert {*engine.executed} == {"read"}


@pytest.mark.slow
def test_a_tuning_resumes_in_every_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "MAX_INSPECTED_REQUESTS", 5)
    options = ("--engine", "processes:1", "--partitions", "2", "--exchange", tmp_path / "exchange", "--json")
    arguments = prepare(tmp_path, write_days, ("--within-second", "start"))
    expected = get_output(*arguments, "--json")
    with run_inline(60_000) as engine:
        complete = invoke(*arguments, *options)
    order = [*engine.executed]
    assert complete.stdout == expected
    assert [*dict.fromkeys(order)] == ["read", "decide", "answer", "count", "inspect"]
    for number in [order.index(stage) + 1 for stage in dict.fromkeys(order)]:
        with run_inline(60_000) as engine:
            engine.fail_after = number
            assert invoke(*arguments, *options).exit_code != 0
        with run_inline(60_000) as engine:
            assert invoke(*arguments, *options).stdout == expected
        assert engine.executed == order[number:]


@pytest.mark.slow
def test_a_killed_process_in_each_stage_does_not_change_a_tuning(tmp_path: Path) -> None:
    arguments = prepare(tmp_path, write_bursts, ("--rate", "1/h"))
    expected = get_output(*arguments, "--json")
    engine: TaskEngine = ProcessEngine(2)
    stages = ("decide", "answer", "count", "inspect")
    for stage in stages:
        engine = KillingEngine(engine, stage, tmp_path / stage)
    with run_inline(400_000), patch("ratelab.cli.engines.open_engine", lambda _: engine):
        assert invoke(*arguments, "--json", "--engine", "processes:2").stdout == expected
    assert all((tmp_path / stage).exists() for stage in stages)


@pytest.mark.slow
def test_an_unreadable_piece_of_the_second_look_leaves_out_its_file(tmp_path: Path) -> None:
    arguments = prepare(tmp_path, write_days)
    log = tmp_path / "logs" / "a.log"

    def inspect(path: str, *others: object, **options: object) -> object:
        if path == str(log):
            raise InputError("it is gone")
        return real(path, *others, **options)  # type: ignore[arg-type]

    real = inspection.inspect_file
    with patch("ratelab.lab.traces.inspection.inspect_file", inspect):
        expected = get_output(*arguments, "--json")
    with run_inline(), patch("ratelab.lab.cluster.inspection.inspect_file", inspect):
        assert invoke(*arguments, "--json", "--engine", "processes:1").stdout == expected
