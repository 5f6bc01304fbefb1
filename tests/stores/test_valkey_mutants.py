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
    "threads resend after a lost reply": LOST,
    "tasks resend after a timeout": LATE,
    "a late reply answers the next command": charges.test_a_reply_that_comes_late_answers_nobody_else,
    "each chunk has a separate deadline": partial(THREAD, bad=invalid_stores.dripping),
    "waiting for a connection has no deadline": (
        deadlines.test_a_thread_waits_for_a_connection_no_longer_than_its_deadline
    ),
    "tasks fail late": partial(CROWD, bad=invalid_stores.stopped),
    "connecting blocks the loop": partial(CROWD, bad=invalid_stores.nobody),
    "cancelled hits keep a dead connection": (
        deadlines.test_those_who_leave_early_do_not_keep_a_dead_connection_in_use
    ),
    "a rejected handshake leaves the connection open": DATABASE,
    "commands precede the handshake's replies": DATABASE,
    "a batch is sent in another order": TURN,
    "each hit is a separate call": TURN,
    "a cancelled hit is charged": batches.test_a_hit_that_is_cancelled_before_its_turn_ends_is_not_charged,
    "a lost script is a failure": batches.test_a_server_that_has_lost_the_script_is_told_it_once,
    "a lost script is never sent": batches.test_a_turn_that_finds_the_script_lost_is_decided_all_the_same,
    "connections outlive their loop": batches.test_a_limiter_goes_on_in_the_next_event_loop,
    "keys hold the client's name": secrets.a_store_never_learns_a_name,
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
