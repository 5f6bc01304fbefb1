"""Each named bug in the doors for WSGI and Flask makes its test fail."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from unittest.mock import patch

import pytest
import test_conformance as conformance
import test_conformance_limits as limits
import test_flask as flask
import test_flask_denials as denials
import test_wsgi as wsgi
import test_wsgi_peers as peers
import test_wsgi_refunds as refunds
import wsgi_apps
from door_mutants import MUTANTS
from flask import Flask
from flask_door import DOOR as FLASK
from wsgi_door import DOOR as WSGI

Check = Callable[[], None]


def with_site(check: Callable[..., None]) -> Check:
    """Return a check of an application of Flask."""

    def run() -> None:
        app = Flask("shop")
        check(app, app.test_client())

    return run


KNOWN = wsgi.create_known
BOUND = partial(limits.test_a_delay_above_the_bound_is_refunded_and_denied, WSGI)
DELAY = partial(limits.test_a_delayed_request_waits_for_its_turn, WSGI)
LATE = refunds.test_a_response_that_fails_before_its_first_part_counts_as_500
UNREAD = refunds.test_a_body_that_a_server_never_reads_is_settled_and_closed
LEGACY = partial(limits.test_legacy_fields_are_one_set, WSGI)
SETTLED = refunds.test_a_request_is_refunded_by_its_last_status_before_the_response

FIELDS = with_site(flask.test_the_fields_of_a_known_client_follow_its_quota_and_time)
RENDERED = with_site(denials.test_an_error_handler_renders_a_denial_with_the_fields_of_the_limit)

CAUGHT: dict[str, Check] = {
    "the fields of the application change": partial(wsgi.test_a_list_of_fields_may_be_used_again, KNOWN),
    "an error cannot replace a response": partial(wsgi.test_a_response_may_be_replaced_before_its_first_part, KNOWN),
    "a known peer is not delayed": DELAY,
    "a known peer is not denied": partial(conformance.test_a_denied_request_gets_a_problem_that_no_cache_stores, WSGI),
    "fields of another time are sent": wsgi.test_the_fields_of_a_known_peer_follow_its_quota_and_time,
    "a denied request reaches the application": BOUND,
    "a denied request is not counted": wsgi.test_denials_of_a_known_peer_are_counted,
    "an offender is not listed": wsgi.test_denials_of_a_known_peer_are_counted,
    "the response to HEAD has a body": partial(conformance.test_head_is_charged_as_get_is, WSGI),
    "exempt requests are limited": wsgi.test_counts_and_offenders_are_kept,
    "any true value exempts": wsgi.test_exempt_returns_true_or_false,
    "on_denied is not asked": partial(wsgi.test_fields_of_a_custom_denial_may_be_bytes_or_text, wsgi.create_new),
    "the denial of another time is sent": wsgi.test_the_wait_of_a_known_peer_follows_the_time,
    "the text of a function may have any length": partial(
        peers.test_a_function_without_a_usable_text_leaves_the_address, "a" * 257
    ),
    "the body is wrapped": partial(wsgi.test_the_body_of_the_application_is_not_wrapped, wsgi.create_costly),
    "two limiters send two sets of fields": LEGACY,
    "field names of the application are changed": wsgi.test_other_cases_of_field_names_are_kept_with_legacy_fields,
    "the first status counts": partial(SETTLED, wsgi_apps.failing_late, 500),
    "an empty part starts the response": LATE,
    "a failure counts as its first status": LATE,
    "a file is wrapped": refunds.test_a_file_is_sent_by_the_server_as_without_a_refund,
    "a body is not closed": UNREAD,
    "an unread body is never settled": UNREAD,
    "a request is settled twice": partial(SETTLED, refunds.streaming, 202),
    "a delay has no bound": BOUND,
    "a delay above the bound stays charged": BOUND,
    "a delay is not slept": DELAY,
    "an interrupted delay is not counted": wsgi.test_a_delay_that_is_interrupted_is_counted_as_dropped,
    "joined headers are one client": partial(
        conformance.test_a_repeated_header_that_identifies_the_client_is_answered_400, WSGI
    ),
    "commas are never usual": partial(peers.test_commas_are_usual_in_some_fields, "User-Agent"),
    "Waitress's Unix socket is a host": partial(
        peers.test_a_unix_socket_is_one_client_unless_it_is_trusted, "localhost", "None"
    ),
    "a mount point is part of the path": partial(conformance.test_routes_are_those_below_the_mount_point, WSGI),
    "a function of an identity takes the scope": partial(
        peers.test_functions_of_an_identity_receive_the_environment, lambda environ: 1
    ),
    "a known client of a view is not denied": FIELDS,
    "a known client of a view is not delayed": with_site(flask.test_a_known_client_waits_for_its_turn_in_a_queue),
    "fields of another client are sent": FIELDS,
    "an error handler's response lacks the fields": RENDERED,
    "the default response has its fields twice": partial(
        conformance.test_a_denied_request_gets_a_problem_that_no_cache_stores, FLASK
    ),
    "an error handler's own wait is replaced": with_site(denials.test_a_handler_may_set_its_own_fields),
    "a denial without a body has no length": partial(
        conformance.test_the_reply_to_head_has_the_fields_of_get_and_no_body, FLASK
    ),
    "on_denied is never asked": with_site(denials.test_on_denied_may_only_count),
    "a denied request has no decision in g": RENDERED,
}
"""By bug: the check that fails."""

CAUGHT_BY_LOGS: dict[str, Callable[[pytest.LogCaptureFixture], None]] = {
    "a replaced peer goes unnoticed": partial(
        peers.test_a_server_that_replaces_the_peer_is_reported_once, peer="203.0.113.{}", port=True
    ),
    "Werkzeug's peer of the socket is not looked at": peers.test_the_middleware_of_werkzeug_is_reported_once,
    "a local peer counts as replaced": partial(
        peers.test_peers_of_the_socket_are_not_reported, peer="127.0.0.1", header="X-Forwarded-For: 127.0.0.1"
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_each_bug_makes_its_test_fail(name: str, caplog: pytest.LogCaptureFixture) -> None:
    mutant = MUTANTS[name]
    check = CAUGHT[name] if name in CAUGHT else partial(CAUGHT_BY_LOGS[name], caplog)
    check()
    caplog.clear()
    with (
        patch.object(mutant.owner, mutant.attribute, mutant.replacement),
        pytest.raises((AssertionError, pytest.fail.Exception)),
    ):
        check()


def test_each_bug_has_a_test() -> None:
    assert CAUGHT.keys() | CAUGHT_BY_LOGS.keys() == MUTANTS.keys()
