"""Policy files and their applications as the manual shows them."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from asgi import AsgiResponse, call, scope_of
from limited_apps import Handler
from manual import block, blocks

from ratelab import ManualClock, MemoryLimiter
from ratelab.clock import default_clocks
from ratelab.http import RateLimitMiddleware
from ratelab.http.asgi import App, Message, Receive, Scope, Send
from ratelab.policies.policy_file import read_policies

FILES = [one.text for one in blocks("yaml") if one.page == "ratelab/docs/policies.md"]


def save(tmp_path: Path, part: str) -> str:
    """Save the policy file shown that contains `part`; return its path."""
    path = tmp_path / "policies.yaml"
    path.write_text(next(text for text in FILES if part in text))
    return str(path)


def limit(path: str, app: App | None = None, **arguments: Any) -> RateLimitMiddleware:
    """Limit an application by a policy file, on a clock that stands still."""
    arguments = {"limiter": partial(MemoryLimiter, clock=ManualClock()), **arguments}
    return RateLimitMiddleware.from_file(app or Handler(), path, **arguments)


@pytest.mark.parametrize("text", FILES)
def test_every_policy_file_shown_is_valid(text: str, tmp_path: Path) -> None:
    (tmp_path / "policies.yaml").write_text(text)
    assert read_policies(str(tmp_path / "policies.yaml")).policies


def test_the_application_shown_has_the_plans_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(default_clocks, "aligned", lambda window: ManualClock())
    save(tmp_path, "name: global")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(block("python", "from_file, path="), "api.py", "exec"), names)  # noqa: S102  (our own text)
    free = [call(names["app"], path="/", headers="X-API-Key: alice") for _ in range(21)]
    assert [response.status for response in free] == [200] * 20 + [429]
    shown = block("http", "violated").splitlines()
    fields = [f"{name.decode()}: {value.decode()}" for name, value in free[-1].fields if name != b"content-length"]
    assert (shown[1 : 1 + len(fields)], shown[-1]) == (fields, free[-1].body.decode().rstrip())
    premium = call(names["app"], path="/", headers="X-API-Key: bob\nX-Plan: premium")
    assert premium.of("ratelimit-policy") == ['"second";q=100;w=2, "day";q=20000;w=86400']


class Login(Handler):
    """A login that succeeds with the user `right`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        right = (b"x-login-name", b"right") in scope["headers"]
        self.start = {**self.start, "status": 200 if right else 401}
        await super().__call__(scope, receive, send)


def test_the_login_limits_failures_by_account_and_by_address(tmp_path: Path) -> None:
    path = save(tmp_path, "name: account")
    app = limit(path, Login(), charge=lambda scope, status: status == 401)

    def statuses(name: str, peer: str, count: int) -> list[int]:
        header = f"X-Login-Name: {name}"
        return [call(app, peer, header, "POST", "/login").status for _ in range(count)]

    assert statuses("right", "192.0.2.1", 20) == [200] * 20
    assert statuses("alice", "192.0.2.1", 6) == [401] * 5 + [429]
    assert statuses("alice", "192.0.2.2", 1) == [429]
    assert statuses("bob", "192.0.2.1", 6) == [401] * 5 + [429]
    assert statuses("carol", "192.0.2.1", 1) == [429]


@pytest.mark.slow
def test_the_search_has_a_limit_for_a_client_and_a_queue_for_all(tmp_path: Path) -> None:
    app = limit(save(tmp_path, "name: index"))
    assert [call(app, path="/search").status for _ in range(11)] == [200] * 10 + [429]
    assert call(app, path="/").of("ratelimit-policy") == ['"total";q=200;w=2']


@pytest.mark.usefixtures("stopped_clock")
def test_graphql_points_are_those_of_the_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = block("python", "count_points(scope):")
    (tmp_path / "graphql.yaml").write_text(next(one for one in FILES if "name: points" in one))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"RateLimitMiddleware": RateLimitMiddleware}
    exec(compile(text, "graphql.py", "exec"), names)  # noqa: S102  (our own text)
    app = names["limit"](Handler())
    responses = [call(app, method="POST", path="/graphql", headers="X-Query-Points: 200") for _ in range(3)]
    assert [response.status for response in responses] == [200, 200, 429]
    assert json.loads(responses[-1].body)["violated-policies"] == ["points"]


@pytest.mark.usefixtures("stopped_clock")
def test_the_language_model_reserves_tokens_and_settles_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "llm.yaml").write_text(next(one for one in FILES if "name: output" in one))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(block("python", "StreamingResponse"), "llm.py", "exec"), names)  # noqa: S102  (our own text)
    limiter = names["limiter"]

    def complete(prompt: str, max_tokens: int) -> AsgiResponse:
        body = json.dumps({"prompt": prompt, "max_tokens": max_tokens}).encode()
        return asyncio.run(post(names["app"], "/complete", body))

    assert complete("one two three", 6000).body == b"one two three "
    _, (_, _, output) = limiter.hit_each("alice", 0)
    assert output.remaining >= 9997  # three of 6,000 reserved tokens were used
    limiter.hit("alice", {"requests": 0, "input": 0, "output": 9000})
    (wait,) = complete("one two three", 9999).of("retry-after")
    assert 1 <= int(wait) <= 60
    assert complete("one two three", 10_001).of("retry-after") == []
    assert json.loads(complete("word " * 40_001, 1).body) == {"limit": "input"}


async def post(app: App, path: str, body: bytes) -> AsgiResponse:
    """Send one request with a JSON body."""
    sent: list[Message] = []
    bodies: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return bodies.pop() if bodies else await asyncio.Future[Message]()

    async def send(message: Message) -> None:
        sent.append(message)

    await app(
        scope_of(headers="X-API-Key: alice\nContent-Type: application/json", method="POST", path=path), receive, send
    )
    start, *rest = sent
    return AsgiResponse(start["status"], list(start["headers"]), b"".join(part.get("body", b"") for part in rest))
