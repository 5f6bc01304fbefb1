"""Identification of clients by `ratelab serve`, and its privacy."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from serve_process import ServeProcess, run_server, statuses_in

pytestmark = pytest.mark.slow

ONCE = ("--rate", "1/h", "--burst", 1)
CANARY = "canary-5f3759df"

TRUSTS_EVERY_PEER = """
import uvicorn
class TrustingConfig(uvicorn.Config):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **{**options, "proxy_headers": True})
uvicorn.Config = TrustingConfig
"""
"""A mutant that lets uvicorn replace the peer by X-Forwarded-For, as it does by default."""


def count_statuses(server: ServeProcess, headers: Iterable[str]) -> Counter[int]:
    """Send a request with each of the header lines, one after the other; count the statuses."""
    requests = [f"GET /ping HTTP/1.1\r\n{header}\r\n\r\n" for header in headers]
    responses = server.send("".join([*requests, "GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n"]).encode())
    *statuses, health = statuses_in(responses)
    assert (len(statuses), health) == (len(requests), 200)
    return Counter(statuses)


def forge_addresses(name: str) -> list[str]:
    """Return header lines that claim 200 addresses."""
    return [f"{name}192.0.2.{n}" for n in range(200)]


@pytest.mark.parametrize("name", ["X-Forwarded-For: ", "Forwarded: for=", "X-Real-IP: "])
def test_forged_addresses_do_not_make_new_clients(name: str) -> None:
    with run_server(*ONCE) as server:
        assert count_statuses(server, forge_addresses(name)) == {200: 1, 429: 199}


def test_a_mutant_that_trusts_every_peer_is_detected() -> None:
    with run_server(*ONCE, first=TRUSTS_EVERY_PEER) as server:
        assert count_statuses(server, forge_addresses("X-Forwarded-For: "))[200] == 200


def test_clients_of_a_trusted_proxy_are_distinguished() -> None:
    with run_server(*ONCE, "--trusted-proxy", "127.0.0.1") as server:
        assert count_statuses(server, forge_addresses("X-Forwarded-For: ")) == {200: 200}
        assert count_statuses(server, forge_addresses("X-Forwarded-For: 203.0.113.9, ")) == {429: 200}


def test_clients_of_a_cdn_are_distinguished_by_its_header() -> None:
    header = "CF-Connecting-IP: "
    with run_server(*ONCE, "--key", f"header:{header[:-2]}", "--trusted-proxy", "127.0.0.1") as server:
        assert count_statuses(server, forge_addresses(header)) == {200: 200}
        assert count_statuses(server, [f"{header}2001:db8:0:1::{number:x}" for number in range(9)]) == {200: 1, 429: 8}


def test_the_prefix_of_an_ipv6_client_can_be_set() -> None:
    with run_server(*ONCE, "--trusted-proxy", "127.0.0.1", "--ipv6-prefix", 56) as server:
        lines = [f"X-Forwarded-For: 2001:db8:0:{network:x}::1" for network in (0, 1, 0xFF, 0x100)]
        assert count_statuses(server, lines) == {200: 2, 429: 2}


def test_an_undeclared_proxy_is_reported_once() -> None:
    with run_server(*ONCE) as server:
        count_statuses(server, forge_addresses("X-Forwarded-For: "))
        assert server.stop().stderr.count("--trusted-proxy 127.0.0.1") == 1


def test_clients_behind_trusted_hops_are_distinguished() -> None:
    with run_server(*ONCE, "--trusted-hops", 1) as server:
        assert count_statuses(server, forge_addresses("X-Forwarded-For: ")) == {200: 200}
        assert count_statuses(server, forge_addresses("X-Forwarded-For: 203.0.113.9, ")) == {429: 200}


def test_clients_are_distinguished_by_header_or_else_by_address() -> None:
    with run_server(*ONCE, "--key", "header:X-API-Key") as server:
        assert count_statuses(server, [f"X-API-Key: {n}" for n in range(200)]) == {200: 200}
        assert count_statuses(server, ["x-api-key:7", "X-API-KEY: \t 8 \t", "X-API-Key: 9"]) == {429: 3}
        nameless = ["A: b", "X-API-Key:", "X-API-Key:   ", f"X-API-Key: {'x' * 257}", f"X-API-Key: {'y' * 257}"]
        assert count_statuses(server, nameless) == {200: 1, 429: 4}


def test_an_api_key_appears_in_no_output(tmp_path: Path) -> None:
    recording = tmp_path / "recording"
    options = ("--key", "header:X-API-Key", "--metrics-port", 0, "--access-log", "--record", recording)
    with run_server(*ONCE, *options) as server:
        responses = [server.get(f"/ping?key={CANARY}", X_API_Key=CANARY) for _ in range(2)]
        head = f"GET /ping HTTP/1.0\r\nX-API-Key: {CANARY}\r\n".encode()
        twice, malformed = server.send(head + head[20:] + b"\r\n"), server.send(head + b"X-API-Key : a\r\n\r\n")
        assert (twice[9:12], malformed[9:12], [response.status for response in responses]) == (
            b"400",
            b"400",
            [200, 429],
        )
        assert b"must be sent once, not 2 times" in twice
        metrics = server.get_metrics()
        result = server.stop()
    outputs = [*map(str, responses), str(twice), str(malformed), str(metrics), result.stdout, result.stderr]
    outputs.append(recording.read_text())
    assert [text for text in outputs if CANARY in text] == []
    assert (result.stdout.count("/ping"), outputs[-1].count("key")) == (3, 2)


def test_recordings_share_keys_only_with_the_same_secret(tmp_path: Path) -> None:
    def record_key(recording: Path, **secret: str) -> str:
        with run_server(*ONCE, "--record", recording, **secret) as server:
            server.get()
            server.stop()
        _, line = recording.read_text().splitlines()
        return str(json.loads(line)["key"])

    secrets: list[dict[str, str]] = [{}, {}, {"RATELAB_KEY_SECRET": "s"}, {"RATELAB_KEY_SECRET": "s"}]
    with ThreadPoolExecutor() as pool:
        runs = [pool.submit(record_key, tmp_path / str(number), **secret) for number, secret in enumerate(secrets)]
    keys = [run.result() for run in runs]
    assert keys[2] == keys[3]
    assert len({*keys}) == 3
