"""Mutated files of every format: both readers return the same, and only one-line errors are raised."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from real_log_lines import REAL_LINES, WRAPPED
from slow_parameters import COMMON_FORMATS, mark_slow
from test_columnar import assert_same_results

from ratelab.lab.traces import TraceOptions, parse_filters

PIECES = [
    *(b"", b"\n", b"\0", b"\xff", b'"', b"\\", b"[", b"]", b"{", b"}", b",", b" ", b"-", b"::", b"\r", b"\xc2\xa0"),
    *(b"9" * 30, b":", b"=", b"#", b"\t", b"'", b"127.0.0.1", b"unknown", b"null", b"1e999", b"\xe2\x80\xa8", b"\x1e"),
]
"""Bytes that mean something in some format."""


@st.composite
def mutated_lines(draw: st.DrawFn, name: str) -> bytes:
    """Draw lines of a format, some of them with a few bytes replaced, wrapped, or of another format."""
    lines = []
    for _ in range(draw(st.integers(1, 8))):
        other = draw(st.sampled_from([*REAL_LINES])) if draw(st.integers(0, 9)) == 0 else name
        line = REAL_LINES[other].line
        if draw(st.integers(0, 9)) == 0:
            line = draw(st.sampled_from([*WRAPPED.values()])).replace("{}", line)
        content = bytearray(line.encode())
        for _ in range(draw(st.integers(0, 3))):
            start = draw(st.integers(0, len(content)))
            content[start : start + draw(st.integers(0, 10))] = draw(st.sampled_from(PIECES))
        lines.append(bytes(content))
    return b"\n".join(lines) + draw(st.sampled_from([b"", b"\n"]))


@pytest.mark.parametrize("name", mark_slow(REAL_LINES, COMMON_FORMATS))
@settings(max_examples=6)
@given(data=st.data())
def test_both_readers_agree_on_mutated_files(name: str, data: st.DataObject) -> None:
    options = TraceOptions(
        data.draw(st.sampled_from(["auto", name])),
        data.draw(st.sampled_from([None, "ip", "forwarded", "user", "path"])),
        lenient=data.draw(st.booleans()),
        filters=data.draw(st.sampled_from([(), parse_filters(["status=2*"], ["path=/b"])])),
    )
    assert_same_results(data.draw(mutated_lines(name)), options, data.draw(st.sampled_from([100, 700, 2**21])))


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL_LINES)
@settings(max_examples=15)
@given(data=st.data())
def test_both_readers_agree_on_many_mutated_files(name: str, data: st.DataObject) -> None:
    options = TraceOptions(data.draw(st.sampled_from(["auto", name])), lenient=True)
    assert_same_results(data.draw(mutated_lines(name)), options, data.draw(st.sampled_from([100, 700, 2**21])))
