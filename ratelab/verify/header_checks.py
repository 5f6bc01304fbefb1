"""Header fields that tell a client something else than what the limiter decided."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ratelab.errors import short_repr
from ratelab.lab.traffic import Traffic
from ratelab.verify.client import Response
from ratelab.verify.consistency import Consistency

SECOND = 10**9

SHOWN = 3
"""Examples that are kept of each kind of fault."""

KINDS = {
    "missing-ratelimit": "RateLimit or RateLimit-Policy missing or not readable",
    "missing-retry-after": "429 without Retry-After",
    "bad-retry-after": "Retry-After not a whole number of seconds >= 1",
    "early-retry-after": "Retry-After earlier than the request is admitted again",
    "late-retry-after": "Retry-After more than a second too late",
    "remaining-when-denied": "429 with something remaining",
    "remaining-rises": "remaining rises in a burst",
}
"""The kinds of faults, and what each means."""


class Example(NamedTuple):
    """One answer with a fault."""

    request: int
    """Its number in the order of arrival, from 1."""
    client: str
    told: str
    """What was told, and what should have been."""


@dataclass(frozen=True)
class HeaderError:
    """A kind of fault, one of `KINDS`, and the answers that have it."""

    kind: str
    count: int
    examples: tuple[Example, ...]
    """The first of them, at most `SHOWN`."""


def faults(traffic: Traffic, leeway: Sequence[Consistency], answers: Sequence[Response]) -> tuple[HeaderError, ...]:
    """Return the faults in the fields of `answers`, in the order of `KINDS`; only what was admitted or denied has any.

    What depends on the simulation is looked at only where it is `sure`.
    """
    found: dict[str, list[Example]] = {kind: [] for kind in KINDS}
    before = _earlier(traffic, answers)
    for index, (room, answer) in enumerate(zip(leeway, answers, strict=True)):
        if answer.admitted or answer.denied:
            earlier = before[index]
            past = None if earlier is None else (leeway[earlier], answers[earlier])
            for kind, told in _header_errors(room, answer, past):
                found[kind].append(Example(index + 1, traffic.names[traffic.clients[index]], told))
    return tuple(HeaderError(kind, len(many), tuple(many[:SHOWN])) for kind, many in found.items() if many)


def _header_errors(
    room: Consistency, answer: Response, past: tuple[Consistency, Response] | None
) -> Iterator[tuple[str, str]]:
    """Yield the faults of one answer; `past` is the last of its key that had come before the request was sent."""
    if answer.policy is None or answer.remaining is None:
        yield "missing-ratelimit", "no " + ("RateLimit" if answer.policy else "RateLimit-Policy")
    if answer.denied:
        yield from _wait(room, answer)
    if answer.remaining is None:
        return
    if answer.denied and answer.remaining:
        yield "remaining-when-denied", f"r={answer.remaining} on a 429"
    elif past and past[1].remaining is not None and room.sure:
        rises = answer.remaining > past[1].remaining and room.most <= past[0].least
        if rises:
            yield "remaining-rises", f"r={answer.remaining} after r={past[1].remaining}, at most {room.most} simulated"


def _wait(room: Consistency, answer: Response) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the wait of a denied request.

    A client counts it from the answer, the server from its decision: it is early only if it is so for the client,
    and late only by more than the second to which it is rounded up and the time that the request took.
    """
    if answer.retry_after is None:
        yield "missing-retry-after", "no Retry-After"
        return
    if not re.fullmatch(r"0*[1-9][0-9]{0,14}", answer.retry_after):
        yield "bad-retry-after", f"Retry-After: {short_repr(answer.retry_after)}"
        return
    if room.sure and room.soonest is not None and room.latest is not None:
        wait = int(answer.retry_after) * SECOND
        needed = max(0, room.soonest - answer.answered_ns) / SECOND
        told = f"Retry-After: {int(answer.retry_after)}, {needed:.3g} s to wait"
        if answer.answered_ns + wait < room.soonest:
            yield "early-retry-after", told
        if wait > room.latest - answer.sent_ns + SECOND + (answer.answered_ns - answer.sent_ns):
            yield "late-retry-after", told


def _earlier(traffic: Traffic, answers: Sequence[Response]) -> list[int | None]:
    """Return for each request the last one of its key that had told what remains before this one was sent."""
    keys = traffic.request_keys.tolist()
    came = [index for index, answer in enumerate(answers) if answer.remaining is not None]
    came.sort(key=lambda index: answers[index].answered_ns, reverse=True)
    latest: dict[int, int] = {}
    before: list[int | None] = [None] * len(answers)
    for index in sorted(range(len(answers)), key=lambda index: answers[index].sent_ns):
        while came and answers[came[-1]].answered_ns <= answers[index].sent_ns:
            one = came.pop()
            latest[keys[one]] = max(one, latest.get(keys[one], 0))
        before[index] = latest.get(keys[index])
    return before
