"""Engine that executes tasks in this process, in an order that no real engine guarantees, and traffic for its tests."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

from ratelab.lab.engines.engine import Item


class InlineEngine:
    """Executes the last task first; arguments and results are pickled, as by a real engine."""

    description = "this process"
    is_local = True
    workers = 2

    def __init__(self, fail_after: int | None = None) -> None:
        self.executed: list[str] = []
        self.fail_after = fail_after

    def map(self, work: Callable[[Item], Any], items: Sequence[Item]) -> Generator[tuple[int, Any], None, None]:
        for number in reversed(range(len(items))):
            if self.fail_after is not None and len(self.executed) >= self.fail_after:
                raise KeyboardInterrupt
            task, item = pickle.loads(pickle.dumps((work, items[number])))  # noqa: S301  (its own)
            self.executed.append(task.label)
            yield number, pickle.loads(pickle.dumps(task(item)))  # noqa: S301

    def close(self) -> None:
        pass


def write_random_log(path: Path, seed: int, lines: int, *, unit: str = "s", late: int = 3, first: int = 0) -> None:
    """Write JSON lines out of order, in which requests of one time are common.

    `unit` is the resolution of the times: `s`, `min`, `ms`, or `mixed` for whole seconds among milliseconds.
    """
    draw = random.Random(seed)
    rows = []
    for number in range(lines):
        second = 1_700_000_000 + first + number // 7 - draw.randrange(late)
        time = {"s": second, "min": second // 60 * 60, "ms": second + draw.randrange(1000) / 1000}.get(unit, second)
        if unit == "mixed" and draw.random() < 0.3:
            time = second + draw.choice((0.25, 0.5))
        client = f"client-{draw.randrange(40)}" if draw.random() < 0.9 else "rare-" + str(draw.randrange(10**6))
        rows.append(f'{{"time": {time}, "ip": "{client}", "cost": {draw.choice((1, 1, 1, 2, 5))}}}')
        if draw.random() < 0.01:
            rows.append(draw.choice(("not a line", "", '{"time": 1}')))
    path.write_text("\n".join(rows) + draw.choice(("", "\n")), encoding="utf-8")
