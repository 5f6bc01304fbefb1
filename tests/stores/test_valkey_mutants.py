"""Mutants of the Valkey clients, each caught by a named test."""

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
import test_store_names as names
import test_store_secrets as secrets
import test_store_sharing as sharing
import test_store_urls as urls
import valkey_servers
from valkey_mutants import MUTANTS

from ratelab.errors import StoreError
from ratelab.stores.valkey.server import ValkeyServer

pytestmark = pytest.mark.slow

Check = Callable[[ValkeyServer], Any]

LOST_REPLIES = partial(charges.check_charges, calls=charges.call_in_threads, faults=("drop",))
TIMEOUTS = partial(charges.check_charges, calls=charges.call_in_tasks, faults=("stall",), count=16)
THREAD = deadlines.test_a_thread_gets_an_error_of_the_right_kind_in_time
TASKS = deadlines.test_tasks_get_errors_in_time_and_their_loop_is_not_blocked
DATABASE = urls.test_a_missing_database_is_not_replaced_by_another
BATCH = batches.test_hits_of_one_iteration_are_one_call_in_order

REAL_DEADLINE = 3.0
"""Seconds after which a mutant is caught that never replies, instead of those that no busy machine exceeds."""

CAUGHT_BY: dict[str, Check] = {
    "threads resend after a lost reply": LOST_REPLIES,
    "tasks resend after a timeout": TIMEOUTS,
    "a late reply answers the next command": charges.test_a_late_reply_answers_no_other_request,
    "each chunk has a separate deadline": partial(THREAD, invalid=invalid_stores.dripping),
    "waiting for a connection has no deadline": deadlines.test_a_thread_waits_for_a_connection_while_time_is_left,
    "tasks fail late": partial(TASKS, invalid=invalid_stores.stopped),
    "connecting blocks the loop": partial(TASKS, invalid=invalid_stores.unused_port),
    "cancelled hits keep a dead connection": deadlines.test_cancelled_hits_do_not_keep_a_dead_connection_in_use,
    "a rejected handshake is ignored": DATABASE,
    "commands precede the handshake's replies": DATABASE,
    "a batch is sent in another order": BATCH,
    "each hit is a separate call": BATCH,
    "a cancelled hit is charged": batches.test_a_hit_cancelled_within_its_iteration_is_not_charged,
    "a lost script is a failure": batches.test_a_server_that_has_lost_the_script_receives_it_once,
    "a lost script is never sent": batches.test_a_batch_is_decided_although_the_script_is_lost,
    "connections outlive their loop": batches.test_a_limiter_works_in_the_next_event_loop,
    "keys hold the client's name": secrets.check_that_names_are_hidden,
    "a limiter closes the connections of another": sharing.check_that_a_closed_limiter_leaves_the_others_alone,
    "keys have no name": names.check_that_names_separate_counters,
}


@pytest.mark.parametrize("name", MUTANTS)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_mutant_is_caught(store: ValkeyServer, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "AMPLE_DEADLINE", REAL_DEADLINE)
    monkeypatch.setattr(valkey_servers.make_async_limiter, "__defaults__", (REAL_DEADLINE,))
    with ExitStack() as patches:
        for mutant in MUTANTS[name]:
            patches.enter_context(patch.object(mutant.owner, mutant.attribute, mutant.replacement))
        with pytest.raises((AssertionError, pytest.fail.Exception, StoreError, TimeoutError)):
            CAUGHT_BY[name](store)
    gc.collect()  # connections that a mutant has left open, while their warnings are ignored


def test_every_mutant_has_a_test() -> None:
    assert CAUGHT_BY.keys() == MUTANTS.keys()
