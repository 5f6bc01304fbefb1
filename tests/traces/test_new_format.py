"""A new trace format: a pattern and one entry in `FORMATS` are all that the readers and the commands need."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from cli_runner import get_error, get_json, invoke
from trace_reading import Read

from ratelab.lab.traces import formats
from ratelab.lab.traces.patterns import Shape, TextFormat
from ratelab.quota import NS_PER_S

# --- the new format

PIPE = TextFormat(
    "pipe",
    "lines such as CLIENT | TIME",
    (Shape(r"(?P<ip>[^ |]+) \| (?P<time>[^ |]+)"),),
    "{ip} | {epoch}",
    expected="a line must look like CLIENT | TIME",
)

# --- its tests

LINES = b"ann | 3.5\nbob | 2.5\n\nnonsense\nann | noon\n"


@pytest.fixture(autouse=True)
def _register_format(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(formats.FORMATS, "pipe", PIPE)
    monkeypatch.setattr(formats, "TRACE_FORMATS", (*formats.TRACE_FORMATS, "pipe"))


@pytest.mark.parametrize("content", [LINES, gzip.compress(LINES)], ids=["plain", "gzip"])
@pytest.mark.parametrize("name", ["auto", "pipe"])
def test_a_new_format_is_detected_sorted_and_its_rejects_reported(read: Read, content: bytes, name: str) -> None:
    trace = read(content, format=name)
    assert (trace.format, trace.lines, trace.unparsed, trace.reordered) == ("pipe", 4, 2, 1)
    assert trace.traffic.names == ("ann", "bob")
    assert trace.traffic.times.tolist() == [0, NS_PER_S]
    assert [str(reject) for reject in trace.rejects] == [
        "4: a line must look like CLIENT | TIME: 'nonsense'",
        "5: time must be a number or look like 2015-05-17T10:05:03Z, got 'noon': check --time-format: 'ann | noon'",
    ]


def test_a_new_format_is_an_option_of_every_command_that_reads_traces(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_bytes(LINES)
    assert get_json("replay", path, "--rate", "1/s", "--format", "pipe")["offered"] == 2
    assert "did you mean pipe?" in get_error("sweep", path, "--rate", "1/s", "--format", "pip")
    assert "pipe lines such as CLIENT | TIME" in " ".join(invoke("formats").stdout.split())
