"""Instances that share a store: a fingerprint of the key secret shows whether they count clients by the same keys."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import warnings
from contextlib import suppress
from pathlib import Path

import pytest
from asgi import request, scope_of
from limited_apps import Handler
from lua_scripts import only_on_valkey
from serve_process import send_request, wait_until
from store_setups import Cluster
from valkey import Valkey
from valkey_servers import AMPLE_DEADLINE, free_port, send_command

from ratelab import InputError, MemoryLimiter, create
from ratelab.errors import ConfigurationWarning
from ratelab.http import Identity, RateLimitMiddleware
from ratelab.http.doors import BlockingGate
from ratelab.stores.blocking_resilient import BlockingResilientLimiter
from ratelab.stores.resilient import ResilientLimiter
from ratelab.stores.valkey import AsyncValkeyLimiter, ValkeyLimiter, secret_claim, sync_limiter
from ratelab.stores.valkey.secret_claim import CLAIM_TTL_S
from ratelab.stores.valkey.server import ValkeyServer

CLAIM = "rl:{secret}:token-bucket"
DIFFER = (
    "instances with different secrets share the limiter 'token-bucket', so each grants its clients the whole quota: "
    f"set the same RATELAB_KEY_SECRET for all (to replace the secret, first delete {CLAIM} from the store)"
)
NOT_SET = "RATELAB_KEY_SECRET is not set: a client counts as another one on other machines"


def keyed(secret: str) -> Identity:
    return Identity(secret=secret)


def run_instance(store: ValkeyServer, identity: Identity, requests: int = 1, name: str | None = None) -> list[int]:
    """Run an instance with the middleware, and return the statuses of requests by one client."""

    async def run() -> list[int]:
        limiter = AsyncValkeyLimiter(store.url, "token-bucket", "5/h", deadline=AMPLE_DEADLINE, name=name)
        app = RateLimitMiddleware(Handler(), ResilientLimiter(limiter), identity)
        statuses = [(await request(app, scope_of())).status for _ in range(requests)]
        if limiter._secret._comparing is not None:
            await limiter._secret._comparing
        limiter.close()
        return statuses

    return asyncio.run(run())


def run_unconfigured_instance(store: ValkeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run an instance without a configured secret, which is warned about."""
    monkeypatch.delenv("RATELAB_KEY_SECRET", raising=False)
    with pytest.warns(ConfigurationWarning, match=NOT_SET):
        run_instance(store, Identity())


def test_instances_with_one_secret_share_a_quota(store: ValkeyServer, caplog: pytest.LogCaptureFixture) -> None:
    assert [run_instance(store, keyed("a"), 3) for _ in range(2)] == [[200] * 3, [200, 200, 429]]
    assert caplog.messages == []


def test_an_instance_with_another_secret_is_reported(store: ValkeyServer, caplog: pytest.LogCaptureFixture) -> None:
    assert [run_instance(store, keyed(secret), 6) for secret in "ab"] == [[200] * 5 + [429]] * 2
    assert [(record.name, record.levelno) for record in caplog.records] == [("ratelab", logging.WARNING)]
    assert caplog.messages == [DIFFER]


def test_limiters_of_other_names_may_have_other_secrets(store: ValkeyServer, caplog: pytest.LogCaptureFixture) -> None:
    run_instance(store, keyed("a"), name="first")
    run_instance(store, keyed("b"), name="second")
    assert caplog.messages == []


def test_a_long_lived_instance_compares_its_secret_again(
    store: ValkeyServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secret_claim, "COMPARISON_INTERVAL_S", 0.0)

    async def run() -> None:
        async with AsyncValkeyLimiter(store.url, "token-bucket", "5/h", deadline=AMPLE_DEADLINE) as limiter:
            limiter.use_secret("mine", False)
            for holder in ("mine", "other", "mine"):
                send_command(store.url, "SET", CLAIM, holder)
                await limiter.hit("alice")
                assert limiter._secret._comparing is not None
                await limiter._secret._comparing

    asyncio.run(run())
    assert caplog.messages == [DIFFER]


def test_the_store_holds_a_fingerprint_that_outlives_the_quota(store: ValkeyServer) -> None:
    text = "correct horse battery"
    run_instance(store, keyed(text))
    with Valkey.from_url(store.url) as client:
        fingerprint = client.get(CLAIM).decode()
        ttl = client.ttl(CLAIM)
    assert CLAIM_TTL_S < ttl <= CLAIM_TTL_S + 3600
    assert fingerprint == keyed(text).fingerprint != keyed("b").fingerprint
    assert text not in fingerprint


@pytest.mark.parametrize("command", [("RPUSH", CLAIM, "x"), ("HSET", CLAIM, "x", "y")])
def test_a_fingerprint_of_another_type_is_replaced(command: tuple[str, ...], store: ValkeyServer) -> None:
    send_command(store.url, *command)
    with ValkeyLimiter(store.url, "token-bucket", "5/h", deadline=AMPLE_DEADLINE) as limiter:
        limiter.check_secret("mine", False)
        with pytest.raises(InputError, match="different secrets"):
            limiter.check_secret("other", False)


def test_a_secret_is_replaced_after_its_fingerprint_is_deleted(
    store: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    run_instance(store, keyed("old"))
    send_command(store.url, "DEL", CLAIM)
    for _ in range(2):
        run_instance(store, keyed("new"))
    assert caplog.messages == []


# --- doors that block


def run_blocking_instance(store: ValkeyServer, identity: Identity, requests: int) -> list[bool]:
    """Run an instance with a gate that blocks, and return whether it admits each of some requests by one client."""
    with ValkeyLimiter(store.url, "token-bucket", "5/h", deadline=AMPLE_DEADLINE) as limiter:
        gate = BlockingGate(BlockingResilientLimiter(limiter), key=identity)
        return [gate.admit(scope_of()).answer is None for _ in range(requests)]


def test_instances_that_block_share_a_quota_with_the_same_secret_alone(
    store: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    assert [run_blocking_instance(store, keyed("a"), 3) for _ in range(2)] == [[True] * 3, [True, True, False]]
    assert caplog.messages == []
    assert run_blocking_instance(store, keyed("b"), 6) == [True] * 5 + [False]
    assert caplog.messages == [DIFFER]


def test_a_long_lived_instance_that_blocks_compares_its_secret_again(
    store: ValkeyServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync_limiter, "COMPARISON_INTERVAL_S", 0.0)
    with ValkeyLimiter(store.url, "token-bucket", "5/h", deadline=AMPLE_DEADLINE) as limiter:
        limiter.use_secret("mine", False)
        for holder in ("mine", "other", "mine"):
            send_command(store.url, "SET", CLAIM, holder)
            limiter.hit("alice")
    assert caplog.messages == [DIFFER]


def test_a_generated_secret_of_a_door_that_blocks_is_warned_about(
    store: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RATELAB_KEY_SECRET", raising=False)
    with pytest.warns(ConfigurationWarning, match=NOT_SET):
        run_blocking_instance(store, Identity(), 1)


# --- without a configured secret


def test_a_generated_secret_in_a_store_is_warned_about_and_not_noted(
    store: ValkeyServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_unconfigured_instance(store, monkeypatch)
    assert send_command(store.url, "EXISTS", CLAIM) == 0
    run_instance(store, keyed("a"))
    assert caplog.messages == []
    run_unconfigured_instance(store, monkeypatch)
    assert caplog.messages == [DIFFER]


def test_a_generated_secret_in_memory_is_not_warned_about(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RATELAB_KEY_SECRET", raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        RateLimitMiddleware(Handler(), MemoryLimiter(create("token-bucket", "5/h")))


def test_limiters_that_a_function_chooses_are_compared_too(
    store: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RATELAB_KEY_SECRET", raising=False)

    async def run() -> None:
        async with AsyncValkeyLimiter(store.url, "token-bucket", "5/h", deadline=AMPLE_DEADLINE) as limiter:
            app = RateLimitMiddleware(Handler(), lambda _: limiter)
            with pytest.warns(ConfigurationWarning, match=NOT_SET):
                await request(app, scope_of())

    asyncio.run(run())


def check_secret(url: str, fingerprint: str, generated: bool = False) -> None:
    """Check a secret in a task, and then in a thread."""

    async def check() -> None:
        async with AsyncValkeyLimiter(url, "token-bucket", "5/h", deadline=AMPLE_DEADLINE) as limiter:
            await limiter.check_secret(fingerprint, generated)

    asyncio.run(check())
    check_secret_in_thread(url, fingerprint, generated)


def check_secret_in_thread(url: str, fingerprint: str, generated: bool) -> None:
    with ValkeyLimiter(url, "token-bucket", "5/h", deadline=AMPLE_DEADLINE) as limiter:
        limiter.check_secret(fingerprint, generated)


def check_that_another_secret_is_rejected(url: str) -> None:
    check_secret(url, "x", generated=True)
    for _ in range(2):
        check_secret(url, "a")
    for generated in (True, False):
        for check in (check_secret, check_secret_in_thread):
            with pytest.raises(InputError) as rejected:
                check(url, "b", generated)
            assert str(rejected.value) == DIFFER


def test_a_check_before_the_start_rejects_another_secret(store: ValkeyServer) -> None:
    check_that_another_secret_is_rejected(store.url)


@pytest.mark.slow
def test_the_nodes_of_a_cluster_hold_one_fingerprint(cluster: Cluster) -> None:
    check_that_another_secret_is_rejected(cluster.url)


WORKER = """
import os
from limited_apps import Handler
from ratelab.http import RateLimitMiddleware
from ratelab.stores.valkey import AsyncValkeyLimiter

shared = AsyncValkeyLimiter(os.environ["STORE"], "token-bucket", "5/day", deadline=30)
limited = RateLimitMiddleware(Handler(), shared)

async def app(scope, receive, send):
    async def send_with_pid(message):
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], (b"worker", b"%d" % os.getpid())]}
        await send(message)
    if scope["type"] == "http":
        await limited(scope, receive, send_with_pid)
"""


@pytest.mark.slow
@only_on_valkey
def test_the_workers_of_a_server_share_a_secret_without_configuration(store: ValkeyServer, tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(WORKER)
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "worker:app", "--workers", "2", "--port", str(port), "--lifespan=off"]
    environment = {name: text for name, text in os.environ.items() if not name.startswith("RATELAB_")}
    environment |= {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]), "STORE": store.url}
    workers: set[str | None] = set()
    statuses: list[int] = []

    def reached_both() -> bool:
        with suppress(OSError):
            response = send_request("127.0.0.1", port, "/ping")
            statuses.append(response.status)
            workers.add(response.headers.get("worker"))
        return len(workers - {None}) == 2 and len(statuses) > 5

    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as server:
        try:
            wait_until(reached_both)
        finally:
            server.terminate()
            _, log = server.communicate()
    assert statuses.count(200) == 5
    assert log.count(NOT_SET) == 2
