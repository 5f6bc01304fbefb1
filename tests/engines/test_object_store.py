"""Logs and exchange in an object store and on a web server."""

from __future__ import annotations

import json
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
    with server:
        for line in server.stderr:
            if b"Running on" in line:
                break
        reader = Thread(target=server.stderr.read)
        reader.start()
        yield port
        server.terminate()
        reader.join()


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


def load_json(output: str) -> dict[str, Any]:
    """Return a JSON object without the names of the files."""
    document: dict[str, Any] = json.loads(output)
    del document["trace"]
    return document


def test_logs_and_exchange_in_a_bucket_have_the_results_of_local_files(store: Any, tmp_path: Path) -> None:
    arguments = ("--rate", "1/s", "--json")
    expected = load_json(get_output("replay", f"{tmp_path}/2026-11-*/*.jsonl", *arguments))
    assert load_json(get_output("replay", "s3://logs/2026-11-*/*.jsonl", *arguments)) == expected
    engine = ("--engine", "processes:2", "--exchange", "s3://scratch/run")
    found = invoke("replay", "s3://logs/2026-11-*/*.jsonl", *arguments, *engine)
    assert found.exit_code == 0, found.output
    assert load_json(found.stdout) == expected
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
        found = load_json(get_output("replay", url, "--rate", "1/s", "--json"))
        server.shutdown()
    assert found == load_json(get_output("replay", tmp_path / "log.jsonl", "--rate", "1/s", "--json"))
