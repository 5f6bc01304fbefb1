"""Each named bug in the dependency of FastAPI makes its test fail."""

from collections.abc import Callable
from functools import partial
from unittest.mock import patch

import pytest
import test_conformance_limits as limits
import test_fastapi as http
import test_fastapi_responses as responses
import test_fastapi_websockets as websockets
from fastapi import HTTPException
from fastapi_route_door import DOOR
from mutate import Mutant, mutate

from ratelab import fastapi
from ratelab.fastapi import RateLimit
from ratelab.http.limited_responses import LimitedResponses

MUTANTS: dict[str, tuple[Mutant, Callable[[], None]]] = {
    "a known peer is not denied": (
        mutate(RateLimit, "__call__", "not allowed or (", "False or ("),
        responses.test_a_denial_is_that_of_the_middleware,
    ),
    "a known peer is not delayed": (
        mutate(RateLimit, "__call__", "not allowed or (delay_ns and cost)", "not allowed"),
        responses.test_a_delayed_request_is_counted,
    ),
    "the state has no decision": (
        mutate(RateLimit, "__call__", '["ratelimit"] = decision', '["ratelimit"] = None'),
        http.test_the_endpoint_receives_the_decision,
    ),
    "fields of several limits replace each other": (
        mutate(RateLimit, "__call__", "added.extend(", "added.__init__("),
        http.test_limits_of_several_levels_add_their_fields,
    ),
    "a response lacks the fields": (
        mutate(LimitedResponses, "__call__", '"headers": fields', '"headers": present'),
        partial(responses.test_every_response_to_an_admitted_request_has_the_fields, "JSON"),
    ),
    "two limits send two sets of legacy fields": (
        mutate(LimitedResponses, "__call__", "if len(added) % 2", "if False"),
        partial(limits.test_legacy_fields_are_one_set, DOOR),
    ),
    "a shadow policy is never refunded": (
        mutate(LimitedResponses, "__call__", "if limit.refunds:", "if False:"),
        responses.test_a_shadow_policy_is_refunded_by_the_status,
    ),
    "a handler of the application is not called": (
        mutate(fastapi, "_answer", "usual is http_exception_handler", "True"),
        partial(responses.test_a_handler_of_the_application_renders_denials, HTTPException, responses.render),
    ),
    "the fields of a hook are sent twice": (
        mutate(RateLimit, "_create_response", "if field[0] not in present", ""),
        responses.test_a_hook_responds_to_denied_requests_or_leaves_it,
    ),
    "a message closes the connection as if it were refused": (
        mutate(fastapi, "_close", "_TRY_AGAIN_LATER if accepted", "_POLICY_VIOLATION if accepted"),
        websockets.test_a_message_above_the_limit_closes_the_connection,
    ),
    "a server that can is not asked for a response": (
        mutate(fastapi, "_close", "if not accepted and", "if False and"),
        websockets.test_a_server_that_can_answers_a_refused_connection_with_429,
    ),
    "the schema lacks limits of dependencies": (
        mutate(fastapi, "_is_limited", "or _is_limited(each)", ""),
        responses.test_the_schema_documents_the_status_429_of_limited_routes,
    ),
    "the schema replaces a documented status": (
        mutate(fastapi, "document_limits", '.setdefault("429", OPENAPI_DENIAL)', '.update({"429": OPENAPI_DENIAL})'),
        responses.test_the_schema_documents_the_status_429_of_limited_routes,
    ),
}
"""By bug: the mutant that has it, and the test that fails."""


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_each_bug_makes_its_test_fail(name: str) -> None:
    mutant, check = MUTANTS[name]
    check()
    with (
        patch.object(mutant.owner, mutant.attribute, mutant.replacement),
        pytest.raises((AssertionError, pytest.fail.Exception)),
    ):
        check()
