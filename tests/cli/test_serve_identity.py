"""Whom `ratelab serve` takes for one client, and that nobody reads from it who that is."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from serve_process import Served, serving, statuses_in

ONCE = ("--rate", "1/h", "--burst", 1)
CANARY = "canary-5f3759df"

BELIEVES = """
import uvicorn
class Believer(uvicorn.Config):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **{**options, "proxy_headers": True})
uvicorn.Config = Believer
"""
"""The mutant that lets uvicorn, as it does by default, take the word of X-Forwarded-For."""


def outcomes(server: Served, fields: Iterable[str]) -> Counter[int]:
    """Count the statuses of requests with one of the fields each, sent one after the other."""
    requests = [f"GET /ping HTTP/1.1\r\n{field}\r\n\r\n" for field in fields]
    answers = server.tell("".join([*requests, "GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n"]).encode())
    *statuses, health = statuses_in(answers)
    assert (len(statuses), health) == (len(requests), 200)
    return Counter(statuses)


def invented(name: str) -> list[str]:
    """Make 200 addresses up."""
    return [f"{name}192.0.2.{n}" for n in range(200)]


@pytest.mark.parametrize("name", ["X-Forwarded-For: ", "Forwarded: for=", "X-Real-IP: "])
def test_invented_addresses_are_one_client(name: str) -> None:
    with serving(*ONCE) as server:
        assert outcomes(server, invented(name)) == {200: 1, 429: 199}


def test_a_server_that_believes_them_is_noticed() -> None:
    with serving(*ONCE, first=BELIEVES) as server:
        assert outcomes(server, invented("X-Forwarded-For: "))[200] == 200


def test_a_trusted_proxys_clients_are_told_apart() -> None:
    with serving(*ONCE, "--trusted-proxy", "127.0.0.1") as server:
        assert outcomes(server, invented("X-Forwarded-For: ")) == {200: 200}
        assert outcomes(server, invented("X-Forwarded-For: 203.0.113.9, ")) == {429: 200}


def test_clients_behind_a_number_of_proxies_are_told_apart() -> None:
    with serving(*ONCE, "--trusted-hops", 1) as server:
        assert outcomes(server, invented("X-Forwarded-For: ")) == {200: 200}
        assert outcomes(server, invented("X-Forwarded-For: 203.0.113.9, ")) == {429: 200}


def test_a_header_tells_clients_apart_and_without_it_they_are_their_address() -> None:
    with serving(*ONCE, "--key", "header:X-API-Key") as server:
        assert outcomes(server, [f"X-API-Key: {n}" for n in range(200)]) == {200: 200}
        assert outcomes(server, ["x-api-key:7", "X-API-KEY: \t 8 \t", "X-API-Key: 9"]) == {429: 3}
        nameless = ["A: b", "X-API-Key:", "X-API-Key:   ", f"X-API-Key: {'x' * 257}", f"X-API-Key: {'y' * 257}"]
        assert outcomes(server, nameless) == {200: 1, 429: 4}


def test_an_api_key_is_told_to_nobody(tmp_path: Path) -> None:
    recording = tmp_path / "recording"
    options = ("--key", "header:X-API-Key", "--metrics-port", 0, "--access-log", "--record", recording)
    with serving(*ONCE, *options) as server:
        answers = [server.get(f"/ping?key={CANARY}", X_API_Key=CANARY) for _ in range(2)]
        head = f"GET /ping HTTP/1.0\r\nX-API-Key: {CANARY}\r\n".encode()
        twice, broken = server.tell(head + head[20:] + b"\r\n"), server.tell(head + b"X-API-Key : a\r\n\r\n")
        assert (twice[9:12], broken[9:12], [answer.status for answer in answers]) == (b"400", b"400", [200, 429])
        assert b"must be sent once, not 2 times" in twice
        metrics = server.get_metrics()
        ended = server.stop()
    told = [*map(str, answers), str(twice), str(broken), str(metrics), ended.stdout, ended.stderr]
    told.append(recording.read_text())
    assert [text for text in told if CANARY in text] == []
    assert (ended.stdout.count("/ping"), told[-1].count("key")) == (3, 2)


def test_recordings_know_a_client_by_the_same_name_only_with_the_same_secret(tmp_path: Path) -> None:
    def recorded(recording: Path, **secret: str) -> str:
        with serving(*ONCE, "--record", recording, **secret) as server:
            server.get()
            server.stop()
        _, line = recording.read_text().splitlines()
        return str(json.loads(line)["key"])

    secrets: list[dict[str, str]] = [{}, {}, {"RATELAB_KEY_SECRET": "s"}, {"RATELAB_KEY_SECRET": "s"}]
    with ThreadPoolExecutor() as aside:
        runs = [aside.submit(recorded, tmp_path / str(number), **secret) for number, secret in enumerate(secrets)]
    names = [run.result() for run in runs]
    assert names[2] == names[3]
    assert len({*names}) == 3
