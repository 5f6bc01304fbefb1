"""Sources of traces: several files, path patterns, zstd, Parquet, and errors without Arrow."""

from __future__ import annotations

import gzip
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from access_log_lines import CROWD, START, format_line, write_log
from cli_runner import get_error, get_json, get_output, invoke
from invalid_traces import VALID_LINE
from trace_reading import Read, read_both_ways, to_comparable

from ratelab import InputError
from ratelab.lab.traces import TraceOptions, columnar, files, read_trace, read_traces
from ratelab.lab.traces.batches import Batch
from ratelab.lab.traces.choices import RequestRule
from ratelab.lab.traces.files import Block
from ratelab.quota import NS_PER_S

INSTALL = "run pip install '.[logs]' in a ratelab checkout"
NO_ARROW = "ratelab.lab.traces.files.find_spec"


def compress_zstd(content: bytes) -> bytes:
    compressed: bytes = pa.compress(content, codec="zstd", asbytes=True)
    return compressed


# --- zstd


def test_zstd_may_have_several_frames(read: Read) -> None:
    trace = read(compress_zstd(VALID_LINE * 2 + VALID_LINE[:30]) + compress_zstd(VALID_LINE[30:]))
    assert (trace.lines, trace.unparsed) == (3, 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            compress_zstd(VALID_LINE * 9)[:-5],
            "(Truncated compressed stream): copy or compress the file again",
        ),
        (
            compress_zstd(VALID_LINE) + b"rubbish",
            "(ZSTD decompress failed: Unknown frame descriptor)",
        ),
    ],
)
def test_invalid_zstd_is_an_error(read: Read, content: bytes, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read(content)
    assert f"invalid zstd data {message}" in str(caught.value)


# --- several files


def test_several_files_are_one_trace_sorted_by_time(tmp_path: Path) -> None:
    parts = [CROWD[30:40], CROWD[:30], CROWD[40:]]
    for number, part in enumerate(parts):
        (tmp_path / f"access.log.{number}.gz").write_bytes(gzip.compress("".join(part).encode()))
    merged = get_json("replay", tmp_path / "access.log.*.gz", tmp_path / "access.log.1.gz", "--rate", "10/min")
    single = get_json("replay", write_log(tmp_path, [*CROWD[30:40], *CROWD[:30], *CROWD[40:]]), "--rate", "10/min")
    names = ", ".join(str(tmp_path / f"access.log.{number}.gz") for number in range(3))
    assert merged.pop("results") == single.pop("results")
    assert merged == {**single, "trace": names, "reordered": 0}


def test_a_reject_names_its_file_if_there_are_several(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_bytes(VALID_LINE + name.encode() + b"\n")
    text = " ".join(get_output("replay", tmp_path / "a", tmp_path / "b", "--rate", "1/s").split())
    assert f"{tmp_path / 'a'} and 1 more, read as common" in text
    assert f"line {tmp_path / 'a'}:2: a log line" in text
    assert f"line {tmp_path / 'b'}:2: a log line" in text
    message = get_error("replay", tmp_path / "a", tmp_path / "b", "--rate", "1/s", "--strict")
    assert message.startswith(f"{tmp_path / 'a'}:2: a log line")


def test_files_may_have_different_formats(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("time,ip\n1431857103,192.0.2.8\n")
    (tmp_path / "a.log").write_bytes(VALID_LINE)
    trace = read_both_ways([tmp_path / "b.csv", tmp_path / "a.log"], TraceOptions())
    assert (trace.format, trace.traffic.names, trace.traffic.times.tolist()) == (
        "csv, common",
        ("192.0.2.8", "192.0.2.7"),
        [0, NS_PER_S // 2],
    )


def test_a_path_pattern_without_matches_is_an_error(tmp_path: Path) -> None:
    message = get_error("replay", f"{tmp_path}/*.log", "--rate", "1/s")
    assert message == f"no file matches {tmp_path}/*.log: check the pattern\n"
    (tmp_path / "a[1].log").write_bytes(VALID_LINE)
    assert get_json("replay", tmp_path / "a[1].log", "--rate", "1/s")["lines"] == 1


def test_an_error_of_several_files_names_them(tmp_path: Path) -> None:
    for name, time in (("a", "-4e9"), ("b", "4e9")):
        (tmp_path / name).write_text(f"time,ip\n{time},x\n")
    with pytest.raises(InputError, match="a and 1 more: its times must be within 146 years"):
        read_traces([str(tmp_path / "a"), str(tmp_path / "b")])


def test_only_one_recording_is_replayed_at_a_time(tmp_path: Path) -> None:
    message = get_error("replay", tmp_path / "a", tmp_path / "b", "--format", "recording")
    assert message == "only one recording can be replayed at a time, got 2: name one file\n"


# --- Parquet


def write_parquet(path: Path, **columns: Any) -> str:
    pq.write_table(pa.table(columns), path)
    return str(path)


@pytest.mark.parametrize(
    ("times", "unit"),
    [
        (pa.array([START // NS_PER_S, START // NS_PER_S + 1, None]), "s"),
        (pa.array([float(START // NS_PER_S), START / NS_PER_S + 1.0, None]), "s"),
        (pa.array([START // 10**6, START // 10**6 + 1000, None], pa.uint64()), "ms"),
        (pa.array([datetime(2015, 5, 17, 10, 5), datetime(2015, 5, 17, 10, 5, 1), None], pa.timestamp("us")), "s"),
        (pa.array([START, START + NS_PER_S, None], pa.timestamp("ns", "America/New_York")), "s"),
        (pa.array(["17/May/2015:10:05:00 +0000", "2015-05-17T12:05:01+02:00", None]), "s"),
    ],
    ids=["int", "double", "uint64", "naive", "zone", "text"],
)
def test_parquet_values_are_read_like_text(tmp_path: Path, times: pa.Array, unit: str) -> None:
    clients = pa.array(["b", "a", "a"]).dictionary_encode()
    path = write_parquet(tmp_path / "t", Time=times, ip=clients, size=pa.array([2, 3.0, 1]))
    trace = read_trace(path, TraceOptions(cost="size", unit=unit))
    assert (trace.format, trace.lines, trace.unparsed, trace.whole_seconds) == ("parquet", 3, 1, True)
    assert (trace.traffic.origin, trace.traffic.times.tolist()) == (START, [0, NS_PER_S])
    assert (trace.traffic.names, trace.traffic.costs.tolist()) == (("b", "a"), [2, 3])
    assert str(trace.rejects[0]).startswith("3: it has no field Time, only ip, size: name the right one with --time")


def test_uncommon_parquet_rows_are_read_like_json_lines(tmp_path: Path) -> None:
    rows = {"ts": ["1e9", " 2 ", "1.5", "noon", "3"], "user": ["é", " b ", "c", "d", ""]}
    trace = read_trace(write_parquet(tmp_path / "t", **rows), TraceOptions(key="user"))
    text = "".join(f'{{"user": "{user}", "ts": "{ts}"}}\n' for ts, user in zip(*rows.values(), strict=True))
    (tmp_path / "j").write_text(text)
    expected = read_trace(str(tmp_path / "j"), TraceOptions(key="user"))
    assert to_comparable(trace) == {**to_comparable(expected), "format": "parquet"}


def test_parquet_with_missing_or_invalid_columns_is_an_error(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "t", time=[1], user=["a"], tags=[["x"]])
    for options, message in (
        (TraceOptions(), "no field ip, client_ip, clientip or similar, only time, user, tags"),
        (TraceOptions(key="user", time="tags"), "time must be a number or look like"),
        (TraceOptions(format="csv", key="user"), "it is a Parquet file, not csv: leave out --format"),
    ):
        with pytest.raises(InputError) as caught:
            read_trace(path, options)
        assert str(caught.value).startswith(f"{path}: ")
        assert message in str(caught.value)
    stdin = (tmp_path / "t").read_bytes()
    assert "a Parquet file: pass its name as an argument, or convert it to CSV first" in get_error(
        "replay", "-", "--rate", "1/s", stdin=stdin
    )
    assert "it is not a Parquet file: leave out --format" in get_error(
        "replay", "-", "--rate", "1/s", "--format", "parquet", stdin=VALID_LINE
    )


# --- without Arrow


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PAR1", f"reading Parquet needs pyarrow: {INSTALL}, or convert the file to CSV"),
        (compress_zstd(VALID_LINE), f"reading zstd needs pyarrow: {INSTALL}, or decompress the file"),
    ],
)
def test_an_error_without_arrow_has_the_install_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, message: str
) -> None:
    monkeypatch.setattr(NO_ARROW, lambda name: None)
    (tmp_path / "trace").write_bytes(content)
    assert get_error("replay", tmp_path / "trace", "--rate", "1/s") == f"{tmp_path / 'trace'}: {message}\n"


@pytest.mark.parametrize("installed", [True, False])
def test_a_large_file_is_read_with_arrow_or_a_hint_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    monkeypatch.setattr(files, "BLOCK_BYTES", 200)
    monkeypatch.setattr("ratelab.cli.sources.LARGE_TRACE_BYTES", 500)
    if not installed:
        monkeypatch.setattr(NO_ARROW, lambda name: None)
    blocks: list[object] = []
    parse_block = columnar.parse_block

    def parse_and_count(block: Block, spec: columnar.ColumnSpec, rule: RequestRule) -> Batch:
        blocks.append(block)
        return parse_block(block, spec, rule)

    monkeypatch.setattr(columnar, "parse_block", parse_and_count)
    result = invoke("replay", write_log(tmp_path, [format_line("a", "05:00")] * 20), "--rate", "1/s")
    assert (result.exit_code, len(blocks) > 2) == (0, installed)
    hint = f"to read traces of this size faster, {INSTALL}\n"
    assert result.stderr == ("" if installed else hint)
