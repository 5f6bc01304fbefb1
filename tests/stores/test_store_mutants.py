"""Every promise about a store that fails is shown to catch the mistakes it is there for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from unittest.mock import patch

import pytest
import test_circuit_breaker as asked
import test_middleware_store as answered
import test_resilient as without
import test_resilient_reports as told
from http_mutants import Mutant
from store_mutants import ANSWERS, BREAKERS, FALLBACKS

from ratelab import ALGORITHMS
from ratelab.errors import StoreError

Promise = Callable[[], None]


def timeline(name: str) -> Promise:
    return partial(asked.holds, asked.TIMELINES[name])


GCRA = ALGORITHMS["gcra"]
DOWN = answered.test_a_store_that_is_down_means_what_was_said
UNANSWERED = answered.test_without_a_decision_the_answer_is_503_and_the_application_is_not_called
CLOSED = without.test_a_closed_door_says_why_and_when_to_come_back
WARM = partial(without.test_an_outage_starts_with_what_the_store_let_through_here, GCRA)
WAITS = answered.test_a_wait_is_told_in_whole_seconds_rounded_up_and_never_none
METRICS = answered.test_metrics_tell_of_the_store_what_a_limiter_with_a_store_has_seen
COUNTED = told.test_failures_are_counted_by_kind_and_answers_without_the_store_one_by_one
TOLD = partial(
    told.test_the_operator_is_told_once_that_the_store_is_down_and_once_that_it_is_back,
    "closed",
    "every request is denied",
    "rejected because the store was down",
)
THREE = timeline("three failures in a row, and it is asked no more")
LOOKS = asked.test_who_looks_after_a_store_finds_it_back_though_nobody_comes
BACK = timeline("one success, and every request asks")

CAUGHT: dict[str, Promise] = {
    "it never opens": THREE,
    "it opens at once": THREE,
    "a success does not begin anew": timeline("a success begins the count anew"),
    "a stall is as many failures as requests": asked.test_one_stall_that_fails_all_in_flight_is_one_failure,
    "it never probes": timeline("the first probe comes after half a second"),
    "all requests probe": asked.test_one_request_at_a_time_probes_however_long_it_takes,
    "a probe follows on the other": asked.test_a_probe_that_is_cancelled_leaves_its_turn_to_another,
    "probes do not back off": timeline("the others come after one"),
    "probes back off too far": asked.test_the_shared_state_is_back_within_two_seconds_however_the_store_died,
    "the first probe is at once": THREE,
    "a cancelled probe blocks all others": asked.test_a_probe_that_is_cancelled_leaves_its_turn_to_another,
    "a look asks a store that is up": LOOKS,
    "a look is charged": LOOKS,
    "a success does not bring it back": BACK,
    "it is back with its failures": timeline("after a recovery it takes three again"),
    "a failure is counted after the recovery": asked.test_a_failure_from_before_the_recovery_is_no_failure_since,
    "an old success ends the outage": asked.test_a_success_from_before_the_outage_is_told_but_does_not_end_it,
    "a clock set back stops the probes": partial(
        asked.test_a_clock_that_steps_neither_stops_the_probes_nor_brings_a_storm_of_them, -asked.HOUR
    ),
    "the local limiter is not kept warm": WARM,
    "what the store denies is charged": without.test_what_the_store_denies_is_denied_but_not_charged_here,
    "every door is kept warm": partial(without.test_nothing_is_kept_in_memory_that_is_not_needed, "open"),
    "local lets all through": partial(DOWN, "local", 2, [200, 200, 429]),
    "an open door has no burst": partial(DOWN, "open", 6, [400] * 3),
    "an open door denies": partial(DOWN, "open", 2, [200] * 3),
    "a closed door lets through": CLOSED,
    "a closed door says nothing of why": CLOSED,
    "a closed door is asked again at once": CLOSED,
    "a bad cost is a failure": partial(
        without.test_a_cost_that_is_no_whole_number_is_refused_and_says_nothing_of_the_store, -1, down=True
    ),
    "any exception is a failure": without.test_what_else_a_store_raises_is_raised_and_says_nothing_of_the_store,
    "failures are one kind": COUNTED,
    "answers without the store are not counted": COUNTED,
    "each failure is told": TOLD,
    "what the store says may be two lines": told.test_an_errors_text_is_told_in_one_line,
    "what came before it was down is left out": TOLD,
    "the recovery is not told": TOLD,
    "a failure is a 429": UNANSWERED,
    "a wait of a failure is rounded down": partial(WAITS, 10**9 + 1, 2),
    "a failure may be asked again at once": partial(WAITS, 0, 1),
    "a failure has no Retry-After": UNANSWERED,
    "a failure may be kept by caches": UNANSWERED,
    "a failure tells its text": UNANSWERED,
    "a failure violates a policy": UNANSWERED,
    "a failure lets through": UNANSWERED,
    "a failure is not counted": UNANSWERED,
    "a failure is counted as a denial": UNANSWERED,
    "a failure is not answered": UNANSWERED,
    "who blocks is let in": answered.test_a_limiter_that_would_stop_the_event_loop_is_refused,
    "a store that is down is told up": METRICS,
    "metrics leave the unavailable out": METRICS,
}
"""The promise that each mistake breaks."""

MUTANTS: dict[str, Mutant] = {**BREAKERS, **FALLBACKS, **ANSWERS}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mistake_breaks_its_promise(name: str) -> None:
    promise, mutant = CAUGHT[name], MUTANTS[name]
    promise()
    with (
        patch.object(mutant.owner, mutant.attribute, mutant.made),
        pytest.raises((AssertionError, pytest.fail.Exception, StoreError)),
    ):
        promise()


def test_every_promise_named_here_has_its_mistake() -> None:
    assert CAUGHT.keys() == MUTANTS.keys()
