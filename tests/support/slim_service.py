"""A limited service on the standard library alone: what `pip install --no-deps` is for.

Run as a program in an environment with ratelab and nothing else. It exits with status 0 if the limiter and the
middleware work there, and if importing them loads no third-party package.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any
from wsgiref.util import setup_testing_defaults

BEFORE = {name.partition(".")[0] for name in sys.modules}

from ratelab import InputError, ManualClock, MemoryLimiter, Policy, create  # noqa: E402  (after the names loaded before)
from ratelab.http import Identity, RateLimitMiddleware  # noqa: E402
from ratelab.http.asgi import Message, Receive, Scope, Send  # noqa: E402
from ratelab.pacing import Pacer  # noqa: E402
from ratelab.stores import memory, resilient  # noqa: E402, F401  (main checks their imports, too)
from ratelab.wsgi import RateLimitMiddleware as WsgiMiddleware  # noqa: E402


async def application(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Answer every request with 200."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"pong"})


async def statuses(app: RateLimitMiddleware, requests: int) -> list[int]:
    """Send requests from one client; return the status of each response."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "client": ("192.0.2.1", 50_000)}
    for _ in range(requests):
        await app(scope, receive, send)
    return [message["status"] for message in sent if message["type"] == "http.response.start"]


def wsgi_application(_environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Answer every request with 200."""
    start_response("200 OK", [])
    return [b"pong"]


def wsgi_statuses(app: WsgiMiddleware, requests: int) -> list[str]:
    """Send requests from one client; return the status of each response."""
    found: list[str] = []
    for _ in range(requests):
        environ: dict[str, Any] = {"REMOTE_ADDR": "192.0.2.1"}
        setup_testing_defaults(environ)
        app(environ, lambda status, *_: found.append(status[:3]))  # type: ignore[arg-type]
    return found


def main() -> None:
    """Limit a client through the limiter and through the middleware, and pace a client."""
    with Pacer().request() as permit:
        assert permit.observe(429, {"Retry-After": "1"}).denied
    limiter = MemoryLimiter(create("token-bucket", "2/s", burst=3), clock=ManualClock())
    assert [limiter.hit("alice").allowed for _ in range(4)] == [True, True, True, False]
    app = RateLimitMiddleware(application, limiter, key=Identity("ip"))
    assert asyncio.run(statuses(app, 4)) == [200, 200, 200, 429]
    policies = [
        Policy.create("gcra", "2/s", burst=3, name="second"),
        Policy.create("gcra", "2/day", key="all", name="day"),
    ]
    several = RateLimitMiddleware(application, policies, plan=lambda _: None, charge=lambda _, status: status == 200)
    assert asyncio.run(statuses(several, 3)) == [200, 200, 429]
    wsgi_app = WsgiMiddleware(wsgi_application, MemoryLimiter(create("gcra", "2/h")))
    assert wsgi_statuses(wsgi_app, 3) == ["200", "200", "429"]
    try:
        WsgiMiddleware.from_file(wsgi_application, "policies.yaml")
    except InputError as error:
        assert str(error).startswith("a policy file needs the package ")  # noqa: PT017  (there is no pytest here)
        assert str(error).endswith(": run pip install pyyaml pydantic")  # noqa: PT017
    else:
        raise AssertionError("a policy file was read without a library for YAML")
    own = {"ratelab", "__mp_main__"}  # multiprocessing's name for this module
    third_party = {name.partition(".")[0] for name in sys.modules} - BEFORE - sys.stdlib_module_names - own
    assert not third_party, f"importing ratelab loaded {third_party}"


if __name__ == "__main__":
    main()
