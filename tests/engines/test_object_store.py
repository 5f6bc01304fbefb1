"""Logs and exchange in an object store and on a web server."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Generator, Iterator, Sequence
from datetime import timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from cli_runner import get_error, get_output, invoke
from failing_http import FailingServer, run_failing_server
from inline_engine import InlineEngine, write_random_log
from valkey_servers import free_port

from ratelab.lab import filesystems

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


def list_files(store: Any) -> list[str]:
    """Return the files of the bucket of the exchange."""
    found = store.get_file_info(fs.FileSelector("scratch", recursive=True))
    return [info.path for info in found if info.type == fs.FileType.File]


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
    assert list_files(store) == []


class FailingEngine(InlineEngine):
    """An engine during whose second task in a stage a store begins to fail."""

    def __init__(self, server: FailingServer, stage: str, fault: str) -> None:
        super().__init__()
        self._server, self._stage, self._fault = server, stage, fault

    def map(self, work: Any, items: Sequence[Any]) -> Generator[tuple[int, Any], None, None]:
        for pair in super().map(work, items):
            yield pair
            self._server.fault = self._fault if self._stage == work.label else ""


@pytest.mark.parametrize(("stage", "fault"), [("read", "error"), ("decide", "reset")])
def test_a_failing_store_is_a_one_line_error_and_the_run_resumes(
    port: int, store: Any, monkeypatch: pytest.MonkeyPatch, fault: str, stage: str
) -> None:
    command = ("replay", "s3://logs/*/*.jsonl", "--rate", "1/s", "--json")
    options = ("--engine", "processes:2", "--partitions", "3", "--exchange", "s3://scratch/run")
    expected = load_json(get_output(*command))
    without_wait = partial(fs.S3FileSystem, retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=1))
    monkeypatch.setattr(fs, "S3FileSystem", without_wait)
    with run_failing_server(port) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.port}")
        engines = [FailingEngine(server, stage, fault), InlineEngine()]
        monkeypatch.setattr("ratelab.cli.engines.open_engine", lambda _: engines[0])
        error = get_error(*command, *options)
        server.fault = ""
        monkeypatch.setattr("ratelab.cli.engines.open_engine", lambda _: engines[1])
        found = invoke(*command, *options)
    assert re.search(r"\(AWS Error \w+ .{5,90}\): check .* run the command again$", error)
    assert load_json(found.stdout) == expected
    assert [engine.executed.count(stage) for engine in engines] == [2, 2]
    assert engines[1].executed.count("read") == (2 if stage == "read" else 0)
    assert list_files(store) == []


def test_remote_files_that_do_not_exist_are_one_line_errors(store: Any) -> None:
    assert "no file matches s3://logs/none/*" in get_error("replay", "s3://logs/none/*", "--rate", "1/s")
    for engine in ((), ("--engine", "processes:1")):
        error = get_error("replay", "s3://logs/none.log", "--rate", "1/s", *engine)
        assert "s3://logs/none.log: it cannot be opened" in error


def test_an_emulator_of_google_cloud_storage_is_found_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9023")
    system, path = filesystems.locate("gs://bucket/folder/log")
    assert path == "bucket/folder/log"
    expected = fs.GcsFileSystem(
        anonymous=True, scheme="http", endpoint_override="127.0.0.1:9023", retry_time_limit=timedelta(seconds=30)
    )
    assert system == expected


@pytest.fixture
def web_server(tmp_path: Path) -> Iterator[str]:
    """Serve the files of `tmp_path`, but those named `failing` only in part."""
    pytest.importorskip("fsspec")
    pytest.importorskip("aiohttp")

    class Handler(SimpleHTTPRequestHandler):
        def copyfile(self, source: Any, target: Any) -> None:
            target.write(source.read()[: 100 if "failing" in self.path else None])
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_logs_on_a_web_server_are_read(tmp_path: Path, web_server: str) -> None:
    write_random_log(tmp_path / "log.jsonl", 1, 200)
    found = load_json(get_output("replay", f"{web_server}/log.jsonl", "--rate", "1/s", "--json"))
    assert found == load_json(get_output("replay", tmp_path / "log.jsonl", "--rate", "1/s", "--json"))


@pytest.mark.parametrize("engine", [(), ("--engine", "processes:1")])
def test_a_failing_web_server_leaves_out_no_log(tmp_path: Path, web_server: str, engine: tuple[str, ...]) -> None:
    for name in ("log.jsonl", "failing.jsonl"):
        write_random_log(tmp_path / name, 1, 20)
    error = get_error("replay", tmp_path / "log.jsonl", f"{web_server}/failing.jsonl", "--rate", "1/s", *engine)
    assert f"{web_server}/failing.jsonl cannot be read (" in error
    assert error.endswith("check address and credentials, then run the command again\n")
