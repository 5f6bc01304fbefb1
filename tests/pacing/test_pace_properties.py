"""Properties of a pace for any responses, however wrong their header fields are."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ratelab.pacing.advice import MAX_ADVISED_S, Allowance, RateAdvice, read_advice
from ratelab.pacing.pace import LearnedPace
from ratelab.quota import NS_PER_S

TIMES = st.none() | st.integers(0, MAX_ADVISED_S * NS_PER_S)
COUNTS = st.none() | st.sampled_from([0, 1, 10**15]) | st.integers(0, 200)
ALLOWANCES = st.builds(Allowance, COUNTS, TIMES, COUNTS, TIMES)
ADVICE = st.builds(
    RateAdvice, st.booleans(), TIMES, st.lists(ALLOWANCES, max_size=2).map(tuple), st.sampled_from([False, False, True])
)
STEPS = st.lists(st.tuples(ADVICE, st.integers(0, 10**10), st.booleans()), max_size=60)


@settings(max_examples=40)
@given(STEPS)
def test_a_request_waits_for_a_finite_time_and_never_less_than_ordered(
    steps: list[tuple[RateAdvice, int, bool]],
) -> None:
    pace, now = LearnedPace(), NS_PER_S
    for advice, elapsed, waits in steps:
        ready = pace.ready_at(now)
        assert ready >= max(now, pace.blocked_until)
        assert ready < 10**22
        now = max(now, min(ready, now + elapsed)) if waits else ready
        sent = pace.send(max(now, ready), waits)
        now = max(now, ready) + elapsed
        pace.observe(sent, now, advice)
        if advice.denied and not advice.cached and advice.wait_ns:
            assert pace.ready_at(now) >= now + advice.wait_ns
        assert pace.in_flight == 0
        assert LearnedPace.load(pace.dump()) == pace


LIMITS = ("RateLimit", "RateLimit-Policy", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
NAMES = st.sampled_from((*LIMITS, "Retry-After", "Date", "Age"))
ITEMS = st.from_regex(r'"[a-c]";[qrwt]=-?[0-9]{1,20}(;[qrwt]=[0-9.]{1,20})?(, "[a-c]";r=1)?')
NUMBERS = st.from_regex(r"-?[0-9]{1,30}(\.[0-9]{1,5})?")


@settings(max_examples=40)
@given(st.sampled_from([200, 403, 429, 503]), st.lists(st.tuples(NAMES, st.text() | ITEMS | NUMBERS), max_size=8))
def test_any_header_fields_are_read(status: int, fields: list[tuple[str, str]]) -> None:
    advice = read_advice(status, fields, 1.8e9)
    times = [advice.wait_ns, *(time for each in advice.allowances for time in (each.window_ns, each.reset_ns))]
    assert all(time is None or 0 <= time <= MAX_ADVISED_S * NS_PER_S for time in times)
