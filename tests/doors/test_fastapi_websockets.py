"""Limits of WebSockets in FastAPI: connections and messages."""

import asyncio
import json
from typing import Annotated, Any

import pytest
from asgi import call, converse
from fastapi import APIRouter, Depends, FastAPI, WebSocket, WebSocketDisconnect
from fastapi.responses import JSONResponse, Response

from ratelab import ManualClock, MemoryLimiter, Policy
from ratelab.fastapi import RateLimit, RateLimitDenied
from ratelab.http.asgi import Message

pytestmark = pytest.mark.usefixtures("stopped_clock")


def fixed(burst: int = 1) -> MemoryLimiter:
    """Return a limiter whose quota does not return."""
    return MemoryLimiter(Policy.create("token-bucket", f"{burst}/h"), ManualClock())


def chat(messages: RateLimit, *dependencies: Any) -> FastAPI:
    """Create an application that echoes the texts of a WebSocket, each of which is limited."""
    app, router = FastAPI(), APIRouter(dependencies=dependencies)

    @router.websocket("/ws")
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await messages(websocket)
            await websocket.send_text(text)

    app.include_router(router)
    return app


def talk(app: FastAPI, *texts: str, refusable: bool = False) -> list[Message]:
    return asyncio.run(converse(app, *texts, refusable=refusable))


def kinds(sent: list[Message]) -> list[str]:
    return [message["type"].removeprefix("websocket.") for message in sent]


def test_a_connection_above_the_limit_is_refused() -> None:
    app = chat(RateLimit("100/h"), Depends(RateLimit(fixed())))
    assert kinds(talk(app)) == ["accept"]
    (close,) = talk(app)
    assert (close["type"], close["code"]) == ("websocket.close", 1008)  # before `accept`, the server answers 403


def test_a_server_that_can_answers_a_refused_connection_with_429() -> None:
    app = chat(RateLimit("100/h"), Depends(RateLimit(fixed())))
    assert kinds(talk(app, refusable=True)) == ["accept"]
    sent = talk(app, refusable=True)
    assert kinds(sent) == ["http.response.start", "http.response.body"]
    start, body = sent
    fields = dict(start["headers"])
    assert start["status"] == 429
    assert (fields[b"retry-after"], fields[b"content-type"]) == (b"3600", b"application/problem+json")
    assert json.loads(body["body"])["violated-policies"] == ["token-bucket"]


def test_a_connection_and_a_request_share_the_quota_of_a_limit() -> None:
    limit = Depends(RateLimit(fixed(2)))
    app = chat(RateLimit("100/h"), limit)
    app.get("/ping", dependencies=[limit])(lambda: 1)
    assert [call(app).status, *kinds(talk(app)), call(app).status, *kinds(talk(app))] == [200, "accept", 429, "close"]


def test_a_message_above_the_limit_closes_the_connection() -> None:
    app = chat(RateLimit(fixed(2)))
    sent = talk(app, "a", "b", "c", "d")
    assert kinds(sent) == ["accept", "send", "send", "close"]
    assert (sent[-1]["code"], sent[-1]["reason"]) == (1013, "Try again in 1800 s.")


def test_an_application_may_keep_the_connection_of_a_denied_message() -> None:
    app, limit = FastAPI(), RateLimit(fixed(1))

    @app.websocket("/ws")
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            try:
                await limit(websocket)
            except RateLimitDenied as denied:
                text = denied.detail
            await websocket.send_text(text)

    assert [message.get("text") for message in talk(app, "a", "b", "c")] == [None, "a", *["Try again in 3600 s."] * 2]


def test_a_message_may_have_a_key_and_a_cost_of_its_own() -> None:
    app, limit = FastAPI(), RateLimit(fixed(6), key=Depends(lambda: ""), cost=Depends(lambda: 1))

    @app.websocket("/ws")
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await limit(websocket, key=text[0], cost=len(text))
            await websocket.send_text(text)

    assert kinds(talk(app, "aaa", "bbbbbb", "aaa", "a")) == ["accept", "send", "send", "send", "close"]


def test_the_decision_on_a_connection_is_in_its_state() -> None:
    app = FastAPI()

    @app.websocket("/ws")
    async def report(websocket: WebSocket, decision: Annotated[Any, Depends(RateLimit("5/h"))]) -> None:
        await websocket.accept()
        assert websocket.state.ratelimit == decision
        await websocket.send_text(str(decision.remaining))

    assert talk(app)[-1]["text"] == "4"


def test_functions_take_the_websocket() -> None:
    app = chat(RateLimit(fixed(2), key=lambda websocket: websocket.url.path))
    assert kinds(talk(app, "a", "b", "c")) == ["accept", "send", "send", "close"]


@pytest.mark.parametrize("match", ["/ws", "GET /ws"])
def test_policies_match_the_request_that_opens_a_connection(match: str) -> None:
    limiter = MemoryLimiter([Policy.create("token-bucket", "1/h", name="opened", match=match, shadow=False)])
    app = chat(RateLimit("100/h"), Depends(RateLimit(limiter)))
    assert [kinds(talk(app)), kinds(talk(app))] == [["accept"], ["close"]]


def test_a_shadow_policy_refuses_no_connection(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="ratelab.http")
    limiter = MemoryLimiter([Policy.create("token-bucket", "1/h", name="opened", shadow=True)])
    app = chat(RateLimit("100/h"), Depends(RateLimit(limiter)))
    assert [kinds(talk(app)), kinds(talk(app))] == [["accept"], ["accept"]]
    assert caplog.messages == ["shadow: opened would have denied GET /ws"]


def test_a_hook_responds_to_a_refused_connection() -> None:
    limit = RateLimit(fixed(), on_denied=lambda websocket, decision: JSONResponse({"detail": "é" * 99}, 409))
    app = chat(RateLimit("100/h"), Depends(limit))
    assert kinds(talk(app, refusable=True)) == ["accept"]
    assert talk(app, refusable=True)[0]["status"] == 409
    assert talk(app)[0]["reason"] == "é" * 61


def test_a_handler_of_requests_does_not_answer_websockets() -> None:
    app = chat(RateLimit(fixed(1)))
    app.add_exception_handler(RateLimitDenied.__mro__[1], lambda request, error: Response(status_code=418))
    assert kinds(talk(app, "a", "b")) == ["accept", "send", "close"]


def test_a_client_that_has_left_is_not_an_error() -> None:
    app = chat(RateLimit(fixed(1)))

    async def leave() -> list[Message]:
        sent: list[Message] = []
        received = iter(
            [{"type": "websocket.connect"}, *({"type": "websocket.receive", "text": "a"} for _ in range(3))]
        )

        async def receive() -> Message:
            return next(received)

        async def send(message: Message) -> None:
            if message["type"] == "websocket.close":
                raise OSError("the client has left")
            sent.append(message)

        scope = {"type": "websocket", "path": "/ws", "headers": [], "query_string": b"", "client": ("192.0.2.1", 1)}
        await app(scope, receive, send)
        return sent

    assert kinds(asyncio.run(leave())) == ["accept", "send"]


def test_a_leaky_bucket_spreads_messages() -> None:
    app, limit = FastAPI(), RateLimit(Policy.create("leaky-bucket", "50/s", 3))

    @app.websocket("/ws")
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        loop, start = asyncio.get_running_loop(), asyncio.get_running_loop().time()
        try:
            while True:
                await websocket.receive_text()
                await limit(websocket)
                await websocket.send_text(str(loop.time() - start))
        except WebSocketDisconnect:
            pass

    assert float(talk(app, "a", "b")[-1]["text"]) >= 0.015
