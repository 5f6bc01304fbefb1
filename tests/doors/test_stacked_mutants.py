"""Each named bug in the refunds of stacked limits makes its test fail."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from unittest.mock import patch

import pytest
import test_stacked_limits as stacks
from mutate import Mutant, mutate

from ratelab import fastapi, flask, wsgi
from ratelab.django import door, rest
from ratelab.http import RateLimitMiddleware, limited_responses
from ratelab.http.gate import Gate
from ratelab.http.policy_guard import PolicyGuard

pytestmark = pytest.mark.slow

DENIED = stacks.test_a_denied_request_is_charged_by_no_limit_of_a_stack
ONCE = stacks.test_a_denied_request_is_refunded_once_also_if_its_status_is_not_charged

MUTANTS: dict[str, tuple[Mutant, Callable[[], None]]] = {
    "a request that an inner limit denies stays charged": (
        mutate(Gate, "withdraw", "await self.refund_request(scope, ruling)", "pass"),
        partial(DENIED, stacks.two_asgi, False),
    ),
    "several policies report no state after the refund": (
        mutate(PolicyGuard, "_restate", "if left is None or", "if True or"),
        partial(DENIED, stacks.two_wsgi, True),
    ),
    "the ASGI middleware does not note a denial": (
        mutate(RateLimitMiddleware, "__call__", "scope[DENIED] = status", "pass"),
        partial(DENIED, stacks.two_asgi, False),
    ),
    "the WSGI middleware does not note a denial": (
        mutate(wsgi.RateLimitMiddleware, "__call__", "environ[DENIED] = denial[0]", "pass"),
        partial(DENIED, stacks.two_wsgi, False),
    ),
    "Flask does not note a denial": (
        mutate(flask, "_admit", "environ[DENIED] = True", "pass"),
        partial(DENIED, stacks.wsgi_around_flask, False),
    ),
    "Django does not note a denial": (
        mutate(door.Door, "pass_on", "note_denial(request)", "pass"),
        partial(DENIED, stacks.django_middleware, False),
    ),
    "Django does not note a denial outside": (
        mutate(door, "note_denial", "request.META[DENIED] = True", "pass"),
        partial(DENIED, stacks.wsgi_around_django, False),
    ),
    "a throttle does not note a denial": (
        mutate(rest.RateThrottle, "allow_request", "note_denial(request)", "pass"),
        partial(DENIED, stacks.throttle_within_middleware, False),
    ),
    "FastAPI does not note a denial": (
        mutate(fastapi.RateLimit, "_finish", "scope[DENIED] = response.status_code", "pass"),
        partial(DENIED, stacks.asgi_around_fastapi, False),
    ),
    "an outer dependency stays charged": (
        mutate(limited_responses, "_send_denial", "in admitted", "in ()"),
        partial(DENIED, stacks.levels_of_fastapi, False),
    ),
    "a denied connection stays charged": (
        mutate(fastapi, "_close", "not accepted and ADMITTED in", "ADMITTED not in"),
        stacks.test_a_websocket_that_an_inner_limit_denies_is_charged_by_none,
    ),
    "a denied request is refunded twice": (
        mutate(RateLimitMiddleware, "_settle_by_status", 'if not was_denied(scope, message["status"]):', "if True:"),
        partial(ONCE, stacks.two_asgi),
    ),
}
"""By bug: the mutant that has it, and the test that fails."""


@pytest.mark.parametrize("name", MUTANTS)
def test_each_bug_makes_its_test_fail(name: str) -> None:
    mutant, check = MUTANTS[name]
    check()
    with (
        patch.object(mutant.owner, mutant.attribute, mutant.replacement),
        pytest.raises((AssertionError, KeyError, pytest.fail.Exception)),
    ):
        check()
