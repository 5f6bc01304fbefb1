"""The applications of the pages about frameworks, and the responses that those pages show."""

from __future__ import annotations

import asyncio
import re
import sys
from http import HTTPStatus
from types import ModuleType
from typing import Any

import asgi
import pytest
import wsgi
from door_conformance import Reply
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from manual import PAGES, block

from ratelab import ManualClock, MemoryLimiter, Policy
from ratelab.clock import default_clocks


def shown(page: str) -> list[list[str]]:
    """Return the lines of each response that a page shows."""
    (text,) = re.findall(r"^```text\n(HTTP/1.1 .*?)^```", PAGES[f"ratelab/docs/{page}.md"], re.DOTALL | re.MULTILINE)
    return [response.splitlines() for response in re.split(r"(?m)^HTTP/1.1 ", text)[1:]]


def send(app: Any, path: str) -> Reply:
    """Send a request to an application of WSGI or, with FastAPI, of ASGI."""
    if not isinstance(app, FastAPI):
        return Reply(*wsgi.call(app, path=path))
    status, fields, body = asgi.call(app, path=path)
    return Reply(status, [(name.decode(), value.decode()) for name, value in fields], body)


def lines_of(response: Reply, body: str) -> list[str]:
    """Return the lines of a response that `grep` lets pass."""
    fields = [f"{name}: {value}" for name, value in response.fields if "rate" in name or "retry" in name]
    text = [line for line in response.body.decode().splitlines() if body and body in line]
    return [f"{response.status} {HTTPStatus(response.status).phrase}", *fields, *text]


@pytest.mark.parametrize(
    ("page", "path", "body"), [("wsgi", "/", ""), ("flask", "/search", "left"), ("fastapi", "/search", "left")]
)
def test_the_responses_shown_are_those_of_the_first_application(
    page: str, path: str, body: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    monkeypatch.setattr(default_clocks, "steady", clock)
    module = ModuleType("shop")
    source = re.findall(r"^```python\n(.*?)^```", PAGES[f"ratelab/docs/{page}.md"], re.DOTALL | re.MULTILINE)[0]
    exec(compile(source, "shop.py", "exec"), vars(module))  # noqa: S102  (our own text)
    app: Any = module.__dict__["app"]
    responses = [send(app, path) for _ in range(3)]
    clock.advance(5 * 10**9)
    responses.append(send(app, path))
    for response, lines in zip(responses, shown(page), strict=True):
        printed = [line.lower() for line in lines_of(response, body)]
        assert [line.lower() for line in lines] == [
            line for line in printed if "rate" in lines[1] or "rate" not in line
        ]


@pytest.mark.usefixtures("stopped_clock")
def test_a_cost_that_the_client_names_is_checked() -> None:
    module = ModuleType("shop")
    exec(compile(block("python", "def count_rows("), "shop.py", "exec"), vars(module))  # noqa: S102  (our own text)

    async def export(*rows: object) -> list[tuple[int, str]]:
        transport = ASGITransport(module.__dict__["app"])
        async with AsyncClient(transport=transport, base_url="http://shop", auth=("ann", "secret")) as client:
            responses = [await client.get("/export", params={"rows": str(each)}) for each in rows]
        return [(one.status_code, re.sub(";t=[0-9]+", "", one.headers["RateLimit"])) for one in responses]

    assert asyncio.run(export(5, 0, "many", 16)) == [
        (200, '"100/minute";r=99, "20/hour";r=15'),
        (422, '"100/minute";r=98'),
        (422, '"100/minute";r=97'),
        (429, '"20/hour";r=0, "100/minute";r=97'),
    ]


@pytest.mark.parametrize("framework", ["starlette", "litestar"])
def test_a_websocket_of_another_framework_limits_connections_and_messages(
    framework: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("shop")
    monkeypatch.setitem(sys.modules, "shop", module)  # where Litestar finds the types of the function
    part = "WebSocketRoute(" if framework == "starlette" else "from litestar import Litestar, WebSocket"
    exec(compile(block("python", part), "shop.py", "exec"), vars(module))  # noqa: S102  (our own text)
    app, clock = module.__dict__["app"], ManualClock()
    for name, policy in (("connections", "10/minute"), ("messages", "2/s")):
        vars(module)[name] = MemoryLimiter(Policy.create("token-bucket", policy), clock)

    async def chat(*texts: str) -> list[Any]:
        sent = await asgi.converse(app, *texts, path="/chat")
        return [message.get("text", message.get("code", message["type"])) for message in sent]

    assert asyncio.run(chat("a", "b", "c")) == ["websocket.accept", "a", "b", 1013]
    clock.advance(10**9)
    assert [asyncio.run(chat())[0] for _ in range(10)] == ["websocket.accept"] * 9 + [1008]
