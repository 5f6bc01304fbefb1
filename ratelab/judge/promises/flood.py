"""Promise `flood`: a flood of names frees no exhausted key, and memory stays bounded.

While a client is denied, 20,000 other names send a request each, at the same instant; the client is still denied.
Then a further flood of as many new names follows every day, five in all. The names of earlier days are idle and fully
replenished, so their states must be released in time: with the last flood, the candidate holds at most nine tenths of
the memory that states of all names would take. A store may expire keys instead of releasing memory of this process, so
there only the first part is measured. There, and for a candidate that takes more than a quarter of a millisecond for a
hit, a flood has 2,000 names.
"""

from __future__ import annotations

import gc
import sys

from ratelab.judge.candidate import Allotment
from ratelab.judge.timeline import TimelineRow, TimelineStep
from ratelab.judge.trial import DAY_NS, Bench, PromiseReport
from ratelab.quota import NS_PER_S

FLOOD_ALLOTMENT = Allotment(3, 60, 3)

FLOOD_NAMES = 20_000
FEWER_NAMES = 2_000
LATER_FLOODS = 5

BATCH = 100

WARM_UP_NAMES = 1000
MAX_WARM_UP_S = 0.25
"""Processor time of the warm-up from which on floods have fewer names."""

MAX_HELD = 0.9
"""The largest share of the memory of all names that counts as bounded."""

MIN_BLOCKS_PER_NAME = 0.5
"""Blocks of memory per name below which the candidate holds no states in the memory of Python."""


def check(bench: Bench) -> PromiseReport:
    """Exhaust a key, send a flood, and hit the key again; then measure the memory of later floods."""
    trial = bench.start(FLOOD_ALLOTMENT, NS_PER_S)
    denial = trial.hit_until_denied(2 * FLOOD_ALLOTMENT.limit)
    cpu_s = bench.watch.read_cpu()
    _flood(trial.hit_names, WARM_UP_NAMES, "warm-up")
    is_slow = bench.watch.read_cpu() - cpu_s > MAX_WARM_UP_S
    names = FEWER_NAMES if is_slow or bench.store_url is not None else FLOOD_NAMES
    blocks = [_count_blocks()]
    flood_at = trial.now_ns
    _flood(trial.hit_names, names, 0)
    blocks.append(_count_blocks())
    before = len(trial.hits)
    for _ in range(2 * FLOOD_ALLOTMENT.limit if denial else 0):  # a limiter that lets requests wait is never exhausted
        trial.hit()
    freed = sum(hit.allowed for hit in trial.hits[before:]) - _count_due(bench, trial.now_ns - flood_at)
    if freed > 0:
        rows = [*trial.rows[:1], _describe_flood(flood_at, names), *trial.rows[-1:]]
        rows[-1] = {**rows[-1], "hits": len(trial.hits) - before, "allowed": freed}
        rows[0] = {**rows[0], "hits": before, "allowed": sum(hit.allowed for hit in trial.hits[:before])}
        reason = f"an exhausted client got {freed} more after a flood of {names:,} names"
        return PromiseReport(False, {**FLOOD_ALLOTMENT._asdict(), "names": names, "freed": freed}, rows, reason)
    if bench.store_url is not None:
        return PromiseReport(True, {"names": names, "freed": 0})
    rows = [_describe_flood(flood_at, names)]
    for number in range(1, LATER_FLOODS + 1):
        trial.move_to(trial.now_ns + DAY_NS)
        rows.append(_describe_flood(trial.now_ns, names))
        _flood(trial.hit_names, names, number)
        blocks.append(_count_blocks())
    held = _compute_held(blocks, names)
    figures = {"names": names * (1 + LATER_FLOODS), "freed": 0, "held": held}
    if held > MAX_HELD:
        reason = f"held states of {held:.0%} of {names * (1 + LATER_FLOODS):,} names, most of them idle for days"
        return PromiseReport(False, figures, rows, reason, needs_time=True)
    return PromiseReport(True, figures)


def _count_due(bench: Bench, nanoseconds: int) -> int:
    """Return how many hits of an exhausted client are admitted after this time, which a flood may take, without one."""
    if not nanoseconds:
        return 0
    trial = bench.start(FLOOD_ALLOTMENT, NS_PER_S)
    trial.hit_until_denied(2 * FLOOD_ALLOTMENT.limit)
    before = len(trial.admissions())
    trial.play([TimelineStep(trial.now_ns + nanoseconds, 2 * FLOOD_ALLOTMENT.limit)])
    return len(trial.admissions()) - before


def _flood(hit_names: object, names: int, number: int | str) -> None:
    assert callable(hit_names)  # noqa: S101  (a method)
    for first in range(0, names, BATCH):
        hit_names(f"name-{number}-{place}" for place in range(first, first + BATCH))


def _count_blocks() -> int:
    gc.collect()
    return sys.getallocatedblocks()


def _compute_held(blocks: list[int], names: int) -> float:
    """Return the share of all names whose states are held, to a tenth, by the memory that the first flood took."""
    per_name = (blocks[1] - blocks[0]) / names
    if per_name < MIN_BLOCKS_PER_NAME:
        return 0.0
    held = (blocks[-1] - blocks[0]) / (names * (len(blocks) - 1) * per_name)
    return max(0.0, round(held, 1) if held <= MAX_HELD else round(held, 2))


def _describe_flood(at_ns: int, names: int) -> TimelineRow:
    return {
        "at": at_ns / NS_PER_S,
        "until": at_ns / NS_PER_S,
        "key": f"{names:,} new names",
        "hits": names,
        "allowed": None,
        "retry_after": None,
        "note": "",
    }
