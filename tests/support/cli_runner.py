"""Runs of the `ratelab` command, in this process or in another, and their output."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from contextlib import AbstractContextManager
from math import inf
from pathlib import Path
from typing import Any
from unittest.mock import patch

from click.testing import CliRunner, Result

from ratelab.cli import ratelab_command

SCENARIOS = Path(__file__).parents[2] / "scenarios"
BURST = str(SCENARIOS / "burst.yaml")
POLICY_SCENARIOS = [path for path in sorted(SCENARIOS.glob("*.yaml")) if "policies:" in path.read_text()]
QUOTA_SCENARIOS = [path for path in sorted(SCENARIOS.glob("*.yaml")) if path not in POLICY_SCENARIOS]
"""The scenarios with one quota, of which algorithms are compared."""
PLAIN = {"COLUMNS": None, "FORCE_COLOR": None, "NO_COLOR": None, "TTY_COMPATIBLE": None, "TERM": "dumb"}
ANNOUNCEMENT = re.compile(r"^[a-z ]+: about .+ left\n", re.MULTILINE)
"""A line about the time left, which a busy machine may cause."""

REMEDY = re.compile(
    r"did you mean|choose one of|such as|takes? one of|expected (one of|a whole number|a name of|true or false)"
    r"|must be (above|at least|at most|a whole number|a number|of|\{name\})|must look like"
    r"|[:,;] (add|call|change|choose|compare|give|keep|lower|move|name|put)"
    r"|[:,;] (raise|remove|rename|save|see|shorten|use|write)"
)
"""The part of an error message that states the remedy, or a rule that is one."""


def without_announcements() -> AbstractContextManager[object]:
    """Prevent such lines during a block."""
    return patch("ratelab.cli.output.ANNOUNCED_WORK_S", inf)


def invoke(*arguments: str | Path, stdin: bytes = b"") -> Result:
    """Run a command in this process, without variables that change the look of its output."""
    with without_announcements():
        return CliRunner(env=PLAIN).invoke(ratelab_command, [*map(str, arguments)], input=stdin)


def get_output(*arguments: str | Path, stdin: bytes = b"") -> str:
    """Return the output of a command, which must succeed and print nothing on standard error."""
    result = invoke(*arguments, stdin=stdin)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return result.stdout


def get_json(*arguments: str | Path, stdin: bytes = b"") -> dict[str, Any]:
    """Return the JSON object that a command prints, which must succeed."""
    document: dict[str, Any] = json.loads(get_output(*arguments, "--json", stdin=stdin))
    return document


def get_error(*arguments: str | Path, stdin: bytes = b"") -> str:
    """Return the one line that a command prints when it rejects its input, without `Error: `."""
    result = invoke(*arguments, stdin=stdin)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1), result.exception or result.output
    assert result.stderr.startswith("Error: ")
    return result.stderr.removeprefix("Error: ")


def run_python(*arguments: str, **environment: str) -> str:
    """Run Python in another process and return its output; only announcements may be on standard error."""
    command = [sys.executable, *arguments]
    env = {name: value for name, value in os.environ.items() if name not in PLAIN} | environment
    completed = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert (completed.returncode, ANNOUNCEMENT.sub("", completed.stderr)) == (0, "")
    return completed.stdout
