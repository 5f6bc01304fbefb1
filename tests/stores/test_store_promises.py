"""Both Valkey limiters keep the promises of the limiter suite, on a server whose clock a test sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from unittest.mock import patch

import pytest
from limiter_subjects import Subject, call_in_tasks, call_in_threads
from limiter_suite import (
    PROMISES,
    Promise,
    a_clock_set_back_extends_no_wait,
    a_jittering_clock_grants_nothing,
    reset_restores_the_full_quota_of_one_key,
)
from lua_scripts import CLOCK_KEY, LIVE_LONG, READ_CLOCK, Change, change_script, only_on_valkey
from valkey import Valkey
from valkey_servers import AMPLE_DEADLINE

from ratelab import ALGORITHMS, Algorithm, ManualClock, Policy
from ratelab.stores.valkey import AsyncValkeyLimiter, ValkeyLimiter, composite_script, lua_text, script
from ratelab.stores.valkey.server import ValkeyServer

TICK_NS = 1000
"""Scripts count in microseconds."""

StoreFactory = Callable[[str, Policy, int], AbstractContextManager[Subject]]
"""Makes a limiter for a policy on the server at a URL, and a clock that starts at a time."""


class ServerClock(ManualClock):
    """A clock that writes its time to the server, where the changed scripts read it."""

    def __init__(self, client: Valkey, now: int) -> None:
        self._client = client
        super().__init__(now)

    @property
    def now(self) -> int:
        return self._now

    @now.setter
    def now(self, now: int) -> None:
        self._now = now
        self._client.set(CLOCK_KEY, now // TICK_NS)


@contextmanager
def use_scripts_with(*changes: Change) -> Iterator[None]:
    """Have limiters that are created in the block use changed scripts."""
    join_text = lua_text.join_text

    missing = {*changes}

    def join_changed_text(*parts: str) -> str:
        text = join_text(*parts)
        found = [change for change in changes if change[0] in text]
        missing.difference_update(found)
        return change_script(text, READ_CLOCK, LIVE_LONG, *found)

    with (
        patch.object(script, "join_text", join_changed_text),
        patch.object(composite_script, "join_text", join_changed_text),
    ):
        yield
    if missing:
        raise LookupError(f"no script contains {missing}: update these changes")


@contextmanager
def sync_limiter(url: str, policy: Policy, start: int, *changes: Change) -> Iterator[Subject]:
    with Valkey.from_url(url) as client, use_scripts_with(*changes):
        client.flushdb()
        name = policy.algorithm.name
        with (
            ValkeyLimiter(url, name, policy.quota, deadline=AMPLE_DEADLINE) as limiter,
            call_in_threads(limiter, ServerClock(client, start), TICK_NS) as subject,
        ):
            yield subject


@contextmanager
def async_limiter(url: str, policy: Policy, start: int, *changes: Change) -> Iterator[Subject]:
    with Valkey.from_url(url) as client, use_scripts_with(*changes):
        client.flushdb()
        limiter = AsyncValkeyLimiter(url, policy.algorithm.name, policy.quota, deadline=AMPLE_DEADLINE)
        with call_in_tasks(limiter, ServerClock(client, start), TICK_NS, limiter.close) as subject:
            yield subject


@pytest.mark.parametrize("make", [sync_limiter, async_limiter], ids=lambda make: make.__name__)
def test_a_valkey_limiter_keeps_every_promise(make: StoreFactory, kind: type[Algorithm], store: ValkeyServer) -> None:
    if not lua_text.has_text(kind):
        pytest.skip(f"{kind.name} has no script")
    for promise in PROMISES:
        promise(partial(make, store.url), kind)


MUTANTS: dict[str, tuple[Promise, str, Change]] = {
    "time runs backwards": (
        a_jittering_clock_grants_nothing, "fixed-window", ("lag > 0 and last or clock + shift", "clock + shift")
    ),
    "a step back locks clients out": (
        a_clock_set_back_extends_no_wait, "token-bucket", ("if lag > MAX_LAG then", "if false then")
    ),
    "a reset keeps the state": (
        reset_restores_the_full_quota_of_one_key, "sliding-log", ("call('DEL', key)", "")
    ),
    "a step back is not written": (
        a_clock_set_back_extends_no_wait, "token-bucket", ("cost ~= 0 or stepped", "cost ~= 0")
    ),
}  # fmt: skip


@only_on_valkey
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_wrong_script_is_caught(mutant: str, store: ValkeyServer) -> None:
    promise, name, change = MUTANTS[mutant]

    def make(policy: Policy, start: int) -> AbstractContextManager[Subject]:
        return sync_limiter(store.url, policy, start, change)

    with pytest.raises(AssertionError):
        promise(make, ALGORITHMS[name])
