"""A new trace format: two functions and one entry in `FORMATS` are all that the reader and the commands need."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from cli_runner import get_error, get_json, invoke
from trace_reading import Read

from ratelab.lab.traces import TraceOptions, formats
from ratelab.lab.traces.batches import LineError, LineParser, ParsedRequest
from ratelab.lab.traces.formats import TextFormat
from ratelab.lab.traces.timestamps import parse_time
from ratelab.quota import NS_PER_S

# --- the new file


def is_pipe_line(line: str, _options: TraceOptions) -> bool:
    """Return whether a line looks like `CLIENT | TIME`."""
    return line.count("|") == 1


def create_pipe_parser(_first_line: str, options: TraceOptions) -> LineParser:
    """Create the parser of lines that look like `CLIENT | TIME`."""
    unit = options.fields.unit

    def parse(line: str) -> ParsedRequest:
        client, separator, time = line.partition(" | ")
        if not separator:
            raise LineError("a line must look like CLIENT | TIME")
        return client, parse_time(time, unit), 1

    return parse


# --- its tests

LINES = b"ann | 3.5\nbob | 2.5\n\nnonsense\nann | noon\n"


@pytest.fixture(autouse=True)
def _register_format(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(formats.FORMATS, "pipe", TextFormat(is_pipe_line, create_pipe_parser))
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
        "5: time must be a number or look like 2015-05-17T10:05:03Z, got 'noon': 'ann | noon'",
    ]


def test_a_new_format_is_an_option_of_every_command_that_reads_traces(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_bytes(LINES)
    assert get_json("replay", path, "--rate", "1/s", "--format", "pipe")["offered"] == 2
    assert "pipe" in get_error("sweep", path, "--rate", "1/s", "--format", "pip")
    assert "|pipe" in invoke("replay", "--help").stdout
