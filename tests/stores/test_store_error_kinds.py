"""Errors of a store: each is of the right kind, with its remedy, and concerns only the keys that it is about."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from threading import Thread

import pytest
from durations import LONG
from lua_scripts import SCRIPTED
from valkey_servers import (
    AMPLE_DEADLINE,
    LARGE_BURST,
    free_port,
    make_limiter,
    run_valkey,
    send_command,
)

from ratelab.errors import StoreError
from ratelab.stores.valkey import AsyncValkeyLimiter, ValkeyLimiter
from ratelab.stores.valkey.error_kinds import classify_error
from ratelab.stores.valkey.resp import ReplyError
from ratelab.stores.valkey.server import ValkeyServer

NEEDS_UNIX_SOCKETS = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs Unix sockets")
OTHER_SERVERS = ("redis", "redis-6.2")
RIGHTS = ("eval", "evalsha", "time", "get", "set")
LOG_RIGHTS = ("eval", "evalsha", "time", "set", "getrange", "setrange", "pexpire")
"""The commands that a user needs for most algorithms, and for a sliding log."""


def raised_error(call: Callable[[], object]) -> StoreError:
    with pytest.raises(StoreError) as raised:
        call()
    return raised.value


def error_of_probe(url: str, algorithm: str = "token-bucket") -> StoreError:
    """Return the error of a probe, which both limiters agree on."""
    with ValkeyLimiter(url, algorithm, "5/h", deadline=AMPLE_DEADLINE) as limiter:
        error = raised_error(limiter.probe)

    async def probe() -> None:
        async with AsyncValkeyLimiter(url, algorithm, "5/h", deadline=AMPLE_DEADLINE) as limiter_async:
            await limiter_async.probe()

    other = raised_error(lambda: asyncio.run(probe()))
    assert (other.kind, str(other)) == (error.kind, str(error))
    return error


@contextmanager
def configured(server: ValkeyServer, name: str, value: str, default: str) -> Iterator[None]:
    send_command(server.url, "CONFIG", "SET", name, value)
    try:
        yield
    finally:
        send_command(server.url, "CONFIG", "SET", name, default)


@contextmanager
def replica(server: ValkeyServer) -> Iterator[None]:
    send_command(server.url, "REPLICAOF", "127.0.0.1", free_port())
    try:
        yield
    finally:
        send_command(server.url, "REPLICAOF", "NO", "ONE")


# --- stores that do not answer


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("valkey://user:hush@127.0.0.1:1", "127.0.0.1:1: "),
        ("valkey://[::1]:1", "[::1]:1: "),
        pytest.param("unix:///nowhere/valkey.sock", "/nowhere/valkey.sock: ", marks=NEEDS_UNIX_SOCKETS),
    ],
)
def test_an_error_of_a_connection_names_the_server(url: str, address: str) -> None:
    async def hit() -> None:
        await AsyncValkeyLimiter(url, "gcra", "1/s", name="waited", deadline=AMPLE_DEADLINE).hit("alice")

    blocking = raised_error(lambda: ValkeyLimiter(url, "gcra", "1/s", deadline=AMPLE_DEADLINE).hit("alice"))
    for error in (blocking, raised_error(lambda: asyncio.run(hit()))):
        assert error.kind == "unreachable"
        assert str(error).startswith(f"cannot connect to {address}")


# --- stores that answer but cannot write


def test_a_probe_of_a_usable_store_charges_no_key(store: ValkeyServer) -> None:
    with make_limiter(store.url) as limiter:
        for _ in range(5):
            limiter.probe()
        assert limiter.hit("alice").remaining == LARGE_BURST - 1


@pytest.mark.parametrize("algorithm", SCRIPTED)
def test_a_probe_writes_however_little_the_quota_is(algorithm: str, store: ValkeyServer) -> None:
    with ValkeyLimiter(store.url, algorithm, "1/day", deadline=AMPLE_DEADLINE) as limiter:
        limiter.probe()
        limiter.probe()
        with replica(store):
            assert raised_error(limiter.probe).kind == "readonly"
        limiter.probe()


def test_a_probe_finds_a_full_store(store: ValkeyServer) -> None:
    with configured(store, "maxmemory", "1", "0"):
        error = error_of_probe(store.url)
    assert (error.kind, str(error)) == ("full", "the store is out of memory")


def test_a_probe_finds_a_replica(store: ValkeyServer) -> None:
    with replica(store):
        assert error_of_probe(store.url).kind == "readonly"


def test_a_probe_finds_a_replica_without_its_master(store: ValkeyServer) -> None:
    with configured(store, "replica-serve-stale-data", "no", "yes"), replica(store):
        assert error_of_probe(store.url).kind == "readonly"


def test_a_probe_finds_a_store_with_too_few_replicas(store: ValkeyServer) -> None:
    with configured(store, "min-replicas-to-write", "1", "0"):
        error = error_of_probe(store.url)
    assert error.kind == "readonly"
    assert "Not enough good replicas" in str(error)


def test_errors_do_not_quote_the_script(store: ValkeyServer) -> None:
    with replica(store):
        assert "script" not in str(error_of_probe(store.url))


# --- permissions


@pytest.mark.parametrize("algorithm", SCRIPTED)
def test_the_documented_permissions_are_enough_and_each_is_needed(algorithm: str, store: ValkeyServer) -> None:
    rights = LOG_RIGHTS if algorithm == "sliding-log" else RIGHTS
    url = store.url.replace("://", "://limits:pw@") + "?db=0"

    def grant(names: tuple[str, ...], keys: str = "~rl:*") -> None:
        send_command(store.url, "ACL", "SETUSER", "limits", "reset", "on", ">pw", keys, *(f"+{name}" for name in names))

    grant(rights)
    try:
        with ValkeyLimiter(url, algorithm, f"5/{LONG}", deadline=AMPLE_DEADLINE) as limiter:
            limiter.probe()
            assert [limiter.hit("alice").allowed for _ in range(7)] == [True] * 5 + [False] * 2
        for missing in rights:
            grant(tuple(name for name in rights if name != missing))
            error = error_of_probe(url, algorithm)
            assert error.kind == "refused"
            assert str(error) in (
                f"the user may not run {missing.upper()}: grant it +{missing}",
                f"the user may not run {missing.upper()} in scripts: grant it +{missing}",
            )
        grant(rights, "~other:*")
        assert str(error_of_probe(url, algorithm)) == "the user may not use keys that begin with rl: grant it ~rl:*"
    finally:
        send_command(store.url, "ACL", "DELUSER", "limits")


# --- stores that are set up wrongly


def test_a_server_without_scripts_is_misconfigured(server: ValkeyServer) -> None:
    options = ("--rename-command", "EVALSHA", "", "--rename-command", "EVAL", "")
    with run_valkey(*options, program=server._program) as without:
        error = error_of_probe(without.url)
    assert error.kind == "misconfigured"
    assert "does not run scripts" in str(error)


@pytest.mark.parametrize("command", ["GET", "SET", "TIME"])
def test_a_server_without_a_command_of_scripts_is_misconfigured(command: str, server: ValkeyServer) -> None:
    with run_valkey("--rename-command", command, "", program=server._program) as without:
        error = error_of_probe(without.url)
    assert error.kind == "misconfigured"
    assert str(error) == "a command that scripts need is disabled or renamed: permit GET, SET and TIME on the server"


def test_a_plain_server_is_not_a_cluster(store: ValkeyServer) -> None:
    with run_valkey(port=free_port(), program=store._program) as plain:
        error = error_of_probe(f"{plain.url}?cluster=true")
    assert error.kind == "misconfigured"
    assert str(error).endswith("remove cluster=true from the URL")


@pytest.mark.parametrize(
    "text",
    [
        "ERR Error running script (call to f_0): @user_script:10: user_script:10: attempt to index global 'struct' "
        "(a nil value)",
        "ERR user_script:10: Script attempted to access nonexistent global variable 'struct' script: 0, on "
        "@user_script:10.",
    ],
)
def test_a_server_whose_lua_lacks_struct_is_named(text: str) -> None:
    error = classify_error(ReplyError(text))
    assert isinstance(error, StoreError)
    assert error.kind == "misconfigured"
    assert str(error) == "the server's Lua has no library struct, as in fakeredis: use Valkey or Redis"


def test_a_server_that_echoes_commands_is_reported() -> None:
    """Report a server of another protocol."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def echo() -> None:
            with closing(listener.accept()[0]) as connection:
                connection.sendall(b"$3\r\nabc\r\n" if connection.recv(9999) else b"")

        thread = Thread(target=echo)
        thread.start()
        with make_limiter(f"valkey://127.0.0.1:{listener.getsockname()[1]}") as limiter:
            error = raised_error(lambda: limiter.hit("alice"))
        thread.join()
    assert (error.kind, str(error)) == ("other", "unexpected reply to a script")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "ERR Error running script (call to f_0): @user_script:3: @user_script: 3: -READONLY You can't write",
            "readonly",
        ),
        ("ERR Error running script (call to f_0): @user_script:3: @user_script: 3: -OOM command not allowed", "full"),
        ("ERR Error running script (call to f_0): @user_script:3: @user_script: 3: -NOREPLICAS Not enough", "readonly"),
        ("ERR Error running script (call to f_0): @user_script:3: -MISCONF Errors writing to the AOF", "readonly"),
        ("MISCONF Valkey is configured to save RDB snapshots, but", "readonly"),
        ("BUSY Valkey is busy running a script.", "unreachable"),
        ("LOADING Valkey is loading the dataset in memory", "unreachable"),
        ("CLUSTERDOWN The cluster is down", "unreachable"),
        ("ERR max number of clients reached", "unreachable"),
        ("ERR SELECT is not allowed in cluster mode", "misconfigured"),
        ("MOVED 1 127.0.0.1:7001", "misconfigured"),
        ("CROSSSLOT Keys in request don't hash to the same slot", "misconfigured"),
        ("UNKNOWN reply", "other"),
    ],
)
def test_replies_have_kinds(text: str, expected: str) -> None:
    error = classify_error(ReplyError(text))
    assert isinstance(error, StoreError)
    assert error.kind == expected


# --- keys that hold something else


def write_anything(url: str, key: str, content: str) -> None:
    """Write to a key what another program may have written."""
    send_command(url, "DEL", key)
    if content == "list":
        send_command(url, "RPUSH", key, "x")
    elif content == "hash":
        send_command(url, "HSET", key, "x", "y")
    elif content == "stream":
        send_command(url, "XADD", key, "*", "x", "y")
    else:
        send_command(url, "SET", key, content)


TEXTS = ["hello", "", "1 2", "9" * 31, "9" * 64, "nan".rjust(64), "1 1 " + "9" * 40, "0" * 63 + "x", "\0" * 32]
CONTENTS = ["list", "hash", "stream", *TEXTS]


@pytest.mark.parametrize("algorithm", SCRIPTED)
def test_a_key_that_another_program_wrote_counts_as_new(algorithm: str, store: ValkeyServer) -> None:
    async def hit_all(key: str) -> None:
        async with AsyncValkeyLimiter(store.url, algorithm, f"1/{LONG}", 2, deadline=AMPLE_DEADLINE) as limiter:
            for content in CONTENTS:
                send_command(store.url, "FLUSHALL")
                write_anything(store.url, key, content)
                assert (await limiter.hit("bad", 0)).allowed
                names = ["bad" if number % 5 == 4 else f"good {number}" for number in range(50)]
                decisions = await asyncio.gather(*map(limiter.hit, names))
                good = [decision for name, decision in zip(names, decisions, strict=True) if name != "bad"]
                bad = [decision.allowed for name, decision in zip(names, decisions, strict=True) if name == "bad"]
                assert all(decision.allowed and decision.remaining == 1 for decision in good), content
                assert bad == [True, True] + [False] * 8, content
                assert send_command(store.url, "PTTL", key) > 0, content

    with ValkeyLimiter(store.url, algorithm, f"1/{LONG}", 2) as limiter:
        key = limiter._script.place("bad", 0)[0].decode()
    asyncio.run(hit_all(key))
