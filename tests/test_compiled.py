"""Compiled replay decides as plain Python does, bit for bit, or says why plain Python must do it."""

from __future__ import annotations

import pickle
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from inspect import getfile
from itertools import product
from pathlib import Path

import numba
import numpy as np
import pytest
from own_algorithm import TOLL, written

from ratelab import Algorithm, InputError, Quota, create
from ratelab.algorithms import find
from ratelab.algorithms.sliding_log import SlidingLog
from ratelab.errors import SlowWarning
from ratelab.lab import comparison, compiled, plain, sweep
from ratelab.lab.compiled import kernels, laid, processor, stand_ins, states
from ratelab.lab.decisions import ADMITTED, FIGURED, unfilled
from ratelab.lab.replay import outcome, replay
from ratelab.lab.timelines import ORIGINS, QUOTAS
from ratelab.lab.traffic import Traffic
from ratelab.limiter import Decision

QUOTA = Quota.parse("7/13s", 10)


def quiet(_: int) -> None:
    """Report to nobody."""


def traffic(quota: Quota, origin: int = 0, requests: int = 3_000, clients: int = 40) -> Traffic:
    """Draw requests of some popular clients and many rare ones, with costs about the burst and idle times between."""
    random = np.random.default_rng(requests)
    gaps = random.choice(
        [0, 1, quota.window // 50, quota.window // 7, 3 * quota.window], requests, p=[0.4, 0.1, 0.3, 0.19, 0.01]
    )
    times = np.cumsum(gaps)
    who = np.minimum(random.zipf(1.3, requests), clients) - 1
    costs = random.choice([0, 1, 2, quota.burst, quota.burst + 1], requests, p=[0.05, 0.6, 0.2, 0.1, 0.05])
    names = tuple(map(str, range(clients)))
    return Traffic(times, who, costs, names, np.arange(clients) // 2, int(times[-1]) + 1, origin)


def assert_same(algorithm: Algorithm, asked: Traffic, fields: Sequence[str] = Decision._fields) -> None:
    expected, found = unfilled(asked, Decision._fields), unfilled(asked, fields)
    plain.decide(algorithm, asked, expected, quiet)
    compiled.decide(algorithm, asked, found, quiet)
    for field, column in found.items():
        assert column[:].tolist() == expected[field][:].tolist(), field


def test_every_algorithm_decides_alike_on_every_quota(kind: type[Algorithm]) -> None:
    too_large = 0
    for quota, origin in product(QUOTAS, ORIGINS):
        try:
            assert_same(kind.from_quota(quota), traffic(quota, origin))
        except compiled.UnfitError:
            too_large += 1
    assert too_large < len(QUOTAS)


@pytest.mark.parametrize("fields", [ADMITTED, Decision._fields], ids=len)
def test_so_does_one_from_outside(kind: type[Algorithm], fields: Sequence[str], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(Path(getfile(kind)).read_text(encoding="utf-8"), encoding="utf-8")
    mine = find(f"{tmp_path / 'mine.py'}:{kind.__name__}")
    for quota in QUOTAS[:3]:
        assert_same(mine.from_quota(quota), traffic(quota), fields)


def test_so_it_does_where_each_request_costs_1(kind: type[Algorithm]) -> None:
    asked = traffic(QUOTA)
    assert_same(kind.from_quota(QUOTA), replace(asked, costs=np.ones(len(asked), np.int64)))


@pytest.mark.parametrize("fields", [ADMITTED, FIGURED], ids=" and ".join)
def test_so_it_does_for_who_only_asks_for_some_columns(kind: type[Algorithm], fields: Sequence[str]) -> None:
    assert_same(kind.from_quota(QUOTA), traffic(QUOTA), fields)


def test_states_that_need_much_room_are_kept_a_part_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ratelab.lab.shares.LARGEST_TABLE", 40)
    assert_same(create("sliding-log", QUOTA), traffic(QUOTA))
    assert_same(create("sliding-log", QUOTA), traffic(QUOTA), FIGURED)


def test_a_key_has_no_more_room_than_it_can_use() -> None:
    asked = replace(traffic(QUOTA, clients=4), keys=np.array([0, 1, 2, 5]))
    once = replace(asked, clients=np.array([0, 1, 1, 3]), times=np.arange(4), costs=np.array([1, 2, 3, 900]))
    log = create("sliding-log", QUOTA)
    assert states.widths(log, 14, once, unfilled(once, FIGURED)).tolist() == [5, 9, 4, 4, 4, 14]
    assert {*states.widths(log, 14, once, unfilled(once, Decision._fields)).tolist()} == {14}
    assert {*states.widths(create("gcra", QUOTA), 1, once, unfilled(once, FIGURED)).tolist()} == {1}


SLOW_START = (
    TOLL.replace("return [0]", "return [now]")
    .replace("state[0] += cost", "since = now - state[0]")
    .replace("state[0] % 2 == 1", "since > 5_000_000_000")
)


def test_a_key_from_outside_starts_when_it_is_first_asked(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW_START)
    assert_same(find(f"{tmp_path / 'slow.py'}:Toll").from_quota(QUOTA), traffic(QUOTA, origin=10**18))


def test_nor_does_one_whose_states_differ_in_length(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(TOLL.replace("return [0]", "return [0] * (7 if now == 0 else 2)"))
    with pytest.raises(compiled.UnfitError, match="now more numbers, now fewer"):
        assert_same(find(f"{tmp_path / 'slow.py'}:Toll").from_quota(QUOTA), traffic(QUOTA))


def test_what_is_asked_for_may_add_up_to_more_than_64_bits_hold() -> None:
    asked = traffic(QUOTA, clients=2)
    costs = np.where(asked.costs > QUOTA.burst, 2**61, asked.costs)
    assert_same(create("sliding-log", QUOTA), replace(asked, costs=costs), FIGURED)


CONSTANT = TOLL.replace("@dataclass", "SECOND = 2\n\n\n@dataclass").replace("% 2 == 1", "% SECOND == 1")
CLOSED = (
    CONSTANT.replace("@dataclass", "def closed(SECOND):\n    @dataclass")
    .replace("\n    ", "\n        ")
    .replace("        @dataclass", "    @dataclass")
    .replace("\nclass", "\n    class")
    + "\n    return Toll\n\n\nToll = closed(3)\n"
)


def test_a_constant_outside_of_a_step_may_change(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(CONSTANT)
    kind = find(f"{tmp_path / 'mine.py'}:Toll")
    for second in (2, 3):
        sys.modules[kind.__module__].SECOND = second  # type: ignore[attr-defined]
        assert_same(kind.from_quota(QUOTA), traffic(QUOTA))


def test_a_step_that_is_more_than_its_text_is_left_to_plain_python(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(CLOSED)
    with pytest.raises(compiled.UnfitError, match="its step is more than its text says"):
        assert_same(find(f"{tmp_path / 'mine.py'}:Toll").from_quota(QUOTA), traffic(QUOTA))


UNFIT = [
    ("state[0] += cost", "state[0] = state[0] * 3 + 1", "pass 2**63 - 1"),
    ("state[0] % 2 == 1", "state[0] / 2 == 1", "mine.py:29: it has `state[0] / 2`"),
    ("state[0] % 2 == 1", "hash(state[0]) == 1", "mine.py:29: it calls `hash(state[0])`"),
    ("state[0] % 2 == 1", "allowed == 1", "mine.py:"),
    ("state[0] % 2 == 1", "alowed", "mine.py:29: `alowed` is not defined"),
    ("state[0] % 2 == 1", "len(3) == 1", "mine.py:29: "),
    ("state[0] % 2 == 1", "len(self) == 1", "mine.py:29: it calls `len(self)`"),
    ("state[0] % 2 == 1", "~(cost > 1) == -1", "mine.py:29: it has `~(cost > 1)`"),
    ("state[0] % 2 == 1", "cost is state[0]", "mine.py:29: it has `cost is state[0]`"),
    ("state[0] % 2 == 1", "now > __name__", "mine.py:29: it has `__name__`"),
    ("state[0] % 2 == 1", "self.name == cost", "mine.py:29: it has `self.name`, which is no field"),
    ("    burst: int", "    burst: int\n    _rest: int = 0", "a field whose name begins with _"),
    ("return [0]", "return [0.5]", "whole numbers"),
]


@pytest.mark.parametrize(("right", "wrong", "reason"), UNFIT, ids=[wrong for _, wrong, _ in UNFIT])
def test_what_machine_code_would_do_otherwise_is_left_to_plain_python(
    tmp_path: Path, right: str, wrong: str, reason: str
) -> None:
    algorithm = find(written(tmp_path, right, wrong)).from_quota(QUOTA)
    with pytest.raises(compiled.UnfitError) as unfit:
        compiled.decide(algorithm, traffic(QUOTA), unfilled(traffic(QUOTA), FIGURED), quiet)
    assert reason in str(unfit.value)
    assert "nopython" not in str(unfit.value)


def test_a_step_that_fails_fails_as_in_plain_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ratelab.lab.replay.WORTH_COMPILING", 0)
    algorithm = find(written(tmp_path, "state[0] % 2", "state[1] % 2")).from_quota(QUOTA)
    with (
        pytest.raises(InputError, match="toll failed: IndexError"),
        pytest.warns(SlowWarning, match="its step failed in"),
    ):
        replay(algorithm, traffic(QUOTA))


LEFT = {
    "nothing": b"",
    "half": b"half",
    "another version": pickle.dumps(numba.__version__) + b"cratelab.lab.compiled\ngone\n.",
}


@pytest.mark.parametrize("left", LEFT.values(), ids=LEFT.keys())
def test_code_on_disk_that_cannot_be_used_is_made_anew(
    left: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    for content in (None, left):
        for index in [] if content is None else tmp_path.rglob("*.nbi"):
            index.write_bytes(content or b"")
        kernels._loop.cache_clear()
        laid.laying.cache_clear()
        monkeypatch.setitem(kernels._LOOPS, ADMITTED, processor.jitted(kernels._decide))
        monkeypatch.setattr(laid, "_LAY", processor.jitted(laid._lay))
        assert_same(create("sliding-log", QUOTA), traffic(QUOTA), ADMITTED)
    assert {path.stat().st_size > 200 for path in tmp_path.rglob("*.nbi")} == {True}


def test_without_room_to_keep_code_it_is_run_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    kernels._loop.cache_clear()
    loop = processor.jitted(kernels._decide)
    monkeypatch.setattr(loop._cache, "save_overload", full)
    monkeypatch.setitem(kernels._LOOPS, ADMITTED, loop)
    assert_same(create("gcra", QUOTA), traffic(QUOTA), ADMITTED)
    kernels._loop.cache_clear()


class Heir(SlidingLog):
    """Has its step from another file."""


def test_code_depends_on_an_inherited_step() -> None:
    _, text, _ = stand_ins._source(Heir, ("burst", "window"), "", True)
    assert Path(getfile(SlidingLog)).read_bytes() in text


def test_nor_is_code_whose_text_has_changed_since(monkeypatch: pytest.MonkeyPatch) -> None:
    before = type(stand_ins.stand_in_for(create("gcra", QUOTA), 1, True)).__name__
    monkeypatch.setattr(stand_ins, "_machinery", lambda: b"another text")
    assert type(stand_ins.stand_in_for(create("gcra", QUOTA), 1, True)).__name__ != before


# --- when it is used


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note which engine decides."""
    used: list[str] = []

    def noting(name: str, decide: Callable[..., None]) -> Callable[..., None]:
        def decided(*arguments: object) -> None:
            used.append(name)
            decide(*arguments)

        return decided

    for module in (compiled, plain):
        name = module.__name__.rpartition(".")[2]
        monkeypatch.setattr(module, "decide", noting(name, module.decide))
    return used


@pytest.mark.parametrize(("requests", "engine"), [(2_999, "plain"), (3_000, "compiled")])
def test_it_is_used_by_itself_once_that_pays(
    requests: int, engine: str, engines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ratelab.lab.replay.WORTH_COMPILING", 3_000)
    outcome(create("gcra", QUOTA), traffic(QUOTA, requests=requests))
    assert engines == [engine]


@pytest.mark.parametrize("asking", [sweep.sweep, comparison.compare], ids=["sweep", "comparison"])
def test_whoever_has_no_compiler_is_told_once_what_it_would_save(
    asking: Callable[..., object], engines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ratelab.lab.compiled.find_spec", lambda name: None)
    monkeypatch.setattr("ratelab.lab.replay.WORTH_COMPILING", 3_000)
    gcra, asked = find("gcra"), traffic(QUOTA)
    given = ([(QUOTA, gcra.from_quota(QUOTA))] * 2, asked) if asking is sweep.sweep else (QUOTA, asked, [gcra])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asking(*given)
    monkeypatch.setattr("ratelab.lab.replay.WORTH_TELLING", 6_000)
    with pytest.warns(SlowWarning, match=r"6,000 decisions.*pip install 'ratelab\[fast\]'") as told:
        asking(*given)
    assert len(told) == 1
    assert {*engines} == {"plain"}


def test_numbers_too_large_are_decided_all_the_same(engines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ratelab.lab.replay.WORTH_COMPILING", 0)
    asked = traffic(QUOTA, origin=1_700_000_000 * 10**9)
    with pytest.warns(SlowWarning, match=r"gcra is replayed in plain Python.*2\*\*63"):
        found = replay(create("gcra", QUOTA), asked)
    assert found.tolist() == replay(create("token-bucket", QUOTA), asked).tolist()
    assert engines == ["compiled", "plain", "compiled"]
