"""Ends of a command: SIGTERM and SIGHUP leave no temporary files, and a reader that has gone is no mistake."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cli_runner import BURST
from serve_process import wait_until

pytestmark = pytest.mark.slow

COMMAND = (sys.executable, "-m", "ratelab")
SPILL = "import ratelab.lab.spill as spill; spill.MAX_ROWS_IN_MEMORY = 1000; from ratelab.cli import main; main()"


def write_log(folder: Path, lines: int = 20_000) -> Path:
    path = folder / "access.log"
    subprocess.run([*COMMAND, "sample", path, "--lines", str(lines)], check=True, timeout=300)
    return path


# --- signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_removes_the_temporary_file_of_an_output(tmp_path: Path, number: signal.Signals) -> None:
    with subprocess.Popen([*COMMAND, "sample", str(tmp_path / "big.log"), "--lines", str(10**9)]) as process:
        wait_until(lambda: any(path.stat().st_size for path in tmp_path.glob(".ratelab-*")))
        process.send_signal(number)
        assert process.wait(60) == -number
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("command", "number"), [("replay", signal.SIGTERM), ("sweep", signal.SIGHUP)])
def test_a_signal_removes_the_temporary_files_of_large_traffic(
    tmp_path: Path, command: str, number: signal.Signals
) -> None:
    path, folder = write_log(tmp_path, 300_000), tmp_path / "temporary"
    folder.mkdir()
    arguments = [sys.executable, "-c", SPILL, command, str(path), "--rate", "1/s", "--algo", "sliding-log"]
    environment = {**os.environ, "TMPDIR": str(folder), "NUMBA_DISABLE_JIT": "1"}
    with subprocess.Popen(arguments, env=environment) as process:
        wait_until(lambda: any(str(folder) in link for link in read_mappings(process.pid)))
        process.send_signal(number)
        assert process.wait(60) == -number
    assert list(folder.iterdir()) == []


def read_mappings(pid: int) -> list[str]:
    """Return the lines of the process's memory map; empty once it has ended."""
    try:
        return Path(f"/proc/{pid}/maps").read_text().splitlines()
    except OSError:
        return []


DROPPED = """
import signal, threading, weakref
import ratelab.cli as cli

class Item:
    pass

def interrupted(_):
    signal.raise_signal(signal.{0})

class Finalized:
    def __del__(self):
        signal.raise_signal(signal.{0})

def work(**_):
    item = Item()
    reference = weakref.ref(item, interrupted)
    try:
        {1}
        threading.Event().wait(30)
    finally:
        print("cleaned up", flush=True)

cli.ratelab_command = work
cli.main()
"""


@pytest.mark.parametrize("drop", ["del item", "Finalized()"])
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_signal_within_a_finalizer_is_not_lost(name: str, drop: str) -> None:
    done = subprocess.run([sys.executable, "-c", DROPPED.format(name, drop)], capture_output=True, timeout=300)
    assert (done.returncode, done.stdout) == (-getattr(signal, name), b"cleaned up\n")
    assert b"ignored" not in done.stderr


STALLING = """
import signal, time

set_timer = signal.setitimer

def set_timer_and_stall(*arguments):
    signal.setitimer = set_timer
    set_timer(*arguments)
    time.sleep(0.1)

signal.setitimer = set_timer_and_stall
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_within_a_finalizer_is_not_lost_if_the_process_stalls_then(name: str) -> None:
    program = STALLING + DROPPED.format(name, "Finalized()")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=300)
    assert (done.returncode, done.stdout) == (-getattr(signal, name), b"cleaned up\n")
    assert b"ignored" not in done.stderr


def test_a_signal_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    command = f"trap '' HUP; exec {sys.executable} -m ratelab sample {tmp_path / 'a.log'} --lines 400000"
    with subprocess.Popen(["bash", "-c", command]) as process:  # noqa: S607
        wait_until(lambda: any(tmp_path.glob(".ratelab-*")) or (tmp_path / "a.log").exists())
        process.send_signal(signal.SIGHUP)
        assert process.wait(60) == 0
    assert (tmp_path / "a.log").exists()


# --- readers that have gone

PRINTING = {
    "the help": ["--help"],
    "the help of a command": ["simulate", "--help"],
    "the version": ["--version"],
    "simulate": ["simulate", BURST],
    "JSON": ["simulate", BURST, "--json"],
    "a device": ["simulate", BURST, "--csv", "/dev/stdout"],
    "sweep": ["sweep", BURST, "--rate", "1/s"],
    "sample": ["sample", "/dev/stdout", "--lines", "100000"],
    "watch": ["watch", BURST],
    "docs": ["docs", "serve"],
    "explain": ["explain", "gcra"],
    "algorithms": ["algorithms"],
    "drill": ["drill", "gcra"],
    "questions": ["drill", "--answers"],
}


@pytest.mark.parametrize("arguments", PRINTING.values(), ids=PRINTING.keys())
def test_a_command_whose_reader_has_gone_ends_as_by_sigpipe(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*COMMAND, *arguments], stdout=writer, stderr=subprocess.PIPE, timeout=300)
    os.close(writer)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


def test_a_replay_into_head_does_not_report_a_difference(tmp_path: Path) -> None:
    script = f"set -o pipefail; {' '.join(COMMAND)} replay {write_log(tmp_path)} --rate 1/s --json | head -c 1"
    done = subprocess.run(["bash", "-c", script], capture_output=True, timeout=300)  # noqa: S607
    assert (done.stdout, done.stderr) == (b"{", b"")
    assert done.returncode in (0, 128 + signal.SIGPIPE)  # 0 if all was written before the reader had gone


@pytest.mark.parametrize(("arguments", "status"), [(["simulate", BURST], 0), (["simulate", "missing.yaml"], 2)])
def test_a_reader_of_errors_that_has_gone_does_not_change_the_status(arguments: list[str], status: int) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*COMMAND, *arguments], stdout=subprocess.DEVNULL, stderr=writer, timeout=300)
    os.close(writer)
    assert done.returncode == status
