"""Answers of an imagined server, honest unless it is told to lie, for traffic that nobody sends."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ratelab import Quota, create
from ratelab.answer import Answer, Policy
from ratelab.lab.replay import replay
from ratelab.lab.traffic import Traffic
from ratelab.limiter import Algorithm

MS = 1_000_000
SECOND = 1000 * MS
ORIGIN = 7_000 * SECOND
QUOTA = Quota.parse("1/s", 3)


def traffic(*times: int, keys: Sequence[int] = (), origin: int = ORIGIN) -> Traffic:
    """Return requests at `times`, in milliseconds, of one client or of the `keys` given for each."""
    clients = np.array(keys or [0] * len(times), np.int64)
    names = tuple(f"client-{key}" for key in range(max(clients) + 1))
    at = np.array(times, np.int64) * MS
    return Traffic(at, clients, np.ones_like(at), names, np.arange(len(names)), max(times) * MS + 1, origin)


def token_bucket() -> Algorithm:
    return create("token-bucket", QUOTA)


def served(algorithm: Algorithm, asked: Traffic, late: int = 0, took: int = MS) -> list[Answer]:
    """Answer all of `asked` as simulated, each sent `late` ns after its time and answered `took` ns after its delay."""
    return [
        answer(algorithm.name, row, now + late, now + late + row[4] + took)
        for now, row in zip(asked.clock_times.tolist(), replay(algorithm, asked).tolist(), strict=True)
    ]


def answer(name: str, row: tuple[bool, int, int, int, int], sent: int, answered: int) -> Answer:
    """Tell a decision as the middleware does."""
    allowed, remaining, retry_after, reset_after, _ = row
    told = Answer(sent, answered, 200, Policy(name, 3, 3), remaining, -(-reset_after // SECOND))
    wait = -(-retry_after // SECOND)
    return told if allowed else told._replace(status=429, remaining=0, reset=wait, retry_after=str(wait))
