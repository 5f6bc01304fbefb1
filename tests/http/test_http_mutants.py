"""Every promise about a request and its answer is shown to catch the mistakes it is there for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from unittest.mock import patch

import pytest
import test_http_headers as told
import test_http_traffic as traffic
import test_identity as who
import test_middleware as through
import test_middleware_passthrough as passage
from http_mutants import ANSWERS, IDENTITIES, PASSAGES, Mutant
from identity_table import TABLE

from ratelab import ALGORITHMS, Decision, Quota

Promise = Callable[[], None]


def table(section: str) -> Promise:
    """Return the promise that a section of the table makes, found by how its name begins."""
    ((options, rows),) = (part for name, part in TABLE.items() if name.startswith(section))
    return partial(who.check_rows, options, rows)


def window(name: str) -> Promise:
    return partial(told.test_the_policy_of_an_algorithm_is_its_quota, ALGORITHMS[name], "2/s", 5, 3)


SPELT = table("a peer is the same client")
WALK = table("the list of a trusted proxy")
NAMES = table("a header names the client")
USELESS = table("a missing, empty or long header")
DIFFER = who.test_different_clients_have_different_keys
WAITS = partial(traffic.check_retry_after, ALGORITHMS["token-bucket"], Quota.parse("7/13s", burst=5), 5, 5)
QUEUES = partial(passage.test_a_request_waits_its_turn_before_the_application_is_called, "3/s", [0.334, 0.667])
LEFT = passage.test_the_applications_messages_are_left_as_they_are
LEAVES = through.test_nothing_is_left_for_a_denied_request_even_if_a_smaller_one_would_do
HALF_A_SECOND = Decision(False, 7, 5 * 10**8, 10**9, 0)
EXEMPT = through.test_exempt_requests_are_neither_limited_nor_charged_nor_told_anything
DENIED = through.test_a_denied_request_is_told_why_and_until_when_and_does_not_reach_the_application
HELPLESS = through.test_a_cost_that_no_wait_can_help_is_a_bad_request_and_takes_nothing
AMBIGUOUS = through.test_two_lines_of_the_key_are_a_bad_request_and_nobody_is_charged

CAUGHT: dict[str, Promise] = {
    "the leftmost address is taken": WALK,
    "one line of several is read": WALK,
    "blanks round an address count": WALK,
    "any header that forwards is read": WALK,
    "empty elements count": WALK,
    "anybody is believed": table("headers from an untrusted peer"),
    "a hop too far": table("one trusted hop"),
    "garbage is stepped over": table("a list with garbage"),
    "a mapped address is not unwrapped": SPELT,
    "a proxy's mapped address is not unwrapped": WALK,
    "a mapped network is not unwrapped": WALK,
    "everybody may be a proxy": partial(
        who.test_invalid_options_are_rejected_with_a_remedy,
        {"trusted_proxies": ["::/0"]},
        "a trusted proxy must not cover all addresses",
    ),
    "each address of a site is a client": SPELT,
    "neighbouring sites are one client": DIFFER,
    "all behind NAT64 are one client": SPELT,
    "blanks round a value make another key": NAMES,
    "the case of a value is lost": DIFFER,
    "the first of two values counts": AMBIGUOUS,
    "an over-long value is a key": USELESS,
    "the longest value is no key": DIFFER,
    "an empty value is a key": USELESS,
    "a value of no use is unlimited": USELESS,
    "names run into values": DIFFER,
    "all headers share their values": DIFFER,
    "the hash has no key": who.check_keys_depend_on_the_secret,
    "a key says who it is": who.check_key_hides_the_value,
    "a wait is rounded down": WAITS,
    "a wait is a second too long": through.test_a_longer_wait_is_told_alike_in_all_places,
    "a wait told alone is rounded down": partial(told.a_denial_tells_the_wait, HALF_A_SECOND),
    "a reset is rounded down": through.test_an_admitted_request_gets_what_the_application_says_and_the_fields,
    "a reset told alone is rounded down": told.test_the_state_is_told_hit_by_hit,
    "a denied request has something left": LEAVES,
    "a denied request told alone has something left": partial(told.a_denial_tells_the_wait, HALF_A_SECOND),
    "a wait that never ends is told": HELPLESS,
    "a denial has no Retry-After": DENIED,
    "huge numbers are told whole": partial(told.test_huge_numbers_are_told_in_15_digits, ALGORITHMS["token-bucket"]),
    "fields are kept for ever": told.test_fields_told_once_are_not_remembered_for_ever,
    "a policy's window is rounded down": told.test_a_policy_says_the_burst_and_the_seconds_in_which_the_rate_grants_it,
    "an epoch is rounded down": partial(
        told.test_epoch_counts_the_seconds_from_1970_and_never_too_few, 1_700_000_000.001, 1_700_000_004
    ),
    "an epoch is remembered": told.test_epoch_moves_with_the_clock,
    "a denial's epoch is remembered": through.test_an_epoch_moves_with_the_clock_for_the_admitted_and_the_denied,
    "quotes are not escaped": partial(told.test_a_name_of_ones_own_is_quoted, 'say "hi"'),
    "a denial may be kept by caches": DENIED,
    "a denial has no fields": traffic.test_ten_thousand_responses_keep_the_contract,
    "a denial's text tells another wait": DENIED,
    "a denial of a cost above the burst is a 429": HELPLESS,
    "HEAD is answered with a body": through.test_head_is_told_the_same_without_a_body,
    "the application's message is changed": LEFT,
    "the application's list is changed": LEFT,
    "an application must send fields": passage.test_an_application_may_send_no_fields,
    "a delay is not slept": QUEUES,
    "a delay is cut short": QUEUES,
    "exempt requests are charged": EXEMPT,
    "exempt requests are limited": EXEMPT,
    "two names are charged before they are refused": AMBIGUOUS,
    "other protocols are limited": partial(passage.test_what_is_not_http_passes_untouched, "websocket"),
    "a denied request reaches the application": DENIED,
    "the first limiter chosen is taken for all": through.test_the_limiter_may_be_a_function_of_the_request,
}
"""The promise that each mistake breaks."""

MUTANTS: dict[str, Mutant] = {**IDENTITIES, **ANSWERS, **PASSAGES}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mistake_breaks_its_promise(name: str) -> None:
    promise, mutant = CAUGHT[name], MUTANTS[name]
    promise()
    with (
        patch.object(mutant.owner, mutant.attribute, mutant.made),
        pytest.raises((AssertionError, pytest.fail.Exception)),
    ):
        promise()


def test_every_promise_named_here_has_its_mistake() -> None:
    assert CAUGHT.keys() == MUTANTS.keys()
