"""Exchange of a run: damaged files, files after the end of the run, and several runs in one folder."""

from __future__ import annotations

import json
import os
import platform
import random
from collections.abc import Callable
from contextlib import chdir
from itertools import product
from pathlib import Path

import pytest
from inline_engine import InlineEngine, write_random_log

from ratelab.algorithms import parse_policy
from ratelab.lab import comparison
from ratelab.lab.cluster import results
from ratelab.lab.cluster.run import DistributedRun
from ratelab.lab.exchange import Exchange, ExchangeError
from ratelab.lab.metrics import DEFAULT_CLIENT_TIMEOUT
from ratelab.lab.traces import TraceOptions, read_traces
from ratelab.report.serialize import serialize_comparison

pytest.importorskip("pyarrow")

POLICIES = [parse_policy("leaky-bucket:1/s:4")]


def replay(run: DistributedRun, *paths: Path) -> object:
    files = run.read([*map(str, paths)], TraceOptions(), lambda _: None)
    _, found = results.compare(POLICIES, DEFAULT_CLIENT_TIMEOUT, files, lambda _: None)
    return serialize_comparison(found, {})


def create_run(tmp_path: Path, engine: InlineEngine | None = None) -> DistributedRun:
    return DistributedRun(engine or InlineEngine(), str(tmp_path / "exchange"), 2, 2_000)


@pytest.fixture
def logs(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for seed, path in enumerate(paths):
        write_random_log(path, seed, 60)
    return paths


def find_expected(logs: list[Path]) -> object:
    return serialize_comparison(comparison.compare(POLICIES, read_traces([*map(str, logs)]).traffic), {})


# --- damaged files


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def flip_every_eighth_byte(path: Path) -> None:
    path.write_bytes(bytes(byte ^ 16 if place % 8 == 3 else byte for place, byte in enumerate(path.read_bytes())))


DAMAGES: list[Callable[[Path], None]] = [Path.unlink, truncate, flip_every_eighth_byte]


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [*product([""], DAMAGES), *zip([".names", ".seconds", ".order"], DAMAGES, strict=True)],
)
def test_a_damaged_file_of_a_piece_costs_one_further_reading(
    tmp_path: Path, logs: list[Path], damage: Callable[[Path], None], suffix: str
) -> None:
    run = create_run(tmp_path)
    run.read([*map(str, logs)], TraceOptions(), lambda _: None)
    damage(next((tmp_path / "exchange").glob(f"*/read-000001{suffix}.arrow")))
    if suffix:
        with pytest.raises(ExchangeError, match="run the command again"):
            replay(create_run(tmp_path), *logs)
    run = create_run(tmp_path, engine := InlineEngine())
    assert replay(run, *logs) == find_expected(logs)
    assert engine.executed.count("read") == 1


class DamagingEngine(InlineEngine):
    """Damages files of the exchange while tasks are executed."""

    def __init__(self, draw: random.Random, folder: Path) -> None:
        super().__init__()
        self._draw, self._folder = draw, folder

    def map(self, work, items):  # type: ignore[no-untyped-def]
        for pair in super().map(work, items):
            yield pair
            if self._draw.random() < 0.2:
                self._damage()

    def _damage(self) -> None:
        draw, path = self._draw, self._draw.choice(sorted(self._folder.glob("*/*")))
        data = bytearray(path.read_bytes())
        change = draw.choice(("delete", "truncate", "flip", "flip", "clear"))
        place = draw.randrange(len(data) or 1)
        if change == "delete":
            path.unlink()
            return
        if change == "truncate":
            del data[place:]
        elif change == "clear":
            data[place : place + 64] = bytes(len(data[place : place + 64]))
        elif data:
            data[place] ^= 1 << draw.randrange(8)
        path.write_bytes(data)


@pytest.mark.slow
def test_damage_at_any_time_is_an_error_or_changes_no_figure(tmp_path: Path, logs: list[Path]) -> None:
    expected, errors = find_expected(logs), 0
    for seed in range(25):
        folder = tmp_path / str(seed)
        engine = DamagingEngine(random.Random(seed), folder / "exchange")
        for _ in range(3):
            run = create_run(folder, engine)
            try:
                assert replay(run, *logs) == expected
                break
            except ExchangeError:
                errors += 1
        for _ in range(4):  # a run reports the first damaged file that it finds
            try:
                assert replay(create_run(folder), *logs) == expected
                break
            except ExchangeError:
                errors += 1
        else:
            raise AssertionError(f"seed {seed} never ends")
    assert errors > 10


# --- the end of a run


def test_a_task_that_ends_after_its_run_writes_nothing(tmp_path: Path) -> None:
    exchange = Exchange(str(tmp_path / "run"))
    exchange.create()
    exchange.write("a", [{"name": [b"x"]}])
    exchange.remove()
    with pytest.raises(ExchangeError, match="name a folder or bucket that all workers reach"):
        exchange.write("b", [{"name": [b"x"]}])
    assert [*tmp_path.iterdir()] == []


def test_the_last_of_the_active_runs_removes_the_files(tmp_path: Path) -> None:
    first, second = (Exchange(str(tmp_path / "run")) for _ in range(2))
    first.create()
    second.create()
    (tmp_path / "run" / f"run-{second.run}").write_text(json.dumps([platform.node(), os.getppid()]))
    first.write("a", [{"name": [b"x"]}])
    first.remove()
    assert next(second.read("a")) == {"name": [b"x"]}
    second.remove()
    assert [*tmp_path.iterdir()] == []


def test_a_run_removes_the_files_of_one_that_was_killed(tmp_path: Path) -> None:
    killed, resumed = (Exchange(str(tmp_path / "run")) for _ in range(2))
    killed.create()
    for content in ("", "[]", json.dumps([platform.node(), 2**22 + 1]), json.dumps(["another machine", 1])):
        (tmp_path / "run" / f"run-{killed.run}").write_text(content)
        resumed.create()
        resumed.remove()
        assert [*tmp_path.iterdir()] == []
        killed.create()


class MovedEngine(InlineEngine):
    """Executes tasks in another current folder than the client's."""

    def map(self, work, items):  # type: ignore[no-untyped-def]
        with chdir("/"):
            yield from [*super().map(work, items)]


def test_workers_in_other_folders_find_a_relative_exchange(
    tmp_path: Path, logs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = DistributedRun(MovedEngine(), "exchange", 2)
    assert replay(run, *logs) == find_expected(logs)
    run.remove()
    assert [*(tmp_path / "exchange").iterdir()] == []
