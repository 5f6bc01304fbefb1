"""Compiled replay of custom algorithms: the same decisions as plain Python, or a reason to use it."""

from __future__ import annotations

import sys
from inspect import getfile
from pathlib import Path

import pytest
from custom_algorithms import TOLL, written
from engine_comparison import QUOTA, assert_same, draw_traffic, ignore_progress

from ratelab import Algorithm, InputError
from ratelab.algorithms import build_policy, find
from ratelab.errors import SlowWarning
from ratelab.lab import compiled
from ratelab.lab.conformance import QUOTAS
from ratelab.lab.decisions import FIGURE_FIELDS
from ratelab.lab.replay import allocate_columns, replay

pytestmark = pytest.mark.slow


def test_a_copy_of_a_built_in_decides_the_same(kind: type[Algorithm], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(Path(getfile(kind)).read_text(encoding="utf-8"), encoding="utf-8")
    mine = find(f"{tmp_path / 'mine.py'}:{kind.__name__}")
    for quota in QUOTAS[:3]:
        assert_same(mine.from_quota(quota), draw_traffic(quota))


SLOW_START = (
    TOLL.replace("return [0]", "return [now]")
    .replace("state[0] += cost", "since = now - state[0]")
    .replace("state[0] % 2 == 1", "since > 5_000_000_000")
)


def test_a_key_of_a_custom_algorithm_starts_at_its_first_request(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW_START)
    assert_same(find(f"{tmp_path / 'slow.py'}:Toll").from_quota(QUOTA), draw_traffic(QUOTA, origin=10**18))


def test_states_of_different_lengths_are_left_to_plain_python(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(TOLL.replace("return [0]", "return [0] * (7 if now == 0 else 2)"))
    with pytest.raises(compiled.UnfitError, match="states of different lengths"):
        assert_same(find(f"{tmp_path / 'slow.py'}:Toll").from_quota(QUOTA), draw_traffic(QUOTA))


CONSTANT = TOLL.replace("@dataclass", "SECOND = 2\n\n\n@dataclass").replace("% 2 == 1", "% SECOND == 1")
CLOSED = (
    CONSTANT.replace("@dataclass", "def closed(SECOND):\n    @dataclass")
    .replace("\n    ", "\n        ")
    .replace("        @dataclass", "    @dataclass")
    .replace("\nclass", "\n    class")
    + "\n    return Toll\n\n\nToll = closed(3)\n"
)


def test_a_global_constant_of_step_may_change(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(CONSTANT)
    kind = find(f"{tmp_path / 'mine.py'}:Toll")
    for second in (2, 3):
        sys.modules[kind.__module__].SECOND = second  # type: ignore[attr-defined]
        assert_same(kind.from_quota(QUOTA), draw_traffic(QUOTA))


def test_a_step_with_a_closure_is_left_to_plain_python(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(CLOSED)
    with pytest.raises(compiled.UnfitError, match="a closure or a decorator"):
        assert_same(find(f"{tmp_path / 'mine.py'}:Toll").from_quota(QUOTA), draw_traffic(QUOTA))


UNFIT = [
    ("state[0] += cost", "state[0] = state[0] * 3 + 1", "exceed 2**63 - 1"),
    ("state[0] % 2 == 1", "state[0] / 2 == 1", "mine.py:29: `state[0] / 2` cannot be compiled"),
    ("state[0] % 2 == 1", "hash(state[0]) == 1", "mine.py:29: `hash(state[0])` cannot be compiled"),
    ("state[0] % 2 == 1", "allowed == 1", "mine.py:"),
    ("state[0] % 2 == 1", "alowed", "mine.py:29: `alowed` is not defined"),
    ("state[0] % 2 == 1", "len(3) == 1", "mine.py:29: "),
    ("state[0] % 2 == 1", "len(self) == 1", "mine.py:29: `len(self)` cannot be compiled"),
    ("state[0] % 2 == 1", "~(cost > 1) == -1", "mine.py:29: `~(cost > 1)` cannot be compiled"),
    ("state[0] % 2 == 1", "cost is state[0]", "mine.py:29: `cost is state[0]` cannot be compiled"),
    ("state[0] % 2 == 1", "now > __name__", "mine.py:29: `__name__` cannot be compiled"),
    ("state[0] % 2 == 1", "self.name == cost", "mine.py:29: `self.name` is not a field"),
    ("    burst: int", "    burst: int\n    _rest: int = 0", "a field whose name begins with _"),
    ("return [0]", "return [0.5]", "must return integers"),
]


@pytest.mark.parametrize(("right", "wrong", "reason"), UNFIT, ids=[wrong for _, wrong, _ in UNFIT])
def test_a_step_that_cannot_be_compiled_is_left_to_plain_python(
    tmp_path: Path, right: str, wrong: str, reason: str
) -> None:
    algorithm = find(written(tmp_path, right, wrong)).from_quota(QUOTA)
    with pytest.raises(compiled.UnfitError) as unfit:
        compiled.decide(
            algorithm, draw_traffic(QUOTA), allocate_columns(draw_traffic(QUOTA), FIGURE_FIELDS), ignore_progress
        )
    assert reason in str(unfit.value)
    assert "nopython" not in str(unfit.value)


def test_a_step_that_fails_raises_the_error_of_plain_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ratelab.lab.replay.MIN_COMPILED_DECISIONS", 0)
    policy = build_policy(find(written(tmp_path, "state[0] % 2", "state[state[0] // 3] % 2")), QUOTA)
    with (
        pytest.raises(InputError, match="toll failed: IndexError"),
        pytest.warns(SlowWarning, match="its step failed in"),
    ):
        replay(policy, draw_traffic(QUOTA))
