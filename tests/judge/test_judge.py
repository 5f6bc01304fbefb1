"""Judge: promises of right and of wrong limiters, faults of adapters, and targets that are no candidates."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir
from pathlib import Path

import judged_kernels
import pytest
from slow_parameters import mark_slow

import ratelab.judge
from ratelab.errors import InputError
from ratelab.judge import BUILT_IN_TARGETS, PROMISES, Judgement, find_factory, judge
from ratelab.judge.candidate import load_factory
from ratelab.judge.timeline import TimedHit, TimelineStep, list_rows, shrink
from ratelab.judge.worker import UNREACHED
from ratelab.quota import NS_PER_S

SUPPORT = Path(judged_kernels.__file__).parent

QUICK = ["bound", "due", "wait", "retrying", "clock", "several"]
"""Promises that take little time."""


def judge_file(name: str, factory: str, *promises: str) -> Judgement:
    return judge(f"{SUPPORT / name}.py:{factory}", promises)


def kept(judgement: Judgement) -> dict[str, bool | None]:
    return {promise.name: promise.kept for promise in judgement.promises}


def test_a_token_bucket_keeps_its_promises() -> None:
    judgement = judge("token-bucket", QUICK)
    assert kept(judgement) == dict.fromkeys(QUICK, True)
    assert not judgement.is_broken


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", BUILT_IN_TARGETS)
def test_a_built_in_algorithm_keeps_every_promise(algorithm: str) -> None:
    promises = kept(judge(algorithm))
    if promises.pop("store") is None:
        pytest.skip("libfaketime is not installed: see .github/CONTRIBUTING.md")
    assert promises == dict.fromkeys([*PROMISES][:-1], True)


WRONG = {
    "bound": ["window_of_one_more", "uncapped_bucket", "fast_bucket"],
    "due": ["whole_token_bucket", "slow_bucket", "small_bucket", "shared_bucket"],
    "wait": ["early_wait", "truncated_wait", "double_wait", "wait_until_full"],
    "retrying": ["log_of_denied", "charging_bucket"],
    "flood": ["lru_bucket", "unbounded_bucket"],
    "clock": ["locked_bucket", "granting_bucket", "wall_window"],
    "threads": ["racing_bucket", "racing_tasks", "shared_semaphore", "lost_notification"],
    "several": ["one_after_the_other", "stops_at_the_first"],
}
"""Limiters with one mistake, by the promise that they break."""

MISTAKES = [(promise, factory) for promise, factories in WRONG.items() for factory in factories]


ONLY_THERE = ["window_of_one_more", "double_wait", "lru_bucket", "wall_window"]
"""Limiters that are judged by all promises: their mistake breaks no other one."""


@pytest.mark.parametrize("mistake", mark_slow(MISTAKES, [("wait", "early_wait")]), ids=str)
def test_a_mistake_breaks_its_promise_with_a_short_timeline(mistake: tuple[str, str]) -> None:
    promise, factory = mistake
    judgement = judge_file("wrong_limiters", factory, *([] if factory in ONLY_THERE else [promise]))
    (found,) = (each for each in judgement.promises if each.kept is False)
    assert found.name == promise
    assert found.reason
    assert 1 <= len(found.timeline) <= 10


@pytest.mark.slow
def test_a_denial_that_depends_on_names_has_its_timeline() -> None:
    (found,) = judge_file("wrong_limiters", "colliding_bucket", "due").promises
    assert (found.kept, found.reason) == (False, "denied the first request, although the limit is 20 in 20 s")
    assert any(row["allowed"] == 0 for row in found.timeline)


KERNELS = [name for name in vars(judged_kernels) if name.partition("_")[0] in PROMISES]


@pytest.mark.slow
@pytest.mark.parametrize("factory", KERNELS)
def test_a_mistake_in_a_kernel_breaks_its_promise(factory: str) -> None:
    promise = factory.partition("_")[0]
    assert kept(judge_file("judged_kernels", factory, promise)) == {promise: False}


LIMITERS = [
    "flood_of_exhausted",
    "flood_of_idle",
    "clock_without_guard",
    "threads_commit_blindly",
    "threads_take_any_turn",
    "several_charge_the_first",
    "several_groups_charge_all",
]
"""Mistakes in the limiter in memory; `test_judge_store` has those on a store."""


@pytest.mark.slow
@pytest.mark.parametrize("factory", LIMITERS)
def test_a_mistake_in_the_shipped_limiter_breaks_its_promise(factory: str) -> None:
    promise = factory.partition("_")[0]
    assert kept(judge_file("judged_limiters", factory, promise)) == {promise: False}


@pytest.mark.slow
@pytest.mark.parametrize("promise", ["flood", "clock", "several"])
def test_the_shipped_limiter_keeps_the_promise_in_the_same_configuration(promise: str) -> None:
    assert kept(judge_file("judged_limiters", f"right_{promise}", promise)) == {promise: True}


RIGHT = {
    "float_bucket": [],
    "wall_bucket": QUICK,
    "silent_bucket": QUICK,
    "whole_second_bucket": QUICK,
    "millisecond_bucket": QUICK,
    "datetime_bucket": QUICK,
    "cached_bucket": QUICK,
    "aligned_window": QUICK,
    "first_hit_window": QUICK,
    "sliding_log": [],
    "sliding_counter": QUICK,
    "waiting_queue": ["bound", "due", "clock", "threads"],
    "semaphore_bucket": ["threads"],
    "condition_bucket": ["threads"],
    "async_bucket": ["bound", "due", "wait", "flood", "threads"],
    "async_waiting_queue": ["bound", "due", "threads"],
    "own_bound": ["bound", "flood", "threads"],
    "two_buckets": ["several"],
}
"""Right limiters, and the promises that are checked, or all."""


@pytest.mark.slow
@pytest.mark.parametrize("factory", RIGHT)
def test_a_right_limiter_is_not_condemned(factory: str) -> None:
    judgement = judge_file("right_limiters", factory, *RIGHT[factory])
    assert [(promise.name, promise.reason) for promise in judgement.promises if promise.kept is False] == []


def test_time_passes_at_once_while_a_connection_is_idle() -> None:
    assert kept(judge_file("right_limiters", "connected_bucket", "bound", "wait")) == {"bound": True, "wait": True}


@pytest.mark.slow
def test_a_promise_that_does_not_apply_is_neither_kept_nor_broken() -> None:
    judgement = judge_file("right_limiters", "silent_bucket", "wait", "several", "store")
    assert [(promise.kept, promise.reason) for promise in judgement.promises] == [
        (None, "announces no wait"),
        (None, "offers no several limits together"),
        (None, "has no store"),
    ]


@pytest.mark.slow
def test_several_runs_give_the_same_bytes() -> None:
    target = f"{SUPPORT / 'wrong_limiters.py'}:racing_bucket"
    outputs = {json.dumps(judge(target, ["bound", "wait", "threads"]).as_object()) for _ in range(3)}
    assert len(outputs) == 1


def test_rows_are_bursts_or_single_hits_with_equal_answers() -> None:
    hits = [
        TimedHit(at * NS_PER_S, at * NS_PER_S, "alice", allowed) for at, allowed in [(0, True), (3, True), (3, False)]
    ]
    hits += [TimedHit(at * NS_PER_S, at * NS_PER_S, "alice", False, 9 - at) for at in (4, 5)]
    assert [(row["at"], row["until"], row["hits"], row["allowed"], row["retry_after"]) for row in list_rows(hits)] == [
        (0, 0, 1, 1, None),
        (3, 3, 2, 1, None),
        (4, 5, 2, 0, 4),
    ]


def test_a_timeline_is_shortened_to_the_hits_that_matter() -> None:
    steps = [TimelineStep(at, 5) for at in range(20)]
    short = shrink(steps, lambda steps: sum(step.hits for step in steps if step.at_ns > 15) >= 6)
    assert sorted(step.hits for step in short) == [1, 5]


# --- limiters that read no time


def test_a_limiter_that_always_denies_is_judged() -> None:
    judgement = judge_file("wrong_limiters", "denying", "due", "wait")
    assert [promise.reason for promise in judgement.promises] == [
        "denied the first request, although the limit is 20 in 20 s",
        "announced a wait of 1 s, but 200 s are not enough",
    ]
    assert judgement.is_broken


@pytest.mark.slow
def test_a_limiter_that_reads_no_time_is_told_from_one_whose_time_is_real() -> None:
    targets = ("wrong_limiters", "never_again"), ("right_limiters", "real_time_bucket")
    with ThreadPoolExecutor() as pool:  # both wait in real time
        never, real = pool.map(lambda target: judge_file(*target, *QUICK[1:4]), targets)
    assert kept(never) == dict.fromkeys(QUICK[1:4], False)
    assert {promise.kept for promise in real.promises} == {None}
    assert {promise.reason for promise in real.promises} == {UNREACHED}


# --- faults of adapters


@pytest.mark.slow
@pytest.mark.parametrize(
    ("factory", "state", "reason"),
    [
        ("raising", False, "hit raised ZeroDivisionError: no limit"),
        ("generator", False, "the factory returned <generator object generator at 0x...>, not a function hit(key)"),
        ("wrong_bound", False, "FACTORY.bound returned None: it must be a number"),
        ("wrong_answer", False, "hit returned True: it must return (allowed, retry_after)"),
        ("hanging", False, "a hit hangs"),
        ("deadlocked", False, "a hit hangs"),
        ("exiting", False, "ended its process with status 7"),
        ("sleeping", None, "sleeps in real time"),
        ("with_timer", None, "starts a thread of its own (threading.Timer)"),
        ("with_thread", None, "starts a thread of its own (threading.Thread)"),
    ],
)
def test_a_fault_of_an_adapter_is_reported(
    factory: str, state: bool | None, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "hangs" in reason:
        monkeypatch.setattr(ratelab.judge, "HANG_S", 3.0)
    promises = ["bound"] if "hangs" in reason or "bound" in factory else ["bound", "due"]
    for promise in judge_file("wrong_limiters", factory, *promises).promises:
        assert promise.kept is state
        assert promise.reason is not None
        assert promise.reason.startswith(reason)


def test_a_clock_that_is_an_attribute_of_a_class_is_followed(tmp_path: Path) -> None:
    source = """
import time


class Window:
    timer = time.time

    def __init__(self, limit, period):
        self.limit, self.period, self.start, self.used = limit, period, self.timer(), 0

    def hit(self, key):
        if self.timer() - self.start >= self.period:
            self.start, self.used = self.timer(), 0
        self.used += 1
        return self.used <= self.limit, None


def factory(limit, period, burst):
    return Window(limit, period).hit
"""
    (tmp_path / "windows.py").write_text(source, "utf-8")
    assert kept(judge(f"{tmp_path / 'windows.py'}:factory", ["retrying"])) == {"retrying": True}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["token", "queue", "random"])
def test_a_file_may_have_the_name_of_a_module_that_the_judge_needs(name: str, tmp_path: Path) -> None:
    source = "import right_limiters\nfactory = right_limiters.float_bucket\n"
    (tmp_path / f"{name}.py").write_text(source, "utf-8")
    with chdir(tmp_path):
        assert kept(judge(f"{name}.py:factory", ["due"])) == {"due": True}
        with pytest.raises(InputError, match=f"^{name} has no 'factory': did you mean {name}.py:factory"):
            judge(f"{name}:factory")


def write_package(folder: Path) -> None:
    (folder / "shop").mkdir()
    (folder / "shop" / "__init__.py").write_text("")
    (folder / "shop" / "clock.py").write_text("from time import monotonic as now\n")
    (folder / "shop" / "limits.py").write_text(
        "from .clock import now\n\n\n"
        "def factory(limit, period, burst):\n"
        "    used = {}\n\n"
        "    def hit(key):\n"
        "        log = used[key] = [at for at in used.get(key, []) if at > now() - period]\n"
        "        log.append(now()) if len(log) < limit else None\n"
        "        return log[-1] == now(), log[0] + period - now()\n\n"
        "    return hit\n"
    )


@pytest.mark.parametrize(
    "target", ["shop/limits.py:factory", pytest.param("shop.limits:factory", marks=pytest.mark.slow)]
)
def test_a_module_of_a_package_is_loaded(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_package(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert "retrying" in kept(judge(target, ["retrying"]))
    assert not [*tmp_path.rglob("__pycache__")]
    assert "shop" not in sys.modules


# --- targets


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("token-buckt", "a target must be MODULE:FACTORY or FILE.py:FACTORY, got 'token-buckt': did you mean token-b"),
        ("", "a target must be MODULE:FACTORY or FILE.py:FACTORY, got '': name a function, or one of token-bucket"),
        ("json:", "a target must be MODULE:FACTORY"),
        ("a-b:c", "no module can have the name 'a-b': give MODULE:FACTORY or FILE.py:FACTORY"),
    ],
)
def test_a_target_of_another_form_is_rejected(target: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        find_factory(target)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("json:dumps", "json:dumps must take limit, period and burst"),
        ("json:nope", "json has no 'nope': write a function FACTORY(limit, period, burst) that returns hit(key)"),
        ("nosuch:f", "no module 'nosuch' for nosuch:f: give MODULE:FACTORY or FILE.py:FACTORY"),
        ("nosuch.py:f", "no file 'nosuch.py': give MODULE:FACTORY or FILE.py:FACTORY"),
        ("json:__doc__", "json:__doc__ must be a function, got"),
    ],
)
def test_a_target_without_a_factory_is_rejected(target: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        load_factory(target)
    assert str(error.value).startswith(message)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def f(:", "SyntaxError: invalid syntax (broken.py:1)"),
        ("1 / 0", "ZeroDivisionError: division by zero (broken.py:1)"),
        ("import nosuch_library", "ModuleNotFoundError: No module named 'nosuch_library' (broken.py:1)"),
        ("raise SystemExit(3)", "SystemExit: 3 (broken.py:1)"),
        ("import os; os._exit(3)", "ended its process with status 3"),
    ],
)
def test_a_module_that_cannot_be_imported_is_rejected(source: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(source)
    with pytest.raises(InputError, match="import") as error:
        judge(f"{tmp_path / 'broken.py'}:f")
    assert message in str(error.value)


def test_an_unknown_promise_is_rejected() -> None:
    with pytest.raises(InputError, match=r"^unknown promise 'wiat': did you mean wait\?$"):
        judge("token-bucket", ["wiat"])
