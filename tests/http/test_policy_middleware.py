"""Several policies in the middleware: header fields, denials, shadow policies, costs and routes."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any, cast

import http_sf
import pytest
from asgi import call
from limited_apps import Handler
from prometheus_client.parser import text_string_to_metric_families

from ratelab import Decision, InputError, ManualClock, MemoryLimiter, Policy
from ratelab.errors import StoreError
from ratelab.http import RateLimitMiddleware, by_route, decision_of
from ratelab.http.asgi import Scope
from ratelab.http.counters import CounterValues, PolicyCounts
from ratelab.http.prometheus import metrics_page
from ratelab.stores.key_table import Stats

SECOND = Policy.create("token-bucket", "10/s", burst=3, name="second")
DAY = Policy.create("fixed-window", "5/day", name="day")


def limited(*policies: Policy, **arguments: Any) -> tuple[RateLimitMiddleware, ManualClock]:
    """Limit a handler by policies on a clock that stands still."""
    clock = ManualClock()
    return RateLimitMiddleware(Handler(), MemoryLimiter([*policies], clock), **arguments), clock


# --- header fields and denials


def test_every_policy_is_listed_and_the_binding_one_has_its_state() -> None:
    app, clock = limited(SECOND, DAY)
    first = call(app)
    assert first.of("ratelimit-policy") == ['"second";q=3;w=1, "day";q=5;w=86400']
    assert first.of("ratelimit") == ['"second";r=2;t=1']
    call(app)
    clock.advance(10**9)
    assert call(app).of("ratelimit") == ['"second";r=2;t=1, "day";r=2;t=86399']


@pytest.mark.parametrize("algorithm", ["token-bucket", "fixed-window", "gcra"])
@pytest.mark.parametrize("legacy", ["off", "delta"])
def test_policies_that_always_apply_give_the_same_responses_as_with_a_plan(algorithm: str, legacy: str) -> None:
    quotas = [Policy.create(algorithm, rate, name=rate) for rate in ("4/s", "9/min", "9/h")]
    alike, clock = limited(*quotas, legacy=legacy)
    planned, other_clock = limited(*quotas, legacy=legacy, plan=lambda scope: None)
    seen = []
    for wait in (0, 0, 0, 0, 0, 2, 0, 0, 70, 0, 9, 3600, 0, 1) * 2:
        for each in (clock, other_clock):
            each.advance(wait * 10**9)
        found, expected = call(alike), call(planned)
        assert found == expected
        seen.append(found.status)
    assert alike.counts == planned.counts
    assert {*seen} == {200, 429}


def test_the_delay_of_one_of_several_policies_is_slept() -> None:
    app, _ = limited(Policy.create("leaky-bucket", "100/s", burst=3, name="queue"), DAY)
    assert [call(app).status for _ in range(2)] == [200, 200]
    assert app.counts.delayed == 1


def test_a_denial_names_the_violated_policies_and_waits_for_the_longest() -> None:
    app, clock = limited(SECOND, DAY)
    statuses = [call(app).status for _ in range(4)]
    assert statuses == [200, 200, 200, 429]
    clock.advance(10**9)
    assert [call(app).status for _ in range(2)] == [200, 200]
    both = call(app)
    assert both.of("ratelimit") == ['"day";r=0;t=86399']
    assert both.of("retry-after") == ["86399"]
    assert json.loads(both.body)["violated-policies"] == ["day"]
    assert call(app).of("ratelimit-policy") == both.of("ratelimit-policy")


def test_two_violated_policies_are_both_named_and_the_longer_wait_is_sent() -> None:
    app, _ = limited(SECOND, Policy.create("gcra", "1/min", burst=3, name="minute"))
    for _ in range(3):
        call(app)
    denied = call(app)
    assert denied.of("ratelimit") == ['"second";r=0;t=1, "minute";r=0;t=60']
    assert (denied.of("retry-after"), json.loads(denied.body)["violated-policies"]) == (["60"], ["second", "minute"])


def test_a_denied_request_is_charged_to_no_policy() -> None:
    app, clock = limited(SECOND, DAY)
    for _ in range(20):
        call(app)
    clock.advance(10**9)
    assert [call(app).status for _ in range(3)] == [200, 200, 429]


def test_a_cost_that_one_policy_never_grants_is_answered_400_with_its_burst() -> None:
    app, _ = limited(SECOND, DAY, cost=4)
    response = call(app)
    assert response.status == 400
    assert response.of("retry-after") == []
    assert response.of("ratelimit") == ['"second";r=3;t=0']
    assert json.loads(response.body)["detail"] == "A cost above 3 is never granted: ask for less at once."


@pytest.mark.parametrize("legacy", ["delta", "epoch"])
def test_legacy_fields_describe_the_binding_policy(legacy: str) -> None:
    app, _ = limited(SECOND, DAY, legacy=legacy)
    assert [call(app).of("x-ratelimit-remaining") for _ in range(4)] == [["2"], ["1"], ["0"], ["0"]]
    assert call(app).of("x-ratelimit-limit") == ["3"]


def test_header_fields_are_lists_of_strings_with_integers_and_units() -> None:
    quoted = Policy.create("gcra", "2/h", burst=2, name='a "b" \\c', cost="bytes")
    app, _ = limited(SECOND, quoted)
    for headers, size in (("Content-Length: 2", 1), ("Content-Length: 1", 2)):
        response = call(app, headers=headers)
        policies: Any = http_sf.parse(response.of("ratelimit-policy")[0].encode(), tltype="list")
        assert policies == [
            ("second", {"q": 3, "w": 1}),
            ('a "b" \\c', {"q": 2, "qu": "content-bytes", "w": 3600}),
        ]
        states: Any = http_sf.parse(response.of("ratelimit")[0].encode(), tltype="list")
        assert all(type(number) is int for _, state in states for number in state.values())
        assert [[*state] for _, state in states] == [["r", "t"]] * (2 if size == 1 else 1)


def test_head_gets_no_body_and_other_protocols_and_exempt_requests_pass() -> None:
    handler = Handler()
    exempt = by_route({"/healthz": True}, default=False)
    app = RateLimitMiddleware(handler, MemoryLimiter([SECOND, DAY], ManualClock()), exempt=exempt)
    assert [call(app, path="/healthz").of("ratelimit") for _ in range(9)] == [[]] * 9
    for _ in range(3):
        call(app)
    assert call(app, method="HEAD").body == b""
    connection: Any = ({"type": "websocket"}, None, None)
    asyncio.run(app(*connection))
    assert handler.calls[-1] == connection


def test_on_denied_gets_the_decision_with_the_policy_that_bound() -> None:
    calls: list[Decision] = []
    app, _ = limited(SECOND, DAY, on_denied=lambda scope, decision: calls.append(decision))
    for _ in range(4):
        call(app)
    assert [(decision.bound_by, decision.allowed) for decision in calls] == [("second", False)]


def test_a_list_of_policies_is_enforced_in_memory() -> None:
    app = RateLimitMiddleware(Handler(), [SECOND, DAY])
    assert call(app).of("ratelimit-policy") == ['"second";q=3;w=1, "day";q=5;w=86400']
    assert call(RateLimitMiddleware(Handler(), SECOND)).of("ratelimit-policy") == ['"second";q=3;w=1']


# --- shadow policies

STRICT = Policy.create("token-bucket", "10/s", burst=1, name="strict", shadow=True)
LOOSE = Policy.create("token-bucket", "10/s", burst=9, name="loose", shadow=True)


def test_shadow_policies_never_deny_and_are_not_in_header_fields() -> None:
    app, _ = limited(STRICT, SECOND, LOOSE)
    responses = [call(app) for _ in range(4)]
    assert [response.status for response in responses] == [200, 200, 200, 429]
    assert {*(text for response in responses for text in response.of("ratelimit-policy"))} == {'"second";q=3;w=1'}
    assert json.loads(responses[-1].body)["violated-policies"] == ["second"]


def test_the_decisions_of_shadow_policies_that_differ_are_counted() -> None:
    app, _ = limited(STRICT, SECOND, LOOSE)
    for _ in range(5):
        call(app)
    assert app.counts.policies == {
        "strict": PolicyCounts(shadow=True, denied=4, stricter=2),
        "second": PolicyCounts(shadow=False, denied=2),
        "loose": PolicyCounts(shadow=True, looser=2),
    }
    assert (app.counts.admitted, app.counts.denied) == (3, 2)


def test_metrics_have_the_decisions_of_each_policy() -> None:
    app, _ = limited(STRICT, SECOND, LOOSE)
    for _ in range(5):
        call(app)
    values = CounterValues(app.counts, Stats(1, 0, 0))
    shadows = {name: counts.shadow for name, counts in app.counts.policies.items()}
    assert CounterValues.from_row(values.to_row(), shadows).counts == app.counts
    _, page = metrics_page("token-bucket", lambda: values)()
    found = {
        (sample.name, sample.labels["policy"], sample.labels.get("mode") or sample.labels["decision"]): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
        if "policy" in sample.labels
    }
    assert found == {
        ("ratelab_policy_denied_total", "strict", "shadow"): 4,
        ("ratelab_policy_denied_total", "second", "enforced"): 2,
        ("ratelab_policy_denied_total", "loose", "shadow"): 0,
        ("ratelab_shadow_differing_total", "strict", "denied"): 2,
        ("ratelab_shadow_differing_total", "strict", "admitted"): 0,
        ("ratelab_shadow_differing_total", "loose", "denied"): 0,
        ("ratelab_shadow_differing_total", "loose", "admitted"): 2,
    }


def test_the_application_and_the_log_see_shadow_denials(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ratelab.http")
    seen: list[Decision | None] = []

    class Asking(Handler):
        async def __call__(self, scope: Scope, *rest: Any) -> None:
            seen.append(decision_of(scope))
            await super().__call__(scope, *rest)

    app = RateLimitMiddleware(Asking(), MemoryLimiter([STRICT, SECOND], ManualClock()))
    for _ in range(2):
        call(app, path="/a\nb")
    assert [decision and decision.shadow for decision in seen] == [(), ("strict",)]
    assert [record.getMessage() for record in caplog.records] == ["shadow: strict would have denied GET /a\\nb"]


def test_a_limiter_of_shadow_policies_alone_admits_everything_without_fields() -> None:
    app, _ = limited(STRICT)
    responses = [call(app) for _ in range(3)]
    assert [(response.status, response.of("ratelimit")) for response in responses] == [(200, [])] * 3
    assert app.counts.policies["strict"].denied == 2


class Down(MemoryLimiter):
    """A limiter whose store fails."""

    def hit_each(self, *arguments: Any, **options: Any) -> Any:
        raise StoreError("down", "no reply")


def test_shadow_policies_never_deny_when_their_store_fails() -> None:
    for limiter, status in ((Down([STRICT, LOOSE]), 200), (Down([STRICT, SECOND]), 503)):
        app = RateLimitMiddleware(Handler(), limiter)
        assert call(app).status == status


@pytest.mark.parametrize("headers", ["X-Token: a\nX-Token: b", "Transfer-Encoding: chunked"])
def test_a_shadow_policy_is_not_asked_about_a_request_that_it_cannot_count(headers: str) -> None:
    counted = {"X-Token": {"key": "header:X-Token"}, "Transfer-Encoding": {"cost": "bytes"}}[headers.split(":")[0]]
    shadow = Policy.create("gcra", "1/h", name="shadow", shadow=True, **cast("Any", counted))
    app, _ = limited(SECOND, shadow)
    assert [call(app, headers=headers).status for _ in range(4)] == [200, 200, 200, 429]
    assert app.counts.policies["shadow"].denied == 0
    alone = RateLimitMiddleware(Handler(), MemoryLimiter(shadow), key="header:X-Token")
    assert [call(alone, headers=headers).status for _ in range(3)] == [200] * 3


def fail(scope: Scope) -> int:
    raise ValueError("no cost")


@pytest.mark.parametrize("result", [fail, lambda scope: -1])
def test_a_shadow_policy_whose_function_fails_is_logged_and_never_denies(
    result: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def shadow(**fields: Any) -> Policy:
        return Policy.create("gcra", "1/h", name="shadow", shadow=True, **fields)

    app, _ = limited(SECOND, shadow(cost="points"), costs={"points": result})
    assert [call(app).status for _ in range(4)] == [200, 200, 200, 429]
    by_account, _ = limited(SECOND, shadow(key="account"), account=fail)
    alone, _ = limited(shadow(), cost=result)
    assert [call(each).status for each in (by_account, alone)] == [200, 200]
    assert [*{each.getMessage().partition(" (")[0] for each in caplog.records}] == [
        "shadow: shadow cannot count a request"
    ]


def test_header_fields_describe_the_policies_of_each_request_after_changes() -> None:
    """Python gives the identity of a freed policy to a later one."""
    limiter = MemoryLimiter([SECOND, DAY], ManualClock())
    app = RateLimitMiddleware(Handler(), limiter, cost=0)
    for number in range(30):
        limiter.update([SECOND, Policy.create("gcra", "9/s", name=f"{number}", shadow=number % 3 < 2)])
        expected = ['"second";q=3;w=1'] + [f'"{number}";q=9;w=1'] * (number % 3 == 2)
        assert call(app).of("ratelimit-policy") == [", ".join(expected)]


# --- arguments

INVALID: list[tuple[dict[str, Any], str]] = [
    ({"policy": "api"}, "policy must be left out, got 'api': name each Policy instead"),
    ({"legacy": "on"}, "legacy headers must be one of off, delta, epoch, got 'on'"),
    ({"plan": "X-Plan"}, "plan must be header:NAME, a mapping of clients or a function of the request, got 'X-Plan'"),
    ({"plan": 5}, "plan must be header:NAME, a mapping of clients or a function of the request, got 5"),
    ({"plan": {"alice": "gold"}}, "unknown plan 'gold': give the limiter plans"),
    ({"plan": {"alice": ["gold"]}}, "unknown plan ['gold']: give the limiter plans"),
    (
        {"plan": {5: "gold"}},
        "plan must be header:NAME, a mapping of clients or a function of the request; clients must",
    ),
    ({"default_plan": "gold"}, "unknown plan 'gold': give the limiter plans"),
    ({"default_plan": ["gold"]}, "unknown plan ['gold']: give the limiter plans"),
    ({"plan": "header:X-Plan", "on_plan_error": "open"}, "on_plan_error must be one of default, closed, got 'open'"),
    ({"plan": "header:X-Plan", "plan_timeout": 0}, "plan_timeout must be a number of seconds above 0, got 0"),
    ({"charge": 5}, "charge must be a function of the request, got 5"),
]


@pytest.mark.parametrize(("arguments", "message"), INVALID)
def test_an_invalid_argument_is_rejected_with_a_remedy(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as raised:
        limited(SECOND, DAY, **arguments)
    assert str(raised.value).startswith(message)


def test_policies_with_an_unknown_cost_or_without_an_account_are_rejected() -> None:
    with pytest.raises(InputError, match=r"unknown cost 'tokens' of policy gcra: give costs={'tokens': a function"):
        limited(Policy.create("gcra", "2/s", cost="tokens"))
    with pytest.raises(InputError, match="policy gcra counts accounts, and no account is given: give account='header"):
        limited(Policy.create("gcra", "2/s", key="account"))


def test_a_function_cannot_choose_a_limiter_of_several_policies() -> None:
    limiter = MemoryLimiter([SECOND, DAY])
    with pytest.raises(InputError, match="cannot choose a limiter of several policies"):
        call(RateLimitMiddleware(Handler(), lambda scope: limiter))
    with pytest.raises(InputError, match="need one limiter, got a function: use match in the policies"):
        RateLimitMiddleware(Handler(), lambda scope: limiter, charge=lambda scope, status: True)
