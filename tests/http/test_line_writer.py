"""Line writers: a reader that stalls delays nothing, and each of its lines arrives or is counted as dropped."""

from __future__ import annotations

import os
import re
import select
from collections.abc import Iterator
from itertools import count
from threading import Event, Thread
from time import monotonic
from typing import Any

import pytest
from serve_process import wait_until

from ratelab.http import line_writer
from ratelab.http.line_writer import CLOSE_TIMEOUT_S, MAX_QUEUED_TEXTS, LineWriter


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Open a pipe; the test closes the end to write."""
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)


def read_all(descriptor: int) -> str:
    """Read until no process has the other end open."""
    pieces = [*iter(lambda: os.read(descriptor, 1 << 20), b"")]
    return b"".join(pieces).decode()


def test_lines_arrive_in_their_order(pipe: tuple[int, int]) -> None:
    lines = LineWriter(pipe[1])
    written = [f"line {number} ü\n" for number in range(100)]
    for line in written:
        lines.write(line)
    lines.finish()
    os.close(pipe[1])
    assert read_all(pipe[0]) == "".join(written)


def test_each_line_arrives_or_is_counted_once_the_reader_is_back(pipe: tuple[int, int]) -> None:
    lines, number_of_lines = LineWriter(pipe[1]), 3 * MAX_QUEUED_TEXTS
    for number in range(number_of_lines):
        lines.write(f"{number:0100}\n")
    assert lines.is_behind
    texts: list[str] = []
    reader = Thread(target=lambda: texts.append(read_all(pipe[0])))
    reader.start()
    wait_until(lambda: not lines.is_behind)
    lines.write("back\n")
    lines.finish()
    os.close(pipe[1])
    reader.join()
    arrived = texts[0].splitlines()
    reports = [line for line in arrived if "dropped" in line]
    assert len(reports) == 1
    (dropped,) = re.findall(r"^([0-9,]+) lines were dropped because the reader of this output stalled$", reports[0])
    assert len(arrived) - 2 + int(dropped.replace(",", "")) == number_of_lines
    assert arrived[-1] == "back"


@pytest.mark.slow
def test_a_reader_that_has_stalled_does_not_delay_the_end(pipe: tuple[int, int]) -> None:
    lines = LineWriter(pipe[1])
    lines.write("x" * 1_000_000)
    start = monotonic()
    lines.finish()
    assert monotonic() - start < CLOSE_TIMEOUT_S + 10
    assert lines.is_behind
    read_to_end = Thread(target=lambda: read_all(pipe[0]))
    read_to_end.start()
    wait_until(lambda: not lines.is_behind)
    os.close(pipe[1])
    read_to_end.join()


def test_a_process_that_was_stopped_at_its_end_loses_no_line(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    times, resumed = count(0, 2 * CLOSE_TIMEOUT_S), Event()
    os.set_blocking(pipe[0], False)

    def write(descriptor: int, data: bytes) -> int:
        resumed.wait()
        return os.writev(descriptor, [data])

    def is_writable(*arguments: Any) -> Any:
        resumed.set()
        return select.select(*arguments)

    monkeypatch.setattr(line_writer, "monotonic", lambda: next(times))
    monkeypatch.setattr(line_writer, "select", is_writable)
    monkeypatch.setattr(os, "write", write)
    lines = LineWriter(pipe[1])
    lines.write("the last line\n")
    lines.finish()
    assert os.read(pipe[0], 100) == b"the last line\n"
    os.close(pipe[1])


def test_a_reader_that_is_gone_costs_no_memory(pipe: tuple[int, int]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    os.close(pipe[1])
    lines = LineWriter(writer)
    for _ in range(3 * MAX_QUEUED_TEXTS):
        lines.write("x\n")
    lines.finish()
    os.close(writer)


def test_a_descriptor_stays_in_blocking_mode(pipe: tuple[int, int]) -> None:
    lines = LineWriter(pipe[1])
    lines.write("x\n")
    lines.finish()
    assert os.get_blocking(pipe[1])
    os.close(pipe[1])


def test_a_descriptor_in_non_blocking_mode_loses_no_text(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[1], False)
    lines = LineWriter(pipe[1])
    lines.write("x" * 1_000_000)
    wait_until(lambda: lines.is_behind)
    texts: list[str] = []
    reader = Thread(target=lambda: texts.append(read_all(pipe[0])))
    reader.start()
    lines.finish()
    os.close(pipe[1])
    reader.join()
    assert len(texts[0]) == 1_000_000


def test_a_stream_takes_text_alone(pipe: tuple[int, int]) -> None:
    lines = LineWriter(pipe[1])
    with pytest.raises(TypeError, match="a text stream takes text, got bytes"):
        lines.write(b"x")  # type: ignore[arg-type]
    assert not lines.isatty()
    lines.finish()
    os.close(pipe[1])
