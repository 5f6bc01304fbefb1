"""Each named bug in the doors for Django and Django REST framework makes its test fail."""

from collections.abc import Callable
from functools import partial
from unittest.mock import patch

import pytest
import test_conformance as conformance
import test_django as views
import test_django_clients as clients
import test_django_rest as throttles
import test_django_settings as options
from django.http import Http404, HttpResponse
from django_asgi_door import DOOR as ASGI
from django_door import DOOR as WSGI
from django_project import MIDDLEWARE, override
from django_views import hello
from mutate import Mutant, mutate

from ratelab.django import apps, door, responses, settings
from ratelab.django.decorators import _ViewLimit
from ratelab.django.door import Door
from ratelab.django.rest import RateThrottle, _Taken

DENIED = conformance.test_a_denied_request_gets_a_problem_that_no_cache_stores
CUSTOM = partial(views.test_a_custom_response_to_denied_requests_gets_the_fields, HttpResponse)
REFUNDED = throttles.test_a_denied_request_is_refunded_by_the_other_throttles
REPORTED = options.test_an_invalid_option_is_reported_in_one_line_at_start_and_by_the_check
JOINED = views.test_the_fields_of_middleware_and_decorator_are_joined


def find(settings: dict[str, object], found: str, **more: object) -> Callable[[], None]:
    """Return a check that the system checks find a problem."""

    def check() -> None:
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv("WEB_CONCURRENCY", "1")
            options.test_the_checks_find_what_limits_the_wrong_clients(settings, more, [found])

    return check


def find_workers() -> None:
    with pytest.MonkeyPatch.context() as patched:
        options.test_the_checks_find_quotas_of_several_workers_outside_a_store(
            "WEB_CONCURRENCY", "4", ["ratelab.W003"], patched
        )


def compare_keys() -> None:
    with pytest.MonkeyPatch.context() as patched:
        options.test_keys_are_the_same_in_all_processes_of_a_project(patched)


def join(direct: bool) -> None:
    with pytest.MonkeyPatch.context() as patched:
        views.test_fields_are_joined_with_those_of_the_application(direct, patched)


MUTANTS: dict[str, tuple[Mutant, Callable[[], None]]] = {
    # the middleware
    "a denied request reaches the view": (
        mutate(Door, "pass_on", "denial is not None", "False"),
        partial(DENIED, WSGI),
    ),
    "a denied request reaches the coroutine view": (
        mutate(Door, "pass_on_awaiting", "ruling.answer is not None", "False"),
        partial(DENIED, ASGI),
    ),
    "the decision is not on the request": (
        mutate(Door, "pass_on", "request.ratelimit = decision", "pass"),
        views.test_the_decision_of_the_innermost_limit_is_on_the_request,
    ),
    "a failed view stays charged": (
        mutate(Door, "pass_on", "gate.settle_now(*ruled, find_status(error))", "pass"),
        partial(views.test_an_exception_of_a_view_counts_as_its_status, Http404(), 404),
    ),
    "a response is not refunded": (
        mutate(Door, "pass_on", "gate.settle_now(*ruled, response.status_code)", "pass"),
        partial(views.test_requests_are_refunded_by_the_status_of_their_response, hello),
    ),
    "an override of the settings has no effect": (
        mutate(Door, "_follow", "setting in _WATCHED", "False"),
        views.test_an_override_of_the_settings_takes_effect_and_ends,
    ),
    "the user is loaded in the event loop": (
        mutate(Door, "pass_on_awaiting", "self._loads_user", "False"),
        partial(clients.test_users_are_loaded_before_functions_run_in_an_event_loop, clients.COUNTS_USERS[0]),
    ),
    "users of accounts are loaded in the event loop": (
        mutate(door, "may_read_user", 'return "account" in keys', "return False"),
        partial(clients.test_users_are_loaded_before_functions_run_in_an_event_loop, clients.COUNTS_USERS[3]),
    ),
    # header fields and responses
    "fields of the application are replaced": (
        mutate(door, "join_fields", "other is None", "True"),
        partial(join, True),
    ),
    "two limits send two sets of legacy fields": (
        mutate(door, "join_fields", "merge_fields(present, added)", "present"),
        JOINED,
    ),
    "a custom denial has no fields": (
        mutate(door, "create_response", "for name, value in fields:", "for name, value in ():"),
        CUSTOM,
    ),
    "a custom denial loses its own fields": (
        mutate(door, "create_response", "headers.setdefault(", "headers.__setitem__("),
        CUSTOM,
    ),
    "Http404 counts as a failure": (
        Mutant(responses, "_STATUS_BY_ERROR", ()),
        partial(views.test_an_exception_of_a_view_counts_as_its_status, Http404(), 404),
    ),
    # settings
    "keys do not depend on the project": (
        mutate(settings, "create_identity", "secret is None", "secret is not None"),
        compare_keys,
    ),
    "an unknown name is ignored": (
        mutate(settings, "check_names", "name not in known", "False"),
        partial(
            options.test_an_invalid_option_is_reported_in_one_line_at_start_and_by_the_check,
            next(iter(options.INVALID)),
        ),
    ),
    "policies by account count addresses": (
        mutate(door, "create_gate", "find_user if account is None", "(lambda request: None) if account is None"),
        clients.test_policies_by_account_count_the_user,
    ),
    # the decorator
    "views of a decorator share a quota": (
        mutate(_ViewLimit, "_find_door", "view if owner is None else (type(owner), view.__name__)", "1"),
        views.test_each_view_of_a_decorator_has_its_own_quota,
    ),
    "a decorator ignores the settings": (
        mutate(_ViewLimit, "_collect", "share_options(self._options)", "self._options"),
        views.test_an_override_changes_the_client_of_decorated_views,
    ),
    # the throttles
    "a denial has no wait": (
        mutate(RateThrottle, "allow_request", "int(value)", "None"),
        throttles.test_a_denied_request_gets_the_response_of_the_framework_with_the_wait,
    ),
    "charges of earlier throttles stay": (
        mutate(_Taken, "deny", "self._refunds.pop()()", "self._refunds.pop()"),
        partial(REFUNDED, "gcra"),
    ),
    "charges of later throttles stay": (
        mutate(_Taken, "add", "refund()\n", "pass\n"),
        partial(REFUNDED, "gcra"),
    ),
    "a store that is down denies": (
        mutate(RateThrottle, "allow_request", "status != TOO_MANY", "False"),
        throttles.test_a_store_that_is_down_is_503_with_the_wait,
    ),
    "proxies of the framework are ignored": (
        mutate(RateThrottle, "collect", "hops is not None and", "False and"),
        throttles.test_the_number_of_proxies_of_the_framework_is_respected,
    ),
    "a rate of None is invalid": (
        mutate(RateThrottle, "_find_door", "self._find_limit() is None", "False"),
        throttles.test_a_rate_of_none_limits_nothing,
    ),
    "a throttle reports the states of others that admit": (
        mutate(_Taken, "deny", 'view.headers.pop("RateLimit", None)', "pass"),
        throttles.test_only_throttles_that_deny_report_a_state,
    ),
    # the checks
    "a wrong order of middleware is right": (
        mutate(apps, "_check_order", "place > places[0]", "False"),
        find({"MIDDLEWARE": [MIDDLEWARE, options.AUTHENTICATION]}, "ratelab.E002", KEY="user"),
    ),
    "an unnamed proxy is right": (
        mutate(apps, "_check_proxies", "if names:", "if False:"),
        find({"USE_X_FORWARDED_HOST": True}, "ratelab.W001"),
    ),
    "a wide network is right": (
        mutate(apps, "_check_trust", "if wide:", "if False:"),
        find({}, "ratelab.W002", TRUSTED_PROXIES=["2000::/3"]),
    ),
    "workers without a store are right": (mutate(apps, "_check_workers", "workers > 1", "False"), find_workers),
}
"""By bug: the mutant that has it, and the test that fails."""


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_each_bug_makes_its_test_fail(name: str) -> None:
    mutant, check = MUTANTS[name]
    with override():
        check()
        with (
            patch.object(mutant.owner, mutant.attribute, mutant.replacement),
            pytest.raises((Exception, pytest.fail.Exception)),
        ):
            check()
