"""Runs of the program, in this process and in one of its own, and a look at what they print."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from ratelab.cli import ratelab_command

SCENARIOS = Path(__file__).parents[2] / "scenarios"
BURST = str(SCENARIOS / "burst.yaml")
PLAIN = {"COLUMNS": None, "FORCE_COLOR": None, "NO_COLOR": None, "TTY_COMPATIBLE": None, "TERM": "dumb"}


def invoke(*arguments: str | Path, stdin: bytes = b"") -> Result:
    """Run a command here, with nothing set that changes how its output looks."""
    return CliRunner(env=PLAIN).invoke(ratelab_command, [*map(str, arguments)], input=stdin)


def shown(*arguments: str | Path, stdin: bytes = b"") -> str:
    """Return what a command that succeeds prints, and see that it says nothing else."""
    result = invoke(*arguments, stdin=stdin)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return result.stdout


def told(*arguments: str | Path, stdin: bytes = b"") -> dict[str, Any]:
    """Return the JSON that a command that succeeds prints."""
    found: dict[str, Any] = json.loads(shown(*arguments, "--json", stdin=stdin))
    return found


def refused(*arguments: str | Path, stdin: bytes = b"") -> str:
    """Return the one line that a refused command prints, without its `Error: `."""
    result = invoke(*arguments, stdin=stdin)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1), result.exception or result.output
    assert result.stderr.startswith("Error: ")
    return result.stderr.removeprefix("Error: ")


def python(*arguments: str, **environment: str) -> str:
    """Run Python itself, apart from this process, and return what it prints."""
    command = [sys.executable, *arguments]
    env = {name: value for name, value in os.environ.items() if name not in PLAIN} | environment
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout
