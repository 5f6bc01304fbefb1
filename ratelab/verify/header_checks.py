"""Checks of rate-limit header fields against the simulation."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ratelab.errors import short_repr
from ratelab.lab.traffic import Traffic
from ratelab.quota import NS_PER_S
from ratelab.verify.consistency import Consistency
from ratelab.verify.schedule import Response

HEADER_ERRORS = {
    "missing-ratelimit": "RateLimit or RateLimit-Policy is missing or malformed",
    "missing-retry-after": "429 without Retry-After",
    "bad-retry-after": "Retry-After is not a whole number of seconds >= 1",
    "early-retry-after": "Retry-After is shorter than the wait",
    "late-retry-after": "Retry-After is over a second longer than the wait",
    "remaining-when-denied": "429 with a remaining quota above 0",
    "remaining-rises": "the remaining quota rises during a burst",
}
"""The kinds of errors, with their descriptions."""

MAX_EXAMPLES = 3
"""Examples that are kept of each kind of error."""


class ErrorExample(NamedTuple):
    """A response with an error."""

    request: int
    """The number of the request in the order of arrival, from 1."""
    client: str
    detail: str
    """The wrong value and, where there is one, its limit."""


@dataclass(frozen=True)
class HeaderError:
    """The responses with one kind of error."""

    kind: str
    """A key of `HEADER_ERRORS`."""
    count: int
    examples: tuple[ErrorExample, ...]
    """The first `MAX_EXAMPLES` of them."""


def check_headers(
    traffic: Traffic, consistency: Sequence[Consistency], responses: Sequence[Response]
) -> tuple[HeaderError, ...]:
    """Return the errors in the header fields of responses that admit or deny, in the order of `HEADER_ERRORS`.

    Values are compared with the simulation only where it is `reliable`.
    """
    found: dict[str, list[ErrorExample]] = {kind: [] for kind in HEADER_ERRORS}
    predecessors = _find_predecessors(traffic, responses)
    for index, (limits, response) in enumerate(zip(consistency, responses, strict=True)):
        if response.admitted or response.denied:
            earlier = predecessors[index]
            predecessor = None if earlier is None else (consistency[earlier], responses[earlier])
            for kind, detail in _check_response(limits, response, predecessor):
                found[kind].append(ErrorExample(index + 1, traffic.names[traffic.clients[index]], detail))
    return tuple(
        HeaderError(kind, len(examples), tuple(examples[:MAX_EXAMPLES])) for kind, examples in found.items() if examples
    )


def _find_predecessors(traffic: Traffic, responses: Sequence[Response]) -> list[int | None]:
    """Return for each request the last one of its key whose response, with `remaining`, arrived before it was sent."""
    keys = traffic.request_keys.tolist()
    arrivals = [index for index, response in enumerate(responses) if response.remaining is not None]
    arrivals.sort(key=lambda index: responses[index].received_ns, reverse=True)
    latest: dict[int, int] = {}
    predecessors: list[int | None] = [None] * len(responses)
    for index in sorted(range(len(responses)), key=lambda index: responses[index].sent_ns):
        while arrivals and responses[arrivals[-1]].received_ns <= responses[index].sent_ns:
            arrived = arrivals.pop()
            latest[keys[arrived]] = max(arrived, latest.get(keys[arrived], 0))
        predecessors[index] = latest.get(keys[index])
    return predecessors


def _check_response(
    limits: Consistency, response: Response, predecessor: tuple[Consistency, Response] | None
) -> Iterator[tuple[str, str]]:
    """Yield the kind and the detail of each error."""
    if response.policy is None or response.remaining is None:
        yield "missing-ratelimit", "no " + ("RateLimit" if response.policy else "RateLimit-Policy")
    if response.denied:
        yield from _check_retry_after(limits, response)
    if response.remaining is None:
        return
    if response.denied and response.remaining:
        yield "remaining-when-denied", f"r={response.remaining} on a 429"
    elif predecessor and limits.reliable:
        earlier_limits, earlier = predecessor
        rises = earlier.remaining is not None and response.remaining > earlier.remaining
        if rises and limits.max_remaining <= earlier_limits.min_remaining:
            yield (
                "remaining-rises",
                f"r={response.remaining} after r={earlier.remaining}, at most {limits.max_remaining} simulated",
            )


def _check_retry_after(limits: Consistency, response: Response) -> Iterator[tuple[str, str]]:
    """Yield the errors in the wait of a denied request.

    The client counts it from the response, the server from its decision. The wait is too short only if it is for the
    client. It is too long only if it exceeds the second to which it is rounded up plus the time of the request.
    """
    if response.retry_after is None:
        yield "missing-retry-after", "no Retry-After"
        return
    if not re.fullmatch(r"0*[1-9][0-9]{0,14}", response.retry_after):
        yield "bad-retry-after", f"Retry-After: {short_repr(response.retry_after)}"
        return
    if limits.reliable and limits.earliest_retry is not None and limits.latest_retry is not None:
        wait = int(response.retry_after) * NS_PER_S
        needed = max(0, limits.earliest_retry - response.received_ns) / NS_PER_S
        detail = f"Retry-After: {int(response.retry_after)}, {needed:.3g} s to wait"
        if response.received_ns + wait < limits.earliest_retry:
            yield "early-retry-after", detail
        if wait > limits.latest_retry - response.sent_ns + NS_PER_S + (response.received_ns - response.sent_ns):
            yield "late-retry-after", detail
