"""Failures of distributed runs: invalid files, interrupts, full disks, and runs that resume after them."""

from __future__ import annotations

import errno
import gzip
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from multiprocessing import active_children
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from cli_runner import get_error
from custom_algorithms import TOLL
from inline_engine import InlineEngine, write_random_log
from invalid_traces import INVALID_TRACES, InvalidTrace
from killing_task import ExitingTask, InterruptingEngine, KillingEngine

from ratelab.algorithms import build_policy
from ratelab.algorithms.gcra import Gcra
from ratelab.errors import InputError
from ratelab.lab import comparison
from ratelab.lab.cluster import results
from ratelab.lab.cluster.run import DistributedRun, describe_stages
from ratelab.lab.engines import EngineError, TaskEngine
from ratelab.lab.engines.processes import ProcessEngine
from ratelab.lab.exchange import Exchange, ExchangeError
from ratelab.lab.metrics import DEFAULT_CLIENT_TIMEOUT
from ratelab.lab.traces import Trace, TraceOptions, read_traces
from ratelab.quota import Quota
from ratelab.report.serialize import serialize_comparison

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

POLICY = build_policy(Gcra, Quota.parse("1/s"))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.jsonl"
    write_random_log(path, 1, 60)
    return path


def create_run(tmp_path: Path, engine: Any, piece: int = 700) -> DistributedRun:
    return DistributedRun(engine, str(tmp_path / "exchange"), 2, piece)


def read(run: DistributedRun, *paths: Path, options: TraceOptions = TraceOptions()) -> Trace:  # noqa: B008  (immutable)
    return run.read([*map(str, paths)], options, lambda _: None).trace


def test_a_run_resumes_without_reading_the_finished_pieces_again(tmp_path: Path, log: Path) -> None:
    first, second = InlineEngine(fail_after=3), InlineEngine()
    with pytest.raises(KeyboardInterrupt):
        read(create_run(tmp_path, first), log)
    run = create_run(tmp_path, second)
    trace = read(run, log)
    assert (len(first.executed), run.stages[0].resumed) == (3, 3)
    assert len(second.executed) == run.stages[0].tasks - 3 > 0
    assert trace.traffic.times.tolist() == read_traces([str(log)]).traffic.times.tolist()
    assert "3 of them by an earlier run" in describe_stages(run.stages)[0]


def test_a_resumed_run_decides_only_the_remaining_partitions(tmp_path: Path, log: Path) -> None:
    run = create_run(tmp_path, InlineEngine())
    files = run.read([str(log)], TraceOptions(), lambda _: None)
    run.engine = InlineEngine(fail_after=1)
    with pytest.raises(KeyboardInterrupt):
        results.compare([POLICY], DEFAULT_CLIENT_TIMEOUT, files, lambda _: None)
    run.engine = second = InlineEngine()
    results.compare([POLICY], DEFAULT_CLIENT_TIMEOUT, files, lambda _: None)
    assert second.executed.count("decide") == 1


def test_a_changed_file_is_read_again(tmp_path: Path, log: Path) -> None:
    read(create_run(tmp_path, InlineEngine()), log)
    log.write_text(log.read_text() + '\n{"time": 1700000000, "ip": "new"}\n')
    run = create_run(tmp_path, InlineEngine())
    assert "new" in read(run, log).traffic.names
    assert run.stages[0].resumed == 0


def test_an_incomplete_file_of_the_exchange_is_written_again(tmp_path: Path, log: Path) -> None:
    run = create_run(tmp_path, InlineEngine())
    read(run, log)
    path = next(Path(str(run.exchange and run.exchange.folder)).glob("read-000001.arrow"))
    path.write_bytes(path.read_bytes()[:-20])
    run = create_run(tmp_path, engine := InlineEngine())
    assert len(read(run, log).traffic) > 0
    assert engine.executed == ["read"]


def test_nothing_is_left_of_a_run_that_is_removed(tmp_path: Path, log: Path) -> None:
    run = create_run(tmp_path, InlineEngine())
    read(run, log)
    run.remove()
    assert list((tmp_path / "exchange").iterdir()) == []


def find_error(read: Any) -> str:
    try:
        read()
    except InputError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("invalid", INVALID_TRACES.values(), ids=INVALID_TRACES.keys())
def test_an_invalid_file_has_the_error_of_one_process(tmp_path: Path, invalid: InvalidTrace) -> None:
    path = tmp_path / "trace"
    path.write_bytes(invalid.content)
    try:
        options = TraceOptions(**invalid.options)  # type: ignore[arg-type]
    except InputError:
        return
    expected = find_error(lambda: read_traces([str(path)], options))
    assert find_error(lambda: read(create_run(tmp_path, InlineEngine(), 2**20), path, options=options)) == expected


def compress_gzip(content: bytes) -> bytes:
    return gzip.compress(content)


def compress_zstd(content: bytes) -> bytes:
    data: bytes = pa.Codec("zstd").compress(content, asbytes=True)
    return data


def write_parquet(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    rows = [json.loads(line) for line in content.splitlines() if b'"cost"' in line]
    parquet.write_table(pa.Table.from_pylist(rows), sink)
    data: bytes = sink.getvalue().to_pybytes()
    return data


@pytest.mark.parametrize("store", [compress_gzip, compress_zstd, write_parquet])
def test_a_truncated_file_among_others_is_left_out_with_a_note(
    tmp_path: Path, log: Path, store: Callable[[bytes], bytes]
) -> None:
    paths = [tmp_path / name for name in ("whole", "truncated", "plain")]
    whole = store(log.read_bytes())
    for path, content in zip(paths, (whole, whole[:-50], log.read_bytes()), strict=True):
        path.write_bytes(content)
    expected = read_traces([*map(str, paths)])
    trace = read(create_run(tmp_path, InlineEngine()), *paths)
    assert trace.notes == expected.notes
    assert f"skipped {paths[1]}: " in " ".join(trace.notes)
    assert (trace.lines, trace.traffic.times.tolist()) == (expected.lines, expected.traffic.times.tolist())


def test_a_missing_file_is_an_error(tmp_path: Path, log: Path) -> None:
    missing = tmp_path / "missing.log"
    expected = find_error(lambda: read_traces([str(log), str(missing)]))
    assert find_error(lambda: read(create_run(tmp_path, InlineEngine()), log, missing)) == expected != ""


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.ENOSPC, "make room, or name"),
        (errno.EDQUOT, "make room,"),
        (errno.EACCES, "let all workers reach and write it,"),
    ],
)
def test_a_failed_write_is_a_one_line_error_and_leaves_no_partial_file(
    code: int, remedy: str, tmp_path: Path, log: Path
) -> None:
    def fail(self: Exchange, system: Any, path: str, *_: object) -> None:
        Path(path).write_bytes(b"partial")
        raise OSError(code, os.strerror(code))

    run = create_run(tmp_path, InlineEngine())
    with patch.object(Exchange, "_write_tables", fail), pytest.raises(ExchangeError, match=rf"\): {remedy}"):
        read(run, log)
    assert [*(tmp_path / "exchange").glob("*/*.arrow*")] == []
    assert len(read(create_run(tmp_path, InlineEngine()), log).traffic) > 0


WRONG_ENGINES = (
    *("", "processes", "processes:", "processes:1025", "processes:x", "spark://x", "dask", "dask:x:1", "dask://x"),
    *("dask://x:", "dask://x:y", "dask://x:0", "dask://x:65536", "dask://:8786", "dask://x y:1", "dask://x:1/y"),
    *("dask://::1:8786", "dask://x:\u0663"),
)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *((["--engine", engine], f"or dask://HOST:PORT, got {engine!r}: name one of them") for engine in WRONG_ENGINES),
        (["--engine", "processes:0"], "the engine must be processes:N with N from 1 to 1024, or dask://HOST:PORT, got"),
        (["--partitions", "2"], "add --engine"),
        (["--exchange", "x"], "add --engine"),
        (["--engine", "processes:1", "-"], "workers cannot read standard input"),
        (["--engine", "processes:1", "--exchange", "s3://"], "the exchange must be a folder or a bucket such as"),
        (["--engine", "processes:1", "--exchange", "file:///x"], "the exchange must be a folder or a bucket such as"),
        (["--engine", "processes:1", "--exchange", "http://x/y"], "the exchange must be a folder or a bucket such as"),
        (["--engine", "processes:1", "--exchange", "abfs://x"], "cannot write to the exchange abfs://x/ratelab-"),
        (["--engine", "processes:1", "--exchange", ""], "the exchange must be a folder or a bucket such as"),
        (["--engine", "dask://[::1]:1"], "no Dask scheduler answers at [::1]:1: start one"),
        (["--engine", "dask://127.0.0.1:1"], "no Dask scheduler answers at 127.0.0.1:1: start one"),
    ],
)
def test_an_engine_that_cannot_be_used_is_a_one_line_error(log: Path, arguments: list[str], message: str) -> None:
    with patch("ratelab.lab.engines.dask.CONNECT_TIMEOUT_S", 0.2):
        assert message in get_error("replay", log, "--rate", "1/s", *arguments)


COMMANDS = {
    "replay": ["--rate", "100/min"],
    "sweep": ["--rate", "100/min"],
    "tune": [],
    "diff": ["gcra:100/min", "gcra:50/min"],
}


WITHOUT_PYARROW = """
import json
import sys
sys.modules["pyarrow"] = None
from ratelab.cli import main
for arguments in json.loads(sys.argv[1]):
    sys.argv[1:] = arguments
    try:
        main()
    except SystemExit as status:
        print(status.code)
"""


def test_an_engine_without_pyarrow_is_a_one_line_error(log: Path) -> None:
    commands = [[name, *options, str(log), "--engine", "processes:1"] for name, options in COMMANDS.items()]
    arguments = [sys.executable, "-c", WITHOUT_PYARROW, json.dumps(commands)]
    found = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert found.stdout == "2\n" * len(commands)
    errors = found.stderr.splitlines()
    assert len(errors) == len(commands)
    assert all(error.startswith("Error: engines need pyarrow: run pip install ") for error in errors)


@pytest.mark.parametrize(
    "arguments",
    [
        ["replay", "--rate", "1/s", "--algo", "toll.py:Toll"],
        ["sweep", "--rate", "1/s", "--algo", "toll.py:Toll"],
        ["diff", "gcra:1/s", "toll.py:Toll:1/s"],
    ],
)
def test_a_custom_algorithm_is_an_error_before_any_file_is_read(
    log: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(log.parent)
    Path("toll.py").write_text(TOLL)
    with patch.object(DistributedRun, "read", side_effect=AssertionError("a file is read")):
        error = get_error(*arguments, log, "--engine", "processes:1")
    assert "toll is not built in, and workers may lack its code: leave out --engine" in error


# --- local processes


@pytest.mark.slow
def test_a_process_that_is_killed_in_each_stage_is_replaced(tmp_path: Path, log: Path) -> None:
    stages = ("read", "decide", "gaps")
    with closing(ProcessEngine(2)) as processes:
        engine: TaskEngine = processes
        for stage in stages:
            engine = KillingEngine(engine, stage, tmp_path / stage)
        files = create_run(tmp_path, engine).read([str(log)], TraceOptions(), lambda _: None)
        _, found = results.compare([POLICY], DEFAULT_CLIENT_TIMEOUT, files, lambda _: None)
    assert all((tmp_path / stage).exists() for stage in stages)
    expected = comparison.compare([POLICY], read_traces([str(log)]).traffic)
    assert serialize_comparison(found, {}) == serialize_comparison(expected, {})


@pytest.mark.slow
def test_processes_that_are_always_killed_are_an_error() -> None:
    with closing(ProcessEngine(1)) as engine, pytest.raises(EngineError, match=r"were killed 4 times, .*: raise"):
        next(engine.map(ExitingTask(), [1]))


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["read", "decide", "gaps"])
def test_ctrl_c_ends_the_processes(tmp_path: Path, log: Path, stage: str) -> None:
    with closing(ProcessEngine(2)) as processes:
        run = create_run(tmp_path, InterruptingEngine(processes, stage, tmp_path))
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012
            files = run.read([str(log)], TraceOptions(), lambda _: None)
            results.compare([POLICY], DEFAULT_CLIENT_TIMEOUT, files, lambda _: None)
    for child in active_children():
        child.join(60)
    assert active_children() == []


@pytest.mark.slow
def test_processes_end_with_a_client_that_is_killed() -> None:
    script = "from killing_task import run_waiting_tasks; run_waiting_tasks()"
    paths = os.pathsep.join(sys.path)
    client = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": paths}
    )
    with client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"running\n"
        client.kill()
        assert client.communicate(timeout=60)[0] == b""  # its processes, which can write there, have ended


@pytest.mark.slow
def test_a_closed_engine_leaves_no_thread() -> None:
    before = threading.active_count()
    engine = ProcessEngine(1)
    assert [*engine.map(abs, [-1])] == [(0, 1)]
    engine.close()
    assert threading.active_count() == before
