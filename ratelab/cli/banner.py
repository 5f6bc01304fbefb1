"""What a service says of itself when it starts."""

from __future__ import annotations

from collections.abc import Sequence
from socket import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ratelab.quota import Quota

_PERIODS = {"s": "second", "min": "minute", "h": "hour", "day": "day"}


def in_words(quota: Quota) -> str:
    """Write a quota as a sentence's end: `2 requests a second, and 5 at once`."""
    count, _, period = quota.rate.partition("/")
    requests = "request" if count == "1" else "requests"
    every = f"{'an' if period == 'h' else 'a'} {_PERIODS[period]}" if period in _PERIODS else f"every {period}"
    return f"{count} {requests} {every}, and {quota.burst} at once"


def banner(name: str, quota: Quota, key: str, listeners: Sequence[socket], more: dict[str, str]) -> dict[str, str]:
    """Return, by label, what is served by the algorithm of this name, to whom and where, and what to try."""
    from ratelab.http.server import url_of

    url = f"{url_of(listeners[0])}/ping"
    header = key.removeprefix("header:")
    by_address = header == key
    metrics = {"metrics": f"{url_of(listeners[1])}/metrics"} if len(listeners) > 1 else {}
    return {
        "ratelab": f"{name}, {quota}",
        "serving": url,
        "quota": f"{in_words(quota)}, for each {'address' if by_address else f'{header} header'}",
        **more,
        "try": f"curl -i {url}" if by_address else f"curl -i -H '{header}: alice' {url}",
        "stop": "Ctrl-C",
        **metrics,
    }
