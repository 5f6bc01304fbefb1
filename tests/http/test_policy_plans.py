"""Plans in the middleware: headers, mappings, functions, their failures, and policy files that change."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from asgi import call, request, scope_of
from invalid_policies import VALID_POLICIES
from limited_apps import Handler
from test_watched_files import write

from ratelab import InputError, ManualClock, MemoryLimiter, Policy
from ratelab.http import RateLimitMiddleware, file_policies, plan_source
from ratelab.http.asgi import Scope

PLANS: dict[str, Any] = {"free": {}, "premium": {"second": ("50/s", 100)}}
FREE, PREMIUM = '"second";q=20;w=2, "day";q=1000;w=86400', '"second";q=100;w=2, "day";q=1000;w=86400'


def limited(**arguments: Any) -> RateLimitMiddleware:
    """Limit a handler by two policies with two plans, for clients with an API key."""
    second = Policy.create("token-bucket", "10/s", burst=20, name="second")
    day = Policy.create("fixed-window", "1000/day", name="day")
    limiter = MemoryLimiter([second, day], ManualClock(), plans=PLANS)
    arguments = {"default_plan": "free", "key": "header:X-API-Key"} | arguments
    return RateLimitMiddleware(Handler(), limiter, **arguments)


def policies(app: RateLimitMiddleware, headers: str = "X-API-Key: alice") -> str:
    """Return the quotas of a request, or its status if it has none."""
    response = call(app, headers=headers)
    return (response.of("ratelimit-policy") or [str(response.status)])[0]


# --- headers and mappings


def test_a_header_names_the_plan_and_without_it_the_default_applies() -> None:
    app = limited(plan="header:X-Plan")
    assert [policies(app), policies(app, "X-API-Key: bob\nX-Plan: premium")] == [FREE, PREMIUM]


@pytest.mark.parametrize("header", ["X-Plan: gold", "X-Plan: premium\nX-Plan: premium"])
@pytest.mark.parametrize(("on_error", "outcome"), [("default", FREE), ("closed", "503")])
def test_an_unknown_or_repeated_plan_follows_on_plan_error(header: str, on_error: str, outcome: str) -> None:
    assert policies(limited(plan="header:X-Plan", on_plan_error=on_error), f"X-API-Key: a\n{header}") == outcome


def test_a_mapping_names_the_plans_of_clients() -> None:
    app = limited(plan={"bob": "premium"})
    assert [policies(app), policies(app, "X-API-Key: bob")] == [FREE, PREMIUM]


def test_a_plan_without_a_default_leaves_the_quotas_of_the_policies() -> None:
    assert policies(limited(plan="header:X-Plan", default_plan=None)) == FREE


def test_a_change_of_plan_grants_nothing() -> None:
    app = limited(plan="header:X-Plan")
    remaining = []
    for number in range(40):
        plan = ("free", "premium")[number % 2]
        response = call(app, headers=f"X-API-Key: a\nX-Plan: {plan}")
        remaining.append(response.of("ratelimit")[0])
    assert remaining[20].startswith('"second";r=0;')


# --- functions


def test_a_function_is_called_once_for_each_client() -> None:
    calls: list[str] = []

    def find(scope: Scope) -> str | None:
        calls.append(scope["path"])
        return "premium" if scope["path"] == "/vip" else None

    app = limited(plan=find, key=lambda scope: scope["path"])
    found = [call(app, path=path).of("ratelimit-policy") for path in ("/vip", "/vip", "/other", "/other")]
    assert found == [[PREMIUM], [PREMIUM], [FREE], [FREE]]
    assert calls == ["/vip", "/other"]


def test_concurrent_requests_of_a_client_wait_for_one_call() -> None:
    calls = 0

    async def find(scope: Scope) -> str:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0)
        return "premium"

    app = limited(plan=find)

    async def run() -> list[str]:
        responses = await asyncio.gather(*(request(app, scope_of(headers="X-API-Key: a")) for _ in range(9)))
        return [response.of("ratelimit-policy")[0] for response in responses]

    assert (asyncio.run(run()), calls) == ([PREMIUM] * 9, 1)


async def hang(scope: Scope) -> str:
    return await asyncio.Future[str]()


async def hang_on(scope: Scope) -> str:
    """Hang even if it is cancelled."""
    while True:
        try:
            await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)
            return "premium"


def fail(scope: Scope) -> str:
    raise ZeroDivisionError


async def fail_later(scope: Scope) -> str:
    raise ZeroDivisionError


FAILURES = [hang, hang_on, fail, fail_later, lambda scope: "gold", lambda scope: 5, lambda scope: ["premium"]]


@pytest.mark.parametrize("find", FAILURES)
@pytest.mark.parametrize(("on_error", "outcome"), [("default", FREE), ("closed", "503")])
def test_a_function_that_fails_or_hangs_follows_on_plan_error(
    find: Any, on_error: str, outcome: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = limited(plan=find, on_plan_error=on_error, plan_timeout=0.01)
    assert [policies(app), policies(app)] == [outcome] * 2
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("no plan was found (")
    assert app.counts.unavailable == (2 if on_error == "closed" else 0)


def test_a_failure_is_tried_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(plan_source, "monotonic", lambda: now)
    outcomes = iter(["gold", "premium", "free"])
    app = limited(plan=lambda scope: next(outcomes))
    assert [policies(app), policies(app)] == [FREE, FREE]
    now += 1  # second
    assert [policies(app), policies(app)] == [PREMIUM, PREMIUM]
    now += 60
    assert policies(app) == FREE


def test_a_cancelled_request_does_not_cancel_the_call_that_others_wait_for() -> None:
    release = asyncio.Event()

    async def find(scope: Scope) -> str:
        await release.wait()
        return "premium"

    app = limited(plan=find)

    async def run() -> list[str]:
        first, second = (asyncio.ensure_future(request(app, scope_of(headers="X-API-Key: a"))) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        release.set()
        return (await second).of("ratelimit-policy")

    assert asyncio.run(run()) == [PREMIUM]


def test_on_trio_a_plain_function_works_and_an_asynchronous_one_is_rejected() -> None:
    trio = pytest.importorskip("trio")
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    trio.run(limited(plan=lambda scope: "premium"), scope_of(), None, send)
    assert (b"ratelimit-policy", PREMIUM.encode()) in sent[0]["headers"]
    with pytest.raises(InputError, match="a plan function on Trio must return text or None, got <coroutine"):
        trio.run(limited(plan=fail_later), scope_of(), None, send)


def test_the_number_of_kept_plans_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_source, "MAX_CACHED_PLANS", 3)
    calls: list[str] = []
    app = limited(plan=lambda scope: calls.append(scope["path"]), key=lambda scope: scope["path"])
    for path in ("/1", "/2", "/3", "/4", "/4", "/1"):
        call(app, path=path)
    assert calls == ["/1", "/2", "/3", "/4", "/1"]


# --- policy files


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let the time between checks of a file be that of the returned list."""
    times = [0.0]
    monkeypatch.setattr(file_policies, "monotonic", lambda: times[0])
    return times


def test_a_policy_file_has_plans_overrides_and_accounts(tmp_path: Path) -> None:
    text = VALID_POLICIES.replace("rate: 1000/day}", "rate: 1000/day, key: account}")
    path = write(tmp_path / "policies.yaml", text, 1)
    create = partial(MemoryLimiter, clock=ManualClock())
    app = RateLimitMiddleware.from_file(Handler(), path, key="header:X-API-Key", limiter=create)
    assert policies(app, "X-API-Key: bob") == FREE
    assert policies(app, "X-API-Key: bob\nX-Plan: premium") == '"second";q=100;w=2, "day";q=20000;w=86400'
    assert policies(app, "X-API-Key: alice\nX-Plan: premium") == '"second";q=40;w=4, "day";q=20000;w=86400'
    first, second = (call(app, headers="X-API-Key: new\nX-Account: acme").of("ratelimit")[0] for _ in range(2))
    assert [first, second] == ['"second";r=19;t=1', '"second";r=18;t=1']


def test_a_limiter_instead_of_a_function_that_creates_one_is_rejected(tmp_path: Path) -> None:
    path = write(tmp_path / "policies.yaml", VALID_POLICIES, 1)
    limiter: Any = MemoryLimiter(Policy.create("gcra", "1/s"))
    with pytest.raises(InputError, match="limiter must be a function that creates the limiter of the policies"):
        RateLimitMiddleware.from_file(Handler(), path, limiter=limiter)


def test_a_changed_file_applies_to_later_requests_and_grants_nothing(tmp_path: Path, clock: list[float]) -> None:
    path = tmp_path / "policies.yaml"
    create = partial(MemoryLimiter, clock=ManualClock())
    app = RateLimitMiddleware.from_file(Handler(), write(path, VALID_POLICIES, 1), limiter=create)
    for _ in range(10):
        call(app)
    write(path, VALID_POLICIES.replace("burst: 20", "burst: 40"), 2)
    assert call(app).of("ratelimit") == ['"second";r=9;t=2']  # not yet checked again
    clock[0] += file_policies.CHECK_INTERVAL_S
    response = call(app)
    assert response.of("ratelimit-policy") == ['"second";q=40;w=4, "day";q=1000;w=86400']
    assert response.of("ratelimit") == ['"second";r=17;t=3']  # 11 of 20 were used, and then one


def test_an_invalid_new_file_is_logged_and_the_policies_stay(
    tmp_path: Path, clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "policies.yaml"
    app = RateLimitMiddleware.from_file(Handler(), write(path, VALID_POLICIES, 1))
    for seconds, wrong in enumerate(("rate: 10/x", "rate: 10/s, cost: tokens"), 2):
        write(path, VALID_POLICIES.replace("rate: 10/s", wrong), seconds)
        clock[0] += file_policies.CHECK_INTERVAL_S
        assert policies(app, "") == FREE
    assert "policies.yaml:3: policies[0].rate: rate must look like" in caplog.messages[0]
    assert caplog.messages[1].startswith("unknown cost 'tokens' of policy second")
    assert all(message.endswith("; the previous policies stay in force") for message in caplog.messages)


def test_a_policy_may_be_added_and_removed_while_requests_are_served(tmp_path: Path, clock: list[float]) -> None:
    path = tmp_path / "policies.yaml"
    one = "version: 1\npolicies:\n- {name: a, algorithm: gcra, rate: 1/min, burst: 9}\n"
    two = f"{one}- {{name: b, algorithm: gcra, rate: 1/min, burst: 2, key: ip}}\n"
    app = RateLimitMiddleware.from_file(Handler(), write(path, one, 1))
    seen = []
    for seconds, text in enumerate((one, two, one, two), 1):
        write(path, text, seconds)
        clock[0] += file_policies.CHECK_INTERVAL_S
        seen.append(call(app).of("ratelimit-policy")[0])
    assert seen == ['"a";q=9;w=540', '"a";q=9;w=540, "b";q=2;w=120'] * 2
    assert [*app.counts.policies] == ["a", "b"]


def test_a_policy_with_aligned_windows_may_be_added_later(tmp_path: Path, clock: list[float]) -> None:
    path = tmp_path / "policies.yaml"
    text = "version: 1\npolicies:\n- {name: a, algorithm: gcra, rate: 1/min}\n"
    app = RateLimitMiddleware.from_file(Handler(), write(path, text, 1))
    call(app)
    write(path, f"{text}- {{name: day, algorithm: fixed-window, rate: 5/day}}\n", 2)
    clock[0] += file_policies.CHECK_INTERVAL_S
    assert call(app).of("ratelimit-policy") == ['"a";q=1;w=60, "day";q=5;w=86400']


def test_arguments_replace_the_sources_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "policies.yaml", VALID_POLICIES, 1)
    app = RateLimitMiddleware.from_file(Handler(), path, plan=lambda scope: "premium", cost=5)
    assert call(app).of("ratelimit") == ['"second";r=95;t=1']


def test_an_invalid_file_or_argument_is_rejected_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "policies.yaml"
    with pytest.raises(InputError, match="No such file"):
        RateLimitMiddleware.from_file(Handler(), str(path))
    with pytest.raises(InputError, match="unknown cost 'tokens'"):
        RateLimitMiddleware.from_file(
            Handler(), write(path, VALID_POLICIES.replace("rate: 10/s", "rate: 10/s, cost: tokens"), 1)
        )
