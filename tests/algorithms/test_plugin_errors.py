"""Errors of third-party algorithms: one line with the place and the rule."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from access_log_lines import CROWD, write_log
from cli_runner import BURST, get_error, get_output
from custom_algorithms import TOLL, written

from ratelab import InputError, Quota, create


def test_a_missing_file_is_reported() -> None:
    message = "no file 'no.py': give the name of an algorithm, or FILE.py:CLASS\n"
    assert get_error("simulate", BURST, "--algo", "no.py:X") == message
    assert "'no.py': name its class, too, as in no.py:CLASS" in get_error("simulate", BURST, "--algo", "no.py")
    assert "no file '.py'" in get_error("simulate", BURST, "--algo", ".py:X")


def test_a_name_used_twice_is_reported(toll: str, tmp_path: Path) -> None:
    (tmp_path / "clash.py").write_text(TOLL.replace('"toll"', '"gcra"'))
    error = get_error("simulate", BURST, "--algo", f"{tmp_path}/clash.py:Toll", "--algo", "gcra")
    assert error == "two algorithms are called 'gcra': give each a different name\n"
    (tmp_path / "again.py").write_text(TOLL)
    assert "two algorithms are called 'toll'" in get_error(
        "simulate", BURST, "--algo", toll, "--algo", f"{tmp_path}/again.py:Toll"
    )


FIVE = (
    "; Toll.start() must return a list of integers and Toll.step() allowed, remaining, retry_after_ns, reset_after_ns "
    "and delay_ns as integers >= 0\n"
)
STEP = "return allowed, 0, 0 if allowed else 1, 1, 0"

CANNOT_BE_LOADED = {
    "a syntax error": ("    burst: int\n", "    burst int\n", "line 18: SyntaxError: invalid syntax\n"),
    "a missing import": ("from typing import ClassVar", "import no_such_module", "line 4: ModuleNotFoundError: No mod"),
    "an error of its own": ("@dataclass(frozen=True, slots=True)", "1 / 0", "line 9: ZeroDivisionError: division by"),
    "an error further down": (
        "@dataclass(frozen=True, slots=True)", "__import__('json').loads('{')", "line 9: JSONDecodeError: Expecting"
    ),
    "an exit": ("@dataclass(frozen=True, slots=True)", "raise SystemExit", "line 9: SystemExit"),
    "no such class": ("class Toll", "class Tool", "has no class 'Toll'"),
    "no class": ("@dataclass(frozen=True, slots=True)\nclass Toll", "Toll = 5\nclass Tool", "Toll lacks name, from_"),
    "no step": ("def step", "def stop", "Toll lacks step: an algorithm is a class with name, from_quota, start, step"),
    "no start": ("def start", "def stare", "Toll lacks start: an algorithm is a class with name"),
    "no name": ('name: ClassVar[str] = "toll"', "", "Toll lacks name: an algorithm is a class with name"),
    "a name that is no text": ('= "toll"', "= 5", "name"),
    "traits that are none": ("= Traits(", "= dict(", "Toll: its traits must be a ratelab.Traits, got dict\n"),
    "a quota it fails on": ("return cls(quota.burst)", "raise OSError('odd')", "OSError: odd"),
}  # fmt: skip

CANNOT_BE_RUN = {
    "an error in start": ("return [0]", "return [1 // 0]", "toll failed: ZeroDivisionError"),
    "no state": ("return [0]", "return None", f"start() returned None{FIVE}"),
    "a state of floats": ("return [0]", "return [0.5]", f"start() returned [0.5]{FIVE}"),
    "a state that is text": ("return [0]", "return 'ab'", f"start() returned 'ab'{FIVE}"),
    "a state that grows": ("state[0] += cost", "state.append(1)", f"step() left [0, 1] of a state of 1 integers{FIVE}"),
    "an exit in start": ("return [0]", "raise SystemExit(0)", "toll failed: SystemExit: 0 ("),
    "an exit in step": (STEP, "raise SystemExit(0)", "toll failed: SystemExit: 0 ("),
    "an error in step": (STEP, "raise KeyError(now)", "mine.py:30)\n"),
    "four fields": (STEP, "return allowed, 0, 1, 1", FIVE),
    "six fields": (STEP, "return allowed, 0, 1, 1, 0, 0", FIVE),
    "no fields": (STEP, "return allowed", FIVE),
    "nothing": (STEP, "pass", FIVE),
    "words": (STEP, "return 'yes', 'none', 'never', 'soon', 'now'", FIVE),
    "floats": (STEP, "return allowed, 1.5, 0.5, 1.5, 0.25", FIVE),
    "whole floats": (STEP, "return allowed, 1.0, 0.0, 1.0, 0.0", FIVE),
    "infinity": (STEP, "return allowed, 0, float('inf'), 1, 0", FIVE),
    "numbers beyond a column": (STEP, "return allowed, 0, 2**63, 1, 0", FIVE),
}


TRAITS = 'Traits(state=("requests",), at_most=(7, 0))'

CANNOT_BE_USED = {
    "nothing from from_quota": ("return cls(quota.burst)", "cls(quota.burst)", "an instance of Toll, got None"),
    "a number from from_quota": ("return cls(quota.burst)", "return 5", "an instance of Toll, got 5"),
    "an exit": ("return cls(quota.burst)", "raise SystemExit(3)", "toll failed: SystemExit: 3 ("),
    "no row": (STEP, "pass", f"step() returned None{FIVE}"),
    "a name without text": ('= "toll"', '= " "', "Toll: its name must be printable text, got ' '"),
    "a name of two lines": ('= "toll"', '= "a\\nb"', "Toll: its name must be printable text, got 'a\\nb'"),
    "a step that is no method": ("    def step", "    step = 5\n\n    def other", "Toll: step must be a method, got 5"),
    "state names as one text": (TRAITS, "Traits(state='abc')", "traits.state must be a tuple of names, got 'abc'"),
    "state names as numbers": (TRAITS, "Traits(state=(1,))", "traits.state must be a tuple of names, got (1,)"),
    "a bound of text": (TRAITS, "Traits(at_most=('a', None))", "traits.at_most must be None or two whole numbers"),
    "a bound of one number": (TRAITS, "Traits(at_most=2)", "(factor >= 0, extra), got 2\n"),
    "a bound of three numbers": (TRAITS, "Traits(at_most=(1, 2, 3))", "(factor >= 0, extra), got (1, 2, 3)\n"),
    "a bound of floats": (TRAITS, "Traits(at_most=(1.5, 0))", "(factor >= 0, extra), got (1.5, 0)\n"),
    "a queue that is text": (TRAITS, "Traits(queues='yes')", "traits.queues must be True or False, got 'yes'"),
    "charges that are text": (TRAITS, "Traits(charges='yes')", "traits.charges must be True or False, got 'yes'"),
    "charges without a method": (TRAITS, "Traits(charges=True)", "traits.charges = True needs a method charge("),
    "a level that is text": (TRAITS, "Traits(level='x')", "traits.level must be None or a ratelab.limiter.Level"),
    "a level that is none": (TRAITS, "Traits(level=Level('x', lambda *_: None))", "level.read must return a number"),
    "a level that fails": (TRAITS, "Traits(level=Level('x', lambda *_: 1 // 0))", "toll failed: ZeroDivisionError"),
    "no largest number": (TRAITS, "Traits(bound=lambda *_: None)", "bound must return a whole number, got None"),
    "a bound that is no function": (TRAITS, "Traits(bound=5)", "traits.bound must be None or a function, got 5"),
    "a bound outside of its traits": (
        f"traits: ClassVar[Traits] = {TRAITS}", "at_most = ('a', None)", "('a', None) must be declared in traits"
    ),
}  # fmt: skip

COMMANDS = {
    "simulate": ("simulate", BURST, "--algo"),
    "replay": ("replay", BURST, "--format", "log", "--rate", "1/s", "--algo"),
    "sweep": ("sweep", BURST, "--rate", "1/s", "--algo"),
    "algorithms": ("algorithms", "--algo"),
    "explain": ("explain",),
    "comparison": ("explain", "--compare"),
    "watch": ("watch", BURST, "--algo"),
    "serve": ("serve", "--port", "0", "--algo"),
}


@pytest.mark.parametrize(("right", "wrong", "says"), CANNOT_BE_USED.values(), ids=CANNOT_BE_USED.keys())
def test_a_class_that_breaks_a_rule_is_one_line_in_every_command(
    tmp_path: Path, right: str, wrong: str, says: str
) -> None:
    algorithm = written(tmp_path, right, wrong)
    path = tmp_path / "mine.py"
    path.write_text(path.read_text().replace("import Traits", "import Traits\nfrom ratelab.limiter import Level"))
    log = write_log(tmp_path, CROWD)
    for command in COMMANDS.values():
        read: list[str | Path] = [
            log if argument == BURST and command[0] == "replay" else argument for argument in command
        ]
        assert says in get_error(*read, algorithm), command


@pytest.mark.parametrize("command", [("simulate", BURST), ("algorithms",)], ids=["simulate", "algorithms"])
@pytest.mark.parametrize(("right", "wrong", "says"), CANNOT_BE_LOADED.values(), ids=CANNOT_BE_LOADED.keys())
def test_a_load_error_is_one_line_with_its_place(
    tmp_path: Path, command: tuple[str, ...], right: str, wrong: str, says: str
) -> None:
    assert says in get_error(*command, "--algo", written(tmp_path, right, wrong))


def test_an_error_in_a_relative_path_names_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, "    burst: int\n", "    burst int\n")
    monkeypatch.chdir(tmp_path)
    assert "mine.py cannot be loaded: line 18: SyntaxError" in get_error("simulate", BURST, "--algo", "mine.py:Toll")


@pytest.mark.parametrize(("right", "wrong", "says"), CANNOT_BE_RUN.values(), ids=CANNOT_BE_RUN.keys())
def test_a_failure_during_a_replay_is_one_line_with_the_rule(tmp_path: Path, right: str, wrong: str, says: str) -> None:
    error = get_error("simulate", BURST, "--algo", written(tmp_path, right, wrong))
    assert "toll failed: " in error
    assert says in error


@pytest.mark.parametrize("wrong", ["return [1 // 0]", "return None"])
def test_listing_an_algorithm_that_cannot_start_is_one_line(tmp_path: Path, wrong: str) -> None:
    assert "toll" in get_error("algorithms", "--algo", written(tmp_path, "return [0]", wrong))


def test_an_input_error_of_the_algorithm_is_printed_unchanged(tmp_path: Path) -> None:
    refusal = "from ratelab import InputError; raise InputError('toll takes no burst above 3')"
    algorithm = written(tmp_path, "return cls(quota.burst)", refusal)
    assert get_error("simulate", BURST, "--algo", algorithm) == "toll takes no burst above 3\n"
    printed = json.loads(get_output("algorithms", "--json", "--algo", algorithm))
    assert printed["algorithms"][0]["state_bytes_per_key"] is None
    with pytest.raises(InputError, match="toll takes no burst above 3"):
        create(algorithm, Quota.parse("2/s"))
