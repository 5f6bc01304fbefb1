"""Options and fixtures of the test suite; Hypothesis is deterministic and has no deadlines."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from custom_algorithms import TOLL
from hypothesis import settings
from trace_reading import Read, read_both_ways

from ratelab import MemoryLimiter
from ratelab.algorithms import available, find
from ratelab.lab.traces import Trace, TraceOptions

if TYPE_CHECKING:
    from ratelab.stores.valkey.server import ValkeyServer

pytest.register_assert_rewrite("contracts", "cli_runner", "limiter_suite")

collect_ignore_glob = (
    ["stores/test_store_*.py", "stores/test_lua_*.py", "stores/test_valkey_*.py", "stores/test_embedded_server.py"]
    if sys.platform == "win32"
    else []
)
"""Tests of a server that does not run on Windows."""

CALLERS_OWN = ("COLUMNS", "FORCE_COLOR", "LINES", "NO_COLOR", "TTY_COMPATIBLE")
"""Variables that change the look of output; those of `ratelab` itself change its behavior."""

for variable in [*os.environ]:
    if variable in CALLERS_OWN or (variable.startswith("RATELAB_") and not variable.startswith("RATELAB_TEST_")):
        del os.environ[variable]
os.environ["TERM"] = "dumb"

settings.register_profile("exact", derandomize=True, deadline=None, database=None, max_examples=100)
settings.load_profile("exact")


LONGEST = [
    "serve_load",
    "serve_connections",
    "notebooks",
    "verify",
    "benchmarks",
    "memory_capacity",
    "serve_workers",
    "contracts",
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
    """Run a test that takes `kind` for every available algorithm."""
    if "kind" in metafunc.fixturenames:
        kinds = {**available(), **{name: find(name) for name in metafunc.config.getoption("--algo")}}
        metafunc.parametrize("kind", kinds.values(), ids=kinds.keys())


@pytest.fixture
def limiter() -> type[MemoryLimiter]:
    """Return the class to test, which test_mutants.py replaces by mutants."""
    return MemoryLimiter


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


def pytest_collection_finish() -> None:
    """Exclude all loaded objects from garbage collection, whose pauses would exceed the deadlines under test."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def server() -> Iterator[ValkeyServer]:
    """Run a store for all tests of a session that need one."""
    from valkey_servers import run_valkey

    with run_valkey() as server:
        yield server


@pytest.fixture
def store(server: ValkeyServer) -> ValkeyServer:
    """Return the store without keys, scripts or statistics."""
    from valkey_servers import send_command

    for words in (("FLUSHALL",), ("SCRIPT", "FLUSH"), ("CONFIG", "RESETSTAT")):
        send_command(server.url, *words)
    return server
