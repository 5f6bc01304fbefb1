"""Second look at traces: signals of clients in every format, line by line and with Arrow."""

from __future__ import annotations

import re
from collections import Counter
from itertools import chain
from pathlib import Path

import pytest
from cli_runner import get_output
from slow_parameters import COMMON_FORMATS, mark_slow

from ratelab.lab.traces import TraceOptions, columnar, files, inspection, read_trace
from ratelab.lab.traces.batches import Batch
from ratelab.lab.traces.choices import RequestRule
from ratelab.lab.traces.files import Block
from ratelab.lab.traces.formats import FORMATS
from ratelab.lab.traces.inspection import inspect_traces

LINE = '{} - - [17/May/2015:10:05:{:02} +0000] "GET {} HTTP/1.1" {} 1 "-" "{}"\n'


@pytest.mark.parametrize("format_name", mark_slow(FORMATS, COMMON_FORMATS))
def test_every_format_counts_all_requests_of_a_client(tmp_path: Path, format_name: str) -> None:
    log = tmp_path / "a.log"
    get_output("sample", log, "--lines", "100", "--clients", "5", "--format", format_name)
    traffic = read_trace(str(log)).traffic
    counts = dict(zip(traffic.names, traffic.client_requests.tolist(), strict=True))
    names = traffic.names[:3]
    for by_column in (False, True):
        clients = inspect_traces([str(log)], TraceOptions(), names, columnar=by_column).clients
        assert {name: signals.requests for name, signals in clients.items()} == {name: counts[name] for name in names}
        for signals in clients.values():
            for values in (signals.statuses, signals.paths, signals.agents):
                assert not values or values.total() == signals.requests


@pytest.mark.parametrize("columnar", [False, True])
def test_signals_are_counted_for_each_client(tmp_path: Path, columnar: bool) -> None:
    log = tmp_path / "a.log"
    rows = [("2001:db8::1", 1, "/a?x=1", 404, "-"), ("2001:db8::2", 2, "/a", 429, "z"), ("192.0.2.9", 3, "/", 503, "z")]
    log.write_text("".join(LINE.format(*row) for row in rows), encoding="utf-8")
    found = inspect_traces([str(log)], TraceOptions(), ["2001:db8::/64"], columnar=columnar)
    signals = found.clients["2001:db8::/64"]
    assert found.denied == {"429": 1, "503": 1}
    assert (signals.requests, signals.statuses) == (2, Counter({"404": 1, "429": 1}))
    assert (signals.paths, signals.agents) == (Counter({"/a": 2}), Counter({"-": 1, "z": 1}))
    assert (signals.client_errors_ratio, signals.paths_ratio) == (1, 0.5)
    assert (signals.agent_count, signals.empty_agent_ratio) == (1, 0.5)


@pytest.mark.parametrize("columnar", [False, True])
def test_a_log_without_a_field_has_no_signal_of_it(tmp_path: Path, columnar: bool) -> None:
    log = tmp_path / "a.csv"
    log.write_text("ip,time,status\n192.0.2.1,2026-11-01T00:00:00Z,200\n", encoding="utf-8")
    signals = inspect_traces([str(log)], TraceOptions(), ["192.0.2.1"], columnar=columnar).clients["192.0.2.1"]
    assert (signals.client_errors_ratio, signals.paths_ratio, signals.agent_count) == (0, None, None)


IPV6_TEXTS = {
    "2001:db8:a:b::/64": ("2001:db8:a:b::1", "2001:0DB8:000A:000B:0:1::", "[2001:db8:a:b::ffff:1]:443"),
    "2001:db8:0:b::/64": ("2001:db8:0:b::1", "2001:DB8::B:0:0:0:1", "2001:db8:0000:b:1::", "2001:db8::00b:1:2:3:4"),
    "2001:0:0:b::/64": ("2001::b:0:0:0:1", "2001:0:0:b::", "2001:0::b:1:2:3:4"),
    "2001:db8::/64": ("2001:db8::1", "2001:db8:0::1", "2001:db8:0:0:0:0:0:2", "2001:0db8::%eth0"),
    "::/64": ("::1", "0:0:0:0:1::"),
}
"""Texts of addresses in some networks."""


@pytest.mark.parametrize("columnar", [False, True])
@pytest.mark.parametrize("client", IPV6_TEXTS)
def test_every_text_of_an_ipv6_address_counts(tmp_path: Path, client: str, columnar: bool) -> None:
    log, others = tmp_path / "a.log", ("192.0.2.9", "localhost")
    texts = [*chain(*IPV6_TEXTS.values()), *others]
    log.write_text("".join(LINE.format(text, 1, "/", 200, "-") for text in texts), encoding="utf-8")
    found = inspect_traces([str(log)], TraceOptions(), [client, *others], columnar=columnar).clients
    assert [found[name].requests for name in (client, *others)] == [len(IPV6_TEXTS[client]), 1, 1]


@pytest.mark.parametrize("client", ["192.0.2.7", "2001:db8:7::/64"])
def test_kept_lines_of_many_blocks_are_parsed_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: str
) -> None:
    log, text = tmp_path / "a.log", client.replace("/64", "1")
    addresses = [text if number % 10 == 0 else f"10.0.0.{number}" for number in range(100)]
    rows = [LINE.format(address, number % 60, f"/{number}", 200, "-") for number, address in enumerate(addresses)]
    log.write_text("".join(rows), encoding="utf-8")
    monkeypatch.setattr(files, "BLOCK_BYTES", 500)
    sizes: list[int] = []
    parse_block = columnar.parse_block

    def parse_and_count(block: Block, spec: columnar.ColumnSpec, rule: RequestRule) -> Batch:
        sizes.append(block.text.count(b"\n"))
        return parse_block(block, spec, rule)

    monkeypatch.setattr(columnar, "parse_block", parse_and_count)
    found = inspect_traces([str(log)], TraceOptions(), [client]).clients[client]
    assert (sizes, found.requests, len(found.paths)) == ([10], 10, 10)


@pytest.mark.parametrize("installed", [True, False])
def test_only_the_first_requests_of_a_client_give_signals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    log, block_lines = tmp_path / "a.log", 10
    row = LINE.format("192.0.2.7", 1, "/192.0.2.7", 200, "-")
    log.write_text(row * 100 + LINE.format("192.0.2.99", 2, "/", 200, "-"), encoding="utf-8")
    monkeypatch.setattr(files, "BLOCK_BYTES", block_lines * len(row))
    monkeypatch.setattr(inspection, "MAX_INSPECTED_REQUESTS", 12)
    if not installed:
        monkeypatch.setattr("ratelab.lab.traces.files.find_spec", lambda name: None)
    found = inspect_traces([str(log)], TraceOptions(), ["192.0.2.7", "192.0.2.99"]).clients
    assert [found[client].requests for client in ("192.0.2.7", "192.0.2.99")] == [12, 1]


def test_a_file_that_has_gone_is_left_out(tmp_path: Path) -> None:
    found = inspect_traces([str(tmp_path / "gone")], TraceOptions(), ["192.0.2.1"])
    assert found.clients["192.0.2.1"].requests == 0
    assert not re.search("[1-9]", str(found.denied.values()))
