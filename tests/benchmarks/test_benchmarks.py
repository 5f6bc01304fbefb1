"""Each benchmark runs with small sizes and prints its table; the measured values are for readers to judge."""

from __future__ import annotations

import json
import os
import runpy
import socket
import sys
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import http_apps
import http_server
import numpy as np
import peers_valkey
import pytest
import uvicorn
import workload
from click.testing import CliRunner, Result
from http_load import ADDED_BAR, GROUPS, SHARE_BAR, Group, Limited, Load, Peer, load_in_turn
from peers_memory import MemoryPeer
from peers_valkey import Hit, StorePeer
from store import SCRIPTED
from timing import Bar, time_in_turn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ratelab.algorithms import ALGORITHMS
from ratelab.lab.traffic import Booleans, Traffic

pytestmark = pytest.mark.slow

MAIN = runpy.run_path(str(Path(__file__).with_name("__main__.py")))
BENCHMARKS: dict[str, str] = MAIN["BENCHMARKS"]


def run(*arguments: str) -> Result:
    """Run the command."""
    return CliRunner().invoke(MAIN["benchmarks"], arguments)


def figures_of(name: str) -> list[dict[str, Any]]:
    """Run a benchmark; return its figures."""
    figures, lines = figures_and_lines_of(name)
    assert lines == [f"{name}: {figure['label']}" for figure in figures]
    return figures


def figures_and_lines_of(name: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Run a benchmark; return its figures and the lines on standard error."""
    result = run(name, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)["figures"], result.stderr.splitlines()


# --- the command


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_is_a_function_of_its_module(name: str) -> None:
    assert callable(getattr(import_module(BENCHMARKS[name]), name))


def test_the_help_describes_every_benchmark() -> None:
    described = [
        line.split()[0] for line in run("--help").stdout.splitlines() if line.startswith("  ") and line.strip()
    ]
    assert [name for name in described if name in BENCHMARKS] == list(BENCHMARKS)


def test_an_unknown_benchmark_is_rejected() -> None:
    result = run("fast")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "'fast' is not one of 'hit'" in result.stderr


def test_a_missing_module_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MAIN["NEEDED"], "hit", ("json", "no_such_module"))
    result = run("hit")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "Error: the hit benchmark needs no_such_module: pip install '.[serve,valkey]'\n"


def test_the_table_goes_to_the_output_and_progress_to_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("startup.KEYS", 1_000)
    result = run("memory")
    assert result.exit_code == 0, result.output
    assert result.stderr == "memory: a key of token-bucket, at 1,000\n"
    title, header, row = result.stdout.splitlines()
    assert [line for line in result.stdout.splitlines() if line != line.rstrip()] == []
    assert title.strip().startswith("Python 3.")
    assert header.split() == ["benchmark", "measured", "floor", "ratio", "bar"]
    assert row.startswith("a key of token-bucket, at 1,000 ")
    assert "bytes" in row


# --- hit, memory, start


def test_a_hit_is_timed_next_to_its_floor_for_few_and_many_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hit.time_in_turn", partial(time_in_turn, rounds=3))
    monkeypatch.setattr("hit.HITS", 10_000)
    monkeypatch.setattr("hit.MANY_KEYS", 10_000)
    one, many, two, *parts = figures_of("hit")
    assert (two["label"], two["ratio"] > 1) == ("hit, two policies of 1 key", True)
    assert [figure["label"].rpartition(", ")[2] for figure in (one, many)] == ["1 key", "10,000 keys"]
    assert all(figure["measured"] > figure["floor"] > 0 and figure["ratio"] > 1 for figure in (one, many))
    names = [figure["label"].rpartition(": ")[2] for figure in parts]
    assert names == ["lock", "clock", "dict", "step", "Decision", "shards and checks"]
    assert 0 < sum(figure["measured"] or 0 for figure in parts) < 10 * one["measured"]  # no more, on a busy machine


def test_commands_are_timed_next_to_their_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("startup.ROUNDS", 1)
    figures = figures_of("start")
    assert [(figure["label"], figure["unit"]) for figure in figures] == [
        ("ratelab --help", "ms"),
        ("ratelab simulate", "ms"),
    ]
    assert all(figure["measured"] > 0 and figure["floor"] > 0 for figure in figures)


# --- read


def test_both_readers_are_timed_in_every_format(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("read.LINES", 2_000)
    figures = figures_of("read")
    formats = [name for name in ("log", "gzip log", "CSV", "JSON lines") for _ in range(2)]
    assert [figure["label"].partition(", ")[0] for figure in figures] == [*formats, "Parquet"]
    assert all(figure["floor"] > figure["measured"] > 0 and figure["ratio"] < 1 for figure in figures)


# --- tune


def test_needs_are_timed_and_their_memory_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tune.REQUESTS", 30_000)
    every, given, memory = figures_of("tune")
    assert (every["label"], given["label"]) == ("all needs of 30,000 requests", "needs at 16 rates")
    assert min(every["measured"], given["measured"], memory["measured"]) >= 0


# --- loop


def test_events_of_closed_loops_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("CLIENTS", 50), ("MANY_CLIENTS", 200), ("EVENTS_PER_RUN", 100)):
        monkeypatch.setattr(f"event_loop.{name}", value)
    for name in ("PLAIN_EVENTS", "COMPILED_EVENTS"):
        monkeypatch.setattr(f"event_loop.{name}", 500)
    figures = figures_of("loop")
    assert [figure["label"] for figure in figures] == [
        "plain events",
        "compiled events",
        "compiled, 200 clients, events",
        "memory, 200 clients",
    ]
    assert min(figure["measured"] for figure in figures) > 0


# --- replay


def test_replays_and_peers_are_timed_next_to_their_floors(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, requests in (("PLAIN", 2_000), ("COMPILED", 20_000), ("PEER", 500)):
        monkeypatch.setattr(f"replay.{name}_REQUESTS", requests)
    monkeypatch.setattr("replay.ALGORITHMS", ["gcra"])
    monkeypatch.setattr("peers_memory.installed_peers", lambda: {"other": MemoryPeer("gcra", admit_all)})
    figures = figures_of("replay")
    assert [figure["label"].partition(",")[0] for figure in figures] == [
        "plain gcra",
        "drawing the requests",
        "compiled gcra",
        "gcra and gcra",
        "other",
    ]
    assert all(figure["measured"] > 0 and figure["floor"] > 0 for figure in figures)
    assert figures[-1]["label"] != "other, 100.00% agree"


def admit_all(traffic: Traffic) -> Booleans:
    return np.ones(len(traffic), np.bool_)


def test_only_plain_python_is_timed_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ratelab.lab.replay.find_spec", lambda name: None)
    monkeypatch.setattr("replay.PLAIN_REQUESTS", 2_000)
    assert [figure["label"] for figure in figures_of("replay")] == [f"plain {name}" for name in ALGORITHMS]


def test_requests_are_a_poisson_process_with_keys_by_zipfs_law() -> None:
    traffic = workload.draw_traffic(200_000)
    assert (np.diff(traffic.times) >= 0).all()
    gaps = np.diff(traffic.times) * workload.REQUESTS_PER_SECOND / 1e9
    assert gaps.mean() == pytest.approx(1, rel=0.02)
    assert gaps.std() == pytest.approx(1, rel=0.02)
    shares = np.arange(1, workload.KEYS + 1) ** -workload.EXPONENT
    found = np.bincount(traffic.clients, minlength=workload.KEYS) / len(traffic)
    assert found[:20] == pytest.approx((shares / shares.sum())[:20], rel=0.1)
    assert found[10_000:].sum() == pytest.approx((shares / shares.sum())[10_000:].sum(), rel=0.05)


# --- http

WRK = """\
#!{python} -IS
import sys, time
from urllib.error import HTTPError
from urllib.request import urlopen

start = time.perf_counter()
for _ in range(20):
    try:
        urlopen(sys.argv[-1]).read()
    except HTTPError as error:
        assert error.code == 429
print("  Latency Distribution\\n     50%  100.00us\\n     99%    1.50ms")
print(f"  20 requests in {{time.perf_counter() - start:.2f}}s, 1.00MB read")
"""
"""A load generator that sends few requests and prints a report as wrk does."""


@pytest.fixture
def small_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wrk").write_text(WRK.format(python=sys.executable))
    (tmp_path / "wrk").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name in ("ROUNDS", "STARTS", "FURTHER_STARTS"):
        monkeypatch.setattr(f"http_load.{name}", 1)


SMALL_GROUPS = (
    Group(
        "uvicorn",
        "http_apps.litestar",
        (Limited("Litestar", "http_apps.litestar_limited", ADDED_BAR),),
        (Peer("litestar", "peers_http.litestar_own", "litestar"), Peer("missing-one", "peers_http.traffik", "no_such")),
    ),
    Group(
        "waitress",
        "http_apps.wsgi",
        (Limited("WSGI", "http_apps.wsgi_admitted", share=SHARE_BAR), Limited("other", "none", needs=("no.such",))),
    ),
    Group("uvicorn", "http_apps.fastapi", (Limited("none", "none", needs=("no_such",)),)),
    Group("granian", "http_apps.asgi", (Limited("none", "none"),), needs=("no_such",)),
)


@pytest.mark.usefixtures("small_load")
def test_doors_and_peers_are_measured_next_to_bare_services(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("http_load.GROUPS", SMALL_GROUPS)
    figures, lines = figures_and_lines_of("http")
    assert [(figure["label"], figure["unit"], figure["bar"]) for figure in figures] == [
        ("uvicorn, Litestar: requests", "/s", None),
        ("uvicorn, Litestar: 99th percentile", "us", None),
        ("uvicorn, Litestar: added", "us", "<= 22%"),
        ("uvicorn, litestar: added", "us", ">= 3x ratelab's"),
        ("waitress, WSGI: requests", "/s", ">= 0.85x"),
        ("waitress, WSGI: added", "us", None),
    ]
    assert [line for line in lines if "not measured" in line] == [
        "http: uvicorn, missing-one is not measured, install missing-one",
        "http: uvicorn, none is not measured, install no_such",
        "http: granian, none is not measured, install no_such",
    ]
    assert all(figure["measured"] > 0 and figure["floor"] > 0 for figure in figures[:2])


@pytest.mark.usefixtures("small_load")
@pytest.mark.skipif(sys.platform == "win32", reason="there is no gunicorn")
def test_servers_that_fork_report_the_processor_time_of_the_worker() -> None:
    apps = {"granian": "http_apps.asgi", "gunicorn gthread": "http_apps.wsgi"}
    for (load,) in load_in_turn([*apps.items()], 1).values():
        assert load.rate > 0
        assert 0 < load.cost_s < 1


def test_the_measured_server_is_a_stock_uvicorn(monkeypatch: pytest.MonkeyPatch) -> None:
    servers: list[uvicorn.Server] = []
    monkeypatch.setattr("uvicorn.Server.run", lambda server, sockets: servers.append(server))
    with socket.socket() as listener:
        http_server.run_uvicorn(http_apps.asgi(), listener)
    (server,) = servers
    server.config.load()
    assert type(server) is uvicorn.Server
    assert server.config.http_protocol_class is HttpToolsProtocol
    assert server.config.get_loop_factory() is import_module("uvloop").new_event_loop


def test_every_application_of_a_group_exists() -> None:
    for group in GROUPS:
        for app in (group.bare, *(each.app for each in group.limited), *(peer.app for peer in group.peers)):
            module, _, function = app.partition(".")
            assert callable(getattr(import_module(module), function))


@pytest.mark.parametrize("app", ["asgi", "asgi_admitted", "starlette_limited", "litestar", "litestar_limited"])
def test_uvicorn_calls_each_application_as_asgi_3(app: str) -> None:
    config = uvicorn.Config(getattr(http_apps, app)())
    config.load()
    assert config.interface == "asgi3"


def test_the_report_of_the_load_generator_is_parsed() -> None:
    text = "  99%    2.50ms\n  9000 requests in 2.00s, 1.9MB read\nRequests/sec: 4500\n"
    assert Load.parse(text, server_s=0.9) == Load(rate=4500, p99_s=0.0025, cost_s=0.0001)


def test_without_a_load_generator_the_error_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    result = run("http")
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert "needs the load generator wrk: apt install wrk" in result.stderr


# --- store


@pytest.fixture
def few_decisions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.ROUNDS", 1)
    monkeypatch.setattr("store.CALLS", 100)
    monkeypatch.setattr("store.SERVICE_STARTS", 1)
    monkeypatch.setattr("store.installed_peers", dict)


@pytest.mark.usefixtures("small_load", "few_decisions")
def test_decisions_in_a_store_are_timed_and_keys_are_measured() -> None:
    figures = figures_of("store")
    assert [(figure["label"], figure["unit"]) for figure in figures] == [
        *((f"{name}, one connection", "/s") for name in SCRIPTED),
        ("sliding-log of 10,000 to token-bucket", "us"),
        ("two policies, one connection", "us"),
        ("two policies, 50 tasks", "us"),
        *((f"{name}, a key", "bytes") for name in SCRIPTED),
        ("ratelab serve with a store: requests", "/s"),
    ]
    assert all(figure["measured"] > 0 for figure in figures)
    assert all(figure["floor"] > 0 for figure in figures if figure["unit"] != "bytes")


@pytest.mark.usefixtures("few_decisions")
def test_other_clients_and_packages_decide_on_the_same_server(monkeypatch: pytest.MonkeyPatch) -> None:
    ports: list[int] = []

    def for_threads(port: int) -> Hit:
        return lambda: ports.append(port)

    async def for_tasks(port: int) -> Hit:
        async def hit() -> None:
            ports.append(port)

        return hit

    peers = {"other": StorePeer((), for_tasks, for_threads, Bar(">", 1))}
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("store.installed_peers", lambda: peers)
    figures = {figure["label"]: figure for figure in figures_of("store")}
    assert figures["50 tasks to other"]["bar"] == figures["one connection to other"]["bar"] == "> 1x"
    assert (len(ports), len({*ports})) == (400, 1), "a hundred hits in the round and the one before it, twice"


def test_a_peer_that_is_not_installed_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers_valkey, "find_spec", lambda module: None if module == "redis" else module)
    assert {*peers_valkey.installed_peers()} == {"valkey-glide", "limits"}
