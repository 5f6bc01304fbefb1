"""Each named bug in pacing makes its test fail."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import patch

import pytest
import test_advice as reading
import test_pace as pace
import test_pace_targets as targets
import test_pacer as pacer
import test_pacing_store as stores
from pacing_mutants import MUTANTS

Check = Callable[[], None]


def case(test: Any, *start: object) -> Check:
    """Return a parametrized test with the parameters that begin with `start`."""
    (mark,) = (mark for mark in test.pytestmark if mark.name == "parametrize")
    values = next(values for values in mark.args[1] if [*values[: len(start)]] == [*start])
    return partial(test, *values)


def virtually(test: Any) -> None:
    """Run a test that asks its store in virtual time."""
    with pytest.MonkeyPatch.context() as patches:
        stores.ask_at_once(patches)
        test()


ALLOWANCES = reading.test_allowances_are_read_and_malformed_fields_ignored
WAITS = reading.test_denials_are_recognized_with_their_wait
SLOW_START = pace.test_two_requests_are_sent_before_the_first_response
REFUSED = pacer.test_a_request_that_cannot_be_in_time_is_refused_at_once
CANCELLED = pacer.test_a_cancelled_request_gives_its_place_to_the_next
USED = partial(targets.check, "token-bucket", 10, 5, "bare", 60, 180)

CAUGHT_BY: dict[str, Check] = {
    "the first requests are not bounded": SLOW_START,
    "a lost response holds others indefinitely": pace.test_a_request_without_a_response_holds_others_for_a_minute,
    "requests are not spaced": pace.test_requests_of_a_known_quota_are_spaced,
    "the wait of a denial is ignored": pace.test_no_request_is_sent_before_the_wait_of_a_denial_ends,
    "denials in flight count one by one": pace.test_denials_of_requests_in_flight_count_as_one,
    "pauses do not grow": pace.test_one_request_at_a_time_probes_whether_denials_have_ended,
    "a denial does not lower the rate": USED,
    "the rate is never raised": partial(targets.check, "token-bucket", 10, 1, "ietf", 60, 180),
    "a rate that was denied is tried again at once": (
        pace.test_a_rate_that_was_denied_is_tried_again_only_after_enough_admissions
    ),
    "requests that did not wait raise the rate": pace.test_requests_that_come_seldom_do_not_raise_the_rate,
    "requests that are late raise the rate": pace.test_requests_that_are_sent_late_do_not_raise_the_rate,
    "a cached response is learned from": pace.test_a_cached_response_shows_nothing,
    "the fastest policy sets the pace": pace.test_of_several_policies_the_slowest_sets_the_pace,
    "fixed windows are not recognized": (pace.test_a_fixed_window_that_others_use_is_spread_over_the_rest_of_its_time),
    "an epoch is read as a delay": case(ALLOWANCES, reading.x("60", "59", str(reading.NOW + 30))),
    "an epoch in the past is believed": case(ALLOWANCES, reading.x("60", "59", str(reading.NOW - 100))),
    "the clock of the client counts": reading.test_times_count_from_the_date_of_the_response,
    "a huge time is believed": case(WAITS, 429, ("Retry-After: 999999999999",)),
    "a malformed policy is skipped": case(ALLOWANCES, ('RateLimit: "a";t=1',)),
    "Retry-After does not take precedence": case(WAITS, 429, ("Retry-After: 60", *reading.x("60", "0", "30"))),
    "a cancelled request keeps its place": CANCELLED,
    "the next request is not woken": pacer.test_requests_are_sent_in_the_order_in_which_they_came,
    "a response does not wake the first": pacer.test_sixty_tasks_use_a_quota_and_are_seldom_denied,
    "those that wait are not refused after a denial": (
        pacer.test_a_denial_refuses_waiters_that_can_no_longer_be_in_time
    ),
    "requests ahead are not counted": REFUSED,
    "lanes in any number are kept": pacer.test_the_keys_that_were_not_used_for_longest_are_forgotten,
    "a store that is down stops requests": stores.test_a_pacer_whose_store_is_down_paces_alone,
    "a time that was taken before a denial is used": (
        partial(virtually, stores.test_a_denial_gives_back_the_times_that_were_taken_before_it)
    ),
    "a time is taken only when it has come": (partial(virtually, stores.test_a_slow_store_does_not_delay_requests)),
    "lessons are lost while a store is down": stores.test_lessons_from_the_time_without_a_store_reach_it,
    "two processes take the same time": stores.test_two_processes_never_take_the_same_time,
    "a store that was emptied is learned again": stores.test_a_store_that_was_emptied_gets_the_pace_of_its_clients,
    "changes of other processes are overwritten": stores.test_a_process_starts_at_the_pace_that_another_has_learned,
}


def test_every_mutant_has_a_test() -> None:
    assert MUTANTS.keys() == CAUGHT_BY.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_each_mutant_is_caught(name: str) -> None:
    CAUGHT_BY[name]()
    mutant = MUTANTS[name]()
    with (
        patch.object(mutant.owner, mutant.attribute, mutant.replacement),
        pytest.raises((Exception, pytest.fail.Exception)),
    ):
        CAUGHT_BY[name]()
