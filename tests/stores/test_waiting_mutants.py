"""Mutants of waiting, each caught by a named test."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import test_store_waiting_failures as failing
import test_waiting as in_memory
import test_waiting_order as orders
import test_waiting_refusals as refusals
import test_waiting_threads as in_threads
from waiting_mutants import MUTANTS

from ratelab import MemoryLimiter, RateLimitExceeded

pytestmark = pytest.mark.slow

Check = Callable[[], object]


def in_order() -> None:
    orders.test_a_later_and_cheaper_request_does_not_overtake()


def places() -> None:
    orders.test_cancelled_requests_give_their_places_back("token-bucket")


def instants(algorithm: str) -> Check:
    return lambda: orders.test_each_request_goes_at_the_instant_of_the_model(algorithm, MemoryLimiter)


def timeouts(algorithm: str) -> Check:
    test = refusals.test_a_timeout_suffices_exactly_and_one_nanosecond_less_raises_at_once
    return lambda: test(algorithm, MemoryLimiter)


def spread() -> None:
    failing.test_a_client_of_a_store_comes_later_by_a_tenth_and_a_second_at_most(60)


CAUGHT_BY: dict[str, Check] = {
    "a later request overtakes": in_order,
    "a cancelled request keeps its place": places,
    "the next is not woken": in_order,
    "a request asks without a pause": instants("token-bucket"),
    "a request asks a nanosecond early": in_memory.test_a_request_asks_again_at_the_time_that_it_was_given,
    "a time-out is one nanosecond longer": lambda: (
        refusals.test_the_first_in_line_waits_for_exactly_the_timeout_or_not_at_all("token-bucket")
    ),
    "a time-out does not count those ahead": timeouts("token-bucket"),
    "a time-out does not count a later delay": refusals.test_a_timeout_counts_the_delay_after_a_denial,
    "those behind wait longer than they can": refusals.test_a_hit_between_refuses_those_who_can_no_longer_be_in_time,
    "a delay is not slept": instants("leaky-bucket"),
    "a cancelled delay stays charged": in_memory.test_a_cancelled_delay_is_refunded_and_the_next_takes_the_place,
    "a refused request has been charged": in_memory.test_waiting_is_not_counted_as_a_denial_by_a_penalty,
    "a forecast survives a cancellation": refusals.test_a_timeout_counts_nobody_who_has_left,
    "a forecast is trusted although the first has woken up": (
        refusals.test_a_forecast_is_not_trusted_if_the_first_has_been_admitted_meanwhile
    ),
    "a cost above the burst waits for its turn": lambda: (
        refusals.test_a_cost_above_the_burst_raises_at_once_behind_others("token-bucket")
    ),
    "a client of a store comes early": spread,
    "clients of a store come at once": spread,
    "a child process waits for its parent's requests": (
        in_threads.test_a_child_process_does_not_wait_for_requests_of_its_parent
    ),
    "a thread misses that it is woken": in_threads.test_many_threads_get_exactly_the_quota_in_their_order,
    "a task misses that it is woken": in_order,
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_of_waiting_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("waiting_runs.PATIENCE_S", 1)
    monkeypatch.setattr(*MUTANTS[name])
    with pytest.raises((AssertionError, TimeoutError, RateLimitExceeded, pytest.fail.Exception)):
        CAUGHT_BY[name]()
