"""Mutants of the handling of a failing store, each caught by a named test."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from unittest.mock import patch

import pytest
import test_circuit_breaker as breaker
import test_middleware_store as http
import test_resilient as fallback
import test_resilient_probes as probes
import test_resilient_reports as reports
import test_resilient_threads as threads
from mutate import Mutant
from store_mutants import BREAKERS, FALLBACKS, RESPONSES

from ratelab import ALGORITHMS
from ratelab.errors import StoreError

Check = Callable[[], None]


def timeline(name: str) -> Check:
    return partial(breaker.check_timeline, breaker.TIMELINES[name])


OPENS = timeline("three consecutive failures open the circuit")
CLOSES = timeline("one success closes the circuit")
PROBES = breaker.test_probe_detects_a_recovery_without_requests
CLOSED = fallback.test_failing_closed_raises_the_reason_and_when_to_retry
CHARGED = partial(fallback.test_an_outage_starts_with_the_charges_of_requests_admitted_here, ALGORITHMS["token-bucket"])
COUNTED = reports.test_failures_are_counted_by_kind_and_fallback_decisions_one_by_one
LOGGED = partial(
    reports.test_an_outage_and_its_end_are_logged_once_each,
    "closed",
    "every request is denied",
    "rejected because the store was down",
)
DOWN = http.test_a_store_that_is_down_is_replaced_as_configured
UNANSWERED = http.test_a_request_without_a_decision_is_answered_503
WAITS = http.test_retry_after_is_rounded_up_and_at_least_1
METRICS = http.test_metrics_of_a_limiter_with_a_store_describe_the_store

CAUGHT_BY: dict[str, Check] = {
    "the circuit never opens": OPENS,
    "one failure opens the circuit": OPENS,
    "a success does not reset the count": timeline("a success resets the count"),
    "failures in flight count one by one": breaker.test_requests_that_fail_together_are_one_failure,
    "there are no probes": timeline("the first probe comes after half a second"),
    "all requests probe": breaker.test_one_request_at_a_time_probes_however_long_it_takes,
    "a probe follows another at once": breaker.test_a_cancelled_probe_permits_another,
    "probes do not back off": timeline("later probes come after a second"),
    "probes back off too far": breaker.test_the_shared_state_is_back_within_two_seconds_of_the_store,
    "the first probe comes at once": OPENS,
    "a probe whose error is kept blocks all others": fallback.test_an_error_that_a_caller_keeps_does_not_keep_the_probe,
    "a probe that was interrupted blocks all others": threads.test_an_interrupted_probe_permits_another,
    "probe calls a store that is up": PROBES,
    "probe charges a key": PROBES,
    "a success does not close the circuit": CLOSES,
    "failures survive a recovery": timeline("after a recovery it takes three failures again"),
    "an old failure counts after the recovery": breaker.test_a_failure_from_before_the_recovery_does_not_count,
    "an old success ends the outage": breaker.test_a_success_from_before_the_outage_counts_but_does_not_end_it,
    "a request skips the probe": probes.test_a_request_probes_by_a_write_before_it_calls_a_store_that_is_down,
    "all nodes share a circuit": probes.test_keys_of_other_nodes_are_decided_by_the_store,
    "reads end an outage of writes": partial(probes.test_reads_do_not_disprove_that_a_store_cannot_write, "full"),
    "no read ends an outage": partial(probes.test_reads_disprove_that_a_store_is_unreachable, "timeout"),
    "an overload counts as a failure": probes.test_too_many_hits_at_once_do_not_mean_that_the_store_is_down,
    "a clock set back stops the probes": partial(
        breaker.test_a_clock_step_neither_stops_the_probes_nor_multiplies_them, -breaker.HOUR
    ),
    "the local fallback is not charged": CHARGED,
    "denied requests are charged": fallback.test_a_request_that_the_store_denies_is_not_charged_here,
    "every fallback is charged": partial(fallback.test_only_the_local_fallback_keeps_keys, "open"),
    "the local fallback admits all": partial(DOWN, "local", 2, [200, 200, 429]),
    "failing open ignores the burst": partial(DOWN, "open", 6, [400] * 3),
    "failing open denies": partial(DOWN, "open", 2, [200] * 3),
    "failing closed admits": CLOSED,
    "failing closed hides the reason": CLOSED,
    "failing closed permits an immediate retry": CLOSED,
    "an invalid cost is a failure": partial(fallback.test_an_invalid_cost_does_not_count_as_a_failure, -1, down=True),
    "any exception is a failure": fallback.test_other_exceptions_of_a_store_pass_and_do_not_count,
    "all failures are of one kind": COUNTED,
    "fallback decisions are not counted": COUNTED,
    "every failure is logged": LOGGED,
    "an error is logged in several lines": reports.test_an_error_message_is_logged_in_one_line,
    "failures before the circuit opened are left out": LOGGED,
    "the recovery is not logged": LOGGED,
    "a failure is a 429": UNANSWERED,
    "Retry-After is rounded down": partial(WAITS, 10**9 + 1, 2),
    "Retry-After may be zero": partial(WAITS, 0, 1),
    "a failure has no Retry-After": UNANSWERED,
    "a failure may be cached": UNANSWERED,
    "a failure reveals its message": UNANSWERED,
    "a failure violates a policy": UNANSWERED,
    "a failure admits": UNANSWERED,
    "a failure is not counted": UNANSWERED,
    "a failure is counted as a denial": UNANSWERED,
    "a failure is not answered": UNANSWERED,
    "a blocking limiter is accepted": http.test_a_limiter_that_blocks_the_event_loop_is_rejected,
    "metrics report a store that is down as up": METRICS,
    "metrics omit unavailable requests": METRICS,
}

MUTANTS: dict[str, Mutant] = {**BREAKERS, **FALLBACKS, **RESPONSES}


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_fails_a_test_that_the_original_passes(name: str) -> None:
    check, mutant = CAUGHT_BY[name], MUTANTS[name]
    check()
    with (
        patch.object(mutant.owner, mutant.attribute, mutant.replacement),
        pytest.raises((AssertionError, pytest.fail.Exception, StoreError)),
    ):
        check()


def test_every_mutant_has_a_test() -> None:
    assert CAUGHT_BY.keys() == MUTANTS.keys()
