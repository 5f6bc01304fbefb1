"""Scripted responses of an imaginary server to simulated traffic."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import numpy as np

from ratelab import Policy, Quota, create
from ratelab.http.headers import PolicyHeader
from ratelab.lab.replay import replay
from ratelab.lab.traffic import Traffic
from ratelab.limiter import State
from ratelab.quota import NS_PER_S
from ratelab.verify.schedule import Response

MS = 1_000_000
ORIGIN = 7_000 * NS_PER_S
QUOTA = Quota.parse("1/s", 3)


def create_token_bucket() -> Policy:
    return create("token-bucket", QUOTA)


def create_traffic(*times: int, keys: Sequence[int] = (), origin: int = ORIGIN) -> Traffic:
    """Create requests at `times`, in milliseconds, from one client or from the `keys` given for each."""
    clients = np.array(keys or [0] * len(times), np.int64)
    names = tuple(f"client-{key}" for key in range(max(clients) + 1))
    at = np.array(times, np.int64) * MS
    return Traffic(at, clients, np.ones_like(at), names, np.arange(len(names)), max(times) * MS + 1, origin)


def create_response(name: str, row: tuple[bool, int, int, int, int], sent: int, received: int) -> Response:
    """Create the middleware's response for a decision."""
    allowed, remaining, retry_after, reset_after, _ = row
    response = Response(sent, received, 200, PolicyHeader(name, 3, 3), remaining, -(-reset_after // NS_PER_S))
    wait = -(-retry_after // NS_PER_S)
    return response if allowed else response._replace(status=429, remaining=0, reset=wait, retry_after=str(wait))


def respond_correctly(policy: Policy, traffic: Traffic, late: int = 0, took: int = MS) -> list[Response]:
    """Respond to `traffic` as simulated; requests are sent `late` ns late, responses come `took` ns after the delay."""
    return [
        create_response(policy.name, row, now + late, now + late + row[4] + took)
        for now, row in zip(traffic.clock_times.tolist(), replay(policy, traffic).rows.tolist(), strict=True)
    ]


def respond_with_jitter(policy: Policy, traffic: Traffic, seed: int) -> list[Response]:
    """Respond to `traffic` like a busy server, which decides up to 5 ms after a request that was sent late."""
    random = Random(seed)
    sent = [now + random.randrange(2 * MS) for now in traffic.clock_times.tolist()]
    decided = [time + random.randrange(5 * MS) for time in sent]
    keys = traffic.request_keys.tolist()
    states: dict[int, State] = {}
    responses: dict[int, Response] = {}
    for index in sorted(range(len(sent)), key=decided.__getitem__):
        state = states.setdefault(keys[index], policy.start(decided[index]))
        row = policy.step(state, decided[index], 1)
        received = decided[index] + row[4] + random.randrange(2 * MS)
        responses[index] = create_response(policy.name, row, sent[index], received)
    return [responses[index] for index in range(len(sent))]
