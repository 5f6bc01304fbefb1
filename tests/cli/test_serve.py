"""`ratelab serve` answers as its options say, tells what it does and nothing else, and refuses what cannot be."""

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
from cli_runner import PLAIN, refused
from click.testing import CliRunner
from custom_algorithms import written
from prometheus_client.parser import text_string_to_metric_families
from serve_process import GET, Served, ask, serving

from ratelab import MemoryLimiter, create
from ratelab.algorithms import ALGORITHMS
from ratelab.cli import ratelab_command
from ratelab.cli.serve import in_front
from ratelab.http.app import Service
from ratelab.http.identity import Identity

HOURLY = ("--rate", "5/h", "--burst", 5, "--key", "header:X-API-Key")
MISTAKES = {
    "--workers 2": "2 workers would grant each client 2 times 2/s, burst 5, since each has a memory of its own: use",
    "--port {port}": "cannot listen on port {port} of 127.0.0.1 (Address already in use): choose another port",
    "--metrics-port {port}": "cannot listen on port {port} of 127.0.0.1 (Address already in use): choose another port",
    "--host a..b": "cannot listen on port 0 of a..b (",
    "--key header:": "key must be ip or header:NAME, such as header:X-API-Key, got 'header:'",
    "--key header:X-Forwarded-For": "X-Forwarded-For is what any client may claim: use ip, and name the proxies",
    "--trusted-proxy 10.0.0.1/8": "a trusted proxy must be an address or a CIDR such as 10.0.0.0/8, got '10.0.0.1/8'",
    "--trusted-proxy 172.16.3.4/12": "a trusted proxy must be an address or a CIDR such as 172.16.0.0/12, got '172",
    "--trusted-proxy 10.0.0.0/8 --trusted-hops 2": "trusted proxies and 2 trusted hops are two ways to say the same:",
    "--metrics-port {port} --port {port}": "--port and --metrics-port are both {port}: choose another for one of them",
    "--workers 1000": "--workers: 1000 is not a whole number from 1 to 256; see ratelab serve --help",
    "--algo {folder}/mine.py:Tool": "{folder}/mine.py has no class 'Tool': name Toll",
    "--algo mine.py": "unknown algorithm 'mine.py': name its class, too, as in mine.py:CLASS",
    "--trusted-proxy 0.0.0.0/0": "0.0.0.0/0 trusts everybody",
    "--rate fast": "rate must look like 2/s, 100/min or 5/2.5s, got 'fast'",
    "--algo tokenbucket": "unknown algorithm 'tokenbucket': did you mean token-bucket?",
    "--algo {folder}/mine.py:Toll": "a header field cannot hold the name 't\u00f6ll' of a policy: use printable ASCII",
    "--record {folder}/no/file": "cannot write {folder}/no/file: No such file or directory",
    "--record {folder}/mine.py": "{folder}/mine.py exists, and a recording is not written over: name a new file",
}


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """Serve five requests an hour to each key: tests that take one each share the server."""
    with serving(*HOURLY) as server:
        yield server


def test_it_says_what_is_served_where_and_how_to_try_it() -> None:
    with serving() as server:
        url = f"http://127.0.0.1:{server.port}/ping"
        assert server.banner == {
            "ratelab": "token-bucket, 2/s, burst 5",
            "serving": url,
            "quota": "2 requests a second, and 5 at once, for each address",
            "try": f"curl -i {url}",
            "stop": "Ctrl-C",
        }


def test_it_says_what_is_not_as_usual() -> None:
    queue = ("--algo", "leaky-bucket", "--rate", "1/s", "--trusted-hops", 2)
    with serving(*queue, "--key", "header:Who", "--store", "embedded", "--workers", 2) as server:
        assert server.banner["quota"] == (
            "1 request a second, one after the other, and up to 5 in the queue, for each Who header"
        )
        assert server.banner["note"] == "nobody checks Who here: whoever sends another is another client"
        assert server.banner["proxies"] == "2 in front, always; X-Forwarded-For is counted from the right"
        assert server.banner["workers"] == "2 processes"
    assert in_front(["10.0.0.0/8", "unix"], 0) == {"proxies": "X-Forwarded-For counts from 10.0.0.0/8, unix"}


def test_it_says_which_header_to_send(served: Served) -> None:
    assert served.banner["quota"] == "5 requests an hour, and 5 at once, for each X-API-Key header"
    assert served.banner["try"] == f"curl -i -H 'X-API-Key: alice' {served.banner['serving']}"


def test_a_client_gets_its_burst_and_then_429(served: Served) -> None:
    answers = [served.get(X_API_Key="alice") for _ in range(6)]
    assert [answer.status for answer in answers] == [200] * 5 + [429]
    assert {answer.body for answer in answers[:5]} == {b'{"message": "pong"}\n'}
    assert answers[0].fields["ratelimit-policy"] == '"token-bucket";q=5;w=3600'
    assert answers[0].fields["ratelimit"] == '"token-bucket";r=4;t=720'
    assert 700 < int(answers[5].fields["retry-after"]) <= 720
    assert json.loads(answers[5].body)["violated-policies"] == ["token-bucket"]
    assert served.get(X_API_Key="bob").status == 200


def test_other_pages_and_methods_are_refused_and_charged(served: Served) -> None:
    requests = [("/ping", "HEAD"), ("/", "GET"), ("/ping", "POST"), ("/metrics", "GET"), ("/ping/", "GET")]
    answers = [served.get(path, method, X_API_Key="carol") for path, method in requests]
    assert [answer.status for answer in answers] == [200, 404, 405, 404, 404]
    assert (answers[0].fields["content-length"], answers[0].body) == ("20", b"")
    assert answers[2].fields["allow"] == "GET, HEAD"
    assert served.get(X_API_Key="carol").status == 429


def test_health_is_never_limited(served: Served) -> None:
    answers = [served.get("/healthz", method, X_API_Key="dave") for method in ("GET", "HEAD") * 5]
    assert {answer.status for answer in answers} == {200}
    assert {answer.body for answer in answers} == {b'{"status": "ok"}\n', b""}
    assert not any("ratelimit" in answer.fields for answer in answers)


@pytest.mark.parametrize("name", [name for name in ALGORITHMS if name != "leaky-bucket"])
def test_every_algorithm_is_served(name: str) -> None:
    with serving("--algo", name, "--rate", "3/h", "--burst", 3) as server:
        answers = [server.get() for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    assert all(answer.fields["ratelimit"].startswith(f'"{name}";r=') for answer in answers)


def test_a_leaky_bucket_lets_requests_go_at_its_pace() -> None:
    with serving("--algo", "leaky-bucket", "--rate", "4/s") as server:
        before = time.monotonic()
        assert server.statuses(3) == [200] * 3
        assert time.monotonic() - before >= 2 / 4
        told = r"stopped: 3 admitted \([12] after a wait\), 0 denied, 1 client in memory\n"
        assert re.fullmatch(told, server.stop().stderr)


def test_an_algorithm_of_ones_own_is_served(toll: str) -> None:
    with serving("--algo", toll) as server:
        assert server.statuses(4) == [200, 429, 200, 429]
        assert server.get().fields["ratelimit"] == '"toll";r=0;t=1'


def test_every_option_can_come_from_the_environment(tmp_path: Path) -> None:
    recording = tmp_path / "recording"
    options = {"ALGO": "fixed-window", "RATE": "3/h", "BURST": "2", "KEY": "header:Who", "LEGACY_HEADERS": "delta"}
    more = {"PORT": "0", "METRICS_PORT": "0", "RECORD": str(recording), "ACCESS_LOG": "1"}
    with serving(**{f"RATELAB_{name}": text for name, text in (options | more).items()}) as server:
        assert server.statuses(3, Who="alice") == [200, 200, 429]
        assert server.get(Who="bob").fields["x-ratelimit-limit"] == "2"
        assert server.figures()["denied"] == 1
        assert server.stop().stdout.count(" /ping ") == 4
    assert len(recording.read_text().splitlines()) == 1 + 4


def test_legacy_headers_are_added_when_asked_for() -> None:
    with serving("--legacy-headers", "epoch", "--rate", "1/h", "--burst", 1) as server:
        before = time.time()
        fields = server.get().fields
        after = time.time()
    assert (fields["x-ratelimit-limit"], fields["x-ratelimit-remaining"]) == ("1", "0")
    assert before + 3600 <= int(fields["x-ratelimit-reset"]) <= after + 3602


def test_metrics_count_and_tell_nobody_apart() -> None:
    with serving(*HOURLY, "--metrics-port", 0) as server:
        assert server.statuses(6, X_API_Key="alice") == [200] * 5 + [429]
        assert server.statuses(2, X_API_Key="bob") == [200, 200]
        assert b" 400 " in server.tell(b"GET /ping HTTP/1.0\r\nX-API-Key: a\r\nx-api-key: b\r\n\r\n")
        families = text_string_to_metric_families(server.get_metrics().body.decode())
        assert {label for family in families for s in family.samples for label in s.labels} == {"algorithm", "outcome"}
        expected = {"admitted": 7, "delayed_total": 0, "waiting": 0, "dropped": 0, "denied": 1, "ambiguous": 1}
        expected |= {"keys": 2, "evictions_total": 0, "overflow_hits_total": 0}
        assert {name: server.figures()[name] for name in expected} == expected
        assert (server.get_metrics("/ping").status, server.get("/metrics").status) == (404, 404)
        assert server.stop().stderr == "stopped: 8 admitted, 1 denied, 1 refused, 3 clients in memory\n"


def test_metrics_are_for_this_machine_alone() -> None:
    with serving("--host", "0.0.0.0", "--metrics-port", 0) as server:  # noqa: S104  (which is the case in question)
        assert ask("127.0.0.2", server.port, "/ping").status == 200
        with pytest.raises(ConnectionRefusedError):
            ask("127.0.0.2", server.metrics_port, "/metrics")


def test_metrics_may_have_the_port_of_the_service_on_another_address() -> None:
    service = Service(MemoryLimiter(create("token-bucket", "5/h")), Identity())
    service.show_metrics_on(("127.0.0.1", 9000))

    def status(host: str, path: str) -> int:
        return asyncio.run(request(service.app, {**scope_of(path=path), "server": (host, 9000)})).status

    assert [status("127.0.0.1", path) for path in ("/metrics", "/ping")] == [200, 404]
    assert [status("127.0.0.2", path) for path in ("/metrics", "/ping")] == [404, 200]


def test_the_access_log_has_a_line_for_each_request() -> None:
    with serving(*HOURLY, "--access-log") as server:
        server.statuses(6, X_API_Key="alice")
        server.get("/a%0Ab?token=secret", "POST", X_API_Key="bob")
        ended = server.stop()
    told = re.sub(r"[\d:]{8} (.*) [\d.]+ ms", r"\1", ended.stdout).splitlines()
    assert told[0] == "GET /healthz 200"
    assert told[1] == 'GET /ping 200 "token-bucket";r=4;t=720'
    assert [line.split(" ")[2] for line in told] == ["200"] * 6 + ["429", "404"]
    assert told[7] == 'POST /a\\nb 404 "token-bucket";r=4;t=720'
    assert ended.stderr == "stopped: 6 admitted, 1 denied, 2 clients in memory\n"


def test_requests_are_answered_when_nobody_reads_the_log_any_more() -> None:
    with serving("--access-log") as server:
        assert server.process.stdout is not None
        server.process.stdout.close()
        server.process.stdout = None
        assert server.statuses(3) == [200] * 3
        assert server.stop().stderr == "stopped: 3 admitted, 0 denied, 1 client in memory\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_is_quiet_and_ends_well(number: int) -> None:
    with serving() as server:
        assert server.statuses(2) == [200, 200]
        assert server.tell(b"GET / NONSENSE\r\n\r\n", GET).startswith(b"HTTP/1.1 400 ")
        assert server.stop(number) == (0, "", "stopped: 2 admitted, 0 denied, 1 client in memory\n")


def test_a_recording_holds_every_decision(tmp_path: Path) -> None:
    recording = tmp_path / "recording.jsonl"
    with serving(*HOURLY, "--record", recording) as server:
        server.statuses(6, X_API_Key="alice")
        server.statuses(1, X_API_Key="bob")
        server.stop()
    head, *lines = map(json.loads, recording.read_text().splitlines())
    assert (head["recording"], head["algorithm"], head["rate"], head["burst"]) == (1, "token-bucket", "5/h", 5)
    assert [line["allowed"] for line in lines] == [True] * 5 + [False, True]
    assert [lines.index(line) for line in lines if line["key"] != lines[0]["key"]] == [6]
    assert [line["at_ns"] for line in lines] == sorted(line["at_ns"] for line in lines)


def test_requests_are_answered_when_the_recording_cannot_go_on(tmp_path: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))"
    with serving("--burst", 99, "--record", tmp_path / "recording", first=limit) as server:
        assert server.statuses(60) == [200] * 60
        code, _, stderr = server.stop()
    assert (code, stderr.splitlines()) == (
        1,
        ["recording has stopped: File too large", "stopped: 60 admitted, 0 denied, 1 client in memory"],
    )


@pytest.mark.parametrize(("options", "told"), MISTAKES.items(), ids=MISTAKES.keys())
def test_a_mistake_is_told_in_one_red_line_and_leaves_nothing_behind(
    options: str, told: str, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, '"toll"', '"t\u00f6ll"')
    before = (tmp_path / "mine.py").read_bytes()
    monkeypatch.setattr("ratelab.http.server.run", lambda *_: pytest.fail("it is served"))
    told, *arguments = (text.format(port=served.port, folder=tmp_path) for text in (told, *options.split()))
    recording = [] if "--record" in arguments else ["--record", tmp_path / "recording"]
    command = ["serve", "--port", "0", *map(str, recording), *arguments]
    result = CliRunner(env=PLAIN).invoke(ratelab_command, command, color=True)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert result.stderr.startswith(f"\x1b[31mError: {told}")
    assert ([*tmp_path.iterdir()], (tmp_path / "mine.py").read_bytes()) == ([tmp_path / "mine.py"], before)


def test_without_the_libraries_of_serve_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ratelab.cli.options.find_spec", lambda name: None if name == "uvicorn" else name)
    assert refused("serve") == "ratelab serve needs uvicorn: run pip install '.[serve]' in a ratelab checkout\n"
