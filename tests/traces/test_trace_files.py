"""Files and pipes: gzip, encodings, line ends and lines of any length, in little memory."""

from __future__ import annotations

import gzip
import io
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from invalid_traces import GOOD
from trace_reading import Read

from ratelab import InputError
from ratelab.lab.traces import read_trace


class Pipe(io.RawIOBase):
    """Standard input that gives a byte at a time and cannot seek; at its end it breaks, if told to."""

    def __init__(self, content: bytes, breaks: bool = False) -> None:
        self.content = content
        self.breaks = breaks
        self.at = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self.breaks and self.at == len(self.content):
            raise OSError(5, "Input/output error")
        given = self.content[self.at : self.at + 1]
        buffer[: len(given)] = given
        self.at += len(given)
        return len(given)


def feed(monkeypatch: pytest.MonkeyPatch, pipe: Pipe) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(pipe)))


@pytest.mark.parametrize("content", [GOOD * 3, gzip.compress(GOOD * 3)], ids=["plain", "gzip"])
def test_a_dash_reads_standard_input_plain_or_gzip(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    feed(monkeypatch, Pipe(content))
    assert read_trace("-").lines == 3


@pytest.mark.parametrize(
    ("pipe", "says"),
    [(Pipe(b""), "it holds no lines"), (Pipe(GOOD, breaks=True), "it cannot be read (Input/output error)")],
)
def test_standard_input_has_a_name_in_errors(monkeypatch: pytest.MonkeyPatch, pipe: Pipe, says: str) -> None:
    feed(monkeypatch, pipe)
    with pytest.raises(InputError) as caught:
        read_trace("-")
    assert str(caught.value).startswith(f"standard input: {says}")


def test_closed_standard_input_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match="standard input: it is closed: pipe the trace in or give a file"):
        read_trace("-")


def test_gzip_may_have_members_and_padding(read: Read) -> None:
    content = gzip.compress(GOOD * 2 + GOOD[:30]) + gzip.compress(b"") + gzip.compress(GOOD[30:]) + bytes(700)
    assert (read(content).lines, read(content).unparsed) == (3, 0)


def test_gzip_that_unpacks_to_much_is_read_in_pieces(read: Read) -> None:
    lines = GOOD * 100_000
    assert len(read(gzip.compress(lines)).traffic) == 100_000


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_lines_end_as_they_like(read: Read, end: bytes) -> None:
    content = end.join([b"", b"time,ip", b"", b"1,a", b" ", b"2,a"])
    for text in (content, content + end, b"\xef\xbb\xbf" + content):
        assert (read(text).lines, read(text).unparsed, read(text).traffic.names) == (2, 0, ("a",))


def test_bytes_that_are_not_utf_8_are_replaced(read: Read) -> None:
    assert read("time,ip\n1,é\n2,".encode() + b"\xe9\n").traffic.names == ("é", "\N{REPLACEMENT CHARACTER}")


@pytest.mark.parametrize("opened", [Path.open, gzip.open], ids=["plain", "gzip"])
def test_a_line_of_50_megabytes_is_one_bad_line_and_takes_little_memory(
    tmp_path: Path, opened: Callable[[Path, str], BinaryIO]
) -> None:
    path = tmp_path / "trace"
    with opened(path, "wb") as file:
        file.write(GOOD)
        for _ in range(50):
            file.write(b"\xc3\xa9" * 500_000)
        file.write(b"\n" + GOOD)
    read_trace(str(path))  # once before, since what is imported when it is first needed is no part of it
    tracemalloc.start()
    trace = read_trace(str(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (trace.lines, trace.unparsed, trace.rejects[0].line) == (3, 1, 2)
    assert peak < 25_000_000  # half of the line


@pytest.mark.parametrize("character", ["a", "é", "\N{MUSICAL SYMBOL G CLEF}"])
def test_a_line_may_have_65536_characters(read: Read, character: str) -> None:
    long, longest = (f"1,{character * count}\n".encode() for count in (60_000, 65_534))
    trace = read(b"time,ip\n" + long * 20 + longest[:-1] + b"b\n" + longest)
    assert (trace.lines, trace.unparsed, trace.traffic.names) == (22, 1, (character * 60_000, character * 65_534))


def test_progress_is_told_in_bytes_as_stored(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_bytes(GOOD * 50_000)
    told: list[int] = []
    read_trace(str(path), progress=told.append)
    assert len(told) > 1
    assert sum(told) == len(GOOD) * 50_000


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("", "Is a directory"),
        ("missing", "No such file or directory"),
        ("a\0b", r"a\x00b: it cannot be opened (embedded null byte)"),
        ("two\nlines", r"two\nlines: it cannot be opened"),
        ("x" * 300, "File name too long"),
    ],
)
def test_a_path_that_is_no_file_is_refused(tmp_path: Path, path: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        read_trace(f"{tmp_path}/{path}")
    assert says in str(caught.value)
    assert str(caught.value).endswith(": give a log, JSON lines or CSV file")
    assert str(caught.value).isprintable()
