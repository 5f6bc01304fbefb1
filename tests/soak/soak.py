"""Soak of ratelab under faults: `python tests/soak/soak.py [--seconds N]`."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import click
from rich.console import Console
from rich.table import Table

sys.path.append(str(Path(__file__).parent.parent / "support"))  # as in the tests
from faults import MAX_SHUTDOWN_S, Faults, Service, Services
from loads import BURST, LOADS, RATE_PER_S, RESPONSE_TIMEOUT_S, Counts
from serve_process import has_exited
from store_setups import run_cluster
from valkey_servers import count_reserved_ports, run_valkey, send_command

from ratelab.stores.valkey.server import ValkeyServer

MAX_HIT_S = 5
"""Seconds in which a hit must end: its deadline, and ample time for a busy machine."""

WITH_LOSSES = ("store, threads", "store, tasks", "serve, workers")
"""The loads whose quotas are new after the store was killed or flushed."""


@dataclass
class Report:
    """Figures of a soak, by name, and the promises that were broken."""

    figures: dict[str, str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def add(self, figure: str, value: object, kept: bool = True) -> None:
        """Add a figure, and whether it keeps its promise."""
        self.figures[figure] = str(value)
        if not kept:
            self.broken.append(f"{figure}: {value}")


def run_soak(seconds: float = 120, seed: int = 0, max_frozen_s: float = 1.0) -> Report:
    """Run all loads and faults for a time, stop everything, and report the figures and the broken promises."""
    report = Report()
    with _temporary_files(report), ExitStack() as stack:
        store, cluster = stack.enter_context(run_valkey()), stack.enter_context(run_cluster(3))
        recording = Path(stack.enter_context(TemporaryDirectory()), "recording")
        options = ("--store", store.url, "--on-store-error", "closed", "--workers", "2", "--store-deadline", "1s")
        services = Services(
            Service(terminal=True),
            Service("--access-log", "--record", str(recording), terminal=False),
            Service("--access-log", *options, terminal=False),
        )
        names = dict(zip(services._fields, services, strict=True))
        targets = dict.fromkeys(LOADS, store.url) | {"cluster, tasks": cluster.url}
        targets |= {f"serve, {name}": str(service.port) for name, service in names.items()}
        loads = {name: _start_load(name, target, seconds) for name, target in targets.items()}
        faults = Faults(store, cluster, services, random.Random(seed))
        faults.inject(seconds - 2, lambda: all(load.poll() is not None for load in loads.values()))
        for name, load in loads.items():
            losses = faults.losses * (name in WITH_LOSSES) + faults.cluster_losses * (name == "cluster, tasks")
            _check_load(report, name, load, losses, seconds)
        for name, count in faults.counts.items():
            report.add(f"fault: {name}", count)
        services.terminal.type_key(b"\x13")
        services.logging.reader.reads.clear()
        for name, service in names.items():
            frozen, took = service.monitor.stop(), service.stop()
            report.add(f"serve, {name}: longest time without /healthz", f"{frozen:.2f} s", frozen <= max_frozen_s)
            report.add(f"serve, {name}: stopped by SIGTERM", f"after {took:.1f} s", took <= MAX_SHUTDOWN_S + 1)
        _check_recording(report, recording)
        _check_keys(report, store)
    return report


def _start_load(name: str, target: str, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, str(Path(__file__).with_name("loads.py")), name, target, str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _check_load(report: Report, name: str, load: subprocess.Popen[str], losses: int, seconds: float) -> None:
    """Check that every hit was answered in time, and that no key was admitted more often than its quota allows."""
    try:
        output, _ = load.communicate(timeout=seconds + 3 * RESPONSE_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        load.kill()
        output, _ = load.communicate()
    if load.returncode:
        report.add(f"{name}: exit status of the load", load.returncode, kept=False)
        return
    counts = Counts(**json.loads(output))
    most = max(counts.admitted.values(), default=0)
    allowed = BURST * (1 + losses) + int(RATE_PER_S * counts.seconds)
    lost = counts.started - counts.answered - len(counts.unexpected)
    errors = ", ".join(f"{kind} {count:,}" for kind, count in sorted(counts.errors.items())) or "none"
    report.add(f"{name}: started", f"{counts.started:,}", counts.started > 0)
    report.add(f"{name}: without an answer", lost, lost == 0)
    report.add(f"{name}: unexpected", "; ".join(counts.unexpected[:3]) or "none", not counts.unexpected)
    report.add(f"{name}: errors", errors)
    report.add(f"{name}: admitted for one key", f"{most:,} of at most {allowed:,}", 0 < most <= allowed)
    report.add(f"{name}: slowest", f"{counts.slowest_s:.2f} s", counts.slowest_s <= MAX_HIT_S)
    if counts.children:
        report.add(f"{name}: forks and interrupts", f"{counts.children} and {counts.interrupted}")
        report.add(f"{name}: swallowed interrupts", counts.swallowed, counts.swallowed == 0)
        report.add(f"{name}: hanging", "; ".join(counts.hanging) or "none", not counts.hanging)


def _check_recording(report: Report, recording: Path) -> None:
    command = [sys.executable, "-m", "ratelab", "replay", str(recording), "--format", "recording"]
    replay = subprocess.run(command, capture_output=True, text=True, check=False)
    problem = replay.stderr.strip() or "repeats every decision"
    report.add("recording: replay", problem, replay.returncode == 0)


def _check_keys(report: Report, store: ValkeyServer) -> None:
    """Check that the store is empty once all quotas are replenished."""
    _wait(lambda: send_command(store.url, "DBSIZE") == 0, 3 * BURST / RATE_PER_S)
    left = send_command(store.url, "DBSIZE")
    report.add("left: keys in the store", left, left == 0)


@contextmanager
def _temporary_files(report: Report) -> Iterator[None]:
    """Check that the block leaves no temporary files, processes, threads or open files."""
    before = _own_resources()
    with TemporaryDirectory(prefix="rl-") as directory, patch.dict(os.environ, TMPDIR=directory):
        with patch("tempfile.tempdir", directory):
            yield
        files = [path.name for path in Path(directory).rglob("*")]
    report.add("left: temporary files", ", ".join(files) or "none", not files)
    _wait(lambda: _own_resources() <= before, 5)
    left = {name: number - before[name] for name, number in _own_resources().items() if number > before[name]}
    report.add("left: processes, threads or open files", left or "none", not left)


def _own_resources() -> Counter[str]:
    """Count the child processes, threads and open files of this process."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return Counter(
        processes=sum(not has_exited(int(child)) for child in children),
        threads=threading.active_count(),
        files=len([*Path("/proc/self/fd").iterdir()]) - count_reserved_ports(),
    )


def _wait(condition: Callable[[], Any], seconds: float) -> None:
    """Wait until a condition is true, or the time has passed."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seconds", type=click.IntRange(min=10), default=120, show_default=True, help="Time under load.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the order of the faults.")
def soak(seconds: int, seed: int) -> None:
    """Load services and limiters while stores, workers and readers of output fail.

    Prints the figures, and exits with status 1 if a promise was broken.
    """
    report = run_soak(seconds, seed)
    table = Table("subject", "figure", "value", title=f"{seconds} s under load, seed {seed}")
    last = ""
    for name, value in report.figures.items():
        subject, _, figure = name.partition(": ")
        if subject != last:
            table.add_section()
        table.add_row(subject * (subject != last), figure, value)
        last = subject
    Console().print(table)
    for promise in report.broken:
        click.echo(f"broken: {promise}", err=True)
    sys.exit(bool(report.broken))


if __name__ == "__main__":
    soak()
