"""The middleware with an async limiter: the same responses, and 503 when the store makes no decision."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any, ClassVar
from unittest.mock import patch

import pytest
from asgi import AsgiResponse, call, request, scope_of
from failing_stores import SECOND, FlakyStore, limiter_with_store_down
from limited_apps import Handler, Watched
from prometheus_client.parser import text_string_to_metric_families

from ratelab import Decision, InputError
from ratelab.errors import StoreError
from ratelab.http.counters import CounterValues, Counts
from ratelab.http.middleware import RateLimitMiddleware
from ratelab.http.prometheus import metrics_page
from ratelab.limiter import Costs, Keys
from ratelab.stores.key_table import Stats

UNAVAILABLE = {
    "type": "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
    "title": "Request cannot be satisfied due to temporary server capacity constraints",
    "status": 503,
    "detail": "Try again in 1 s.",
}


def failing(retry_after_ns: int = SECOND) -> FlakyStore:
    store = FlakyStore()
    store.error = StoreError("unreachable", "no connection to 192.0.2.99:6379", retry_after_ns)
    return store


def test_sync_and_async_limiters_give_the_same_responses() -> None:
    store, memory, handler = FlakyStore(), Watched(), Handler()
    costs = [1, 0, 6, 3, 1, 1, 0]
    apps = [RateLimitMiddleware(handler, limiter, cost=lambda scope: scope["cost"]) for limiter in (store, memory)]
    responses = [[asyncio.run(request(app, {**scope_of(), "cost": cost})) for cost in costs] for app in apps]
    assert [response.status for response in responses[0]] == [200, 200, 400, 200, 200, 429, 200]
    assert responses[0] == responses[1]
    assert apps[0].counts == apps[1].counts


def test_a_request_without_a_decision_is_answered_503() -> None:
    handler = Handler()
    app = RateLimitMiddleware(handler, failing(), legacy="delta")
    response = call(app)
    assert response.status == 503
    assert response.fields == [
        (b"content-type", b"application/problem+json"),
        (b"cache-control", b"no-store"),
        (b"retry-after", b"1"),
        (b"content-length", b"%d" % len(response.body)),
    ]
    assert json.loads(response.body) == UNAVAILABLE
    assert (handler.calls, app.counts) == ([], Counts(unavailable=1))


def test_the_response_to_head_has_the_same_headers_and_no_body() -> None:
    app = RateLimitMiddleware(Handler(), failing())
    get, head = call(app), call(app, method="HEAD")
    assert (head.status, head.fields, head.body) == (503, get.fields, b"")


@pytest.mark.parametrize(
    ("wait_ns", "seconds"), [(-1, 1), (0, 1), (1, 1), (SECOND, 1), (SECOND + 1, 2), (59 * SECOND + 1, 60)]
)
def test_retry_after_is_rounded_up_and_at_least_1(wait_ns: int, seconds: int) -> None:
    response = call(RateLimitMiddleware(Handler(), failing(wait_ns)))
    assert response.of("retry-after") == [str(seconds)]
    assert json.loads(response.body)["detail"] == f"Try again in {seconds} s."


def test_a_function_may_choose_among_sync_and_async_limiters() -> None:
    store, memory = FlakyStore(), Watched(burst=1)
    app = RateLimitMiddleware(Handler(), lambda scope: store if scope["method"] == "POST" else memory)
    assert [call(app, method=method).status for method in ("GET", "POST", "GET", "POST")] == [200, 200, 429, 200]
    store.fail()
    assert [call(app, method=method).status for method in ("GET", "POST")] == [429, 503]


def test_whether_a_limiter_is_awaited_is_determined_once() -> None:
    app = RateLimitMiddleware(Handler(), FlakyStore())
    with patch("ratelab.http.guard.is_deferred", side_effect=AssertionError):
        assert [call(app).status for _ in range(6)] == [200] * 5 + [429]


class Blocking(Watched):
    blocking: ClassVar[bool] = True


def test_a_limiter_that_blocks_the_event_loop_is_rejected() -> None:
    message = "limiter must not block the event loop, got Blocking: use AsyncValkeyLimiter"
    with pytest.raises(InputError) as rejected:
        RateLimitMiddleware(Handler(), Blocking())
    assert str(rejected.value) == message
    with pytest.raises(InputError, match=message):
        call(RateLimitMiddleware(Handler(), lambda scope: Blocking()))


@pytest.mark.parametrize("cost", [-1, 1.0, True, None])
def test_an_invalid_cost_is_not_counted_as_a_failure_of_the_store(cost: Any) -> None:
    limiter = limiter_with_store_down(FlakyStore(), "closed")
    before, app = limiter.health, RateLimitMiddleware(Handler(), limiter, cost=lambda _: cost)
    with pytest.raises(InputError, match="cost must be a whole number >= 0, got"):
        call(app)
    assert (limiter.health, app.counts) == (before, Counts())


class Silent(FlakyStore):
    """A store that never replies."""

    async def hit(self, key: Keys, cost: Costs = 1) -> Decision:
        self.calls.append((key, cost))
        return await asyncio.Future[Decision]()


def test_a_request_cancelled_while_the_store_decides_is_not_counted() -> None:
    handler, store = Handler(), Silent()
    app = RateLimitMiddleware(handler, store)

    async def leave() -> None:
        waiting = asyncio.create_task(request(app, scope_of()))
        while not store.calls:
            await asyncio.sleep(0)
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting

    asyncio.run(leave())
    assert (handler.calls, app.counts) == ([], Counts())


# --- with a store that is down


@pytest.mark.parametrize(
    ("on_store_error", "cost", "statuses"),
    [
        ("local", 2, [200, 200, 429]),
        ("local", 6, [400, 400, 400]),
        ("open", 2, [200, 200, 200]),
        ("open", 6, [400, 400, 400]),
        ("closed", 2, [503, 503, 503]),
        ("closed", 6, [503, 503, 503]),
    ],
)
def test_a_store_that_is_down_is_replaced_as_configured(on_store_error: str, cost: int, statuses: list[int]) -> None:
    app = RateLimitMiddleware(Handler(), limiter_with_store_down(FlakyStore(), on_store_error), cost=cost)
    assert [call(app).status for _ in range(3)] == statuses


def test_concurrent_requests_to_a_dead_store_share_the_local_quota() -> None:
    limiter = limiter_with_store_down(FlakyStore())
    app = RateLimitMiddleware(Handler(), limiter)

    async def send_all() -> list[AsgiResponse]:
        return await asyncio.gather(*(request(app, scope_of()) for _ in range(600)))

    assert [response.status for response in asyncio.run(send_all())] == [200] * 5 + [429] * 595
    assert (app.counts.unavailable, limiter.health.fallback_decisions) == (0, 603)


# --- metrics


def samples(values: CounterValues) -> dict[str, float]:
    """Return the values on `/metrics` by name and last label."""
    page = metrics_page("gcra", lambda: values)()[1].decode()
    families = text_string_to_metric_families(page)
    lines = [sample for family in families for sample in family.samples]
    return {" ".join([line.name, *list(line.labels.values())[-1:]]): line.value for line in lines}


def test_metrics_of_a_limiter_with_a_store_describe_the_store() -> None:
    limiter = limiter_with_store_down(FlakyStore())
    values = samples(CounterValues(Counts(unavailable=7), limiter.stats, limiter.health))
    assert values.get("ratelab_requests_total unavailable") == 7
    assert {name: value for name, value in values.items() if name.startswith("ratelab_store")} == {
        "ratelab_store_up": 0,
        "ratelab_store_errors_total timeout": 3,
        "ratelab_store_fallback_decisions_total": 3,
    }


def test_metrics_of_a_memory_limiter_do_not_mention_a_store() -> None:
    values = samples(CounterValues(Counts(), Stats(2, 0, 0)))
    assert values["ratelab_keys"] == 2
    assert not [name for name in values if name.startswith("ratelab_store")]
