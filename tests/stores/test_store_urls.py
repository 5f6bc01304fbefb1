"""A store's URL says where it is, and what is wrong with it is told at once, without the password."""

from __future__ import annotations

import asyncio
import ssl
import sys
from pathlib import Path
from typing import Any

import pytest
import trustme
from invalid_stores import wrong_password
from tls_proxy import encrypted
from valkey_servers import PLENTY, ask, charged, free_port, plenty, plenty_async, running

from ratelab import InputError
from ratelab.errors import StoreError
from ratelab.stores.valkey import AsyncValkeyLimiter, ValkeyLimiter
from ratelab.stores.valkey.connection import StoreUrl
from ratelab.stores.valkey.server import ValkeyServer

CANARY = "CANARY"
AUTHORITY = trustme.CA()


def left(url: str) -> list[int]:
    """Return what is left for alice after a hit in a thread, and in a task."""
    limiter, limiter_async = plenty(url, deadline=5), plenty_async(url, deadline=5)

    async def hit() -> int:
        try:
            return (await limiter_async.hit("alice")).remaining
        finally:
            limiter_async.close()

    try:
        return [limiter.hit("alice").remaining, asyncio.run(hit())]
    finally:
        limiter.close()


def test_databases_are_apart(store: ValkeyServer) -> None:
    for database in (0, 3, 15):
        assert left(f"{store.url}?db={database}") == [PLENTY - 1, PLENTY - 2]
    assert left(store.url) == [PLENTY - 3, PLENTY - 4]


def test_a_database_that_is_not_there_is_not_replaced_by_another(store: ValkeyServer) -> None:
    assert charged(store.url) == 0  # and the server knows the script
    limiter, limiter_async = plenty(f"{store.url}?db=16"), plenty_async(f"{store.url}?db=16")
    for _ in range(3):
        with pytest.raises(StoreError, match="out of range"):
            limiter.hit("alice")
        with pytest.raises(StoreError, match="out of range"):
            asyncio.run(limiter_async.hit("alice"))
    assert ask(store.url, "DBSIZE") == 0


def test_a_password_and_a_user_open_the_door(store: ValkeyServer) -> None:
    ask(store.url, "ACL", "SETUSER", "limits", "on", ">p@ss/#word", "~rl:*", "+@all")
    try:
        assert left(store.url.replace("://", "://limits:p%40ss%2F%23word@")) == [PLENTY - 1, PLENTY - 2]
        assert left(f"{store.url}?username=limits&password=p%2540ss%252F%2523word") == [PLENTY - 3, PLENTY - 4]
    finally:
        ask(store.url, "ACL", "DELUSER", "limits")


def test_a_door_that_opens_later_opens(store: ValkeyServer) -> None:
    with wrong_password(store) as url:
        limiter = plenty(url)
        with pytest.raises(StoreError, match="invalid username-password pair"):
            limiter.hit("alice")
        right = url.replace("wrong", "right")
        ask(right, "CONFIG", "SET", "requirepass", "wrong")
        assert limiter.hit("alice").remaining == PLENTY - 1
        ask(url, "CONFIG", "SET", "requirepass", "right")
        limiter.close()


def test_a_port_of_tcp_is_as_good_as_a_socket() -> None:
    with running(port=free_port()) as server:
        assert left(server.url) == [PLENTY - 1, PLENTY - 2]
        assert left(server.url.replace("valkey://127.0.0.1", "redis://localhost") + "/0") == [PLENTY - 3, PLENTY - 4]


MISTAKES = [
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
    ("valkey://:CANARY\u2100@host", "contains invalid characters"),
]


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(("url", "reason"), MISTAKES)
def test_a_mistake_is_told_in_a_line_without_the_password(url: str, reason: str, asynchronous: bool) -> None:
    with pytest.raises(InputError) as refused:
        StoreUrl(url, asynchronous)
    told = str(refused.value)
    assert reason in told
    assert told.endswith("such as valkey://localhost:6379/0, rediss://:password@host or unix:///run/valkey.sock")
    assert CANARY not in told
    assert "\n" not in told


# --- encryption


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("scheme", ["rediss", "valkeys"])
@pytest.mark.parametrize(
    ("said", "checks_host", "wants"),
    [
        ("", True, ssl.CERT_REQUIRED),
        ("?ssl_check_hostname=no", False, ssl.CERT_REQUIRED),
        ("?ssl_cert_reqs=none", False, ssl.CERT_NONE),
    ],
)
def test_an_encrypted_store_must_show_a_certificate_for_its_name(
    scheme: str, said: str, checks_host: bool, wants: ssl.VerifyMode, asynchronous: bool
) -> None:
    connection = StoreUrl(f"{scheme}://localhost{said}", asynchronous).connection(None)
    assert type(connection).__name__ == "SSLConnection"
    assert (bool(connection.check_hostname), connection.cert_reqs) == (checks_host, wants)


def test_an_encrypted_store_decides(store: ValkeyServer, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(AUTHORITY.cert_pem.bytes())
    with encrypted(store.url, "localhost", AUTHORITY) as port:
        url = f"valkeys://localhost:{port}?ssl_ca_certs={tmp_path / 'ca.pem'}"
        assert left(url) == [PLENTY - 1, PLENTY - 2]
        assert left(f"rediss://localhost:{port}?ssl_cert_reqs=none") == [PLENTY - 3, PLENTY - 4]


@pytest.mark.parametrize(
    ("name", "authority", "reason"),
    [
        ("elsewhere", AUTHORITY, "certificate is not valid for 'localhost'"),
        ("localhost", trustme.CA(), "certificate verify failed"),
    ],
)
def test_a_store_with_somebody_else_s_certificate_is_not_asked(
    store: ValkeyServer, tmp_path: Path, name: str, authority: trustme.CA, reason: str
) -> None:
    (tmp_path / "ca.pem").write_bytes(AUTHORITY.cert_pem.bytes())
    with encrypted(store.url, name, authority) as port:
        url = f"valkeys://localhost:{port}?ssl_ca_certs={tmp_path / 'ca.pem'}"
        limiter, limiter_async = plenty(url, deadline=5), plenty_async(url, deadline=5)
        with pytest.raises(StoreError, match=reason):
            limiter.hit("alice")
        with pytest.raises(StoreError, match=reason):
            asyncio.run(limiter_async.hit("alice"))
    assert ask(store.url, "DBSIZE") == 0


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_store_whose_url_does_not_say_so_is_not_encrypted(asynchronous: bool) -> None:
    assert type(StoreUrl("valkey://localhost", asynchronous).connection(None)).__name__ == "Connection"


@pytest.mark.parametrize("made", [ValkeyLimiter, AsyncValkeyLimiter])
@pytest.mark.parametrize("deadline", [0, -1, float("nan"), float("inf"), None, "1s", True, 61])
def test_a_deadline_is_a_number_of_seconds(made: Any, deadline: object) -> None:
    with pytest.raises(InputError, match="deadline must be above 0 and at most 60 seconds, got"):
        made("valkey://host", "gcra", "2/s", deadline=deadline)


@pytest.mark.parametrize("connections", [0, -1, 1.0, True, None])
def test_there_is_a_connection_at_least(connections: Any) -> None:
    with pytest.raises(InputError, match="connections must be a whole number >= 1, got"):
        ValkeyLimiter("valkey://host", "gcra", "2/s", connections=connections)


def test_without_the_client_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkey", None)
    with pytest.raises(InputError, match=r"pip install '\.\[valkey\]'"):
        ValkeyLimiter("valkey://host", "gcra", "2/s")
