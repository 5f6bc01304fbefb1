"""Each named bug in the middleware, its headers and client identification makes its test fail."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from unittest.mock import patch

import pytest
import test_delayed_admission as delayed
import test_denials as denials
import test_http_headers as headers
import test_http_traffic as traffic
import test_identity as identity
import test_middleware as middleware
import test_middleware_arguments as arguments
import test_middleware_passthrough as passthrough
import test_scope_functions as functions
from http_mutants import IDENTITIES, PASSAGES, RESPONSES
from identity_table import TABLE
from mutate import Mutant

from ratelab import ALGORITHMS, Decision, Quota

Check = Callable[[], None]


def table(section: str) -> Check:
    """Return the check of a section of the table, given the start of its name."""
    ((options, rows),) = (part for name, part in TABLE.items() if name.startswith(section))
    return partial(identity.check_rows, options, rows)


def window(name: str) -> Check:
    return partial(headers.test_the_policy_of_an_algorithm_is_its_quota, ALGORITHMS[name], "2/s", 5, 3)


SPELLINGS = table("a peer is the same client")
WALK = table("the list of a trusted proxy")
NAMES = table("a header names the client")
UNUSABLE = table("a missing, empty or long header")
DIFFERENT = identity.test_different_clients_have_different_keys
WAITS = partial(traffic.check_retry_after, ALGORITHMS["token-bucket"], Quota.parse("7/13s", burst=5), 5, 5)
QUEUES = partial(passthrough.test_a_delayed_request_sleeps_before_the_application_is_called, "3/s", [0.334, 0.667])
UNCHANGED = passthrough.test_the_applications_messages_are_not_changed
NO_QUOTA_LEFT = middleware.test_a_denial_has_no_quota_left_even_if_a_smaller_cost_fits
HALF_A_SECOND = Decision(False, 7, 5 * 10**8, 10**9, 0)
EXEMPT = middleware.test_exempt_requests_are_not_limited_and_get_no_headers
DENIED = middleware.test_a_denied_request_gets_a_problem_and_no_application
IMPOSSIBLE = middleware.test_a_cost_above_the_burst_is_a_bad_request_and_not_charged
AMBIGUOUS = middleware.test_a_repeated_key_header_is_a_bad_request_and_not_charged

CAUGHT: dict[str, Check] = {
    "the leftmost address is taken": WALK,
    "only the last of several lines is read": WALK,
    "whitespace around an address is kept": WALK,
    "any forwarding header is read": WALK,
    "empty elements count": WALK,
    "every peer is trusted": table("headers from an untrusted peer"),
    "one hop too many is trusted": table("one trusted hop"),
    "entries that are not addresses are skipped": table("a list with garbage"),
    "a mapped address is not unwrapped": SPELLINGS,
    "a proxy's mapped address is not unwrapped": WALK,
    "a mapped network is not unwrapped": WALK,
    "a trusted network may cover all addresses": partial(
        identity.test_invalid_options_are_rejected_with_a_remedy,
        {"trusted_proxies": ["::/0"]},
        "a trusted proxy must not cover all addresses",
    ),
    "each address of a /64 is a client": SPELLINGS,
    "neighboring /64 networks are one client": DIFFERENT,
    "all clients behind NAT64 are one": SPELLINGS,
    "the prefix of an IPv6 network is ignored": partial(identity.check_prefix, 56),
    "a header with an address is a plain key": table("a header with an address"),
    "whitespace around a value is kept": NAMES,
    "the case of a value is ignored": DIFFERENT,
    "the first of two values counts": AMBIGUOUS,
    "a value may have any length": UNUSABLE,
    "the longest value is ignored": DIFFERENT,
    "an empty value is a client": UNUSABLE,
    "a request without a value is unlimited": UNUSABLE,
    "the name and the value are ambiguous": DIFFERENT,
    "the same value of all headers is one client": DIFFERENT,
    "the hash has no key": identity.check_keys_depend_on_the_secret,
    "a key reveals the client": identity.check_key_hides_the_value,
    "a wait is rounded down": WAITS,
    "a wait is a second too long": middleware.test_headers_and_problem_agree_on_a_longer_wait,
    "the wait of a decision is rounded down": partial(headers.check_denial, HALF_A_SECOND),
    "a reset is rounded down": middleware.test_headers_are_added_to_the_applications_response,
    "the reset of a decision is rounded down": headers.test_the_state_follows_each_hit,
    "a denied request has quota left": NO_QUOTA_LEFT,
    "the decision of a denied request has quota left": partial(headers.check_denial, HALF_A_SECOND),
    "an infinite wait is sent": headers.test_the_state_follows_each_hit,
    "a denial has no Retry-After": DENIED,
    "huge numbers are not clamped": partial(
        headers.test_huge_numbers_are_clamped_to_15_digits, ALGORITHMS["token-bucket"]
    ),
    "headers are cached without a bound": headers.test_the_cache_of_headers_is_bounded,
    "the window of a policy is rounded down": headers.test_a_policy_has_the_burst_and_the_seconds_that_grant_it,
    "an epoch is rounded down": partial(
        headers.test_epoch_is_the_seconds_since_1970_rounded_up, 1_700_000_000.001, 1_700_000_004
    ),
    "an epoch is cached": headers.test_epoch_follows_the_clock,
    "the epoch of a denial is cached": middleware.test_an_epoch_follows_the_clock_for_admitted_and_denied,
    "quotes are not escaped": partial(headers.test_a_policy_name_is_quoted, 'say "hi"'),
    "a cache may store a denial": DENIED,
    "a denial has no headers": traffic.test_ten_thousand_responses_keep_the_contract,
    "the text of a denial has another wait": DENIED,
    "a cost above the burst is answered 429": IMPOSSIBLE,
    "the response to HEAD has a body": middleware.test_the_denial_of_head_has_the_same_headers_and_no_body,
    "the application's message is changed": UNCHANGED,
    "the application's list is changed": UNCHANGED,
    "an application must send headers": passthrough.test_an_application_may_send_no_headers,
    "any true value exempts": partial(
        arguments.test_a_result_that_is_no_value_raises_and_admits_nothing, "exempt", arguments.HIDDEN["text"]
    ),
    "a client that leaves the queue gets no response": delayed.test_a_client_that_disconnects_stays_charged,
    "a coroutine function is accepted": partial(
        arguments.test_a_function_that_is_not_plain_is_rejected, "exempt", arguments.asynchronous
    ),
    "a mount point is part of the path": partial(
        functions.test_limits_by_route_hold_below_a_mount,
        functions.starlette_app,
        functions.mounted,
        "",
        "/api",
    ),
    "two limiters send two sets of fields": partial(
        denials.test_of_two_limiters_the_tightest_is_shown, 2, 10, "2", "delta"
    ),
    "a delay is not slept": QUEUES,
    "a delay is cut short": QUEUES,
    "exempt requests are charged": EXEMPT,
    "exempt requests are limited": EXEMPT,
    "a request that names two clients is charged": AMBIGUOUS,
    "other protocols are limited": partial(passthrough.test_other_protocols_pass_unchanged, "websocket"),
    "a denied request reaches the application": DENIED,
    "the first limiter chosen decides all requests": middleware.test_the_limiter_may_be_a_function_of_the_request,
    "an overridden hit is not called": middleware.test_an_overridden_hit_decides,
}
"""By bug: the check that fails."""

MUTANTS: dict[str, Mutant] = {**IDENTITIES, **RESPONSES, **PASSAGES}


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_each_bug_makes_its_test_fail(name: str) -> None:
    check, mutant = CAUGHT[name], MUTANTS[name]
    check()
    with (
        patch.object(mutant.owner, mutant.attribute, mutant.replacement),
        pytest.raises((AssertionError, pytest.fail.Exception)),
    ):
        check()


def test_each_bug_has_a_test() -> None:
    assert CAUGHT.keys() == MUTANTS.keys()
