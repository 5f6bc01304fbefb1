"""Timelines: the decisions of each algorithm for one client at 2/s with a burst of 5; times are in seconds."""

from __future__ import annotations

import pytest

from ratelab import Decision, ManualClock, MemoryLimiter, create

INF = float("inf")
HOUR = 3600

Row = tuple[float, int, bool, int, float]  # at, cost, allowed, remaining, retry_after


def decisions(name: str, requests: list[tuple[float, int]]) -> list[Decision]:
    """Send requests of (at, cost) by one client."""
    clock = ManualClock()
    limiter = MemoryLimiter(create(name, "2/s", burst=5), clock)
    decided = []
    for at, cost in requests:
        clock.now = round(at * 10**9)
        decided.append(limiter.hit("alice", cost))
    return decided


def assert_decisions(name: str, rows: list[Row]) -> None:
    decided = decisions(name, [(at, cost) for at, cost, *_ in rows])
    for (at, cost, *_), made, row in zip(rows, decided, rows, strict=True):
        assert (at, cost, made.allowed, made.remaining, made.retry_after) == row


@pytest.mark.parametrize("name", ["token-bucket", "gcra"])
def test_a_bucket_grants_its_burst_and_then_the_rate(name: str) -> None:
    assert_decisions(
        name,
        [
            (0.00, 1, True, 4, 0),
            (0.00, 1, True, 3, 0),
            (0.00, 3, True, 0, 0),
            (0.00, 1, False, 0, 0.5),
            (0.25, 1, False, 0, 0.25),
            (0.50, 1, True, 0, 0),
            (0.50, 0, True, 0, 0),
            (1.50, 3, False, 2, 0.5),
            (2.00, 3, True, 0, 0),
            (2.00, 6, False, 0, INF),
            (9.00, 0, True, 5, 0),  # at most the burst accumulates
            (9.00, 6, False, 5, INF),
            (9.00, 5, True, 0, 0),
        ],
    )


@pytest.mark.parametrize("name", ["token-bucket", "gcra"])
def test_a_bucket_on_a_clock_that_jumps_backwards(name: str) -> None:
    assert_decisions(
        name,
        [
            (2 * HOUR + 0.0, 5, True, 0, 0),
            (2 * HOUR - 0.9, 1, False, 0, 0.5),  # a little behind: time stands still,
            (2 * HOUR + 0.0, 1, False, 0, 0.5),  # and the way back up earns nothing
            (2 * HOUR + 0.5, 1, True, 0, 0),
            (1 * HOUR + 0.0, 1, False, 0, 0.5),  # an hour behind: time goes on from here
            (1 * HOUR + 0.5, 1, True, 0, 0),
            (1 * HOUR + 1.0, 2, False, 1, 0.5),
        ],
    )


def test_a_queue_lets_out_one_every_half_second() -> None:
    decided = decisions("leaky-bucket", [(at, 1) for at in (0, 0, 0, 0, 0, 0, 0.25, 0.5, 1.75, 1.75, 1.75, 9)])
    assert [(made.allowed, made.remaining, made.retry_after, made.delay) for made in decided] == [
        (True, 4, 0, 0),
        (True, 3, 0, 0.5),
        (True, 2, 0, 1),
        (True, 1, 0, 1.5),
        (True, 0, 0, 2),
        (False, 0, 0.5, 0),  # the queue is full
        (False, 0, 0.25, 0),
        (True, 0, 0, 2),  # leaves at 2.5, half a second after the one before it
        (True, 1, 0, 1.25),  # and this one at 3
        (True, 0, 0, 1.75),
        (False, 0, 0.25, 0),
        (True, 4, 0, 0),
    ]


def test_a_queue_takes_what_fits_whole_or_not_at_all() -> None:
    assert_decisions(
        "leaky-bucket",
        [
            (0.0, 3, True, 2, 0),
            (0.0, 3, False, 2, 0.5),
            (0.0, 2, True, 0, 0),
            (0.0, 6, False, 0, INF),
            (2.5, 5, True, 0, 0),
            (2.0, 1, False, 0, 0.5),  # the clock jumped back: time stands still
        ],
    )


def test_a_fixed_window_lets_twice_the_burst_through_at_its_boundary() -> None:
    assert_decisions(
        "fixed-window",
        [
            (0.0, 0, True, 5, 0),
            (2.4, 5, True, 0, 0),
            (2.4, 1, False, 0, 0.1),
            (2.5, 5, True, 0, 0),
            (2.5, 1, False, 0, 2.5),
        ],
    )


def test_a_fixed_window_counts_until_the_clock_enters_the_next() -> None:
    assert_decisions(
        "fixed-window",
        [
            (0.0, 3, True, 2, 0),
            (1.0, 3, False, 2, 1.5),
            (1.0, 2, True, 0, 0),
            (2.0, 6, False, 0, INF),
            (2.5, 1, True, 4, 0),
            (7.6, 5, True, 0, 0),
            (7.4, 1, False, 0, 2.4),  # the clock jumped back into the window before: it does not reopen
            (7.6, 1, False, 0, 2.4),
        ],
    )


def test_a_log_forgets_each_request_when_it_is_a_window_old() -> None:
    assert_decisions(
        "sliding-log",
        [
            (0.0, 3, True, 2, 0),
            (1.0, 2, True, 0, 0),
            (2.4, 1, False, 0, 0.1),
            (2.5, 1, True, 2, 0),
            (2.5, 4, False, 2, 1.0),
            (2.5, 5, False, 2, 2.5),
            (2.5, 6, False, 2, INF),
            (3.5, 4, True, 0, 0),
            (3.0, 1, False, 0, 1.5),  # the clock jumped back: time stands still
        ],
    )


def test_a_sliding_counter_lets_go_of_the_previous_window_little_by_little() -> None:
    assert_decisions(
        "sliding-counter",
        [
            (0.00, 5, True, 0, 0),
            (1.00, 1, False, 0, 2.0),  # at 3.0 a fifth of the window's 5 will have slid out
            (2.50, 1, False, 0, 0.5),
            (3.00, 1, True, 0, 0),
            (3.75, 1, True, 0, 0),
            (3.75, 1, False, 0, 0.25),
            (4.00, 6, False, 1, INF),
            (5.00, 0, True, 3, 0),  # the previous window holds 2
            (4.90, 4, False, 3, 1.25),  # the clock jumped back: time stands still
            (9.99, 0, True, 5, 0),
        ],
    )
