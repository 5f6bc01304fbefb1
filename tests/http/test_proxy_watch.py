"""Warnings about peers that are not the client: replaced by the server, or undeclared proxies."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import pytest
from asgi import scope_of
from identity_table import ALONE, Options

from ratelab.http.asgi import Scope
from ratelab.http.identity import MAX_WATCHED_PEERS, MAX_WATCHED_REQUESTS, MIN_FORWARDED_CLIENTS, Identity

FORGING = [f"X-Forwarded-For: 198.51.100.{number}" for number in range(50)]


def replaced(host: str, port: int, headers: str = "") -> Scope:
    return {**scope_of(host, headers), "client": (host, port)}


def warnings_of(caplog: pytest.LogCaptureFixture, scopes: Iterable[Scope], options: Options = ALONE) -> list[str]:
    """Identify the clients of requests; return the warnings."""
    identity = Identity(**options)
    caplog.clear()
    with caplog.at_level(logging.WARNING, "ratelab"):
        for scope in scopes:
            identity(scope)
    return [record.getMessage() for record in caplog.records]


# --- a server that replaces the peer


@pytest.mark.parametrize("options", [{}, {"trusted_proxies": ["10.0.0.1"]}, {"key": "header:X-API-Key"}], ids=str)
def test_a_replaced_peer_is_reported_once_with_remedies(caplog: pytest.LogCaptureFixture, options: Options) -> None:
    scopes = [replaced(f"203.0.113.{number}", 0, line) for number, line in enumerate(FORGING)]
    (warning,) = warnings_of(caplog, scopes, options)
    assert all(remedy in warning for remedy in ("--no-proxy-headers", "--forwarded-allow-ips ''", "trusted_proxies"))


@pytest.mark.parametrize(
    ("host", "port", "line"),
    [
        ("203.0.113.9", 0, "X-Forwarded-For: 203.0.113.9"),
        ("203.0.113.9", 4711, "X-Forwarded-For: 203.0.113.9:4711"),
        ("2001:db8::1", 4711, "X-Forwarded-For: 192.0.2.7, [2001:db8::1]:4711"),
        ("evil", 0, "X-Forwarded-For: evil"),
    ],
)
def test_every_form_of_a_replaced_peer_is_noticed(
    caplog: pytest.LogCaptureFixture, host: str, port: int, line: str
) -> None:
    assert len(warnings_of(caplog, [replaced(host, port, line)])) == 1


def test_peers_of_the_socket_are_not_reported(caplog: pytest.LogCaptureFixture) -> None:
    scopes = [replaced("203.0.113.9", 4711, "X-Forwarded-For: 203.0.113.9"), replaced("", 0), scope_of(None)]
    scopes += [{**scope_of(), "client": ("", "0")}, {**scope_of(), "client": ("192.0.2.1", "4711")}]
    assert warnings_of(caplog, scopes) == []


# --- an undeclared proxy


@pytest.mark.parametrize(
    "peer", ["127.0.0.1", "::1", "10.1.2.3", "::ffff:192.168.1.1", "fd00::1", "100.64.0.1", None, ""]
)
def test_a_local_peer_that_names_several_clients_is_reported_once(
    caplog: pytest.LogCaptureFixture, peer: str | None
) -> None:
    (warning,) = warnings_of(caplog, [scope_of(peer, line) for line in FORGING])
    assert f"trusted_proxies=['{peer or 'unix'}']" in warning


@pytest.mark.parametrize("name", ["X-Real-IP: ", "Forwarded: for="])
def test_other_forwarding_headers_show_a_proxy_too(caplog: pytest.LogCaptureFixture, name: str) -> None:
    assert len(warnings_of(caplog, [scope_of("10.1.2.3", f"{name}192.0.2.{number}") for number in range(9)])) == 1


def test_a_proxy_that_is_not_among_the_trusted_ones_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    options = {"trusted_proxies": ["10.0.0.1"]}
    assert len(warnings_of(caplog, [scope_of("10.0.0.2", line) for line in FORGING], options)) == 1
    assert warnings_of(caplog, [scope_of("10.0.0.1", line) for line in [*FORGING, ""]], options) == []
    assert warnings_of(caplog, [scope_of("10.0.0.1", line) for line in FORGING], {"trusted_hops": 1}) == []


@pytest.mark.parametrize("options", [{"trusted_proxies": ["10.0.0.1"]}, {"trusted_hops": 1}], ids=str)
def test_a_declared_proxy_is_not_reported_if_it_sends_another_header(
    caplog: pytest.LogCaptureFixture, options: Options
) -> None:
    scopes = [scope_of("10.0.0.1", f"X-Real-IP: 192.0.2.{number}") for number in range(9)]
    assert warnings_of(caplog, scopes, options) == []


def test_one_client_or_a_distant_peer_is_no_proxy(caplog: pytest.LogCaptureFixture) -> None:
    assert warnings_of(caplog, [scope_of("10.1.2.3", FORGING[0])] * 50 + [scope_of("10.1.2.3")] * 50) == []
    assert warnings_of(caplog, [scope_of("203.0.113.9", line) for line in FORGING]) == []
    assert warnings_of(caplog, [scope_of("10.1.2.3", line) for line in FORGING[: MIN_FORWARDED_CLIENTS - 1]]) == []


def test_a_proxy_is_noticed_after_health_checks(caplog: pytest.LogCaptureFixture) -> None:
    checks = [scope_of("10.1.2.3")] * (MAX_WATCHED_REQUESTS - MIN_FORWARDED_CLIENTS)
    assert len(warnings_of(caplog, [*checks, *(scope_of("10.1.2.3", line) for line in FORGING)])) == 1


def test_peers_are_watched_for_a_limited_time_and_number() -> None:
    identity = Identity()
    assert identity.keys_by_peer is not None
    for number in range(2 * MAX_WATCHED_PEERS):
        identity(scope_of(f"10.1.{number // 256}.{number % 256}"))
    assert len(identity.keys_by_peer) == MAX_WATCHED_PEERS
    for _ in range(MAX_WATCHED_REQUESTS):
        identity(scope_of("10.1.0.0"))
    assert len(identity.keys_by_peer) == MAX_WATCHED_PEERS + 1
    identity(scope_of("10.9.9.9"))  # is watched instead
    assert len(identity.keys_by_peer) == MAX_WATCHED_PEERS + 1
