"""Errors of `ratelab replay`: invalid traces, invalid options and missing files, in one line each."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_runner import get_error
from invalid_traces import INVALID_TRACES, VALID_LINE, InvalidTrace

from ratelab.lab.traces.formats import TRACE_FORMATS, WITHIN_SECOND
from ratelab.lab.traces.timestamps import TIME_UNITS


def is_rejected_by_click(invalid: InvalidTrace) -> bool:
    """Return whether the command line rejects the options before the trace is read."""
    choices = {"format": TRACE_FORMATS, "unit": TIME_UNITS, "within_second": WITHIN_SECOND}
    return any(option in choices and value not in choices[option] for option, value in invalid.options.items())


ACCEPTED_OPTIONS = {name: invalid for name, invalid in INVALID_TRACES.items() if not is_rejected_by_click(invalid)}


def to_arguments(invalid: InvalidTrace) -> list[str]:
    names = {"unit": "time-unit", "within_second": "within-second", "time_format": "time-format"}
    options = [(f"--{names.get(name, name)}", value) for name, value in invalid.options.items()]
    return [word for name, value in options for word in ([name] if value is True else [name, str(value)])]


@pytest.mark.parametrize("invalid", ACCEPTED_OPTIONS.values(), ids=ACCEPTED_OPTIONS.keys())
def test_an_invalid_trace_is_a_one_line_error_and_leaves_no_file(tmp_path: Path, invalid: InvalidTrace) -> None:
    path = tmp_path / "trace"
    path.write_bytes(invalid.content)
    files = ["--csv", f"{tmp_path}/table.csv", "--events", f"{tmp_path}/events.csv"]
    message = get_error("replay", path, "--rate", "1/s", *files, *to_arguments(invalid))
    assert message.startswith(f"{path}:")
    assert invalid.message in message
    assert len(message) < 600
    assert list(tmp_path.iterdir()) == [path]


def test_a_path_that_cannot_be_opened_is_a_one_line_error(tmp_path: Path) -> None:
    assert "No such file or directory" in get_error("replay", tmp_path / "no.log", "--rate", "1/s")
    assert "it cannot be " in get_error("replay", tmp_path, "--rate", "1/s")
    assert "File name too long" in get_error("replay", "x" * 300, "--rate", "1/s")
    assert get_error("replay", "-", "--rate", "1/s").startswith("standard input: it has no lines")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rate", "100"], "rate must look like 2/s, 100/min or 5/2.5s, got '100'"),
        (["--rate", ""], "rate must look like"),
        (["--rate", "1/s", "--algo", "leakybucket"], "did you mean leaky-bucket?"),
        (["--rate", "1/s", "--events", "x.txt"], "must end in .csv or .jsonl"),
        (["--rate", "1/s", "--burst", "2000000"], "sliding-log keeps the time of every admission"),
    ],
)
def test_an_invalid_value_is_a_one_line_error(tmp_path: Path, options: list[str], message: str) -> None:
    (tmp_path / "a.log").write_bytes(VALID_LINE)
    assert message in get_error("replay", tmp_path / "a.log", *options)


@pytest.mark.parametrize(
    "options",
    [
        ["--rate", "1/s", "--format", "xml"],
        ["--rate", "1/s", "--top", "0"],
        ["--rate", "1/s", "--time-unit", "min"],
    ],
)
def test_a_value_of_the_wrong_type_is_a_one_line_error(tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "a.log").write_bytes(VALID_LINE)
    option, value = options[-2:]
    message = get_error("replay", tmp_path / "a.log", *options)
    assert message.startswith(f"{option}: ")
    assert f"{value!r} is not one of" in message or f"{value} is not a whole number >= 1" in message
