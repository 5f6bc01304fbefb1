"""Synthetic logs: Poisson arrivals of many clients, a few of which send most of the requests."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import chain, repeat
from string import Formatter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ratelab.errors import InputError
from ratelab.lab.scenarios.arrivals import exponential, random_bits, uniform
from ratelab.lab.traces.delimited import DelimitedFormat
from ratelab.lab.traces.formats import FORMATS
from ratelab.lab.traces.jsonl import JsonFormat
from ratelab.lab.traces.timestamps import MONTHS
from ratelab.quota import NS_PER_S, Quota

MAX_CLIENTS = 2**24
"""The number of addresses in 10.0.0.0/8."""

MAX_SAMPLE_HEAD_BYTES = 2_000
"""The beginning of a sample of this length has a whole line."""

_REFERER = "https://shop.example/"
_START = datetime(2026, 11, 1, tzinfo=UTC)
_START_S = int(_START.timestamp())
_ZIPF_EXPONENT = 1.1
_DISTINCT_REQUESTS = 2**12
_BATCH_LINES = 100_000
_SAMPLE_MARKS = (rb"\b10\.[0-9]+\.[0-9]+\.[0-9]+", rb"/products/[0-9]+", rb"shop\.example|Gecko/20100101|\?page=[0-9]")


class SampleRequest(NamedTuple):
    """The parts of a sample line that do not depend on its client and time."""

    method: str
    path: str
    url: str
    status: int
    size: int
    referer: str
    agent: str
    agent_plus: str
    user: str
    id: str


def sample_lines(lines: int, clients: int, rate: Quota, seed: int, format_name: str = "combined") -> Iterator[str]:
    """Yield the lines of a log in one of `FORMATS`, many at a time.

    The requests of all clients together are a Poisson process with this rate. Client k sends a share proportional to
    k**-1.1: Zipf's law, like the popularity of pages (Breslau et al., "Web caching and Zipf-like distributions", 1999).
    Raises `InputError` for more than `MAX_CLIENTS`.
    """
    if clients > MAX_CLIENTS:
        raise InputError(f"there must be at most {MAX_CLIENTS} clients, got {clients}")
    shares = np.cumsum(np.arange(1, clients + 1) ** -_ZIPF_EXPONENT)
    hosts = [f"10.{client >> 16}.{client >> 8 & 255}.{client & 255}" for client in range(clients)]
    parts = _split_template(_get_template(format_name))
    arrivals, choices, pages = (random_bits(f"{seed} {stream}") for stream in ("arrivals", "clients", "requests"))
    second, gap = 0.0, rate.period / rate.limit / NS_PER_S
    format_ = FORMATS[format_name]
    if isinstance(format_, DelimitedFormat):
        yield format_.sample_header
    for begin in range(0, lines, _BATCH_LINES):
        size = min(_BATCH_LINES, lines - begin)
        times = second + np.cumsum(exponential(arrivals, size)) * gap
        client_numbers = np.searchsorted(shares, uniform(choices, size) * shares[-1]).tolist()
        request_numbers = (pages.random_raw(size) % np.uint64(_DISTINCT_REQUESTS)).tolist()
        columns = [_fill(part, hosts, client_numbers, times, request_numbers) for part in parts]
        yield "".join(chain.from_iterable(zip(*columns, strict=False)))
        second = float(times[-1])


def is_sample(head: bytes) -> bool:
    """Return whether the beginning of a file looks like that of a sample."""
    return any(all(re.search(mark, line) for mark in _SAMPLE_MARKS) for line in head.split(b"\n"))


def _get_template(format_name: str) -> str:
    """Return a line with the names of its parts in braces."""
    format_ = FORMATS[format_name]
    if isinstance(format_, JsonFormat):
        doubled = format_.sample.replace("{", "{{").replace("}", "}}")
        return re.sub(r"<(\w+)>", r"{\1}", doubled) + "\n"
    return format_.sample + "\n"


Part = list[str] | str
"""A part of a line: its text for each distinct request, or the name of the client or the time."""


def _split_template(template: str) -> list[Part]:
    """Split a template into the parts of a line."""
    requests = [_create_request(number) for number in range(_DISTINCT_REQUESTS)]
    parts: list[Part] = []
    texts = [""] * len(requests)
    for literal, name, _, _ in Formatter().parse(template):
        texts = [text + literal for text in texts]
        if name in SampleRequest._fields:
            texts = [f"{text}{getattr(request, name)}" for text, request in zip(texts, requests, strict=True)]
        elif name is not None:
            parts += [texts, name]
            texts = [""] * len(requests)
    return [*parts, texts]


def _fill(
    part: Part, hosts: Sequence[str], clients: list[int], times: NDArray[np.float64], requests: list[int]
) -> Iterator[str]:
    """Return the texts of a part in a batch of lines."""
    if isinstance(part, list):
        return map(part.__getitem__, requests) if len(set(part[:2])) > 1 else repeat(part[0])
    if part == "ip":
        return map(hosts.__getitem__, clients)
    if part in _WHOLE_TIMES:
        return map(lru_cache(maxsize=16)(_WHOLE_TIMES[part]), times.astype(np.int64).tolist())
    return map(_EXACT_TIMES[part], times.astype(np.int64).tolist(), (times % 1 * 1e6).astype(np.int64).tolist())


def _create_request(number: int) -> SampleRequest:
    """Return one of the distinct requests."""
    page, status, size = number * 7 % 977, (200, 200, 200, 304, 404)[number % 5], number * 37 % 90_000
    version = f"{100 + number % 40}.0"
    agent = f"Mozilla/5.0 (X11; Linux x86_64; rv:{version}) Gecko/20100101 Firefox/{version}"
    path = f"/products/{page}"
    url = f"{path}?page={number % 9}"
    return SampleRequest(
        "GET", path, url, status, size, _REFERER, agent, agent.replace(" ", "+"), "-", f"{number * 2_654_435_761:016x}"
    )


def _moment(second: int) -> datetime:
    return _START + timedelta(seconds=second)


def _format_log_time(second: int, separator: str = ":", end: str = " +0000") -> str:
    time = _moment(second)
    return f"{time:%d}/{MONTHS[time.month - 1]}/{time:%Y}{separator}{time:%H:%M:%S}{end}"


_WHOLE_TIMES: dict[str, Callable[[int], str]] = {
    "log_time": _format_log_time,
    "local_time": lambda second: _format_log_time(second, " ", ""),
    "iso_second": lambda second: f"{_moment(second):%Y-%m-%dT%H:%M:%SZ}",
    "iso_date": lambda second: f"{_moment(second):%Y-%m-%d}",
    "iso_clock": lambda second: f"{_moment(second):%H:%M:%S}",
}
"""Formats of times in whole seconds after the start."""

_EXACT_TIMES: dict[str, Callable[[int, int], str]] = {
    "iso_time": lambda second, micro: f"{_moment(second):%Y-%m-%dT%H:%M:%S}.{micro:06}Z",
    "log_time_ms": lambda second, micro: f"{_format_log_time(second, ':', '')}.{micro // 1000:03}",
    "epoch": lambda second, micro: f"{_START_S + second}.{micro:06}",
    "epoch_ms": lambda second, micro: f"{_START_S + second}.{micro // 1000:03}",
    "epoch_millis": lambda second, micro: f"{_START_S + second}{micro // 1000:03}",
}
"""Formats of times in whole seconds after the start, and microseconds."""
