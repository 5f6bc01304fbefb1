"""Every promise about a store's network is shown to catch the mistakes it is there for."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any
from unittest.mock import patch

import invalid_stores
import pytest
import test_store_batches as batches
import test_store_charges as charges
import test_store_deadlines as deadlines
import test_store_secrets as secrets
import test_store_urls as urls
from valkey_mutants import MUTANTS

from ratelab.errors import StoreError
from ratelab.stores.valkey.server import ValkeyServer

Promise = Callable[[ValkeyServer], Any]

LOST = partial(charges.is_charged_once, crowd=charges.threads, faults=("drop",))
LATE = partial(charges.is_charged_once, crowd=charges.tasks, faults=("stall",), count=16)
THREAD = deadlines.test_a_thread_is_told_in_time_why_there_is_no_decision
CROWD = deadlines.test_a_crowd_of_tasks_is_told_in_time_and_the_loop_goes_on
DATABASE = urls.test_a_database_that_is_not_there_is_not_replaced_by_another
TURN = batches.test_hits_of_one_turn_are_one_call_and_keep_their_order

CAUGHT: dict[str, Promise] = {
    "a lost reply is asked for again": LOST,
    "a late task is asked for again": LATE,
    "a late reply answers the next": charges.test_a_reply_that_comes_late_answers_nobody_else,
    "each piece has a deadline of its own": partial(THREAD, bad=invalid_stores.dripping),
    "who waits for a connection has no deadline": (
        deadlines.test_a_thread_waits_for_a_connection_no_longer_than_its_deadline
    ),
    "tasks are told late": partial(CROWD, bad=invalid_stores.stopped),
    "a loop is held up": partial(CROWD, bad=invalid_stores.nobody),
    "those who leave early keep a dead connection": (
        deadlines.test_those_who_leave_early_do_not_keep_a_dead_connection_in_use
    ),
    "who is not greeted stays": DATABASE,
    "a greeting is not waited for": DATABASE,
    "a turn is sent in another order": TURN,
    "a turn is sent at once": TURN,
    "who has left is charged": batches.test_a_hit_that_is_cancelled_before_its_turn_ends_is_not_charged,
    "a lost script is a failure": batches.test_a_server_that_has_lost_the_script_is_told_it_once,
    "a lost script is told for ever": batches.test_a_turn_that_finds_the_script_lost_is_decided_all_the_same,
    "connections outlive their loop": batches.test_a_limiter_goes_on_in_the_next_event_loop,
    "a store learns names": secrets.a_store_never_learns_a_name,
}
"""The promise that each mistake breaks."""


@pytest.mark.parametrize("name", MUTANTS)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_mistake_breaks_its_promise(store: ValkeyServer, name: str) -> None:
    with ExitStack() as made:
        for mutant in MUTANTS[name]:
            made.enter_context(patch.object(mutant.owner, mutant.attribute, mutant.made))
        with pytest.raises((AssertionError, pytest.fail.Exception, StoreError, TimeoutError)):
            CAUGHT[name](store)
    gc.collect()  # of the connections that a mistake has left open, while nobody minds


def test_every_promise_named_here_has_its_mistake() -> None:
    assert CAUGHT.keys() == MUTANTS.keys()
