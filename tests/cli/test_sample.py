"""`ratelab sample`: a synthetic access log, the same for the same options."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from cli_runner import get_error, get_json, get_output


def test_a_sample_is_a_log_that_can_be_replayed(tmp_path: Path) -> None:
    path = tmp_path / "sample.log"
    assert get_output("sample", path, "--lines", "20000", "--clients", "50", "--rate", "1000/s") == ""
    replayed = get_json("replay", path, "--rate", "10/s", "--algo", "gcra")
    assert (replayed["format"], replayed["lines"], replayed["unparsed"], replayed["reordered"]) == (
        "combined",
        20_000,
        0,
        0,
    )
    assert 19 <= replayed["duration"] <= 22
    first, second, *_ = replayed["results"][0]["per_client"]
    assert (first["client"], second["client"]) == ("10.0.0.0", "10.0.0.1")
    assert first["offered"] / second["offered"] == pytest.approx(2**1.1, rel=0.1)


def test_the_same_options_write_the_same_lines(tmp_path: Path) -> None:
    def sample(*options: str) -> str:
        get_output("sample", tmp_path / "s", "--lines", "100", *options)
        return (tmp_path / "s").read_text()

    assert sample() == sample("--seed", "42")
    assert sample() != sample("--seed", "43")


def test_only_a_sample_or_an_empty_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "access.log").write_text('203.0.113.9 - - [10/Oct/2026:13:55:36 +0000] "GET / HTTP/1.1" 200 5\n')
    before = (tmp_path / "access.log").read_bytes()
    assert "exists and is not a sample: name a new file" in get_error("sample", tmp_path / "access.log", "--lines", "1")
    assert (tmp_path / "access.log").read_bytes() == before
    (tmp_path / "new.log").touch()
    for lines in (1, 2):
        get_output("sample", tmp_path / "new.log", "--lines", str(lines))
        assert len((tmp_path / "new.log").read_text().splitlines()) == lines


def test_invalid_arguments_are_one_line_errors(tmp_path: Path) -> None:
    assert "at most 16777216 clients, got 20000000" in get_error("sample", tmp_path / "s", "--clients", "20000000")
    missing = tmp_path / "no"
    assert get_error("sample", missing / "s") == f"cannot write {missing / 's'}: there is no directory {missing}\n"
    assert get_error("sample", tmp_path) == f"cannot write {tmp_path}: it is a directory; name a file in it\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_reader_that_closes_early_causes_no_error_message() -> None:
    command = [sys.executable, "-m", "ratelab", "sample", "/dev/stdout", "--lines", "20000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b"10.0.")
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141, "like other commands"
