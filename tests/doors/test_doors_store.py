"""Limits of doors in a store: a store that is down never takes the service down, unless that is asked for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from asgi import scope_of

from ratelab import InputError
from ratelab.http import Identity
from ratelab.http.doors import AwaitingGate, BlockingGate, create_limiter

NOWHERE = "unix:///nowhere"
KEYED_BY = "a text for tests"


def statuses(blocking: bool, requests: int, **options: Any) -> list[int]:
    """Return the status that a door gives each request of one client: 200 unless it answers the request itself."""
    limiter, identity = create_limiter("2/hour", NOWHERE, "door", blocking, **options), Identity(secret=KEYED_BY)
    if blocking:
        gate = BlockingGate(limiter, key=identity)
        rulings = [gate.admit(scope_of()) for _ in range(requests)]
    else:

        async def admit() -> list[Any]:
            gate = AwaitingGate(limiter, key=identity)
            return [await gate.admit(scope_of()) for _ in range(requests)]

        rulings = asyncio.run(admit())
    return [200 if ruling.answer is None else ruling.answer[0] for ruling in rulings]


both_gates = pytest.mark.parametrize("blocking", [False, True], ids=["awaiting", "blocking"])


@both_gates
def test_a_door_limits_each_process_by_itself_while_its_store_is_down(blocking: bool) -> None:
    assert statuses(blocking, 5) == [200, 200, 429, 429, 429]


@both_gates
@pytest.mark.parametrize(("on_store_error", "status"), [("open", 200), ("closed", 503)])
def test_a_door_fails_open_or_closed_if_that_is_asked_for(blocking: bool, on_store_error: str, status: int) -> None:
    assert statuses(blocking, 5, on_store_error=on_store_error) == [status] * 5


def test_limits_that_block_share_the_connections_to_their_store() -> None:
    limiters: list[Any] = [create_limiter("2/hour", NOWHERE, name, True) for name in ("one", "two", "three")]
    pools = {limiter._store.pools for limiter in limiters}
    del limiters[::2]  # the others continue to share
    limiters.append(create_limiter("2/hour", NOWHERE, "four", True))
    assert pools == {limiter._store.pools for limiter in limiters}


@both_gates
def test_an_unknown_fallback_is_rejected_when_the_door_is_created(blocking: bool) -> None:
    with pytest.raises(InputError, match="on_store_error must be one of local, open, closed, got 'ignore'"):
        statuses(blocking, 1, on_store_error="ignore")
