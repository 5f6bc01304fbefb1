"""Runs on a real scheduler of Dask with two worker processes, some of which are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from unittest.mock import patch

import pytest
from cli_runner import get_error, get_output, invoke
from dask_cluster import DaskCluster, run_cluster
from inline_engine import write_random_log
from killing_task import InterruptingEngine, KillingEngine, StoppingEngine, count_tasks

from ratelab.algorithms import build_policy
from ratelab.algorithms.leaky_bucket import LeakyBucket
from ratelab.lab import comparison
from ratelab.lab.cluster import results
from ratelab.lab.cluster.run import DistributedRun
from ratelab.lab.engines import TaskEngine, open_engine
from ratelab.lab.metrics import DEFAULT_CLIENT_TIMEOUT
from ratelab.lab.traces import TraceOptions, read_traces
from ratelab.quota import Quota
from ratelab.report.serialize import serialize_comparison

pytest.importorskip("pyarrow")
resource = pytest.importorskip("resource")
Client = pytest.importorskip("distributed").Client
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Dask leaves sockets to the garbage collector

MAX_FILE_BYTES = 8_000
"""The size of the largest file that the workers of a test can write."""

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


@pytest.mark.parametrize(("command", "partitions"), [*zip(COMMANDS, ["1", "3", "16"], strict=True)])
def test_all_figures_are_those_of_one_process(
    cluster: DaskCluster, log: Path, tmp_path: Path, command: str, partitions: str
) -> None:
    arguments: tuple[str | Path, ...] = (command, log, *COMMANDS[command], "--json")
    engine: tuple[str | Path, ...] = (
        "--engine",
        cluster.url,
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
    found = invoke(*arguments, "--engine", cluster.url, "--exchange", tmp_path / "exchange")
    expected = invoke(*arguments)
    assert (found.exit_code, found.stdout) == (expected.exit_code, expected.stdout)


def replay(engine: TaskEngine, log: Path, tmp_path: Path) -> object:
    """Return the figures of a replay in several pieces and partitions."""
    run = DistributedRun(engine, str(tmp_path / "exchange"), 3, 2000)
    files = run.read([str(log)], TraceOptions(), lambda _: None)
    _, found = results.compare([POLICY], DEFAULT_CLIENT_TIMEOUT, files, lambda _: None)
    assert [*(tmp_path / "exchange").glob("*/*.arrow.*")] == []
    run.remove()
    assert [*(tmp_path / "exchange").iterdir()] == []
    return serialize_comparison(found, {})


def find_expected(log: Path) -> object:
    return serialize_comparison(comparison.compare([POLICY], read_traces([str(log)]).traffic), {})


@pytest.mark.parametrize("stage", ["read", "decide", "gaps"])
def test_a_killed_worker_is_replaced(cluster: DaskCluster, log: Path, tmp_path: Path, stage: str) -> None:
    with closing(open_engine(cluster.url)) as engine:
        found = replay(KillingEngine(engine, stage, tmp_path / "killed"), log, tmp_path)
    assert (tmp_path / "killed").exists()
    assert found == find_expected(log)


@pytest.mark.parametrize("stage", ["read", "decide"])
def test_a_slow_worker_delays_the_run_only(cluster: DaskCluster, log: Path, tmp_path: Path, stage: str) -> None:
    with closing(open_engine(cluster.url)) as engine:
        found = replay(StoppingEngine(engine, stage, tmp_path / "stopped"), log, tmp_path)
    assert (tmp_path / "stopped").exists()
    assert found == find_expected(log)


def test_requests_are_gathered_without_workers(cluster: DaskCluster, log: Path, tmp_path: Path) -> None:
    with closing(open_engine(cluster.url)) as engine:
        files = DistributedRun(engine, str(tmp_path / "exchange"), 3, 2000).read(
            [str(log)], TraceOptions(), lambda _: None
        )
        with Client(cluster.scheduler_url, set_as_default=False) as client:
            for process in client.run(os.getpid).values():
                os.kill(process, signal.SIGKILL)
            assert files.trace.traffic.times.tolist() == read_traces([str(log)]).traffic.times.tolist()
            client.wait_for_workers(2, timeout=120)


@pytest.mark.parametrize("stage", ["read", "decide", "gaps", "gather"])
def test_ctrl_c_cancels_the_tasks_and_leaves_what_it_names(
    cluster: DaskCluster, log: Path, tmp_path: Path, stage: str
) -> None:
    outputs = ("--events", tmp_path / "events.csv") if stage == "gather" else ()
    command = ("replay", log, log.with_name("other.jsonl"), "--rate", "1/s", *outputs)
    log.with_name("other.jsonl").write_bytes(log.read_bytes())
    options = ("--engine", cluster.url, "--partitions", "3", "--exchange", tmp_path / "exchange")

    def open_interrupted(url: str) -> TaskEngine:
        return InterruptingEngine(open_engine(url), stage, tmp_path)

    def interrupt(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    with patch("ratelab.cli.engines.open_engine", open_interrupted), ExitStack() as stack:
        if stage == "gather":
            stack.enter_context(patch("ratelab.lab.cluster.run.gather_file", interrupt))
        result = invoke(*command, *options)
    assert result.exit_code == 130
    (folder,) = (tmp_path / "exchange").iterdir()
    assert f"finished tasks stay in {folder}: the same command resumes" in result.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"exchange", "log.jsonl", "other.jsonl"}
    with Client(cluster.scheduler_url, set_as_default=False) as client:
        assert client.run_on_scheduler(count_tasks) == 0
    assert "of them by an earlier run" in invoke(*command, *options).stderr
    assert [*(tmp_path / "exchange").iterdir()] == []


def test_a_full_disk_of_workers_is_one_line_and_the_run_resumes(
    cluster: DaskCluster, log: Path, tmp_path: Path
) -> None:
    write_random_log(log, 1, 3000)
    short = [tmp_path / f"short-{number}.jsonl" for number in range(6)]
    for seed, path in enumerate(short):
        write_random_log(path, seed, 3)
    command: tuple[str | Path, ...] = ("replay", *short, log, "--rate", "1/s", "--json")
    options = ("--engine", cluster.url, "--partitions", "2", "--exchange", tmp_path / "exchange")
    with Client(cluster.scheduler_url, set_as_default=False) as client:
        processes = [*client.run(os.getpid).values()]
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    for process in processes:
        resource.prlimit(process, resource.RLIMIT_FSIZE, (MAX_FILE_BYTES, unlimited[1]))
    try:
        error = get_error(*command, *options)
    finally:
        for process in processes:
            resource.prlimit(process, resource.RLIMIT_FSIZE, unlimited)
    assert "(File too large): make room, or name another folder with --exchange, then run the command again" in error
    finished = len([*(tmp_path / "exchange").glob("*/read-??????.arrow")])
    assert 0 < finished < 7
    result = invoke(*command, *options)
    assert f"read: 7 tasks, {finished} of them by an earlier run" in result.stderr
    assert result.stdout == get_output(*command)
    assert [*(tmp_path / "exchange").iterdir()] == []


def test_two_runs_at_once_share_an_exchange(cluster: DaskCluster, log: Path, tmp_path: Path) -> None:
    commands = [("replay", str(log), "--rate", rate, "--json") for rate in ("1/s", "1/s", "2/s")]
    options = ("--engine", cluster.url, "--partitions", "3", "--exchange", str(tmp_path / "exchange"))
    program = [sys.executable, "-m", "ratelab"]
    runs = [
        subprocess.Popen([*program, *command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for command in commands
    ]
    for command, run in zip(commands, runs, strict=True):
        output, errors = run.communicate(timeout=240)
        assert run.returncode == 0, errors
        assert output.decode() == get_output(*command)
    assert [*(tmp_path / "exchange").iterdir()] == []


def test_the_workers_of_a_cluster_need_an_exchange(cluster: DaskCluster, log: Path) -> None:
    assert "add --exchange" in get_error("replay", log, "--rate", "1/s", "--engine", cluster.url)
