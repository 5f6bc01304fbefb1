"""Status line, access log and recording of a running `ratelab serve`, and readers that stall."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from serve_process import run_server, send_request, statuses_in, wait_until

from ratelab.cli.serve.messages import format_counters
from ratelab.http.counters import CounterValues, Counts
from ratelab.stores.key_table import Stats

pytestmark = pytest.mark.slow


def test_a_log_reader_that_stalls_does_not_block_the_service() -> None:
    request = b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * 79)
    with run_server("--access-log", "--rate", "1/day", "--burst", 1) as server:
        statuses = statuses_in(server.send(request * 999 + request.replace(b"Host", b"Connection: close\r\nHost")))
        assert statuses == [404] + [429] * 999
        assert server.get("/healthz").status == 200
        result = server.stop()
    assert (result.code, "Traceback" in result.stderr) == (0, False)


def test_a_recording_is_flushed_while_the_service_runs(tmp_path: Path) -> None:
    file = tmp_path / "live.jsonl"
    with run_server("--rate", "5/h", "--record", file) as server:
        assert server.get_statuses(6) == [200] * 5 + [429]
        wait_until(lambda: file.read_text().count("\n") == 7)
        server.stop(signal.SIGKILL)
    assert [json.loads(line)["allowed"] for line in file.read_text().splitlines()[1:]] == [True] * 5 + [False]


@pytest.mark.parametrize(
    ("columns", "shown"), [(100, "1 admitted, 2 denied, 1 client in memory"), (21, "1 admitted, 2 denied")]
)
def test_a_terminal_shows_a_status_line_cut_to_its_width(columns: int, shown: str) -> None:
    controller, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    command = [sys.executable, "-m", "ratelab", "serve", "--port", "0", "--rate", "1/day", "--burst", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=terminal, text=True) as process:
        os.close(terminal)
        assert process.stdout is not None
        address = next(line.split()[1] for line in process.stdout if line.startswith("serving"))
        host, port = address.removeprefix("http://").removesuffix("/ping").split(":")
        assert [send_request(host, int(port), "/ping").status for _ in range(3)] == [200, 429, 429]
        output = ""
        while f"\r\x1b[K{shown}" not in output:
            output += os.read(controller, 1000).decode()
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0
    assert f"\r\x1b[K{shown} " not in output
    os.close(controller)


def test_counters_survive_a_row_and_are_formatted() -> None:
    counts = Counts(admitted=12, delayed=11, denied=2, dropped=3, waiting=8)
    values = CounterValues.from_row(CounterValues(counts, Stats(1, 0, 0)).to_row())
    assert values.counts == counts
    assert format_counters(values) == "12 admitted (11 after a wait), 8 waiting, 2 denied, 3 dropped from the queue"


def test_standard_streams_may_be_missing() -> None:
    with run_server("--access-log", first="import sys; sys.stderr = None") as server:
        assert server.get().status == 200
        assert server.stop().code == 0
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.stdout = None; from ratelab.cli import main; main()", "algorithms"],
        stderr=subprocess.PIPE,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, b"")
