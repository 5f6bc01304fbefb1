"""What `ratelab replay` refuses: bad traces, bad options and files that are not there, each in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_runner import refused
from invalid_traces import BAD_TRACES, GOOD, BadTrace

from ratelab.lab.traces.formats import TIME_UNITS, TRACE_FORMATS, WITHIN_SECOND


def spoken_by_click(bad: BadTrace) -> bool:
    """Say whether the command line itself refuses the options, with its usage."""
    choices = {"format": TRACE_FORMATS, "unit": TIME_UNITS, "within_second": WITHIN_SECOND}
    return any(option in choices and value not in choices[option] for option, value in bad.options.items())


REFUSED = {name: bad for name, bad in BAD_TRACES.items() if not spoken_by_click(bad)}


def as_options(bad: BadTrace) -> list[str]:
    names = {"unit": "time-unit", "within_second": "within-second"}
    given = [(f"--{names.get(name, name)}", value) for name, value in bad.options.items()]
    return [word for name, value in given for word in ([name] if value is True else [name, str(value)])]


@pytest.mark.parametrize("bad", REFUSED.values(), ids=REFUSED.keys())
def test_a_bad_trace_is_one_line_and_leaves_nothing_behind(tmp_path: Path, bad: BadTrace) -> None:
    path = tmp_path / "trace"
    path.write_bytes(bad.content)
    files = ["--csv", f"{tmp_path}/table.csv", "--events", f"{tmp_path}/events.csv"]
    message = refused("replay", path, "--rate", "1/s", *files, *as_options(bad))
    assert message.startswith(f"{path}:")
    assert bad.says in message
    assert len(message) < 600
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    assert "No such file or directory" in refused("replay", tmp_path / "no.log", "--rate", "1/s")
    assert "it cannot be " in refused("replay", tmp_path, "--rate", "1/s")
    assert "File name too long" in refused("replay", "x" * 300, "--rate", "1/s")
    assert refused("replay", "-", "--rate", "1/s").startswith("standard input: it holds no lines")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--rate", "100"], "rate must look like 2/s, 100/min or 5/2.5s, got '100'"),
        (["--rate", ""], "rate must look like"),
        (["--rate", "1/s", "--algo", "leakybucket"], "did you mean leaky-bucket?"),
        (["--rate", "1/s", "--events", "x.txt"], "ends in .csv or .jsonl"),
        (["--rate", "1/s", "--burst", "2000000"], "sliding-log keeps the time of every admission"),
    ],
)
def test_a_bad_option_is_one_line(tmp_path: Path, options: list[str], says: str) -> None:
    (tmp_path / "a.log").write_bytes(GOOD)
    assert says in refused("replay", tmp_path / "a.log", *options)


@pytest.mark.parametrize(
    "options",
    [
        ["--rate", "1/s", "--format", "xml"],
        ["--rate", "1/s", "--top", "0"],
        ["--rate", "1/s", "--time-unit", "min"],
    ],
)
def test_an_option_of_the_wrong_kind_is_one_line(tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "a.log").write_bytes(GOOD)
    option, value = options[-2:]
    said = refused("replay", tmp_path / "a.log", *options)
    assert said.startswith(f"{option}: ")
    assert f"{value!r} is not one of" in said or f"{value} is not a whole number >= 1" in said
