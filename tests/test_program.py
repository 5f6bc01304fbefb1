"""The program: run by Python, quick to start, quiet where nobody looks, and helpful when asked."""

from __future__ import annotations

import re

import pytest
from click.testing import CliRunner
from running import BURST, PLAIN, python, shown

import ratelab
from ratelab.cli import COMMANDS, ratelab_command


def test_python_m_ratelab_is_the_program() -> None:
    assert python("-m", "ratelab", "--version") == f"ratelab, version {ratelab.__version__}\n"
    assert python("-m", "ratelab", "simulate", BURST, COLUMNS="80", TERM="dumb") == shown("simulate", BURST)


def test_no_progress_bar_is_drawn_where_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ratelab.cli.progress.PATIENCE", -1)
    assert shown("simulate", BURST).startswith("burst: ")


HEAVY = "numpy yaml pydantic rich matplotlib jinja2 ratelab.cli.simulate"


@pytest.mark.parametrize("run", ["import ratelab", "from ratelab.cli import main; main()"], ids=["import", "help"])
def test_what_a_command_does_not_need_is_not_imported(run: str) -> None:
    told = f"import atexit, sys; atexit.register(lambda: print('found', *{{*{HEAVY.split()!r}}} & {{*sys.modules}}))"
    *_, last = python("-c", f"{told}; sys.argv = ['ratelab', '--help']; {run}").splitlines()
    assert last == "found"


def test_help_names_every_command() -> None:
    text = CliRunner(env=PLAIN).invoke(ratelab_command, ["--help"]).stdout
    assert re.findall(r"^  ([a-z]+) ", text.partition("Commands:")[2], re.MULTILINE) == list(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_that_help_names_has_its_own(name: str) -> None:
    text = CliRunner(env=PLAIN).invoke(ratelab_command, [name, "--help"]).stdout
    assert text.startswith(f"Usage: ratelab {name} ")
