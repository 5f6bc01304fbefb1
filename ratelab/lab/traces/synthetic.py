"""Synthetic access logs: Poisson arrivals of many clients, a few of which send most of the requests."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import chain

import numpy as np

from ratelab.errors import InputError
from ratelab.lab.scenarios.arrivals import exponential, random_bits, uniform
from ratelab.lab.traces.timestamps import MONTHS
from ratelab.quota import NS_PER_S, Quota

MAX_CLIENTS = 2**24
"""The number of addresses in 10.0.0.0/8."""

MAX_SAMPLE_LINE_BYTES = 1_000
"""No line is longer."""

_REFERER = "https://shop.example/"
_START = datetime(2026, 11, 1, tzinfo=UTC)
_ZIPF_EXPONENT = 1.1
_DISTINCT_REQUESTS = 2**12
_BATCH_LINES = 100_000


def sample_lines(lines: int, clients: int, rate: Quota, seed: int) -> Iterator[str]:
    """Yield the lines of a log in the combined format, many at a time.

    The requests of all clients together are a Poisson process with this rate. Client k sends a share proportional to
    k**-1.1: Zipf's law, like the popularity of pages (Breslau et al., "Web caching and Zipf-like distributions", 1999).
    Raises `InputError` for more than `MAX_CLIENTS`.
    """
    if clients > MAX_CLIENTS:
        raise InputError(f"there must be at most {MAX_CLIENTS} clients, got {clients}")
    shares = np.cumsum(np.arange(1, clients + 1) ** -_ZIPF_EXPONENT)
    hosts = [f"10.{client >> 16}.{client >> 8 & 255}.{client & 255} - - [" for client in range(clients)]
    requests = [_format_request(number) for number in range(_DISTINCT_REQUESTS)]
    arrivals, choices, pages = (random_bits(f"{seed} {stream}") for stream in ("arrivals", "clients", "requests"))
    second, gap = 0.0, rate.period / rate.limit / NS_PER_S
    for begin in range(0, lines, _BATCH_LINES):
        size = min(_BATCH_LINES, lines - begin)
        times = second + np.cumsum(exponential(arrivals, size)) * gap
        client_numbers = np.searchsorted(shares, uniform(choices, size) * shares[-1])
        request_numbers = pages.random_raw(size) % np.uint64(_DISTINCT_REQUESTS)
        parts = zip(
            map(hosts.__getitem__, client_numbers.tolist()),
            map(_format_time, times.astype(np.int64).tolist()),
            map(requests.__getitem__, request_numbers.tolist()),
            strict=True,
        )
        yield "".join(chain.from_iterable(parts))
        second = float(times[-1])


def is_sample_line(line: bytes) -> bool:
    """Return whether a line looks like one of `sample_lines`."""
    return line.startswith(b"10.") and f'"{_REFERER}"'.encode() in line


@lru_cache(maxsize=16)
def _format_time(second: int) -> str:
    """Format a time in whole seconds after the start, up to the quotes of the request."""
    time = _START + timedelta(seconds=second)
    return f"{time:%d}/{MONTHS[time.month - 1]}/{time:%Y:%H:%M:%S} +0000] "


def _format_request(number: int) -> str:
    """Format the rest of a line, from the quotes of the request on."""
    path, status, size = number * 7 % 977, (200, 200, 200, 304, 404)[number % 5], number * 37 % 90_000
    agent = f"Mozilla/5.0 (X11; Linux x86_64; rv:{100 + number % 40}.0) Gecko/20100101 Firefox/{100 + number % 40}.0"
    return f'"GET /products/{path}?page={number % 9} HTTP/1.1" {status} {size} "{_REFERER}" "{agent}"\n'
