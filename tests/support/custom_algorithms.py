"""A custom algorithm in a file, and copies of it with one mistake."""

from __future__ import annotations

from pathlib import Path

TOLL = '''\
from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ratelab import Traits


@dataclass(frozen=True, slots=True)
class Toll:
    """Every second request of a key, whatever `rate` and `burst` say.

    Not of much use.
    """

    name: ClassVar[str] = "toll"
    traits: ClassVar[Traits] = Traits(state=("requests",), at_most=(7, 0))
    burst: int

    @classmethod
    def from_quota(cls, quota):
        return cls(quota.burst)

    def start(self, now):
        return [0]

    def step(self, state, now, cost):
        state[0] += cost
        allowed = state[0] % 2 == 1
        return allowed, 0, 0 if allowed else 1, 1, 0
'''


def written(folder: Path, right: str, wrong: str) -> str:
    """Write the algorithm with `wrong` in place of `right`; return its `FILE.py:CLASS`."""
    assert TOLL.count(right) == 1
    (folder / "mine.py").write_text(TOLL.replace(right, wrong))
    return f"{folder / 'mine.py'}:Toll"
