"""Where traces come from: several files, patterns, zstd and Parquet; and what is said where Arrow is missing."""

from __future__ import annotations

import gzip
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from access_log_lines import CROWD, SECOND, START, line, log
from cli_runner import invoke, refused, shown, told
from invalid_traces import GOOD
from trace_reading import Read, both_ways, comparable

from ratelab import InputError
from ratelab.lab.traces import TraceOptions, columnar, files, read_trace, read_traces
from ratelab.lab.traces.batches import Part
from ratelab.lab.traces.files import Block
from ratelab.lab.traces.formats import Format

NO_ARROW = "ratelab.lab.traces.files.find_spec"


def zstd(content: bytes) -> bytes:
    packed: bytes = pa.compress(content, codec="zstd", asbytes=True)
    return packed


# --- packed


def test_zstd_may_have_frames(read: Read) -> None:
    trace = read(zstd(GOOD * 2 + GOOD[:30]) + zstd(GOOD[30:]))
    assert (trace.lines, trace.unparsed) == (3, 0)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (zstd(GOOD * 9)[:-5], "its zstd data are broken (Truncated compressed stream): copy or compress it anew"),
        (zstd(GOOD) + b"rubbish", "its zstd data are broken (ZSTD decompress failed: Unknown frame descriptor)"),
    ],
)
def test_broken_zstd_is_refused(read: Read, content: bytes, says: str) -> None:
    with pytest.raises(InputError) as caught:
        read(content)
    assert says in str(caught.value)


# --- several


def test_several_files_are_one_trace_in_the_order_of_time(tmp_path: Path) -> None:
    parts = [CROWD[30:40], CROWD[:30], CROWD[40:]]
    for number, part in enumerate(parts):
        (tmp_path / f"access.log.{number}.gz").write_bytes(gzip.compress("".join(part).encode()))
    found = told("replay", tmp_path / "access.log.*.gz", tmp_path / "access.log.1.gz", "--rate", "10/min")
    whole = told("replay", log(tmp_path, [*CROWD[30:40], *CROWD[:30], *CROWD[40:]]), "--rate", "10/min")
    names = ", ".join(str(tmp_path / f"access.log.{number}.gz") for number in range(3))
    assert found.pop("results") == whole.pop("results")
    assert found == {**whole, "trace": names, "reordered": 0}


def test_a_line_that_cannot_be_read_is_told_with_its_file(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_bytes(GOOD + name.encode() + b"\n")
    text = " ".join(shown("replay", tmp_path / "a", tmp_path / "b", "--rate", "1/s").split())
    assert f"{tmp_path / 'a'} and 1 more, read as log" in text
    assert f"line {tmp_path / 'a'}:2: a log line" in text
    assert f"line {tmp_path / 'b'}:2: a log line" in text
    message = refused("replay", tmp_path / "a", tmp_path / "b", "--rate", "1/s", "--strict")
    assert message.startswith(f"{tmp_path / 'a'}:2: a log line")


def test_formats_may_differ(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("time,ip\n1431857103,192.0.2.8\n")
    (tmp_path / "a.log").write_bytes(GOOD)
    trace = both_ways([tmp_path / "b.csv", tmp_path / "a.log"], TraceOptions())
    assert (trace.format, trace.traffic.names, trace.traffic.whole().times.tolist()) == (
        "csv, log",
        ("192.0.2.8", "192.0.2.7"),
        [0, SECOND // 2],
    )


def test_a_pattern_that_matches_nothing_is_refused(tmp_path: Path) -> None:
    assert refused("replay", f"{tmp_path}/*.log", "--rate", "1/s") == (
        f"{tmp_path}/*.log: no file matches it: check the pattern\n"
    )
    (tmp_path / "a[1].log").write_bytes(GOOD)
    assert told("replay", tmp_path / "a[1].log", "--rate", "1/s")["lines"] == 1


def test_times_too_far_apart_name_the_files(tmp_path: Path) -> None:
    for name, time in (("a", "-4e9"), ("b", "4e9")):
        (tmp_path / name).write_text(f"time,ip\n{time},x\n")
    with pytest.raises(InputError, match="a and 1 more: its times must lie within 146 years"):
        read_traces([str(tmp_path / "a"), str(tmp_path / "b")])


def test_a_recording_is_replayed_by_itself(tmp_path: Path) -> None:
    message = refused("replay", tmp_path / "a", tmp_path / "b", "--format", "recording")
    assert message == "a recording is replayed by itself, got 2 files: give one at a time\n"


# --- Parquet


def parquet(path: Path, **columns: Any) -> str:
    pq.write_table(pa.table(columns), path)
    return str(path)


@pytest.mark.parametrize(
    ("times", "unit"),
    [
        (pa.array([START // SECOND, START // SECOND + 1, None]), "s"),
        (pa.array([float(START // SECOND), START / SECOND + 1.0, None]), "s"),
        (pa.array([START // 10**6, START // 10**6 + 1000, None], pa.uint64()), "ms"),
        (pa.array([datetime(2015, 5, 17, 10, 5), datetime(2015, 5, 17, 10, 5, 1), None], pa.timestamp("us")), "s"),
        (pa.array([START, START + SECOND, None], pa.timestamp("ns", "America/New_York")), "s"),
        (pa.array(["17/May/2015:10:05:00 +0000", "2015-05-17T12:05:01+02:00", None]), "s"),
    ],
    ids=["int", "double", "uint64", "naive", "zone", "text"],
)
def test_parquet_is_read_as_the_text_it_stands_for(tmp_path: Path, times: pa.Array, unit: str) -> None:
    who = pa.array(["b", "a", "a"]).dictionary_encode()
    path = parquet(tmp_path / "t", Time=times, ip=who, size=pa.array([2, 3.0, 1]))
    trace = read_trace(path, TraceOptions(cost="size", unit=unit))
    assert (trace.format, trace.lines, trace.unparsed, trace.whole_seconds) == ("parquet", 3, 1, True)
    assert (trace.traffic.origin, trace.traffic.whole().times.tolist()) == (START, [0, SECOND])
    assert (trace.traffic.names, trace.traffic.whole().costs.tolist()) == (("b", "a"), [2, 3])
    assert str(trace.rejects[0]).startswith("3: it has no field Time but ip, size: name the right one with --time")


def test_parquet_rows_that_are_not_plain_are_read_as_json_lines_are(tmp_path: Path) -> None:
    rows = {"ts": ["1e9", " 2 ", "1.5", "noon", "3"], "user": ["é", " b ", "c", "d", ""]}
    trace = read_trace(parquet(tmp_path / "t", **rows), TraceOptions(key="user"))
    text = "".join(f'{{"user": "{user}", "ts": "{ts}"}}\n' for ts, user in zip(*rows.values(), strict=True))
    (tmp_path / "j").write_text(text)
    expected = read_trace(str(tmp_path / "j"), TraceOptions(key="user"))
    assert comparable(trace) == {**comparable(expected), "format": "parquet"}


def test_parquet_without_what_is_wanted_is_refused(tmp_path: Path) -> None:
    path = parquet(tmp_path / "t", time=[1], user=["a"], tags=[["x"]])
    for options, says in (
        (TraceOptions(), "no field ip or client_ip"),
        (TraceOptions(key="tags"), "must hold text, numbers or times, got list<element: string>"),
        (TraceOptions(format="csv", key="user"), "it is a Parquet file, not csv: leave out --format"),
    ):
        with pytest.raises(InputError) as caught:
            read_trace(path, options)
        assert str(caught.value).startswith(f"{path}: ")
        assert says in str(caught.value)
    stdin = (tmp_path / "t").read_bytes()
    assert "a Parquet file: give its name, or write it as CSV" in refused("replay", "-", "--rate", "1/s", stdin=stdin)
    assert "it is no Parquet file: leave out --format" in refused(
        "replay", "-", "--rate", "1/s", "--format", "parquet", stdin=GOOD
    )


# --- without Arrow


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            b"PAR1",
            "reading Parquet needs pyarrow: run pip install '.[logs]' in a ratelab checkout, or convert it to CSV",
        ),
        (zstd(GOOD), "reading zstd needs pyarrow: run pip install '.[logs]' in a ratelab checkout, or decompress it"),
    ],
)
def test_what_needs_arrow_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, says: str
) -> None:
    monkeypatch.setattr(NO_ARROW, lambda name: None)
    (tmp_path / "trace").write_bytes(content)
    assert refused("replay", tmp_path / "trace", "--rate", "1/s") == f"{tmp_path / 'trace'}: {says}\n"


@pytest.mark.parametrize("installed", [True, False])
def test_a_large_file_is_read_with_arrow_or_told_what_that_would_gain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    monkeypatch.setattr(files, "_BLOCK", 200)
    monkeypatch.setattr("ratelab.cli.progress._LARGE", 500)
    if not installed:
        monkeypatch.setattr(NO_ARROW, lambda name: None)
    blocks: list[object] = []
    read = columnar.part_of

    def part_of(block: Block, format_: Format) -> Part:
        blocks.append(block)
        return read(block, format_)

    monkeypatch.setattr(columnar, "part_of", part_of)
    result = invoke("replay", log(tmp_path, [line("a", "05:00")] * 20), "--rate", "1/s")
    assert (result.exit_code, len(blocks) > 2) == (0, installed)
    hint = "to read traces of this size faster, run pip install '.[logs]' in a ratelab checkout\n"
    assert result.stderr == ("" if installed else hint)
