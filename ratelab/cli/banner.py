"""What a service says of itself when it starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from socket import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ratelab.limiter import Algorithm
    from ratelab.quota import Quota

_PERIODS = {"s": "second", "min": "minute", "h": "hour", "day": "day"}


def in_words(quota: Quota, queued: bool = False) -> str:
    """Write a quota as a sentence's end: `2 requests a second, and 5 at once`, or where these are `queued`."""
    count, _, period = quota.rate.partition("/")
    requests = "request" if count == "1" else "requests"
    every = f"{'an' if period == 'h' else 'a'} {_PERIODS[period]}" if period in _PERIODS else f"every {period}"
    more = f"one after the other, and up to {quota.burst} in the queue" if queued else f"and {quota.burst} at once"
    return f"{count} {requests} {every}, {more}"


def queues(algorithm: Algorithm) -> bool:
    """Say whether an algorithm lets the second of two requests at once through later."""
    state = algorithm.start(0)
    algorithm.step(state, 0, 1)
    *_, delay_ns = algorithm.step(state, 0, 1)
    return delay_ns > 0


def in_front(proxies: Sequence[str], hops: int) -> dict[str, str]:
    """Return, by label, whose word is taken for where a request comes from, if anybody's."""
    if hops:
        return {"proxies": f"{hops} in front, always; X-Forwarded-For is counted from the right"}
    return {"proxies": f"X-Forwarded-For counts from {', '.join(proxies)}"} if proxies else {}


def banner(
    algorithm: Algorithm, quota: Quota, key: str, listeners: Sequence[socket], more: Mapping[str, str]
) -> dict[str, str]:
    """Return, by label, what is served by an algorithm, to whom and where, and what to try."""
    from ratelab.http.server import url_of

    url = f"{url_of(listeners[0])}/ping"
    header = key.removeprefix("header:")
    by_address = header == key
    unchecked = {} if by_address else {"note": f"nobody checks {header} here: whoever sends another is another client"}
    metrics = {"metrics": f"{url_of(listeners[1])}/metrics"} if len(listeners) > 1 else {}
    return {
        "ratelab": f"{algorithm.name}, {quota}",
        "serving": url,
        "quota": f"{in_words(quota, queues(algorithm))}, for each {'address' if by_address else f'{header} header'}",
        **unchecked,
        **more,
        "try": f"curl -i {url}" if by_address else f"curl -i -H '{header}: alice' {url}",
        "stop": "Ctrl-C",
        **metrics,
    }
