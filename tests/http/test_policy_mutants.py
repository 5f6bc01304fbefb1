"""Each named bug in the enforcement of several policies makes its test fail."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import pytest
import test_policy_middleware as middleware
import test_policy_plans as plans
import test_policy_requests as requests
import test_watched_files as files
from asgi import call
from invalid_policies import VALID_POLICIES
from policy_mutants import POLICIES

from ratelab.http import file_policies


def with_folder(check: Callable[[Path], None]) -> None:
    with TemporaryDirectory() as folder:
        check(Path(folder))


def with_time(check: Callable[[pytest.MonkeyPatch], None]) -> None:
    with pytest.MonkeyPatch.context() as patched:
        check(patched)


def fail_closed() -> None:
    app = plans.limited(plan=plans.fail, on_plan_error="closed")
    assert plans.policies(app) == "503"


def use_unknown_plan() -> None:
    app = plans.limited(plan=lambda scope: "gold")
    assert plans.policies(app) == plans.FREE


def change_file(folder: Path) -> None:
    times = [0.0]
    with patch.object(file_policies, "monotonic", lambda: times[0]):
        plans.test_a_changed_file_applies_to_later_requests_and_grants_nothing(folder, times)


def report_invalid_file(folder: Path) -> None:
    path = folder / "policies.yaml"
    file = file_policies.FilePolicies(files.write(path, VALID_POLICIES, 1))
    files.write(path, "version: 2", 2)
    try:
        assert not file.reload(lambda: None)
    except ValueError as error:
        raise AssertionError from error


def log_shadow_denials() -> None:
    log = logging.getLogger("ratelab.http")
    with patch.object(log, "info") as info, patch.object(log, "isEnabledFor", lambda _: True):
        app, _ = middleware.limited(middleware.STRICT, middleware.SECOND)
        for _ in range(2):
            call(app)
        assert info.call_count == 1


def count_shadow_denials() -> None:
    try:
        middleware.test_the_decisions_of_shadow_policies_that_differ_are_counted()
    except AttributeError as error:
        raise AssertionError from error


def same_as_planned() -> None:
    middleware.test_policies_that_always_apply_give_the_same_responses_as_with_a_plan("token-bucket", "off")


CAUGHT: dict[str, Callable[[], None]] = {
    "all policies bind": middleware.test_a_denial_names_the_violated_policies_and_waits_for_the_longest,
    "requests and bytes are compared": requests.test_policies_charge_their_own_costs,
    "a denied shadow policy is refunded": requests.test_a_shadow_policy_that_would_have_denied_is_not_refunded,
    "shadow policies are listed": middleware.test_shadow_policies_never_deny_and_are_not_in_header_fields,
    "a cost that is never granted has a wait": (
        middleware.test_a_cost_that_one_policy_never_grants_is_answered_400_with_its_burst
    ),
    "all policies count the client of the limiter": (
        requests.test_policies_count_addresses_headers_accounts_and_all_clients
    ),
    "a policy applies to every route": requests.test_a_policy_applies_to_its_route_alone,
    "a shadow policy rejects requests that it cannot count": lambda: (
        middleware.test_a_shadow_policy_is_not_asked_about_a_request_that_it_cannot_count("X-Token: a\nX-Token: b")
    ),
    "shadow policies deny while their store is down": middleware.test_shadow_policies_never_deny_when_their_store_fails,
    "successes are charged": requests.test_only_failures_are_charged,
    "a failure of the plan is admitted": fail_closed,
    "an unknown plan is used": use_unknown_plan,
    "every request asks for its plan": plans.test_a_function_is_called_once_for_each_client,
    "a failed plan is not asked for again": lambda: with_time(plans.test_a_failure_is_tried_again_after_a_while),
    "the number of kept plans grows": lambda: with_time(plans.test_the_number_of_kept_plans_is_bounded),
    "a change of the file is not noticed": lambda: with_folder(
        files.test_a_file_is_read_again_after_a_change_and_only_once
    ),
    "an invalid file raises": lambda: with_folder(report_invalid_file),
    "every request checks the file": lambda: with_folder(change_file),
    "fields of another time are sent": same_as_planned,
    "only the least remaining quota counts": same_as_planned,
    "a request of several policies is not delayed": middleware.test_the_delay_of_one_of_several_policies_is_slept,
    "shadow denials are not logged": log_shadow_denials,
    "shadow denials are not counted": count_shadow_denials,
}
"""By bug: the check that fails."""


@pytest.mark.parametrize("name", POLICIES)
def test_each_bug_makes_its_test_fail(name: str) -> None:
    check, mutant = CAUGHT[name], POLICIES[name]
    check()
    with (
        patch.object(mutant.owner, mutant.attribute, mutant.replacement),
        pytest.raises((AssertionError, pytest.fail.Exception, ValueError)),
    ):
        check()


def test_each_bug_has_a_test() -> None:
    assert CAUGHT.keys() == POLICIES.keys()
