"""Store URLs: databases, users, encryption, and errors that do not reveal the password."""

from __future__ import annotations

import asyncio
import ssl
import sys
from pathlib import Path
from typing import Any

import pytest
import trustme
from invalid_stores import wrong_password
from tls_proxy import run_tls_proxy
from valkey_servers import (
    LARGE_BURST,
    charged_cost,
    free_port,
    make_async_limiter,
    make_limiter,
    run_valkey,
    send_command,
)

from ratelab import InputError
from ratelab.errors import StoreError
from ratelab.stores.valkey import AsyncValkeyLimiter, ValkeyLimiter
from ratelab.stores.valkey.connection import StoreUrl
from ratelab.stores.valkey.server import ValkeyServer

CANARY = "CANARY"
AUTHORITY = trustme.CA()


def remaining_after_hits(url: str) -> list[int]:
    """Return `remaining` after a hit of alice in a thread, and after one in a task."""
    limiter, limiter_async = make_limiter(url), make_async_limiter(url)

    async def hit() -> int:
        try:
            return (await limiter_async.hit("alice")).remaining
        finally:
            limiter_async.close()

    try:
        return [limiter.hit("alice").remaining, asyncio.run(hit())]
    finally:
        limiter.close()


FIRST_HITS = [LARGE_BURST - 1, LARGE_BURST - 2]
NEXT_HITS = [LARGE_BURST - 3, LARGE_BURST - 4]


def test_databases_are_separate(store: ValkeyServer) -> None:
    for database in (0, 3, 15):
        assert remaining_after_hits(f"{store.url}?db={database}") == FIRST_HITS
    assert remaining_after_hits(store.url) == NEXT_HITS


def test_a_missing_database_is_not_replaced_by_another(store: ValkeyServer) -> None:
    assert charged_cost(store.url) == 0  # the server now has the script
    limiter, limiter_async = make_limiter(f"{store.url}?db=16"), make_async_limiter(f"{store.url}?db=16")
    for _ in range(3):
        with pytest.raises(StoreError, match="no such database"):
            limiter.hit("alice")
        with pytest.raises(StoreError, match="no such database"):
            asyncio.run(limiter_async.hit("alice"))
    assert send_command(store.url, "DBSIZE") == 0


def test_a_user_and_a_password_are_sent(store: ValkeyServer) -> None:
    send_command(store.url, "ACL", "SETUSER", "limits", "on", ">p@ss/#word", "~rl:*", "+@all")
    try:
        assert remaining_after_hits(store.url.replace("://", "://limits:p%40ss%2F%23word@")) == FIRST_HITS
        assert remaining_after_hits(f"{store.url}?username=limits&password=p%2540ss%252F%2523word") == NEXT_HITS
    finally:
        send_command(store.url, "ACL", "DELUSER", "limits")


def test_a_password_that_becomes_right_is_accepted(store: ValkeyServer) -> None:
    with wrong_password(store) as url:
        limiter = make_limiter(url)
        with pytest.raises(StoreError, match="the user or the password is invalid"):
            limiter.hit("alice")
        right = url.replace("wrong", "right")
        send_command(right, "CONFIG", "SET", "requirepass", "wrong")
        assert limiter.hit("alice").remaining == LARGE_BURST - 1
        send_command(url, "CONFIG", "SET", "requirepass", "right")
        limiter.close()


def test_a_tcp_port_works_as_a_socket_does() -> None:
    with run_valkey(port=free_port()) as server:
        assert remaining_after_hits(server.url) == FIRST_HITS
        assert remaining_after_hits(server.url.replace("valkey://127.0.0.1", "redis://localhost") + "/0") == NEXT_HITS


INVALID_URLS = [
    ("http://:CANARY@host", "must begin with one of"),
    ("localhost:6379", "must begin with one of"),
    ("user:CANARY@host:6379", "must begin with one of"),
    ("", "must begin with one of"),
    ("valkey://:CANARY@host:port", "Port could not be cast"),
    ("valkey://:CANARY/more@host", "Port could not be cast"),
    ("valkey://:12/CANARY@host", "a database must be a whole number >= 0"),
    ("valkey://:CANARY@host:99999", "Port out of range"),
    ("valkey://:CANARY@[::1", "Invalid IPv6 URL"),
    ("valkey://:CANARY@host/one", "a database must be a whole number >= 0"),
    ("valkey://:CANARY@host/-1", "a database must be a whole number >= 0"),
    ("valkey://:CANARY@host?db=-1", "a database must be a whole number >= 0"),
    ("valkey://:CANARY@host?db=one", "Invalid value for `db`"),
    ("valkey://host?password=CANARY&socket_timeout=1", "it may not set socket_timeout"),
    ("valkey://host?password=CANARY&connection_class=Connection", "it may not set connection_class"),
    ("valkey://:CANARY@host?retry_on_timeout=yes", "it may not set retry_on_timeout"),
    ("valkey://:CANARY@host?cluster=yes", "cluster must be true or false"),
    ("valkey://:CANARY@host/1?cluster=true", "a cluster has no databases"),
    ("unix://:CANARY@/run/valkey.sock?cluster=true", "a cluster has no databases and no sockets"),
    ("unix://:CANARY@", "the path of the socket is missing"),
    ("unix://", "the path of the socket is missing"),
    ("valkey://CANARY@host", "a user needs a password"),
    ("valkey://:CANARY@host?ssl_ca_certs=file", "it may not set ssl_ca_certs"),
    ("rediss://:CANARY@host?ssl_nonsense=1", "it may not set ssl_nonsense"),
    ("rediss://:CANARY@host?ssl_cert_reqs=never", "Invalid SSL Certificate Requirements Flag"),
    ("valkey://:CANARY@a,b", "several hosts need ?cluster=true or a scheme such as valkey+sentinel"),
    ("valkey://:CANARY@a,b:port?cluster=true", "Port could not be cast"),
    ("valkey://:CANARY@a,?cluster=true", "a host is missing"),
    ("valkey+sentinel://:CANARY@a,b", "the name of the master is missing, as in valkey+sentinel://host:26379/mymaster"),
    ("valkey+sentinel://:CANARY@/limits", "a host is missing"),
    ("valkey+sentinel://:CANARY@a/limits/one", "a database must be a whole number >= 0"),
    ("valkey+sentinel://:CANARY@a/limits?cluster=true", "it may not set cluster"),
    ("valkey+sentinel://CANARY@a/limits", "a user needs a password"),
    ("valkey://:CANARY@a?sentinel_password=CANARY", "it may not set sentinel_password"),
    ("unix+sentinel://:CANARY@a/limits", "must begin with one of"),
    ("valkey://:CANARY\u2100@host", "contains invalid characters"),
]


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(("url", "reason"), INVALID_URLS)
def test_an_invalid_url_is_rejected_in_one_line_without_the_password(url: str, reason: str, asynchronous: bool) -> None:
    with pytest.raises(InputError) as rejected:
        StoreUrl(url, asynchronous)
    message = str(rejected.value)
    assert reason in message
    assert message.endswith("such as valkey://localhost:6379/0, rediss://:password@host or unix:///run/valkey.sock")
    assert CANARY not in message
    assert "\n" not in message


# --- encryption


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("scheme", ["rediss", "valkeys"])
@pytest.mark.parametrize(
    ("query", "checks_host", "verify_mode"),
    [
        ("", True, ssl.CERT_REQUIRED),
        ("?ssl_check_hostname=no", False, ssl.CERT_REQUIRED),
        ("?ssl_cert_reqs=none", False, ssl.CERT_NONE),
    ],
)
def test_certificates_are_checked_as_the_url_requests(
    scheme: str, query: str, checks_host: bool, verify_mode: ssl.VerifyMode, asynchronous: bool
) -> None:
    connection = StoreUrl(f"{scheme}://localhost{query}", asynchronous).connection(None)
    assert type(connection).__name__ == "SSLConnection"
    assert (bool(connection.check_hostname), connection.cert_reqs) == (checks_host, verify_mode)


def test_an_encrypted_store_decides(store: ValkeyServer, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(AUTHORITY.cert_pem.bytes())
    with run_tls_proxy(store.url, "localhost", AUTHORITY) as port:
        url = f"valkeys://localhost:{port}?ssl_ca_certs={tmp_path / 'ca.pem'}"
        assert remaining_after_hits(url) == FIRST_HITS
        assert remaining_after_hits(f"rediss://localhost:{port}?ssl_cert_reqs=none") == NEXT_HITS


@pytest.mark.parametrize(
    ("host", "authority", "reason"),
    [
        ("elsewhere", AUTHORITY, "certificate is not valid for 'localhost'"),
        ("localhost", trustme.CA(), "certificate verify failed"),
    ],
)
def test_a_store_with_an_invalid_certificate_receives_no_command(
    store: ValkeyServer, tmp_path: Path, host: str, authority: trustme.CA, reason: str
) -> None:
    (tmp_path / "ca.pem").write_bytes(AUTHORITY.cert_pem.bytes())
    with run_tls_proxy(store.url, host, authority) as port:
        url = f"valkeys://localhost:{port}?ssl_ca_certs={tmp_path / 'ca.pem'}"
        limiter, limiter_async = make_limiter(url), make_async_limiter(url)
        with pytest.raises(StoreError, match=reason):
            limiter.hit("alice")
        with pytest.raises(StoreError, match=reason):
            asyncio.run(limiter_async.hit("alice"))
    assert send_command(store.url, "DBSIZE") == 0


@pytest.mark.parametrize("asynchronous", [False, True])
def test_other_schemes_are_not_encrypted(asynchronous: bool) -> None:
    assert type(StoreUrl("valkey://localhost", asynchronous).connection(None)).__name__ == "Connection"


@pytest.mark.parametrize("limiter", [ValkeyLimiter, AsyncValkeyLimiter])
@pytest.mark.parametrize("deadline", [0, -1, float("nan"), float("inf"), None, "1s", True, 61])
def test_an_invalid_deadline_is_rejected(limiter: Any, deadline: object) -> None:
    with pytest.raises(InputError, match="deadline must be above 0 and at most 60 seconds, got"):
        limiter("valkey://host", "gcra", "2/s", deadline=deadline)


@pytest.mark.parametrize("connections", [0, -1, 1.0, True, None])
def test_an_invalid_number_of_connections_is_rejected(connections: Any) -> None:
    with pytest.raises(InputError, match="connections must be a whole number >= 1, got"):
        ValkeyLimiter("valkey://host", "gcra", "2/s", connections=connections)


def test_a_missing_client_library_is_an_error_with_an_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkey", None)
    with pytest.raises(InputError, match=r"pip install '\.\[valkey\]'"):
        ValkeyLimiter("valkey://host", "gcra", "2/s")
