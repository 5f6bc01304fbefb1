"""Runs whose scheduler or workers are lost or do not fit, each on a cluster of its own."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from cli_runner import get_error
from dask_cluster import run_cluster
from inline_engine import InlineEngine, write_random_log
from killing_task import KillingEngine, NumberTask, WaitingTask, count_tasks

from ratelab.algorithms import parse_policy
from ratelab.lab.cluster import results
from ratelab.lab.cluster.run import DistributedRun
from ratelab.lab.engines import EngineError, TaskEngine, open_engine
from ratelab.lab.metrics import DEFAULT_CLIENT_TIMEOUT
from ratelab.lab.traces import TraceOptions, read_traces

pytest.importorskip("pyarrow")
Client = pytest.importorskip("distributed").Client
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Dask leaves sockets to the garbage collector


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.jsonl"
    write_random_log(path, 1, 300)
    return path


def test_remaining_tasks_are_canceled_with_the_run(tmp_path: Path) -> None:
    with run_cluster(tmp_path) as cluster, closing(open_engine(cluster.url)) as engine:
        tasks = engine.map(WaitingTask(), range(5))
        assert next(tasks)[0] == 0
        tasks.close()
        with Client(cluster.scheduler_url, set_as_default=False) as client:
            assert client.run_on_scheduler(count_tasks) == 0


def replay(engine: TaskEngine, log: Path, tmp_path: Path) -> DistributedRun:
    run = DistributedRun(engine, str(tmp_path / "exchange"), 3, 2000)
    files = run.read([str(log)], TraceOptions(), lambda _: None)
    trace, _ = results.compare([parse_policy("gcra:1/s:5")], DEFAULT_CLIENT_TIMEOUT, files, lambda _: None)
    assert len(trace.traffic) == len(read_traces([str(log)]).traffic)
    return run


@pytest.mark.parametrize("stage", ["read", "decide"])
def test_a_lost_scheduler_is_a_one_line_error_and_the_run_resumes(log: Path, tmp_path: Path, stage: str) -> None:
    with run_cluster(tmp_path, 1) as cluster, closing(open_engine(cluster.url)) as engine:
        killing = KillingEngine(engine, stage, tmp_path / "killed", cluster.scheduler)
        with pytest.raises(EngineError, match="start it again, then run the same command to resume"):
            replay(killing, log, tmp_path)
    assert not logging.getLogger("distributed.client").isEnabledFor(logging.CRITICAL)  # which reports it as well
    finished = len([*(tmp_path / "exchange").glob("*/read-??????.arrow")])
    run = replay(inline := InlineEngine(), log, tmp_path)
    assert run.stages[0].resumed == finished == run.stages[0].tasks - inline.executed.count("read")


@pytest.mark.parametrize("work", [WaitingTask(), NumberTask()], ids=["running", "finished"])
def test_the_loss_of_all_workers_is_a_one_line_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, work: Callable[[int], object]
) -> None:
    monkeypatch.setattr("ratelab.lab.engines.dask.NO_WORKERS_TIMEOUT_S", 0.1)
    monkeypatch.setattr("ratelab.lab.engines.dask._COUNT_S", 0.1)
    with run_cluster(tmp_path, 1) as cluster, closing(open_engine(cluster.url)) as engine:
        tasks = engine.map(work, range(5))
        next(tasks)
        with Client(cluster.scheduler_url, set_as_default=False) as client:
            (process,) = client.run(os.getpid).values()
        for each in (cluster.workers, process):
            os.kill(each, signal.SIGKILL)
        with pytest.raises(EngineError, match=r"has no workers: start one .* to resume"):
            list(tasks)


def test_workers_with_other_versions_are_rejected(log: Path, tmp_path: Path) -> None:
    metadata = tmp_path / "packages" / "pyarrow-1.2.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: pyarrow\nVersion: 1.2\n")
    with run_cluster(tmp_path, 1, tmp_path / "packages") as cluster:
        error = get_error("replay", log, "--rate", "1/s", "--engine", cluster.url, "--exchange", tmp_path / "exchange")
    assert "has pyarrow 1.2, but the client " in error
    assert error.endswith(": install the same version\n")
    assert [*(tmp_path / "exchange").iterdir()] == []
