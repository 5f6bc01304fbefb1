"""Peers of the WSGI middleware: Unix sockets, replaced addresses, and headers that a server has joined."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from limited_apps import Watched
from wsgi import call, environ_of, run
from wsgi_apps import hello

from ratelab.http import Identity
from ratelab.wsgi import RateLimitMiddleware


@pytest.mark.parametrize(("address", "port"), [("", None), (None, None), ("localhost", "None")])
def test_a_unix_socket_is_one_client_unless_it_is_trusted(address: str | None, port: str | None) -> None:
    environ = environ_of(headers="X-Forwarded-For: 192.0.2.7")
    environ |= {"REMOTE_ADDR": address, "REMOTE_PORT": port}
    if address is None:
        del environ["REMOTE_ADDR"], environ["REMOTE_PORT"]
    limiter = Watched()
    identity = Identity(trusted_proxies=["unix"])
    run(RateLimitMiddleware(hello, limiter, identity), environ)
    assert limiter.asked == [(identity.key_of("192.0.2.7"), 1)]


def admitted(app: RateLimitMiddleware, **changes: str) -> int:
    """Return how many of 50 requests with made-up addresses are admitted."""
    found = 0
    for number in range(50):
        environ = environ_of("127.0.0.1", f"X-Forwarded-For: 203.0.113.{number}")
        environ |= {name: value.format(number) for name, value in changes.items()}
        found += run(app, environ).status == 200
    return found


def test_a_local_peer_cannot_name_itself() -> None:
    assert admitted(RateLimitMiddleware(hello, Watched())) == 5


@pytest.mark.parametrize("peer", ["203.0.113.{}", "2001:db8:{}::1"])
@pytest.mark.parametrize("port", [True, False], ids=["with a port", "without"])
def test_a_server_that_replaces_the_peer_is_reported_once(
    caplog: pytest.LogCaptureFixture, peer: str, port: bool
) -> None:
    entry = peer if not port else f"{peer}:4711" if "." in peer else f"[{peer}]:4711"
    changes = {"REMOTE_ADDR": peer, "HTTP_X_FORWARDED_FOR": f"{entry}"}
    with caplog.at_level(logging.WARNING, "ratelab"):
        assert admitted(RateLimitMiddleware(hello, Watched()), **changes) == 50
    assert len(caplog.records) == 1
    assert all(remedy in caplog.text for remedy in ("waitress without trusted_proxy", "ProxyFix", "gunicorn"))


def test_the_middleware_of_werkzeug_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    from werkzeug.middleware.proxy_fix import ProxyFix

    app: Any = ProxyFix(RateLimitMiddleware(hello, Watched()), x_for=1)
    with caplog.at_level(logging.WARNING, "ratelab"):
        assert admitted(app, HTTP_X_FORWARDED_FOR="127.0.0.{}") == 50
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("peer", "header"),
    [
        ("127.0.0.1", "X-Forwarded-For: 127.0.0.1"),
        ("::1", "X-Forwarded-For: ::1"),
        ("203.0.113.9", "X-Forwarded-For: 203.0.113.99"),
        ("203.0.113.9", "X-Forwarded-For: 192.0.2.7"),
        ("10.0.0.1", ""),
    ],
)
def test_peers_of_the_socket_are_not_reported(caplog: pytest.LogCaptureFixture, peer: str, header: str) -> None:
    with caplog.at_level(logging.WARNING, "ratelab"):
        call(RateLimitMiddleware(hello, Watched()), peer, header)
    assert caplog.records == []


@pytest.mark.parametrize("name", ["User-Agent", "Authorization", "Cookie", "Accept-Language", "Sec-CH-UA"])
def test_commas_are_usual_in_some_fields(name: str) -> None:
    app = RateLimitMiddleware(hello, Watched(), key=f"header:{name}")
    assert call(app, headers=f"{name}: a, b").status == 200


@pytest.mark.parametrize("cost", [1, lambda environ: 1], ids=["at once", "with its scope"])
def test_functions_of_an_identity_receive_the_environment(cost: Any) -> None:
    limiter = Watched()
    identity = Identity(lambda environ: environ.get("REMOTE_USER"), secret="s")  # noqa: S106
    run(RateLimitMiddleware(hello, limiter, identity, cost), environ_of() | {"REMOTE_USER": "alice"})
    assert limiter.asked == [(identity.key_of("alice"), 1)]


@pytest.mark.parametrize("name", [None, "", "a" * 257])
def test_a_function_without_a_usable_text_leaves_the_address(name: str | None) -> None:
    limiter, calls = Watched(), []

    def find_name(environ: Any) -> str | None:
        calls.append(environ)
        return name

    app = RateLimitMiddleware(hello, limiter, Identity(find_name, secret="s"))  # noqa: S106
    for _ in range(3):
        call(app, "203.0.113.7")
    assert limiter.asked == [(Identity(secret="s").key_of("203.0.113.7"), 1)] * 3  # noqa: S106
    assert len(calls) == 3
