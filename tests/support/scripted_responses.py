"""Answers of an imagined server, honest unless it is told to lie, for traffic that nobody sends."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import numpy as np

from ratelab import Quota, create
from ratelab.http.headers import PolicyHeader
from ratelab.lab.replay import replay
from ratelab.lab.traffic import Traffic
from ratelab.limiter import Algorithm, State
from ratelab.verify.client import Response

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


def served(algorithm: Algorithm, asked: Traffic, late: int = 0, took: int = MS) -> list[Response]:
    """Answer all of `asked` as simulated, each sent `late` ns after its time and answered `took` ns after its delay."""
    return [
        answer(algorithm.name, row, now + late, now + late + row[4] + took)
        for now, row in zip(asked.clock_times.tolist(), replay(algorithm, asked).tolist(), strict=True)
    ]


def jittered(algorithm: Algorithm, asked: Traffic, seed: int) -> list[Response]:
    """Answer all of `asked` as a busy server does, which decides at some time in the 5 ms after a late sending."""
    random = Random(seed)
    sent = [now + random.randrange(2 * MS) for now in asked.clock_times.tolist()]
    decided = [moment + random.randrange(5 * MS) for moment in sent]
    keys = asked.request_keys.tolist()
    states: dict[int, State] = {}
    told: dict[int, Response] = {}
    for index in sorted(range(len(sent)), key=decided.__getitem__):
        state = states.setdefault(keys[index], algorithm.start(decided[index]))
        row = algorithm.step(state, decided[index], 1)
        told[index] = answer(algorithm.name, row, sent[index], decided[index] + row[4] + random.randrange(2 * MS))
    return [told[index] for index in range(len(sent))]


def answer(name: str, row: tuple[bool, int, int, int, int], sent: int, answered: int) -> Response:
    """Tell a decision as the middleware does."""
    allowed, remaining, retry_after, reset_after, _ = row
    told = Response(sent, answered, 200, PolicyHeader(name, 3, 3), remaining, -(-reset_after // SECOND))
    wait = -(-retry_after // SECOND)
    return told if allowed else told._replace(status=429, remaining=0, reset=wait, retry_after=str(wait))
