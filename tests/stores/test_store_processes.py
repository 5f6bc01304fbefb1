"""Forked processes, event loops and packages: a limiter works after any of them."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from invalid_stores import stopped
from slow_parameters import mark_slow
from valkey_servers import (
    AMPLE_DEADLINE,
    LARGE_BURST,
    charged_cost,
    collect_connections,
    make_async_limiter,
    make_limiter,
)

import ratelab
from ratelab.errors import StoreError
from ratelab.stores.resilient import ResilientLimiter
from ratelab.stores.valkey import ValkeyLimiter
from ratelab.stores.valkey.server import ValkeyServer

SERVERS = ["valkey"]
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def run_in_child(work: Callable[[], bool]) -> bool:
    """Run `work` in a forked child, and return its result."""
    child = os.fork()
    if child == 0:  # pragma: no cover
        result = False
        with suppress(BaseException):
            result = work()
        os._exit(0 if result else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def open_sockets() -> set[str]:
    """Return the sockets of this process, by their numbers in the system."""
    names = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            names.add(str(descriptor.readlink()))
    return {name for name in names if name.startswith("socket:")}


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")


# --- forks


@needs_proc
def test_a_child_shares_no_socket_and_has_all_connections(store: ValkeyServer) -> None:
    before = open_sockets()
    with ValkeyLimiter(store.url, "token-bucket", "1/day", LARGE_BURST, AMPLE_DEADLINE, connections=2) as limiter:
        limiter.hit("alice")
        pool = limiter.pools.find(None)
        with stopped(store):
            threads = [threading.Thread(target=lambda: limiter.hit("alice")) for _ in range(5)]
            for thread in threads:
                thread.start()
            while len(pool._waiting) < 3 or sum(each.socket is not None for each in [*pool._connections]) < 2:
                time.sleep(0.001)
            inherited = open_sockets() - before

            def work() -> bool:
                if open_sockets() & inherited:
                    return False
                os.kill(store.pid, signal.SIGCONT)
                return all(limiter.hit("bob").allowed for _ in range(3)) and len(pool._idle) == 2

            assert len(inherited) == 2
            assert run_in_child(work)
        for thread in threads:
            thread.join()
        assert limiter.hit("alice").remaining == LARGE_BURST - 7
        assert limiter.hit("bob", 0).remaining == LARGE_BURST - 3


@pytest.mark.parametrize("resilient", mark_slow([False, True], [True]))
@needs_proc
def test_a_child_of_an_event_loop_leaves_the_connection_to_its_parent(store: ValkeyServer, resilient: bool) -> None:
    async def hit_around_fork() -> None:
        before = open_sockets()
        shared = make_async_limiter(store.url)
        limiter = ResilientLimiter(shared) if resilient else shared
        for _ in range(3):
            await limiter.hit("alice")
        inherited = open_sockets() - before
        pending = [asyncio.create_task(limiter.hit("alice")) for _ in range(5)]
        await asyncio.sleep(0)

        def work() -> bool:
            if open_sockets() & inherited:
                return False
            gc.unfreeze()
            with warnings.catch_warnings(action="ignore"):
                decisions = [asyncio.run(limiter.hit("bob")) for _ in range(2)]
                gc.collect()
            return [decision.remaining for decision in decisions] == [LARGE_BURST - 1, LARGE_BURST - 2]

        thread_result = []
        child = threading.Thread(target=lambda: thread_result.append(run_in_child(work)))
        child.start()
        await asyncio.to_thread(child.join)
        assert thread_result == [True]
        assert sorted(decision.remaining for decision in await asyncio.gather(*pending)) == [
            LARGE_BURST - 3 - number for number in range(5, 0, -1)
        ]
        assert (await limiter.hit("alice")).remaining == LARGE_BURST - 9
        shared.close()

    asyncio.run(hit_around_fork())


def test_children_and_their_parent_are_charged_for_each_hit_once(store: ValkeyServer) -> None:
    limiter = make_limiter(store.url)
    limiter.hit("alice")
    for _ in range(5):
        assert run_in_child(lambda: all(limiter.hit("alice").allowed for _ in range(4)))
        limiter.hit("alice")
    assert charged_cost(store.url) == 26
    limiter.close()


def test_an_error_crosses_processes_unchanged() -> None:
    error = pickle.loads(pickle.dumps(StoreError("overload", "too many", 5)))  # noqa: S301
    assert (error.kind, str(error), error.retry_after_ns) == ("overload", "too many", 5)


# --- event loops


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_close_never_raises_whatever_has_become_of_the_loop(store: ValkeyServer) -> None:
    ended = make_async_limiter(store.url)
    asyncio.run(ended.hit("alice"))
    ended.close()
    ended.close()

    never_used = make_async_limiter(store.url)
    never_used.close()
    never_used.close()

    between = make_async_limiter(store.url)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(between.hit("alice"))
    between.close()

    async def close() -> None:
        other.close()
        other.close()

    other = make_async_limiter(store.url)
    loop.run_until_complete(other.hit("alice"))
    asyncio.run(close())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    other.close()
    assert asyncio.run(ended.hit("alice", 0)).remaining == LARGE_BURST - 3
    ended.close()
    collect_connections()


def test_close_from_another_thread_closes_the_connection_in_its_loop(store: ValkeyServer) -> None:
    async def close_elsewhere() -> None:
        limiter = make_async_limiter(store.url)
        await limiter.hit("alice")
        before = open_sockets()
        await asyncio.to_thread(limiter.close)
        await asyncio.sleep(0.01)
        assert len(open_sockets()) == len(before) - 1 or not Path("/proc/self/fd").exists()

    asyncio.run(close_elsewhere())


def test_close_fails_the_hits_that_wait_for_their_turn(store: ValkeyServer) -> None:
    async def close_early() -> set[str]:
        limiter = make_async_limiter(store.url)
        await limiter.hit("alice")
        hits = [asyncio.create_task(limiter.hit(f"{number}")) for number in range(6_000)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        limiter.close()
        outcomes = await asyncio.wait_for(asyncio.gather(*hits, return_exceptions=True), AMPLE_DEADLINE / 2)
        return {outcome.kind if isinstance(outcome, StoreError) else "decided" for outcome in outcomes}

    assert "unreachable" in asyncio.run(close_early())


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_two_loops_one_after_the_other_work_and_two_at_a_time_do_not(store: ValkeyServer) -> None:
    limiter = make_async_limiter(store.url)
    loops = [asyncio.new_event_loop() for _ in range(2)]
    remaining = [loops[number % 2].run_until_complete(limiter.hit("alice")).remaining for number in range(6)]
    assert remaining == [LARGE_BURST - 1 - number for number in range(6)]
    for loop in loops:
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
    limiter.close()
    collect_connections()


# --- packages


@pytest.mark.slow
def test_scripts_are_found_in_an_archive(tmp_path: Path, store: ValkeyServer) -> None:
    archive, package = tmp_path / "packed.zip", Path(ratelab.__file__).parent
    with zipfile.ZipFile(archive, "w") as packed:
        for path in package.rglob("*"):
            if path.suffix in (".py", ".lua"):
                packed.write(path, Path("ratelab", path.relative_to(package)))
    program = f"""
import ratelab
from ratelab.stores.valkey import ValkeyLimiter
for name in ("token-bucket", "leaky-bucket", "fixed-window", "sliding-log", "sliding-counter", "gcra"):
    with ValkeyLimiter({store.url!r}, name, "5/h", deadline=30) as limiter:
        print(name, limiter.hit("alice").remaining)
print(ratelab.__file__)
"""
    environment = {**os.environ, "PYTHONPATH": str(archive)}
    run = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    *lines, place = run.stdout.splitlines()
    assert run.stderr == ""
    assert all(line.endswith(" 4") for line in lines)
    assert str(archive) in place
