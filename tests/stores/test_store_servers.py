"""Limiters on servers whose clock is set, with the newest and the oldest server that is supported."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from lua_scripts import SCRIPTED
from serve_process import wait_until
from store_setups import SteppingServer, run_stepping_server

from ratelab.stores.valkey import ValkeyLimiter

HOUR_S = 3600


@pytest.fixture(params=["valkey", pytest.param("redis-6.2", marks=pytest.mark.slow)])
def stepping(request: pytest.FixtureRequest) -> Iterator[SteppingServer]:
    with run_stepping_server(request.param) as started:
        yield started


@pytest.mark.slow
def test_the_clock_of_a_store_that_is_set_locks_no_client_out(stepping: SteppingServer) -> None:
    with ValkeyLimiter(stepping.server.url, "token-bucket", "2/s", 2, deadline=30) as limiter:
        for offset in (-HOUR_S, 24 * HOUR_S, 0, -48 * HOUR_S):
            while limiter.hit("alice").allowed:
                pass
            stepping.set_offset(offset)
            assert limiter.hit("alice", 0).retry_after <= 0.5
            wait_until(lambda: limiter.hit("alice").allowed)


@pytest.mark.parametrize("algorithm", SCRIPTED)
def test_a_clock_set_back_grants_nothing_and_a_clock_set_forward_one_burst(
    algorithm: str, stepping: SteppingServer
) -> None:
    noon = HOUR_S * (12 - time.gmtime().tm_hour)  # a window of the server's clock does not end during the test
    with ValkeyLimiter(stepping.server.url, algorithm, "10/day", deadline=30) as limiter:
        for offset, expected in ((0, 10), (-1, 0), (-HOUR_S, 0), (-48 * HOUR_S, 0), (0, 10), (-HOUR_S, 0)):
            stepping.set_offset(noon + offset)
            assert sum(limiter.hit("alice").allowed for _ in range(30)) == expected
