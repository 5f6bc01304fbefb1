"""In a store, every algorithm decides as its Python kernel does: all five fields, whatever the clock does."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest
from lua_scripts import LIVE_LONG, PATIENCE, Model, ScriptedStore, urls
from valkey import Valkey

from ratelab import ALGORITHMS, InputError, Quota
from ratelab.limiter import NEVER
from ratelab.stores.valkey import ValkeyLimiter
from ratelab.stores.valkey.script import EXACT_LIMIT, Script
from ratelab.stores.valkey.server import ValkeyServer

BEGUN = 1_795_453_109_478_631
"""Microseconds since 1970: sixteen digits, of which Lua by itself would write fourteen."""

HOUR = 3600 * 10**6

QUOTAS = ["2/s 5", "10/min 3", "1/day 1", "7/3s 11", "100000/s 40", "1000003/7s 50", "1/1us 4", "999999/1.000001s 9"]


def quota_of(text: str) -> Quota:
    rate, burst = text.split()
    return Quota.parse(rate, int(burst))


def steps(random: Random, quota: Quota, count: int) -> Iterator[tuple[int, int]]:
    """Draw times and costs where it matters: at the same instant, at the edges of windows, and back."""
    clock, window, unit = BEGUN, -(-quota.window // 1000), max(1, quota.period // quota.limit // 1000)
    forward = (0, 0, 0, 1, unit - 1, unit, unit + 1, window // 2, window - 1, window, window + 1, 3 * window)
    back = (-1, -unit, -window, -PATIENCE, -PATIENCE - 1, -HOUR)
    costs = (0, 1, 1, 1, 1, 2, quota.burst, quota.burst + 1, 10**18)
    for _ in range(count):
        clock += random.choice(back) if random.random() < 0.06 else random.choice(forward)
        clock += random.randrange(unit + 1) if random.random() < 0.3 else 0
        yield clock, random.choice(costs)


def check(client: Valkey, name: str, text: str, count: int, changes: tuple[tuple[str, str], ...] = ()) -> None:
    """Decide the same hits in the store and by the kernel; tell the first that differ."""
    quota = quota_of(text)
    drawn = [*steps(Random(f"{name} {text}"), quota, count)]
    scripted, model = ScriptedStore(client, Script(name, quota), (*LIVE_LONG, *changes)), Model(name, quota)
    for number, (step, decision) in enumerate(zip(drawn, scripted.hits(drawn), strict=True)):
        assert tuple(decision) == tuple(model.hit(*step)), f"hit {number} of {text}: {drawn[: number + 1][-5:]}"


def check_all(url: str, name: str, count: int, changes: tuple[tuple[str, str], ...] = ()) -> None:
    with Valkey.from_url(url) as client:
        for text in QUOTAS:
            check(client, name, text, count, changes)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_scripts_and_kernels_decide_alike(name: str, store: ValkeyServer) -> None:
    for url in urls(store):
        check_all(url, name, 2_500)


ROUNDED = ("%.0f %.0f %.0f'", "%s %s %s'")

MUTANTS = {
    "numbers lose digits": ("token-bucket", ROUNDED),
    "time runs back": ("token-bucket", ("max(clock + shift, last)", "clock + shift")),
    "a step back locks out": ("leaky-bucket", ("if stepped then", "if false then")),
    "a step back is not written down": ("gcra", ("cost > 0 or stepped", "cost > 0")),
    "a look is charged": ("fixed-window", ("allowed and cost > 0", "allowed")),
    "a bucket overflows": ("token-bucket", ("min(capacity, (tokens or capacity)", "max(0, (tokens or capacity)")),
    "a wait is rounded down": ("token-bucket", ("ceil((price - tokens) / limit)", "floor((price - tokens) / limit)")),
    "a queue's wait is rounded down": ("leaky-bucket", ("delay = ceil(", "delay = floor(")),
    "one too many": ("gcra", ("moved <= tolerance", "moved <= tolerance + period")),
    "a window is not left": ("fixed-window", ("floor(last / window) < index", "false")),
    "the window before is forgotten": ("sliding-counter", ("passed == 1 and current or 0", "0")),
    "the window before that counts": ("sliding-counter", ("passed == 1 and", "true and")),
    "a log forgets too late": ("sliding-log", ("+ window <= now", "+ window < now")),
    "a log forgets only one": ("sliding-log", ("gone = middle + 1 else", "gone = 1 alive = 1 else")),
    "a ring does not close": ("sliding-log", ("(place(-1) + WIDTH - first) / WIDTH", "added")),
    "never is a wait": ("token-bucket", ("local NEVER = -1", "local NEVER = 0")),
}  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_script_that_decides_otherwise_is_noticed(mutant: str, store: ValkeyServer) -> None:
    name, change = MUTANTS[mutant]
    with pytest.raises(AssertionError, match="hit"):
        check_all(store.url, name, 600, (change,))


# --- what a store can count


def test_a_quota_that_lua_cannot_count_is_refused_with_the_nearest_that_fits() -> None:
    with pytest.raises(InputError, match=r"sliding-counter with 1000/day, burst 90000 needs .* 2\*\*53 ") as refused:
        Script("sliding-counter", "1000/day", 90_000)
    nearest = quota_of(str(refused.value).rpartition("fits is ")[2].replace(", burst", ""))
    Script("sliding-counter", nearest)
    with pytest.raises(InputError, match="nearest"):
        Script("sliding-counter", Quota(nearest.limit, nearest.period, nearest.burst + 1))


@pytest.mark.parametrize("name", ["token-bucket", "leaky-bucket", "sliding-counter", "gcra"])
def test_the_largest_quota_that_fits_is_exact(name: str, store: ValkeyServer) -> None:
    with pytest.raises(InputError) as refused:
        Script(name, "1000003/999999999999us", burst=10**9)
    nearest = str(refused.value).rpartition("fits is ")[2].replace(", burst", "")
    with Valkey.from_url(store.url) as client:
        check(client, name, nearest, 1_000)


@pytest.mark.parametrize("rate", ["1000000000000000003/1000000000000000001ns", "1/9999999999999999ns"])
def test_a_rate_that_lua_cannot_count_is_refused_with_the_nearest_that_fits(rate: str) -> None:
    with pytest.raises(InputError, match="nearest") as refused:
        Script("gcra", rate, burst=5)
    Script("gcra", quota_of(str(refused.value).rpartition("fits is ")[2].replace(", burst", "")))


def test_an_algorithm_without_a_script_is_refused(toll: str) -> None:
    with pytest.raises(InputError, match=r"toll cannot run in a store without a script toll\.lua next to"):
        ValkeyLimiter("unix:///nowhere", toll, "2/s")


def test_whatever_a_cost_is_the_numbers_stay_exact(store: ValkeyServer) -> None:
    with ValkeyLimiter(store.url, "token-bucket", "2/s", burst=5, deadline=30) as limiter:
        assert limiter.hit("a", 10**30).retry_after_ns == NEVER
        assert limiter.hit("a", 5).allowed
    assert EXACT_LIMIT == 2**53


@pytest.mark.parametrize("cost", [-1, 1.0, True, None, "1"])
def test_a_cost_that_is_no_whole_number_is_refused_before_anything_is_sent(cost: object) -> None:
    with pytest.raises(InputError, match="cost must be a whole number"):
        ValkeyLimiter("unix:///nowhere", "gcra", "2/s").hit("a", cost)  # type: ignore[arg-type]
