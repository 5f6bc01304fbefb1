"""Files that a reader has to open to follow a small input through ratelab: simulate, one request, replay."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import entered_files
import pytest
from cli_runner import BURST, get_output
from valkey_servers import free_port

pytestmark = pytest.mark.slow


def list_entered_files(*arguments: str | Path) -> list[str]:
    """Return the files of ratelab in which a command, run in another process, calls functions."""
    command = [sys.executable, entered_files.__file__, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    entered: list[str] = json.loads(done.stdout)
    return entered


def test_a_small_scenario_runs_through_at_most_22_files() -> None:
    entered = list_entered_files("simulate", BURST)
    assert "lab/metrics.py" in entered
    assert len(entered) <= 22, entered


def test_a_small_trace_runs_through_at_most_28_files(tmp_path: Path) -> None:
    get_output("sample", tmp_path / "access.log", "--lines", "2000")
    entered = list_entered_files("replay", tmp_path / "access.log", "--rate", "100/min")
    assert "lab/traces/merge.py" in entered
    assert len(entered) <= 28, entered


@pytest.mark.skipif(sys.platform == "win32", reason="a store does not run on Windows")
def test_a_request_to_a_store_runs_through_at_most_13_files() -> None:
    quota = ("--store", "embedded", "--rate", "100/s", "--burst", "100")
    entered = list_entered_files("--port", str(free_port()), "serve", *quota)
    assert {"http/middleware.py", "stores/valkey/session.py"} <= {*entered}
    assert len(entered) <= 13, entered
