"""A synthetic access log, to try things on: many clients of which a few ask for most."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import chain

import numpy as np

from ratelab.errors import InputError
from ratelab.lab.scenarios.arrivals import exponential, random_bits, uniform
from ratelab.lab.traces.timestamps import MONTHS
from ratelab.quota import UNITS, Quota

MAX_ADDRESSES = 2**24
"""There are no more addresses in 10.0.0.0/8."""

_BEGIN = datetime(2026, 11, 1, tzinfo=UTC)
_ZIPF = 1.1
_REQUESTS = 2**12
_LINES = 100_000


def sample_lines(lines: int, clients: int, rate: Quota, seed: int) -> Iterator[str]:
    """Yield the lines of a log in the combined format, many at a time.

    Requests are a Poisson process of this rate, all clients together; the k-th client asks in proportion to k**-1.1
    (Zipf's law, as the popularity of pages has it: Breslau et al., "Web caching and Zipf-like distributions", 1999).
    """
    if clients > MAX_ADDRESSES:
        raise InputError(f"there must be at most {MAX_ADDRESSES} clients, got {clients}")
    shares = np.cumsum(np.arange(1, clients + 1) ** -_ZIPF)
    hosts = [f"10.{one >> 16}.{one >> 8 & 255}.{one & 255} - - [" for one in range(clients)]
    requests = [_request(number) for number in range(_REQUESTS)]
    arrivals, choices, pages = (random_bits(f"{seed} {what}") for what in ("arrivals", "clients", "requests"))
    second, gap = 0.0, rate.period / rate.limit / UNITS["s"]
    for begin in range(0, lines, _LINES):
        size = min(_LINES, lines - begin)
        times = second + np.cumsum(exponential(arrivals, size)) * gap
        who = np.searchsorted(shares, uniform(choices, size) * shares[-1])
        what = pages.random_raw(size) % np.uint64(_REQUESTS)
        parts = zip(
            map(hosts.__getitem__, who.tolist()),
            map(_moment, times.astype(np.int64).tolist()),
            map(requests.__getitem__, what.tolist()),
            strict=True,
        )
        yield "".join(chain.from_iterable(parts))
        second = float(times[-1])


@lru_cache(maxsize=16)
def _moment(second: int) -> str:
    """Write a time in whole seconds as a log does."""
    moment = _BEGIN + timedelta(seconds=second)
    return f"{moment:%d}/{MONTHS[moment.month - 1]}/{moment:%Y:%H:%M:%S} +0000] "


def _request(number: int) -> str:
    """Write one of the requests, from its quotes on."""
    path, status, size = number * 7 % 977, (200, 200, 200, 304, 404)[number % 5], number * 37 % 90_000
    agent = f"Mozilla/5.0 (X11; Linux x86_64; rv:{100 + number % 40}.0) Gecko/20100101 Firefox/{100 + number % 40}.0"
    return f'"GET /products/{path}?page={number % 9} HTTP/1.1" {status} {size} "https://shop.example/" "{agent}"\n'
