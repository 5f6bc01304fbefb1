"""A scheduler of Dask with two workers, each a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from valkey_servers import free_port

ROOT = Path(__file__).parents[2]


class DaskCluster(NamedTuple):
    """A running cluster."""

    address: str
    scheduler: int
    """The process of the scheduler."""
    workers: int
    """The process that starts the workers again when they end."""

    @property
    def url(self) -> str:
        """The value of `--engine`."""
        return f"dask://{self.address}"

    @property
    def scheduler_url(self) -> str:
        """The address for other clients of Dask."""
        return f"tcp://{self.address}"


@contextmanager
def run_cluster(folder: Path, workers: int = 2, *packages: Path) -> Iterator[DaskCluster]:
    """Start a cluster, and stop it at the end of the block; workers first look for packages in these folders."""
    address = f"127.0.0.1:{free_port()}"
    paths = os.pathsep.join(
        [*map(str, packages), str(ROOT), str(ROOT / "tests" / "support"), os.environ.get("PYTHONPATH", "")]
    )
    environment = {**os.environ, "PYTHONPATH": paths, "DASK_DISTRIBUTED__WORKER__DAEMON": "False"}
    program = [sys.executable, "-m", "dask"]
    port = address.rpartition(":")[2]
    commands = [
        [*program, "scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard"],
        [*program, "worker", f"tcp://{address}", "--nthreads", "1", "--nworkers", str(workers), "--no-dashboard"],
    ]
    commands[1] += ["--local-directory", str(folder)]
    processes = []
    try:
        with (folder / "log").open("wb") as log:
            for command in commands:
                processes.append(
                    subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
                )
        _await_workers(address, workers)
        yield DaskCluster(address, *(process.pid for process in processes))
    finally:
        for process in reversed(processes):
            with suppress(ProcessLookupError):  # a test has killed all of them
                os.killpg(process.pid, signal.SIGKILL)  # workers take seconds to end by themselves
            process.wait(timeout=60)


def _await_workers(address: str, workers: int) -> None:
    from distributed import Client

    with Client(f"tcp://{address}", timeout=60, set_as_default=False) as client:  # type: ignore[no-untyped-call]
        client.wait_for_workers(workers, timeout=120)
