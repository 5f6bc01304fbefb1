"""The benchmarks run and tell each figure beside its floor; what they measure is for people to judge."""

from __future__ import annotations

import json
import os
import runpy
import sys
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import peers_http
import peers_valkey
import pytest
import workload
from click.testing import CliRunner
from http_load import Load
from peers_memory import Player
from peers_valkey import Hit, Rival
from timing import in_turn

from ratelab.algorithms import ALGORITHMS
from ratelab.lab.traffic import Booleans, Traffic

COMMAND = runpy.run_path(str(Path(__file__).with_name("__main__.py")))
BENCHMARKS: dict[str, str] = COMMAND["BENCHMARKS"]


def figures_of(name: str) -> list[dict[str, Any]]:
    """Run a benchmark; return its figures."""
    result = CliRunner().invoke(COMMAND["benchmarks"], [name, "--json"])
    assert result.exit_code == 0, result.output
    figures: list[dict[str, Any]] = json.loads(result.stdout)["figures"]
    return figures


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_command_knows_where_each_benchmark_is(name: str) -> None:
    assert callable(getattr(import_module(BENCHMARKS[name]), name))


def test_a_hit_is_timed_beside_its_floor_for_one_key_and_for_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hit.in_turn", partial(in_turn, rounds=3))
    one, many, *parts = figures_of("hit")
    assert [figure["what"].rpartition(", ")[2] for figure in (one, many)] == ["1 key", "100,000 keys"]
    assert all(figure["measured"] > figure["floor"] > 0 and figure["ratio"] > 1 for figure in (one, many))
    names = [figure["what"].rpartition(": ")[2] for figure in parts]
    assert names == ["lock", "clock", "dict", "step", "Decision", "shards and checks"]
    assert 0 < sum(figure["measured"] for figure in parts) < 10 * one["measured"]  # no more, on a busy machine


# --- read


def test_each_form_is_read_by_both_readers_beside_counting_its_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("read.LINES", 2_000)
    figures = figures_of("read")
    forms = [form for form in ("log", "gzip log", "CSV", "JSON lines") for _ in range(2)]
    assert [figure["what"].partition(", ")[0] for figure in figures] == [*forms, "Parquet"]
    assert all(figure["floor"] > figure["measured"] > 0 and figure["ratio"] < 1 for figure in figures)


# --- replay


def test_replays_are_timed_beside_their_floors_and_others_beside_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, requests in (("PLAIN", 2_000), ("REQUESTS", 20_000), ("PLAYED", 500)):
        monkeypatch.setattr(f"replay.{name}", requests)
    monkeypatch.setattr("replay.ALGORITHMS", ["gcra"])
    monkeypatch.setattr("peers_memory.installed", lambda: {"other": Player("gcra", everything)})
    figures = figures_of("replay")
    assert [one["what"].partition(",")[0] for one in figures] == [
        "plain gcra",
        "drawing the requests",
        "compiled gcra",
        "other",
    ]
    assert all(one["measured"] > 0 and one["floor"] > 0 for one in figures)
    assert figures[-1]["what"] != "other, 100.00% alike"


def everything(traffic: Traffic) -> Booleans:
    return np.ones(len(traffic), np.bool_)


def test_without_a_compiler_plain_python_is_timed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ratelab.lab.compiled.find_spec", lambda name: None)
    monkeypatch.setattr("replay.PLAIN", 2_000)
    assert [one["what"] for one in figures_of("replay")] == [f"plain {name}" for name in ALGORITHMS]


def test_requests_are_drawn_by_zipfs_law_at_random_times() -> None:
    drawn = workload.drawn(200_000)
    assert (np.diff(drawn.times) >= 0).all()
    gaps = np.diff(drawn.times) * workload.PER_SECOND / 1e9
    assert gaps.mean() == pytest.approx(1, rel=0.02)
    assert gaps.std() == pytest.approx(1, rel=0.02)
    shares = np.arange(1, workload.KEYS + 1) ** -workload.EXPONENT
    found = np.bincount(drawn.clients, minlength=workload.KEYS) / len(drawn)
    assert found[:20] == pytest.approx((shares / shares.sum())[:20], rel=0.1)
    assert found[10_000:].sum() == pytest.approx((shares / shares.sum())[10_000:].sum(), rel=0.05)


# --- http

WRK = """\
#!{python} -IS
import sys, time
from urllib.error import HTTPError
from urllib.request import urlopen

begun = time.perf_counter()
for _ in range(20):
    try:
        urlopen(sys.argv[-1]).read()
    except HTTPError as error:
        assert error.code == 429
print("  Latency Distribution\\n     50%  100.00us\\n     99%    1.50ms")
print(f"  20 requests in {{time.perf_counter() - begun:.2f}}s, 1.00MB read")
"""
"""A generator of little load that prints as wrk does."""


@pytest.fixture
def small_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wrk").write_text(WRK.format(python=sys.executable))
    (tmp_path / "wrk").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr("http_load.ROUNDS", 1)
    monkeypatch.setattr("http_load.SITTINGS", 1)
    monkeypatch.setattr("http_load.PEER_SITTINGS", 1)
    monkeypatch.setattr("http_load.installed", dict)


@pytest.mark.usefixtures("small_load")
def test_the_middleware_is_measured_beside_the_bare_service() -> None:
    figures = figures_of("http")
    assert [(figure["what"], figure["unit"]) for figure in figures] == [
        ("admitted, requests", "/s"),
        ("denied, requests", "/s"),
        ("admitted, 99th percentile", "us"),
        ("denied, 99th percentile", "us"),
        ("admitted, added to each", "us"),
        ("denied, added to each", "us"),
    ]
    assert all(figure["measured"] > 0 and figure["floor"] > 0 for figure in figures[:4])


@pytest.mark.usefixtures("small_load")
def test_the_middleware_of_others_is_measured_in_front_of_its_own_service(monkeypatch: pytest.MonkeyPatch) -> None:
    peers = {name: peers_http.PEERS[name] for name in ("litestar",)}
    monkeypatch.setattr("http_load.installed", lambda: peers)
    *_, last = figures_of("http")
    assert (last["what"], last["unit"], last["bar"]) == ("litestar, added to each", "us", ">= 3x ratelab's")


def test_what_the_load_generator_prints_is_read() -> None:
    text = "  99%    2.50ms\n  9000 requests in 2.00s, 1.9MB read\nRequests/sec: 4500\n"
    assert Load.parse(text, spent=0.9) == Load(rate=4500, p99=0.0025, cost=0.0001)


def test_without_a_load_generator_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    result = CliRunner().invoke(COMMAND["benchmarks"], ["http"])
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert "install it (apt install wrk" in result.stderr


# --- store


@pytest.fixture
def few_decisions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.ROUNDS", 1)
    monkeypatch.setattr("store.CALLS", 100)
    monkeypatch.setattr("store.SITTINGS", 1)
    monkeypatch.setattr("store.installed", dict)


@pytest.mark.usefixtures("small_load", "few_decisions")
def test_decisions_of_a_store_are_measured_beside_bare_script_calls_and_keys_are_weighed() -> None:
    figures = figures_of("store")
    assert [(figure["what"], figure["unit"]) for figure in figures] == [
        *((f"{name}, one connection", "/s") for name in ALGORITHMS),
        ("sliding-log of 10,000 to token-bucket", "us"),
        *((f"{name}, a key", "bytes") for name in ALGORITHMS),
        ("/ping with a store, requests", "/s"),
    ]
    assert all(figure["measured"] > 0 for figure in figures)
    assert all(figure["floor"] > 0 for figure in figures if figure["unit"] != "bytes")


@pytest.mark.usefixtures("few_decisions")
def test_other_clients_and_libraries_decide_on_the_same_server(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def for_threads(port: int) -> Hit:
        return lambda: asked.append(port)

    async def for_tasks(port: int) -> Hit:
        async def hit() -> None:
            asked.append(port)

        return hit

    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("store.installed", lambda: {"other": Rival((), for_tasks, for_threads, "> 1x")})
    figures = {figure["what"]: figure for figure in figures_of("store")}
    assert figures["50 tasks to other"]["bar"] == figures["one connection to other"]["bar"] == "> 1x"
    assert (len(asked), len({*asked})) == (400, 1), "a hundred hits in the round and the one before it, twice"


def test_whoever_is_not_installed_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers_valkey, "find_spec", lambda package: None if package == "redis" else package)
    assert {*peers_valkey.installed()} == {"valkey-glide", "limits"}
