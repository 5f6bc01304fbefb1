"""Options and fixtures of the test suite; Hypothesis is deterministic and has no deadlines."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from custom_algorithms import TOLL
from hypothesis import settings
from trace_reading import Read, read_both_ways

from ratelab import ManualClock, MemoryLimiter
from ratelab.algorithms import available, find
from ratelab.clock import default_clocks
from ratelab.lab.traces import Trace, TraceOptions

if TYPE_CHECKING:
    from store_setups import Cluster

    from ratelab.stores.valkey.server import ValkeyServer

pytest.register_assert_rewrite("contracts", "cli_runner", "door_conformance", "flask_apps", "limiter_suite")

collect_ignore_glob = (
    ["stores/test_store_*.py", "stores/test_lua_*.py", "stores/test_valkey_*.py", "stores/test_embedded_server.py"]
    if sys.platform == "win32"
    else []
)
"""Tests of a server that does not run on Windows."""

CALLERS_OWN = ("COLUMNS", "FORCE_COLOR", "LINES", "NO_COLOR", "TTY_COMPATIBLE")
"""Variables that change the look of output; those of `ratelab` itself change its behavior."""

gc.disable()  # until all tests are collected, whose many objects stay

for variable in [*os.environ]:
    if variable in CALLERS_OWN or variable.startswith("RATELAB_"):
        del os.environ[variable]
os.environ["TERM"] = "dumb"

# `nohup`, and a shell that starts the tests in the background, ignore signals that services must react to.
for each in (signal.SIGINT, *([signal.SIGHUP] if sys.platform != "win32" else [])):
    if signal.getsignal(each) is signal.SIG_IGN:
        signal.signal(each, signal.SIG_DFL)

settings.register_profile("exact", derandomize=True, deadline=None, database=None, max_examples=40)
settings.register_profile("few", settings.get_profile("exact"), max_examples=5)
settings.load_profile("exact")


STORE_TESTS = ("test_store_", "test_lua_")
"""How the files begin whose tests also run, slowly, with each other server than Valkey.

Those that test the code of this package alone, whatever the server does, set `SERVERS = ["valkey"]`.
"""
SERVERS = ["valkey", *(pytest.param(name, marks=pytest.mark.slow) for name in ("redis", "redis-6.2"))]

LONGEST = [
    "serve_load",
    "serve_connections",
    "notebooks",
    "verify",
    "benchmarks",
    "serve_workers",
    "contracts",
    "seventh_algorithm",
    "soak",
    "joint_replay",
]
"""The slowest files start first, so that no worker runs one alone at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem.removeprefix("test_") not in LONGEST)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Run one more file at a time than there are processors: many tests wait for a server, a store or a clock."""
    return 1 + (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--algo",
        action="append",
        default=[],
        metavar="FILE.py:CLASS",
        help="also check the contracts of this class (repeatable)",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes `kind` for every available algorithm, and a test of a store with every server."""
    if "kind" in metafunc.fixturenames:
        kinds = {**available(), **{name: find(name) for name in metafunc.config.getoption("--algo")}}
        metafunc.parametrize("kind", kinds.values(), ids=kinds.keys())
    chosen = any(mark.args[0] == "server" for mark in metafunc.definition.iter_markers("parametrize"))
    if "server" in metafunc.fixturenames and metafunc.definition.path.name.startswith(STORE_TESTS) and not chosen:
        servers = getattr(metafunc.module, "SERVERS", SERVERS)
        metafunc.parametrize("server", servers, indirect=True, scope="session")


@pytest.fixture
def limiter() -> type[MemoryLimiter]:
    """Return the class to test, which test_mutants.py replaces by mutants."""
    return MemoryLimiter


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.slow)], ids=["awaited", "blocking"])
def both_forms(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run a test of a resilient limiter with one that is awaited, and with one that blocks."""
    from failing_stores import limiters_that_block

    with limiters_that_block(request.param):
        yield


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Write a trace to a file and read it, by lines and by columns."""

    def read(content: bytes, **options: Any) -> Trace:
        path = tmp_path / "trace"
        path.write_bytes(content)
        return read_both_ways([path], TraceOptions(**options))

    return read


@pytest.fixture
def toll(tmp_path: Path) -> str:
    """Write a third-party algorithm to a file, and return its `FILE.py:CLASS`."""
    (tmp_path / "toll.py").write_text(TOLL)
    return f"{tmp_path / 'toll.py'}:Toll"


@pytest.fixture
def stopped_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the time of limiters in memory that a test creates, except of those whose windows follow UTC."""
    monkeypatch.setattr(default_clocks, "steady", ManualClock())


@pytest.fixture
def in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a live run send each request after the response to the one before, so that a server cannot reorder them."""
    from ratelab.verify import client

    send = client._send
    locks: dict[Any, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def send_in_turn(*arguments: Any) -> Any:
        async with locks[asyncio.get_running_loop()]:
            return await send(*arguments)

    monkeypatch.setattr(client, "_send", send_in_turn)


def pytest_collection_finish() -> None:
    """Exclude all loaded objects from garbage collection, whose pauses would exceed the deadlines under test."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Iterator[ValkeyServer]:
    """Run a store for all tests of a session that need one."""
    from valkey_servers import find_server, run_valkey

    with run_valkey(program=find_server(getattr(request, "param", "valkey"))) as server:
        yield server


@pytest.fixture(scope="session")
def running_cluster() -> Iterator[Cluster]:
    """Run a cluster of three nodes, which need two seconds to start, for all tests of a session that need one."""
    from store_setups import run_cluster

    with run_cluster(3) as cluster:
        yield cluster


@pytest.fixture
def cluster(running_cluster: Cluster) -> Cluster:
    """Return the cluster without keys; a test must not stop its nodes."""
    from valkey_servers import send_command

    for node in running_cluster.nodes:
        send_command(node.url, "FLUSHALL")
    return running_cluster


@pytest.fixture
def store(server: ValkeyServer, monkeypatch: pytest.MonkeyPatch) -> ValkeyServer:
    """Return the store without keys, scripts or statistics; no limiter in it has a short deadline by default."""
    from valkey_servers import extend_default_deadlines, send_command

    extend_default_deadlines(monkeypatch)

    for words in (("FLUSHALL",), ("SCRIPT", "FLUSH"), ("CONFIG", "RESETSTAT")):
        send_command(server.url, *words)
    return server
