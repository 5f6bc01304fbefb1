"""Top offenders: counts within their errors, in bounded memory, added over workers."""

from __future__ import annotations

from collections import Counter

import pytest
from asgi import call
from hypothesis import given
from hypothesis import strategies as st

from ratelab import MemoryLimiter, create
from ratelab.http.middleware import RateLimitMiddleware
from ratelab.http.offenders import MAX_PUBLISHED, Offender, Offenders, Ranking, SharedOffenders

streams = st.lists(st.sampled_from("aaaabbbcdefghij"), max_size=300)


def count(keys: list[str], capacity: int) -> Offenders:
    offenders = Offenders(capacity)
    for key in keys:
        offenders.add(key)
    return offenders


@given(keys=streams, capacity=st.integers(1, 12))
def test_counts_are_too_high_by_at_most_their_error(keys: list[str], capacity: int) -> None:
    offenders, exact = count(keys, capacity), Counter(keys)
    listed = offenders.top()
    assert len(listed) <= capacity
    assert sum(offender.denied for offender in listed) == len(keys)
    for key, denied, error in listed:
        assert denied - error <= exact[key] <= denied
        assert error <= len(keys) / capacity


@given(keys=streams, capacity=st.integers(1, 12), limit=st.integers(1, 12))
def test_a_key_that_is_not_listed_has_no_more_than_stated(keys: list[str], capacity: int, limit: int) -> None:
    offenders, exact = count(keys, capacity), Counter(keys)
    listed = {offender.key for offender in offenders.top(limit)}
    assert all(exact[key] <= offenders.unlisted(limit) for key in exact.keys() - listed)


@given(parts=st.lists(streams, min_size=1, max_size=4), capacity=st.integers(1, 12))
def test_rankings_of_workers_add_up_within_their_errors(parts: list[list[str]], capacity: int) -> None:
    merged = Ranking.merge([Ranking.of(count(keys, capacity)) for keys in parts])
    exact = Counter(key for keys in parts for key in keys)
    for key, denied, error in merged.offenders:
        assert denied - error <= exact[key] <= denied
    assert all(exact[key] <= merged.unlisted for key in exact.keys() - {one.key for one in merged.offenders})
    assert [one.denied for one in merged.offenders] == sorted((one.denied for one in merged.offenders), reverse=True)


def test_a_flood_of_keys_does_not_hide_an_offender() -> None:
    offenders = Offenders(100)
    for number in range(20_000):
        offenders.add(f"flood-{number}")
        if number % 10 == 0:
            offenders.add("offender")
    (first, *_) = offenders.top()
    assert first.key == "offender"
    assert first.denied - first.error <= 2_000 <= first.denied


def test_a_worker_adds_to_the_ranking_of_its_predecessor() -> None:
    shared = SharedOffenders(2)
    shared.attach(0)
    shared.publish(Ranking.of(count(["a", "a", "b"], 10)))
    shared.attach(1)
    shared.publish(Ranking.of(count(["a", "c"], 10)))
    shared.attach(0)  # restarted
    for _ in range(3):
        shared.publish(Ranking.of(count(["b", "b"], 10)))
    assert shared.total().offenders == [("a", 3, 0), ("b", 3, 0), ("c", 1, 0)]


def test_the_longest_ranking_fits_its_slot() -> None:
    shared = SharedOffenders(1)
    longest = [Offender(f"{number:032x}", 10**18, 10**18) for number in range(MAX_PUBLISHED)]
    shared.publish(Ranking(longest, 10**18))
    assert shared.total().offenders == longest


def test_the_middleware_counts_denials_by_hashed_key() -> None:
    app = RateLimitMiddleware(lambda *_: None, MemoryLimiter(create("gcra", "1/day")))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        call(app)
    for _ in range(3):
        assert call(app).status == 429
    ((key, denied, error),) = app.offenders.top()
    assert (denied, error) == (3, 0)
    assert len(bytes.fromhex(key)) == 16
