"""Logs and exchange in an object store and on a web server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from cli_runner import get_error, get_output, invoke
from inline_engine import write_random_log
from valkey_servers import free_port

fs = pytest.importorskip("pyarrow.fs")
pytest.importorskip("moto")
pytestmark = pytest.mark.slow

LOGS = ("2026-11-01/a.jsonl", "2026-11-02/b.jsonl", "2026-12-01/c.jsonl")


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert server.stderr is not None
    for line in server.stderr:
        if b"Running on" in line:
            break
    Thread(target=server.stderr.read, daemon=True).start()
    yield port
    server.terminate()
    server.wait(timeout=30)


@pytest.fixture
def store(port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Fill a bucket with the files of `tmp_path`; credentials and address are those of the environment."""
    variables = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_REGION": "us-east-1"}
    for name, value in {**variables, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}.items():
        monkeypatch.setenv(name, value)
    system = fs.S3FileSystem(
        endpoint_override=f"http://127.0.0.1:{port}", region="us-east-1", allow_bucket_creation=True
    )
    for bucket in ("logs", "scratch"):
        system.create_dir(bucket)
    for seed, name in enumerate(LOGS):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        write_random_log(path, seed, 200)
        with system.open_output_stream(f"logs/{name}") as file:
            file.write(path.read_bytes())
    return system


def test_logs_and_exchange_in_a_bucket_have_the_results_of_local_files(store: Any, tmp_path: Path) -> None:
    expected = get_output("replay", f"{tmp_path}/2026-11-*/*.jsonl", "--rate", "1/s", "--csv", tmp_path / "local.csv")
    engine = ("--engine", "processes:2", "--exchange", "s3://scratch/run")
    plain = get_output("replay", "s3://logs/2026-11-*/*.jsonl", "--rate", "1/s", "--csv", tmp_path / "plain.csv")
    found = invoke("replay", "s3://logs/2026-11-*/*.jsonl", "--rate", "1/s", *engine, "--csv", tmp_path / "remote.csv")
    assert found.exit_code == 0, found.output
    assert found.stdout == plain
    assert plain.split("\n")[1:] == expected.split("\n")[1:]  # the first line names the files
    tables = [(tmp_path / name).read_text().split(",", 1)[1] for name in ("plain.csv", "remote.csv")]
    assert tables[0] == tables[1]
    left = store.get_file_info(fs.FileSelector("scratch", recursive=True))
    assert [info.path for info in left if info.type == fs.FileType.File] == []


def test_remote_files_that_do_not_exist_are_one_line_errors(store: Any) -> None:
    assert "no file matches s3://logs/none/*" in get_error("replay", "s3://logs/none/*", "--rate", "1/s")
    for engine in ((), ("--engine", "processes:1")):
        error = get_error("replay", "s3://logs/none.log", "--rate", "1/s", *engine)
        assert "s3://logs/none.log: it cannot be opened" in error


def test_logs_on_a_web_server_are_read(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    pytest.importorskip("aiohttp")
    write_random_log(tmp_path / "log.jsonl", 1, 200)

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/log.jsonl"
        found = get_output("replay", url, "--rate", "1/s")
        server.shutdown()
    assert found.split("\n")[1:] == get_output("replay", tmp_path / "log.jsonl", "--rate", "1/s").split("\n")[1:]
