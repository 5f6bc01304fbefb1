"""Lua scripts decide as the Python kernels do, in all five fields, on any clock."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest
from calendar_model import LABELS, calendar_quota
from lua_scripts import LIVE_LONG, MAX_LAG_US, SCRIPTED, Change, Model, ScriptedStore, only_on_valkey
from valkey import Valkey

from ratelab import InputError, Policy, Quota, create
from ratelab.limiter import NEVER
from ratelab.stores.valkey import ValkeyLimiter
from ratelab.stores.valkey.script import EXACT_LIMIT, Script
from ratelab.stores.valkey.server import ValkeyServer

START_US = 1_795_453_109_478_631
"""Microseconds since 1970: sixteen digits, of which Lua's default format keeps fourteen."""

HOUR_US = 3600 * 10**6

QUOTAS = ["2/s 5", "10/min 3", "1/day 1", "7/3s 11", "100000/s 40", "1000003/7s 50", "1/1us 4", "999999/1.000001s 9"]


def parse_quota(text: str) -> Quota:
    rate, burst = text.replace(", burst", "").split()
    return Quota.parse(rate, int(burst))


def nearest_quota(error: pytest.ExceptionInfo[InputError]) -> Quota:
    """Return the quota that an error suggests."""
    return parse_quota(str(error.value).rpartition("fits is ")[2])


def draw_steps(random: Random, quota: Quota, count: int) -> Iterator[tuple[int, int]]:
    """Draw times and costs: at the same instant, at and near the edges of windows, and back in time."""
    clock, window, unit = START_US, -(-quota.window // 1000), max(1, quota.period // quota.limit // 1000)
    forward = (0, 0, 0, 1, unit - 1, unit, unit + 1, window // 2, window - 1, window, window + 1, 3 * window)
    back = (-1, -unit, -window, -MAX_LAG_US, -MAX_LAG_US - 1, -HOUR_US)
    costs = (0, 1, 1, 1, 1, 2, quota.burst, quota.burst + 1, 10**18)
    for _ in range(count):
        clock += random.choice(back) if random.random() < 0.06 else random.choice(forward)
        clock += random.randrange(unit + 1) if random.random() < 0.3 else 0
        yield clock, random.choice(costs)


def check(client: Valkey, name: str, quota: Quota, count: int, *changes: Change, penalty: object = None) -> None:
    """Decide the same hits in the store and by the model; report the first difference."""
    steps = [*draw_steps(Random(f"{name} {quota}"), quota, count)]
    policy = Policy.create(name, quota, penalty=penalty)
    scripted, model = ScriptedStore(client, Script(policy), (LIVE_LONG, *changes)), Model(policy)
    for number, (step, decision) in enumerate(zip(steps, scripted.hits(steps), strict=True)):
        assert tuple(decision) == tuple(model.hit(*step)), f"hit {number} of {quota}: {steps[: number + 1][-5:]}"


def check_quotas(url: str, name: str, count: int, *changes: Change) -> None:
    with Valkey.from_url(url) as client:
        for text in QUOTAS:
            check(client, name, parse_quota(text), count, *changes)


@pytest.mark.parametrize("count", [250, pytest.param(1_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", SCRIPTED)
def test_a_script_decides_as_its_kernel(name: str, count: int, store: ValkeyServer) -> None:
    check_quotas(store.url, name, count)


CALENDARS = [calendar_quota(3, unit, zone) for unit in LABELS for zone in ("UTC", "Australia/Lord_Howe")]


def check_calendars(client: Valkey, count: int, *changes: Change) -> None:
    for quota in CALENDARS:
        check(client, "fixed-window", quota, count, *changes)


def test_the_script_of_the_calendar_decides_as_its_kernel(store: ValkeyServer) -> None:
    with Valkey.from_url(store.url) as client:
        check_calendars(client, 400)


@pytest.mark.parametrize(
    "change",
    [
        ("number(LENGTHS, run)", "number(LENGTHS, 0)"),
        ("used, finish = 0, find_end(now)", "used, finish = used or 0, find_end(now)"),
        ("finish - now", "finish - last"),
    ],
)
@only_on_valkey
def test_a_mutant_of_the_script_of_the_calendar_is_caught(change: Change, store: ValkeyServer) -> None:
    with Valkey.from_url(store.url) as client, pytest.raises(AssertionError, match="hit"):
        check_calendars(client, 600, change)


PENALTIES = [
    {"after": 3, "within": "1min", "for": "5min", "growth": 2, "at_most": "1day"},
    {"after": 1, "within": "1s", "for": "2s"},
    {"after": 2, "within": "10min", "for": "1h", "growth": 1.5},
]


def check_penalties(client: Valkey, name: str, count: int, *changes: Change) -> None:
    for penalty in PENALTIES:
        for text in QUOTAS[:3]:
            check(client, name, parse_quota(text), count, *changes, penalty=penalty)


@pytest.mark.parametrize("name", sorted({*SCRIPTED} - {"sliding-log"}))
def test_a_penalty_decides_in_a_store_as_its_kernel(name: str, store: ValkeyServer) -> None:
    with Valkey.from_url(store.url) as client:
        check_penalties(client, name, 200)


@pytest.mark.parametrize(
    "change",
    [
        ("or stepped or counted then", "or stepped then"),
        ("now < finish + length", "true"),
        ("min(floor(length * GROWTH / DIVISOR), AT_MOST)", "length"),
        ("now - times[AFTER] < WITHIN", "true"),
        ("if now < finish then", "if now <= finish then"),
        ("_, _, _, reset, _, x, y = inner_step(now, 0,", "_, _, _, reset, _, x, y = inner_step(now, cost,"),
    ],
)
@only_on_valkey
def test_a_mutant_of_the_script_of_a_penalty_is_caught(change: Change, store: ValkeyServer) -> None:
    with Valkey.from_url(store.url) as client, pytest.raises(AssertionError, match="hit"):
        check_penalties(client, "token-bucket", 500, change)


def test_a_penalty_that_a_store_cannot_hold_is_rejected() -> None:
    with pytest.raises(InputError, match=r"sliding-log with a penalty cannot run in a store, .* use another algorithm"):
        Script(Policy.create("sliding-log", "2/s", penalty=PENALTIES[0]))
    with pytest.raises(InputError, match=r"penalty\.within must be a whole number of microseconds"):
        Script(Policy.create("gcra", "2/s", penalty={**PENALTIES[0], "within": "15ns"}))


def test_a_plan_in_a_store_keeps_the_timezone_and_what_is_used(store: ValkeyServer) -> None:
    policy, plans = (
        Policy.create("fixed-window", "2/month", timezone="Asia/Tokyo"),
        {"large": {"fixed-window": "20/month"}},
    )
    with ValkeyLimiter(store.url, policy, plans=plans, deadline=30) as limiter:
        small = limiter.hit("key")
        large = limiter.hit("key", plan="large")
        assert (small.remaining, large.remaining) == (1, 9)
        assert 0 <= small.reset_after_ns - large.reset_after_ns < 60 * 10**9


def test_penalties_do_not_share_keys() -> None:
    scripts = [Script(Policy.create("gcra", "2/s", penalty=penalty)) for penalty in (None, *PENALTIES)]
    assert len({script.key("a") for script in scripts}) == 4


def test_calendars_do_not_share_keys_and_updated_zones_keep_them() -> None:
    berlin, rome = (
        Script(create("fixed-window", calendar_quota(3, "day", zone))) for zone in ("Europe/Berlin", "Europe/Rome")
    )
    assert berlin.key("a") != rome.key("a")
    assert berlin.key("a") != Script(create("fixed-window", "3/day")).key("a")
    assert len({Script(create("fixed-window", quota)).sha for quota in CALENDARS}) > 1


def test_a_count_by_the_calendar_that_is_not_exact_is_rejected() -> None:
    with pytest.raises(InputError, match=r"nearest quota that fits is 4503599627370495/month in UTC"):
        Script(create("fixed-window", "4503599627370496/month"))
    Script(create("fixed-window", "4503599627370495/month"))


MUTANTS = {
    "numbers lose digits": ("token-bucket", ("%.0f %.0f %.0f'", "%s %s %s'")),
    "time runs backwards": ("token-bucket", ("lag > 0 and last or clock + shift", "clock + shift")),
    "a step back locks clients out": ("leaky-bucket", ("if lag > MAX_LAG then", "if false then")),
    "a step back is not written": ("gcra", ("cost ~= 0 or stepped", "cost ~= 0")),
    "cost 0 is charged": ("fixed-window", ("allowed and cost ~= 0", "allowed")),
    "a bucket overflows": ("token-bucket", ("min(capacity, (tokens or capacity)", "max(0, (tokens or capacity)")),
    "a wait is rounded down": ("token-bucket", ("ceil((price - tokens) / limit)", "floor((price - tokens) / limit)")),
    "a delay is rounded down": ("leaky-bucket", ("delay = ceil(", "delay = floor(")),
    "one unit too many": ("gcra", ("moved <= tolerance", "moved <= tolerance + period")),
    "a window never ends": ("fixed-window", ("floor(last / window) < index", "false")),
    "the previous window is ignored": ("sliding-counter", ("passed == 1 and current or 0", "0")),
    "older windows count": ("sliding-counter", ("passed == 1 and", "true and")),
    "a log expires entries too late": ("sliding-log", ("+ window <= now", "+ window < now")),
    "a log expires one entry at most": ("sliding-log", ("gone = middle + 1 else", "gone = 1 alive = 1 else")),
    "a ring does not wrap around": ("sliding-log", ("(place(-1) + WIDTH - first) / WIDTH", "added")),
    "NEVER is a wait of zero": ("token-bucket", ("local NEVER = -1", "local NEVER = 0")),
}


@only_on_valkey
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_of_a_script_is_caught(mutant: str, store: ValkeyServer) -> None:
    name, change = MUTANTS[mutant]
    with pytest.raises(AssertionError, match="hit"):
        check_quotas(store.url, name, 600, change)


# --- quotas that are not exact in Lua


def test_a_quota_that_is_not_exact_is_rejected_with_the_nearest_that_is() -> None:
    with pytest.raises(InputError, match=r"sliding-counter with 1000/day, burst 90000 needs .* 2\*\*53 ") as rejected:
        Script(create("sliding-counter", "1000/day", 90_000))
    nearest = nearest_quota(rejected)
    Script(create("sliding-counter", nearest))
    with pytest.raises(InputError, match="nearest"):
        Script(create("sliding-counter", Quota(nearest.limit, nearest.period, nearest.burst + 1)))


@pytest.mark.parametrize("name", ["token-bucket", "leaky-bucket", "sliding-counter", "gcra"])
def test_the_largest_quota_that_fits_is_exact(name: str, store: ValkeyServer) -> None:
    with pytest.raises(InputError) as rejected:
        Script(create(name, "1000003/999999999999us", burst=10**9))
    with Valkey.from_url(store.url) as client:
        check(client, name, nearest_quota(rejected), 1_000)


@pytest.mark.parametrize("rate", ["1000000000000000003/1000000000000000001ns", "1/9999999999999999ns"])
def test_a_rate_that_is_not_exact_is_rejected_with_the_nearest_that_is(rate: str) -> None:
    with pytest.raises(InputError, match="nearest") as rejected:
        Script(create("gcra", rate, burst=5))
    Script(create("gcra", nearest_quota(rejected)))


def test_an_algorithm_without_a_script_is_rejected(toll: str) -> None:
    with pytest.raises(InputError, match=r"toll cannot run in a store without a script toll\.lua next to"):
        ValkeyLimiter("unix:///nowhere", toll, "2/s")


def test_numbers_are_exact_for_any_cost(store: ValkeyServer) -> None:
    with ValkeyLimiter(store.url, "token-bucket", "2/s", burst=5, deadline=30) as limiter:
        assert limiter.hit("a", 10**30).retry_after_ns == NEVER
        assert limiter.hit("a", 5).allowed
    assert EXACT_LIMIT == 2**53


@pytest.mark.parametrize("cost", [-1, 1.0, True, None, "1"])
def test_an_invalid_cost_is_rejected_before_anything_is_sent(cost: object) -> None:
    with pytest.raises(InputError, match="cost must be a whole number"):
        ValkeyLimiter("unix:///nowhere", "gcra", "2/s").hit("a", cost)  # type: ignore[arg-type]
