"""Runs on a real scheduler of Dask with two worker processes, some of which are killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from cli_runner import get_error, get_output, invoke
from dask_cluster import DaskCluster, run_cluster
from inline_engine import InlineEngine, write_random_log
from killing_task import KillingEngine, WaitingTask, count_tasks

from ratelab.algorithms import build_policy
from ratelab.algorithms.leaky_bucket import LeakyBucket
from ratelab.lab import comparison
from ratelab.lab.cluster import results
from ratelab.lab.cluster.run import DistributedRun
from ratelab.lab.engines import EngineError, open_engine
from ratelab.lab.metrics import DEFAULT_CLIENT_TIMEOUT
from ratelab.lab.traces import TraceOptions, read_traces
from ratelab.quota import Quota
from ratelab.report.serialize import serialize_comparison

pytest.importorskip("pyarrow")
pytest.importorskip("distributed")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Dask leaves sockets to the garbage collector

POLICY = build_policy(LeakyBucket, Quota.parse("1/s", 5))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    with run_cluster(tmp_path_factory.mktemp("dask")) as running:
        yield running


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.jsonl"
    write_random_log(path, 1, 300)
    return path


COMMANDS: dict[str, tuple[str, ...]] = {
    "replay": ("--rate", "1/s", "--burst", "4"),
    "sweep": ("--rate", "10/min..2/s"),
    "tune": (),
}


@pytest.mark.parametrize("partitions", ["1", "3", "16"])
@pytest.mark.parametrize("command", COMMANDS)
def test_all_figures_are_those_of_one_process(
    cluster: DaskCluster, log: Path, tmp_path: Path, command: str, partitions: str
) -> None:
    arguments: tuple[str | Path, ...] = (command, log, *COMMANDS[command], "--json")
    engine: tuple[str | Path, ...] = (
        "--engine",
        f"dask://{cluster.address}",
        "--partitions",
        partitions,
        "--exchange",
        tmp_path / "exchange",
    )
    result = invoke(*arguments, *engine)
    assert result.exit_code == 0, result.output
    assert result.stdout == get_output(*arguments)
    assert "Dask workers, dashboard http://" in result.stderr
    assert [*(tmp_path / "exchange").iterdir()] == []


def test_diff_finds_the_clients_that_one_process_finds(cluster: DaskCluster, log: Path, tmp_path: Path) -> None:
    arguments = ("diff", "gcra:1/s:9", "token-bucket:1/s:5", log, "--json")
    found = invoke(*arguments, "--engine", f"dask://{cluster.address}", "--exchange", tmp_path / "exchange")
    expected = invoke(*arguments)
    assert (found.exit_code, found.stdout) == (expected.exit_code, expected.stdout)


@pytest.mark.parametrize("stage", ["read", "decide", "gaps"])
def test_a_killed_worker_is_replaced(cluster: DaskCluster, log: Path, tmp_path: Path, stage: str) -> None:
    real = open_engine(f"dask://{cluster.address}")
    engine = KillingEngine(real, stage, tmp_path / "killed")
    try:
        files = DistributedRun(engine, str(tmp_path / "exchange"), 3, 2000).read(
            [str(log)], TraceOptions(), lambda _: None
        )
        _, found = results.compare([POLICY], DEFAULT_CLIENT_TIMEOUT, files, lambda _: None)
    finally:
        real.close()
    assert (tmp_path / "killed").exists()
    expected = comparison.compare([POLICY], read_traces([str(log)]).traffic)
    assert serialize_comparison(found, {}) == serialize_comparison(expected, {})


def test_a_worker_with_other_versions_is_rejected(cluster: DaskCluster, log: Path, tmp_path: Path) -> None:
    versions = {"numpy": "0.1"}
    options = ("--engine", f"dask://{cluster.address}", "--exchange", tmp_path / "exchange")
    with patch("ratelab.lab.engines.dask.collect_versions", lambda: versions):
        error = get_error("replay", log, "--rate", "1/s", *options)
    assert "but the client 0.1: install the same version" in error


def test_the_workers_of_a_cluster_need_an_exchange(cluster: DaskCluster, log: Path) -> None:
    assert "add --exchange" in get_error("replay", log, "--rate", "1/s", "--engine", f"dask://{cluster.address}")


def test_remaining_tasks_are_canceled_with_the_run(tmp_path: Path) -> None:
    from distributed import Client

    with run_cluster(tmp_path) as cluster:
        engine = open_engine(f"dask://{cluster.address}")
        tasks = engine.map(WaitingTask(), range(5))
        assert next(tasks)[0] == 0
        tasks.close()
        with Client(f"tcp://{cluster.address}", set_as_default=False) as client:  # type: ignore[no-untyped-call]
            left = client.run_on_scheduler(count_tasks)
        engine.close()
    assert left == 0


def test_a_lost_scheduler_is_a_one_line_error_and_the_run_resumes(log: Path, tmp_path: Path) -> None:
    with run_cluster(tmp_path) as cluster:
        real = open_engine(f"dask://{cluster.address}")
        engine = KillingEngine(real, "decide", tmp_path / "killed", cluster.scheduler)
        files = DistributedRun(engine, str(tmp_path / "exchange"), 3, 2000).read(
            [str(log)], TraceOptions(), lambda _: None
        )
        with pytest.raises(EngineError, match="start it again, then run the same command to resume"):
            results.compare([POLICY], DEFAULT_CLIENT_TIMEOUT, files, lambda _: None)
        real.close()
    run = DistributedRun(InlineEngine(), str(tmp_path / "exchange"), 3, 2000)
    assert len(run.read([str(log)], TraceOptions(), lambda _: None).trace.traffic) > 0
    assert run.stages[0].resumed == run.stages[0].tasks > 1
