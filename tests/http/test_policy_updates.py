"""Changes of the policies of a limiter that a middleware uses: `limiter.update` in Python."""

from __future__ import annotations

import gc
import io
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from asgi import call
from limited_apps import Handler

from ratelab import InputError, ManualClock, MemoryLimiter, Policy
from ratelab.http import RateLimitMiddleware, guard
from ratelab.http.identity import Identity
from ratelab.stores.recording import RecordingLimiter
from ratelab.stores.resilient import ResilientLimiter
from ratelab.stores.valkey import AsyncValkeyLimiter

IDENTITY = Identity("header:X-API-Key", secret="0123456789")  # noqa: S106  (of tests)
SECOND = Policy.create("token-bucket", "10/s", burst=20, name="second")
NOWHERE = "valkey://127.0.0.1:1"


def quotas(app: RateLimitMiddleware, headers: str = "X-API-Key: alice") -> str:
    """Return the quotas of a request."""
    (field,) = call(app, headers=headers).of("ratelimit-policy")
    return field


def in_memory(*policies: Policy) -> MemoryLimiter:
    return MemoryLimiter(policies, ManualClock(), plans={"free": {}})


def recorded(*policies: Policy) -> RecordingLimiter:
    return RecordingLimiter(policies, io.StringIO(), ManualClock(), plans={"free": {}})


def in_store(*policies: Policy) -> AsyncValkeyLimiter:
    return AsyncValkeyLimiter(NOWHERE, policies, plans={"free": {}})


def with_fallback(*policies: Policy) -> ResilientLimiter:
    return ResilientLimiter(in_store(*policies))


UNUSABLE: list[tuple[dict[str, Any], str]] = [
    ({"cost": "tokens"}, "unknown cost 'tokens' of policy new: give costs="),
    ({"key": "account"}, "policy new counts accounts, and no account is given: give account="),
    ({"key": "cookie"}, "key must be ip, header:NAME such as header:X-API-Key, or in code a function, got 'cookie'"),
    ({"key": "header:X-Forwarded-For"}, "X-Forwarded-For can be forged by clients: use ip with trusted_proxies"),
    ({"match": "login"}, "a route must be a path, such as /search or POST /login, got 'login'"),
    ({"name": "caf\u00e9"}, "a header field cannot hold the name 'caf\u00e9' of a policy: use printable ASCII"),
]


@pytest.mark.parametrize("create", [in_memory, recorded, in_store, with_fallback])
@pytest.mark.parametrize("before", [[SECOND], [SECOND, Policy.create("gcra", "1/s", key="ip")]])
@pytest.mark.parametrize(("fields", "message"), UNUSABLE)
def test_an_update_to_policies_that_the_middleware_cannot_apply_is_refused(
    create: Callable[..., Any], before: list[Policy], fields: dict[str, Any], message: str
) -> None:
    limiter = create(*before)
    app = RateLimitMiddleware(Handler(), limiter, IDENTITY)
    new = Policy.create("gcra", "1/s", **{"name": "new", **fields})
    with pytest.raises(InputError) as raised:
        limiter.update([SECOND, new])
    assert str(raised.value).startswith(message)
    assert limiter.policies == limiter.plans.policies == tuple(before)
    if create is in_memory:
        assert call(app).status == 200


@pytest.mark.parametrize("create", [in_memory, recorded, in_store, with_fallback])
def test_an_update_without_the_default_plan_is_refused(create: Callable[..., Any]) -> None:
    limiter = create(SECOND)
    app = RateLimitMiddleware(Handler(), limiter, IDENTITY, default_plan="free")
    with pytest.raises(InputError, match="unknown plan 'free': choose one of premium"):
        limiter.update(plans={"premium": {}})
    assert [*limiter.plans.plans] == ["free"]
    limiter.update(plans={"free": {}, "premium": {}})
    assert app.policy_guard is not None


def test_a_limiter_of_one_policy_may_be_changed_to_another_and_to_several() -> None:
    limiter = in_memory(SECOND)
    app = RateLimitMiddleware(Handler(), limiter, IDENTITY)
    assert quotas(app) == '"second";q=20;w=2'
    limiter.update(SECOND.with_quota("50/s", 100))
    assert quotas(app) == '"second";q=100;w=2'
    limiter.update([SECOND, Policy.create("gcra", "1/h", name="login", key="ip", match="POST /login")])
    assert [call(app, method="POST", path="/login").status for _ in range(2)] == [200, 429]
    assert quotas(app) == '"second";q=20;w=2'
    limiter.update(SECOND)
    assert call(app, method="POST", path="/login").status == 200


def test_an_override_of_one_policy_is_the_quota_in_the_header_fields() -> None:
    limiter = in_memory(SECOND)
    app = RateLimitMiddleware(Handler(), limiter, IDENTITY)
    limiter.update(overrides={IDENTITY.key_of("alice"): {"second": ("50/s", 100)}})
    assert [quotas(app), quotas(app, "")] == ['"second";q=100;w=2', '"second";q=20;w=2']


def test_a_limiter_that_a_function_chooses_may_be_changed_to_one_other_policy() -> None:
    limiter = in_memory(SECOND)
    app = RateLimitMiddleware(Handler(), lambda scope: limiter)
    assert quotas(app, "") == '"second";q=20;w=2'
    limiter.update(SECOND.with_quota("50/s", 100))
    assert quotas(app, "") == '"second";q=100;w=2'
    with pytest.raises(InputError, match="a function cannot choose a limiter of several policies, got one of second, "):
        limiter.update([SECOND, Policy.create("gcra", "1/s")])
    assert quotas(app, "") == '"second";q=100;w=2'


def test_a_middleware_follows_a_limiter_once_however_often_that_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    limiter = in_memory(SECOND)
    app = RateLimitMiddleware(Handler(), lambda scope: limiter)
    checked: list[object] = []
    monkeypatch.setattr(guard, "needs_rules", lambda plans: checked.append(plans))
    for count in range(1, 6):
        limiter.update(SECOND.with_quota(f"{count}/s"))
        assert quotas(app).startswith(f'"second";q={count};')
    checked.clear()
    limiter.update(SECOND)
    assert len(checked) == 1


def test_a_middleware_that_is_gone_refuses_nothing() -> None:
    limiter = in_memory(SECOND)
    app = RateLimitMiddleware(Handler(), limiter, IDENTITY)
    del app
    gc.collect()
    limiter.update(Policy.create("gcra", "1/s", cost="tokens"))


def test_a_fallback_follows_an_update_of_its_store() -> None:
    store = in_store(SECOND)
    limiter = ResilientLimiter(store)
    app = RateLimitMiddleware(Handler(), limiter, IDENTITY)
    store.update([SECOND, Policy.create("gcra", "1/s", name="new")])
    assert [policy.name for policy in limiter.plans.policies] == ["second", "new"]
    assert call(app).of("ratelimit-policy") == ['"second";q=20;w=2, "new";q=1;w=1']


class Racing(MemoryLimiter):
    """A limiter that another thread changes at the start of a hit."""

    change: Callable[[], object] | None = None

    def hit_each(self, *arguments: Any, **options: Any) -> Any:
        change, self.change = self.change, None
        if change is not None:
            change()
        return super().hit_each(*arguments, **options)


@pytest.mark.parametrize("key", [None, "ip"])
def test_a_request_survives_a_change_of_the_policies_by_another_thread(key: str | None) -> None:
    a, b = (Policy.create("gcra", "1/h", burst=9, name=name, key=key) for name in "ab")
    limiter = Racing([SECOND, a], ManualClock())
    app = RateLimitMiddleware(Handler(), limiter, IDENTITY)
    for new in ([SECOND, a, b], [SECOND], [b], [SECOND, b]):
        limiter.change = partial(limiter.update, new)
        assert [call(app).status, call(app).status] == [200, 200]
