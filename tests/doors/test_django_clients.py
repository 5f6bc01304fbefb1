"""Clients of the Django middleware and of decorated views: users, addresses and API keys."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from django.utils.functional import SimpleLazyObject
from django_project import override
from django_views import User, async_factory, factory, hello, hello_later, statuses, without_options

from ratelab import InputError, MemoryLimiter, Policy
from ratelab.django import RateLimitMiddleware, ratelimit

pytestmark = pytest.mark.usefixtures("stopped_clock")

no_options = pytest.fixture(autouse=True)(without_options)


@pytest.mark.parametrize("view", [hello, hello_later])
def test_users_and_addresses_without_a_user_have_quotas_of_their_own(view: Any) -> None:
    limited = ratelimit("1/min", key="user")(view)
    assert statuses(limited, 2, User(1)) == [200, 429]
    assert statuses(limited, 2, User(2)) == [200, 429]
    assert statuses(limited, 2) == [200, 429]
    assert statuses(limited, 2, REMOTE_ADDR="192.0.2.9") == [200, 429]


def test_an_api_key_or_a_function_identifies_the_client() -> None:
    for key in ("header:X-API-Key", lambda request: request.headers.get("X-API-Key")):
        view = ratelimit("1/min", key=key)(hello)
        assert statuses(view, 2, HTTP_X_API_KEY="alice") == [200, 429]
        assert statuses(view, 2, HTTP_X_API_KEY="bob") == [200, 429]


def test_policies_by_account_count_the_user() -> None:
    team = Policy.create("token-bucket", "2/min", name="team", key="account")
    view = ratelimit(team, "3/min")(hello)
    assert statuses(view, 3, User(1)) == [200, 200, 429]
    assert statuses(view, 2, User(2)) == [200, 429]


def test_a_key_user_without_users_names_the_middleware_to_add() -> None:
    view = ratelimit("1/min", key="user")(hello)
    with pytest.raises(InputError, match="put RateLimitMiddleware after AuthenticationMiddleware"):
        view(factory.get("/"))


MEMBERS, VISITORS = MemoryLimiter(Policy.create("gcra", "1/min")), MemoryLimiter(Policy.create("gcra", "9/min"))

COUNTS_USERS: list[dict[str, Any]] = [
    {"RATE": "1/min", "KEY": "user"},
    {"RATE": "1/min", "KEY": lambda request: str(request.user.pk)},
    {"RATE": "1/min", "EXEMPT": lambda request: request.user.pk == 8},
    {"POLICIES": [{"rate": "1/min", "key": "account"}]},
    {"LIMITER": MemoryLimiter(Policy.create("gcra", "1/min", key="account"))},
    {"LIMITER": lambda request: MEMBERS if request.user.is_authenticated else VISITORS},
]


@pytest.mark.parametrize("options", COUNTS_USERS)
def test_users_are_loaded_before_functions_run_in_an_event_loop(options: dict[str, Any]) -> None:
    loaded = []

    def load() -> User:
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        loaded.append(1)
        return User(7)

    with override(**options):
        view = RateLimitMiddleware(hello_later)
        for expected in (200, 429):
            request = async_factory.get("/")
            request.user = SimpleLazyObject(load)
            assert asyncio.run(view(request)).status_code == expected
    assert loaded == [1, 1]
