"""Files and standard input: gzip, encodings, line ends, and lines of any length in bounded memory."""

from __future__ import annotations

import gzip
import io
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from invalid_traces import VALID_LINE
from trace_reading import Read

from ratelab import InputError
from ratelab.lab.traces import files, read_trace


class Pipe(io.RawIOBase):
    """A pipe that yields one byte at a time, and may fail at its end."""

    def __init__(self, content: bytes, fails: bool = False) -> None:
        self.content = content
        self.fails = fails
        self.position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self.fails and self.position == len(self.content):
            raise OSError(5, "Input/output error")
        chunk = self.content[self.position : self.position + 1]
        buffer[: len(chunk)] = chunk
        self.position += len(chunk)
        return len(chunk)


def replace_stdin(monkeypatch: pytest.MonkeyPatch, pipe: Pipe) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(pipe)))


@pytest.mark.parametrize("content", [VALID_LINE * 3, gzip.compress(VALID_LINE * 3)], ids=["plain", "gzip"])
def test_a_dash_reads_standard_input_plain_or_gzip(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    replace_stdin(monkeypatch, Pipe(content))
    assert read_trace("-").lines == 3


@pytest.mark.parametrize(
    ("pipe", "message"),
    [(Pipe(b""), "it has no lines"), (Pipe(VALID_LINE, fails=True), "it cannot be read (Input/output error)")],
)
def test_errors_name_standard_input(monkeypatch: pytest.MonkeyPatch, pipe: Pipe, message: str) -> None:
    replace_stdin(monkeypatch, pipe)
    with pytest.raises(InputError) as caught:
        read_trace("-")
    assert str(caught.value).startswith(f"standard input: {message}")


def test_closed_standard_input_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match="standard input: it is closed: pipe a trace into it, or name a file"):
        read_trace("-")


def test_gzip_may_have_several_members_and_padding(read: Read) -> None:
    content = (
        gzip.compress(VALID_LINE * 2 + VALID_LINE[:30])
        + gzip.compress(b"")
        + gzip.compress(VALID_LINE[30:])
        + bytes(700)
    )
    assert (read(content).lines, read(content).unparsed) == (3, 0)


@pytest.mark.slow
def test_large_gzip_content_is_read_in_blocks(read: Read) -> None:
    lines = VALID_LINE * 100_000
    assert len(read(gzip.compress(lines)).traffic) == 100_000


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_lines_may_end_with_lf_or_crlf(read: Read, end: bytes) -> None:
    content = end.join([b"", b"time,ip", b"", b"1,a", b" ", b"2,a"])
    for text in (content, content + end, b"\xef\xbb\xbf" + content):
        assert (read(text).lines, read(text).unparsed, read(text).traffic.names) == (2, 0, ("a",))


@pytest.mark.parametrize(
    "text", [b"", b"\n", b"abc", b"abcd", b"abc\n", b"abcd\n", b"\n\n\n\n\n\n", b"a\nbcde\nfghi\nj"]
)
def test_newlines_are_found_wherever_parts_of_a_block_end(monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    monkeypatch.setattr(files, "CACHED_BYTES", 4)
    assert files.Block(1, text).newlines.tolist() == [place for place, byte in enumerate(text) if byte == ord("\n")]


def test_bytes_that_are_not_utf_8_are_read_as_latin_1(read: Read) -> None:
    assert read("time,ip\n1,é\n2,".encode() + b"\xe9\n3,\xe8\n").traffic.names == ("é", "è")


@pytest.mark.slow
@pytest.mark.parametrize("open_file", [Path.open, gzip.open], ids=["plain", "gzip"])
def test_a_line_of_50_megabytes_is_rejected_in_bounded_memory(
    tmp_path: Path, open_file: Callable[[Path, str], BinaryIO]
) -> None:
    path = tmp_path / "trace"
    with open_file(path, "wb") as file:
        file.write(VALID_LINE)
        for _ in range(50):
            file.write(b"\xc3\xa9" * 500_000)
        file.write(b"\n" + VALID_LINE)
    read_trace(str(path))  # a first read, so that late imports do not count
    tracemalloc.start()
    trace = read_trace(str(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (trace.lines, trace.unparsed, trace.rejects[0].line) == (3, 1, 2)
    assert peak < 25_000_000  # half of the line


def test_lines_that_are_too_long_do_not_decide_the_format(read: Read) -> None:
    too_long = b'{"time": 1, "ip": "' + b"a" * 70_000 + b'"}\n'
    trace = read(too_long * 3 + VALID_LINE * 2, lenient=True)
    assert (trace.format, trace.lines, trace.unparsed) == (read(VALID_LINE).format, 5, 3)


@pytest.mark.slow
@pytest.mark.parametrize("character", ["a", "é", "\N{MUSICAL SYMBOL G CLEF}"])
def test_a_line_may_have_65536_characters_in_any_alphabet(read: Read, character: str) -> None:
    long, longest = (f"1,{character * count}\n".encode() for count in (60_000, 65_534))
    trace = read(b"time,ip\n" + long * 20 + longest[:-1] + b"b\n" + longest)
    assert (trace.lines, trace.unparsed, trace.traffic.names) == (22, 1, (character * 60_000, character * 65_534))


def test_progress_counts_the_bytes_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_bytes(VALID_LINE * 50_000)
    progress: list[int] = []
    read_trace(str(path), progress=progress.append)
    assert len(progress) > 1
    assert sum(progress) == len(VALID_LINE) * 50_000


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "Is a directory"),
        ("missing", "No such file or directory"),
        ("a\0b", r"a\x00b: it cannot be opened (embedded null byte)"),
        ("two\nlines", r"two\nlines: it cannot be opened"),
        ("x" * 300, "File name too long"),
    ],
)
def test_a_path_that_is_not_a_file_is_an_error(tmp_path: Path, path: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_trace(f"{tmp_path}/{path}")
    assert message in str(caught.value)
    assert str(caught.value).endswith(": name a log, JSON lines or CSV file")
    assert str(caught.value).isprintable()
