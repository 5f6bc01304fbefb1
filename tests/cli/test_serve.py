"""Options, banner, responses, metrics, log and error messages of `ratelab serve`."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from asgi import request, scope_of
from cli_runner import PLAIN, get_error, get_json
from click.testing import CliRunner
from custom_algorithms import written
from durations import LONG
from prometheus_client.parser import text_string_to_metric_families
from serve_process import GET, ServeProcess, run_server, send_request
from slow_parameters import mark_slow

from ratelab import ManualClock, MemoryLimiter, create
from ratelab.algorithms import ALGORITHMS
from ratelab.cli import ratelab_command
from ratelab.cli.serve.messages import describe_proxies
from ratelab.http.app import Service
from ratelab.http.identity import Identity

HOURLY = ("--rate", "5/h", "--burst", 5, "--key", "header:X-API-Key")
INVALID_OPTIONS = {
    "--workers 2": "2 workers without a store would grant each client 2 times 2/s, burst 5: add --store embedded",
    "--port {port}": "cannot listen on port {port} of 127.0.0.1 (Address already in use): choose another port",
    "--metrics-port {port}": "cannot listen on port {port} of 127.0.0.1 (Address already in use): choose another port",
    "--host a..b": "cannot listen on port 0 of a..b (",
    "--key header:": "key must be ip, header:NAME such as header:X-API-Key, or in code a function, got 'header:'",
    "--key header:X-Forwarded-For": "X-Forwarded-For can be forged by clients: use ip with trusted_proxies",
    "--key header:CF-Connecting-IP": "CF-Connecting-IP can be forged by clients: name the proxies that set it with",
    "--ipv6-prefix 128": "--ipv6-prefix: 128 is not a whole number from 48 to 64; see ratelab serve --help",
    "--metrics-host 0.0.0.0": "--metrics-host 0.0.0.0 needs a port: add --metrics-port",
    "--metrics-host 0.0.0.0 --metrics-port {port} --port {port}": "--metrics-port must differ from --port, got {port}",
    "--metrics-host a..b --metrics-port 0": "cannot listen on port 0 of a..b (",
    "--trusted-proxy 10.0.0.1/8": "a trusted proxy must be an address or a CIDR such as 10.0.0.0/8, got '10.0.0.1/8'",
    "--trusted-proxy 172.16.3.4/12": "a trusted proxy must be an address or a CIDR such as 172.16.0.0/12, got '172",
    "--trusted-proxy 10.0.0.0/8 --trusted-hops 2": "trusted_hops must be 0 with trusted proxies, got 2: give one",
    "--metrics-port {port} --port {port}": "--metrics-port must differ from --port, got {port} for both",
    "--workers 1000": "--workers: 1000 is not a whole number from 1 to 256; see ratelab serve --help",
    "--algo {folder}/mine.py:Tool": "{folder}/mine.py has no class 'Tool': name Toll",
    "--algo mine.py": "unknown algorithm 'mine.py': name its class, too, as in mine.py:CLASS",
    "--trusted-proxy 0.0.0.0/0": "a trusted proxy must not cover all addresses, got 0.0.0.0/0: name",
    "--rate fast": "rate must look like 2/s, 100/min or 5/2.5s, got 'fast'",
    "--algo tokenbucket": "unknown algorithm 'tokenbucket': did you mean token-bucket?",
    "--algo {folder}/mine.py:Toll": "a header field cannot hold the name 't\u00f6ll' of a policy: use printable ASCII",
    "--record {folder}/no/file": "cannot write {folder}/no/file: there is no directory {folder}/no",
    "--record {folder}/mine.py": "--record must name a new file, got {folder}/mine.py, which exists",
}


@pytest.fixture(scope="module")
def hourly_server() -> Iterator[ServeProcess]:
    """Run a server that grants five requests per hour to each key; tests share it and use different keys."""
    with run_server(*HOURLY) as server:
        yield server


def test_the_banner_shows_quota_url_and_a_command_to_try() -> None:
    with run_server() as server:
        url = f"http://127.0.0.1:{server.port}/ping"
        assert server.banner == {
            "ratelab": "token-bucket, 2/s, burst 5",
            "serving": url,
            "quota": "2 requests per second, at most 5 at once, for each address",
            "try": f"curl -i {url}",
            "stop": "Ctrl-C",
        }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "quota"),
    [
        (["--rate", "1000/day"], "1,000 requests per day, at most 1,000 at once, for each address"),
        (["--rate", "100/minute", "--burst", 7], "100 requests per minute, at most 7 at once, for each address"),
        (["--burst", 3], "2 requests per second, at most 3 at once, for each address"),
    ],
)
def test_the_burst_is_that_of_the_rate_unless_it_is_given(options: list[object], quota: str) -> None:
    with run_server(*options) as server:
        assert server.banner["quota"] == quota


@pytest.mark.slow
def test_the_banner_shows_where_decisions_are_recorded(tmp_path: Path) -> None:
    with run_server("--record", tmp_path / "live.jsonl") as server:
        assert server.banner["record"].startswith(f"every decision to {tmp_path / 'live.jsonl'}")
        assert server.get().status == 200
        server.stop()
    assert get_json("replay", tmp_path / "live.jsonl", "--format", "recording")["recording"]["differing"] == 0


@pytest.mark.slow
def test_the_banner_shows_options_that_differ_from_the_defaults() -> None:
    queue = ("--algo", "leaky-bucket", "--rate", "1/s", "--burst", 5, "--trusted-hops", 2)
    with run_server(*queue, "--key", "header:X-User", "--store", "embedded", "--workers", 2) as server:
        assert server.banner["quota"] == "1 request per second, one at a time, up to 5 in the queue, for each X-User"
        assert server.banner["note"] == "X-User is not verified: a client that changes it counts as another client"
        assert server.banner["proxies"] == "always 2 in front; X-Forwarded-For is counted from the right"
        assert server.banner["workers"] == "2 processes"
    proxies = describe_proxies(["10.0.0.0/8", "unix"], 0, "ip")
    assert proxies == {"proxies": "X-Forwarded-For is trusted from 10.0.0.0/8, unix"}


@pytest.mark.slow
def test_the_banner_shows_a_header_with_an_address_as_one() -> None:
    with run_server("--key", "header:CF-Connecting-IP", "--trusted-proxy", "10.0.0.0/8") as server:
        assert server.banner["proxies"] == "CF-Connecting-IP is trusted from 10.0.0.0/8"
        assert server.banner["quota"].endswith("for each address")
        assert "note" not in server.banner


def test_the_banner_shows_the_header_to_send(hourly_server: ServeProcess) -> None:
    banner = hourly_server.banner
    assert banner["quota"] == "5 requests per hour, at most 5 at once, for each X-API-Key"
    assert banner["try"] == f"curl -i -H 'X-API-Key: alice' {banner['serving']}"


def test_a_client_gets_its_burst_and_then_429(hourly_server: ServeProcess) -> None:
    responses = [hourly_server.get(X_API_Key="alice") for _ in range(6)]
    assert [response.status for response in responses] == [200] * 5 + [429]
    assert {response.body for response in responses[:5]} == {b'{"message": "pong"}\n'}
    assert responses[0].headers["ratelimit-policy"] == '"token-bucket";q=5;w=3600'
    assert responses[0].headers["ratelimit"] == '"token-bucket";r=4;t=720'
    assert 700 < int(responses[5].headers["retry-after"]) <= 720
    assert json.loads(responses[5].body)["violated-policies"] == ["token-bucket"]
    assert hourly_server.get(X_API_Key="bob").status == 200


def test_unknown_paths_and_other_methods_are_charged_too(hourly_server: ServeProcess) -> None:
    requests = [("/ping", "HEAD"), ("/", "GET"), ("/ping", "POST"), ("/metrics", "GET"), ("/ping/", "GET")]
    responses = [hourly_server.get(path, method, X_API_Key="carol") for path, method in requests]
    assert [response.status for response in responses] == [200, 404, 405, 404, 404]
    assert (responses[0].headers["content-length"], responses[0].body) == ("20", b"")
    assert responses[2].headers["allow"] == "GET, HEAD"
    assert hourly_server.get(X_API_Key="carol").status == 429


def test_health_is_never_limited(hourly_server: ServeProcess) -> None:
    responses = [hourly_server.get("/healthz", method, X_API_Key="dave") for method in ("GET", "HEAD") * 5]
    assert {response.status for response in responses} == {200}
    assert {response.body for response in responses} == {b'{"status": "ok"}\n', b""}
    assert not any("ratelimit" in response.headers for response in responses)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ALGORITHMS if name != "leaky-bucket"])
def test_every_algorithm_can_be_served(name: str) -> None:
    rate = f"3/{LONG}"
    limiter = MemoryLimiter(create(name, rate, burst=3), ManualClock())
    expected = [200 if limiter.hit("alice").allowed else 429 for _ in range(4)]
    with run_server("--algo", name, "--rate", rate, "--burst", 3) as server:
        responses = [server.get() for _ in range(4)]
    assert [response.status for response in responses] == expected
    assert {*expected} == {200, 429}
    assert all(response.headers["ratelimit"].startswith(f'"{name}";r=') for response in responses)


@pytest.mark.slow
def test_a_leaky_bucket_delays_requests_to_its_rate() -> None:
    with run_server("--algo", "leaky-bucket", "--rate", "4/s", "--burst", 5) as server:
        start = time.monotonic()
        assert server.get_statuses(3) == [200] * 3
        assert time.monotonic() - start >= 2 / 4
        summary = r"stopped: 3 admitted \([12] after a wait\), 0 denied, 1 client in memory\n"
        assert re.fullmatch(summary, server.stop().stderr)


@pytest.mark.slow
def test_a_custom_algorithm_can_be_served(toll: str) -> None:
    with run_server("--algo", toll) as server:
        assert server.get_statuses(4) == [200, 429, 200, 429]
        assert server.get().headers["ratelimit"] == '"toll";r=0;t=1'


@pytest.mark.slow
def test_every_option_can_be_set_in_the_environment(tmp_path: Path) -> None:
    recording = tmp_path / "recording"
    options = {"ALGO": "fixed-window", "RATE": f"1/{LONG}", "BURST": "2", "KEY": "header:X-User"}
    more = {"LEGACY_HEADERS": "delta", "PORT": "0", "METRICS_PORT": "0", "RECORD": str(recording), "ACCESS_LOG": "1"}
    with run_server(**{f"RATELAB_{name}": text for name, text in (options | more).items()}) as server:
        assert server.get_statuses(3, X_User="alice") == [200, 200, 429]
        assert server.get(X_User="bob").headers["x-ratelimit-limit"] == "2"
        assert server.read_metrics()["denied"] == 1
        assert server.stop().stdout.count(" /ping ") == 4
    assert len(recording.read_text().splitlines()) == 1 + 4


@pytest.mark.slow
def test_legacy_headers_are_added_on_request() -> None:
    with run_server("--legacy-headers", "epoch", "--rate", "1/h", "--burst", 1) as server:
        before = time.time()
        headers = server.get().headers
        after = time.time()
    assert (headers["x-ratelimit-limit"], headers["x-ratelimit-remaining"]) == ("1", "0")
    assert before + 3600 <= int(headers["x-ratelimit-reset"]) <= after + 3602


def test_metrics_count_requests_without_client_labels() -> None:
    with run_server(*HOURLY, "--metrics-port", 0) as server:
        assert server.get_statuses(6, X_API_Key="alice") == [200] * 5 + [429]
        assert server.get_statuses(2, X_API_Key="bob") == [200, 200]
        assert b" 400 " in server.send(b"GET /ping HTTP/1.0\r\nX-API-Key: a\r\nx-api-key: b\r\n\r\n")
        families = text_string_to_metric_families(server.get_metrics().body.decode())
        assert {label for family in families for s in family.samples for label in s.labels} == {"algorithm", "outcome"}
        expected = {"admitted": 7, "delayed_total": 0, "waiting": 0, "dropped": 0, "denied": 1, "ambiguous": 1}
        expected |= {"keys": 2, "evictions_total": 0, "overflow_hits_total": 0}
        assert {name: server.read_metrics()[name] for name in expected} == expected
        assert (server.get_metrics("/ping").status, server.get("/metrics").status) == (404, 404)
        assert server.stop().stderr == "stopped: 8 admitted, 1 denied, 1 ambiguous, 3 clients in memory\n"


@pytest.mark.slow
def test_metrics_are_only_served_to_this_machine() -> None:
    with run_server("--host", "0.0.0.0", "--metrics-port", 0) as server:  # noqa: S104  (as the test needs)
        assert send_request("127.0.0.2", server.port, "/ping").status == 200
        with pytest.raises(ConnectionRefusedError):
            send_request("127.0.0.2", server.metrics_port, "/metrics")


@pytest.mark.slow
@pytest.mark.parametrize("host", mark_slow(["0.0.0.0", "::", "::1", "127.0.0.2"], ["::"]))  # noqa: S104  (needed)
def test_metrics_are_served_on_another_host_when_asked_for(host: str) -> None:
    with run_server("--metrics-port", 0, "--metrics-host", host) as server:
        own = {"0.0.0.0": "127.0.0.2", "::": "127.0.0.2"}.get(host, host)  # noqa: S104  (compared)
        assert send_request(own, server.metrics_port, "/metrics").status == 200
        assert send_request(own, server.metrics_port, "/ping").status == 404
        assert server.get("/metrics").status == 404


@pytest.mark.slow
def test_metrics_may_use_the_same_port_on_another_address() -> None:
    service = Service(MemoryLimiter(create("token-bucket", "5/h")), Identity())
    service.serve_metrics(("127.0.0.1", 9000))

    def status(host: str, path: str) -> int:
        return asyncio.run(request(service.app, {**scope_of(path=path), "server": (host, 9000)})).status

    assert [status("127.0.0.1", path) for path in ("/metrics", "/ping")] == [200, 404]
    assert [status("127.0.0.2", path) for path in ("/metrics", "/ping")] == [404, 200]


def test_the_access_log_has_a_line_for_each_request() -> None:
    with run_server(*HOURLY, "--access-log") as server:
        server.get_statuses(6, X_API_Key="alice")
        server.get("/a%0Ab?token=secret", "POST", X_API_Key="bob")
        result = server.stop()
    lines = re.sub(r"[\d:]{8} (.*) [\d.]+ ms", r"\1", result.stdout).splitlines()
    assert lines[0] == "GET /healthz 200"
    assert lines[1] == 'GET /ping 200 "token-bucket";r=4;t=720'
    assert [line.split(" ")[2] for line in lines] == ["200"] * 6 + ["429", "404"]
    assert lines[7] == 'POST /a\\nb 404 "token-bucket";r=4;t=720'
    assert result.stderr == "stopped: 6 admitted, 1 denied, 2 clients in memory\n"


@pytest.mark.slow
def test_the_service_continues_when_the_log_has_no_reader() -> None:
    with run_server("--access-log") as server:
        assert server.process.stdout is not None
        server.process.stdout.close()
        server.process.stdout = None
        assert server.get_statuses(3) == [200] * 3
        assert server.stop().stderr == "stopped: 3 admitted, 0 denied, 1 client in memory\n"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_prints_one_line_and_exits_with_status_0(number: int) -> None:
    with run_server() as server:
        assert server.get_statuses(2) == [200, 200]
        assert server.send(b"GET / NONSENSE\r\n\r\n", GET).startswith(b"HTTP/1.1 400 ")
        assert server.stop(number) == (0, "", "stopped: 2 admitted, 0 denied, 1 client in memory\n")


def test_a_recording_contains_every_decision(tmp_path: Path) -> None:
    recording = tmp_path / "recording.jsonl"
    with run_server(*HOURLY, "--record", recording) as server:
        server.get_statuses(6, X_API_Key="alice")
        server.get_statuses(1, X_API_Key="bob")
        server.stop()
    head, *lines = map(json.loads, recording.read_text().splitlines())
    assert (head["recording"], head["algorithm"], head["rate"], head["burst"]) == (1, "token-bucket", "5/h", 5)
    assert [line["allowed"] for line in lines] == [True] * 5 + [False, True]
    assert [lines.index(line) for line in lines if line["key"] != lines[0]["key"]] == [6]
    assert [line["at_ns"] for line in lines] == sorted(line["at_ns"] for line in lines)


@pytest.mark.slow
def test_the_service_continues_when_the_recording_fails(tmp_path: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))"
    with run_server("--burst", 99, "--record", tmp_path / "recording", first=limit) as server:
        assert server.get_statuses(60) == [200] * 60
        code, _, stderr = server.stop()
    assert (code, stderr.splitlines()) == (
        1,
        ["recording stopped: File too large", "stopped: 60 admitted, 0 denied, 1 client in memory"],
    )


@pytest.mark.parametrize(("options", "message"), INVALID_OPTIONS.items(), ids=INVALID_OPTIONS.keys())
def test_invalid_options_get_one_red_line_and_leave_no_file(
    options: str, message: str, hourly_server: ServeProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, '"toll"', '"t\u00f6ll"')
    before = (tmp_path / "mine.py").read_bytes()
    monkeypatch.setattr("ratelab.cli.serve.runner.run", lambda *_: pytest.fail("the service was started"))
    message, *arguments = (
        text.format(port=hourly_server.port, folder=tmp_path) for text in (message, *options.split())
    )
    recording = [] if "--record" in arguments else ["--record", tmp_path / "recording"]
    port = [] if "--port" in arguments else ["--port", "0"]
    command = ["serve", *port, *map(str, recording), *arguments]
    result = CliRunner(env=PLAIN).invoke(ratelab_command, command, color=True)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert result.stderr.startswith(f"\x1b[31mError: {message}")
    assert ([*tmp_path.iterdir()], (tmp_path / "mine.py").read_bytes()) == ([tmp_path / "mine.py"], before)


def test_a_missing_package_is_named_with_the_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ratelab.cli.options.find_spec", lambda name: None if name == "uvicorn" else name)
    assert get_error("serve") == "ratelab serve needs uvicorn: run pip install '.[serve]' in a ratelab checkout\n"
