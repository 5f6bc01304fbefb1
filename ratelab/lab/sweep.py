"""Sweep of quotas: the denials of many quotas and algorithms for the same traffic."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import partial
from itertools import product

import numpy as np

from ratelab.algorithms import Policy, build_policy
from ratelab.errors import InputError, short_repr
from ratelab.lab.comparison import check_names
from ratelab.lab.decisions import ADMISSION_FIELDS, Progress
from ratelab.lab.replay import replay, suggest_compiler
from ratelab.lab.traffic import Traffic
from ratelab.limiter import Algorithm
from ratelab.quota import Quota


@dataclass(frozen=True)
class SweepRow:
    """Denials of one algorithm under one quota."""

    algorithm: str
    quota: Quota
    denied: int
    """Requests denied."""
    denied_ratio: float
    """`denied` divided by the number of requests."""
    clients_denied: int
    """Clients denied at least once."""
    clients_denied_ratio: float
    """`clients_denied` divided by the number of clients that sent requests."""


@dataclass(frozen=True)
class SweepResult:
    """Denials under many quotas, for the same traffic."""

    offered: int
    """Requests of the traffic."""
    clients: int
    """Clients that sent requests."""
    rows: tuple[SweepRow, ...]
    """A row for each quota and algorithm, in the order in which they were given."""

    @property
    def algorithms(self) -> list[str]:
        """The names of the algorithms, in order."""
        return list(dict.fromkeys(row.algorithm for row in self.rows))

    @property
    def quotas(self) -> list[Quota]:
        """The quotas, in order."""
        return list(dict.fromkeys(row.quota for row in self.rows))


def build_policies(kinds: Sequence[type[Algorithm]], quotas: Sequence[Quota]) -> list[Policy]:
    """Build every algorithm for every quota; raise `InputError` if one of them cannot grant it."""
    check_names(kind.name for kind in kinds)
    return [build_policy(kind, quota) for quota, kind in product(quotas, kinds)]


def sweep(
    policies: Sequence[Policy],
    traffic: Traffic,
    progress: Progress = lambda _: None,
    workers: int | None = None,
) -> SweepResult:
    """Replay `traffic` through each of the `policies` in `workers` threads, by default one for each processor.

    The rows are in the order of the policies, and the same for any number of workers. `progress` is called with the
    number of further requests decided.
    """
    suggest_compiler(traffic, len(policies))
    clients = int(np.count_nonzero(traffic.client_requests))
    pool = ThreadPoolExecutor(workers or os.cpu_count())
    try:
        rows = pool.map(partial(_replay_policy, traffic, clients, len(policies)), policies)
        return SweepResult(len(traffic), clients, tuple(_report_rows(rows, len(traffic), progress)))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _report_rows(rows: Iterator[SweepRow], requests: int, progress: Progress) -> Iterator[SweepRow]:
    for row in rows:
        progress(requests)
        yield row


def _replay_policy(traffic: Traffic, clients: int, replays: int, policy: Policy) -> SweepRow:
    return build_row(policy, *count_denied(policy, traffic, replays), len(traffic), clients)


def count_denied(policy: Policy, traffic: Traffic, replays: int) -> tuple[int, int]:
    """Return how many requests and clients a policy denies; `replays` is how often the traffic is replayed in all."""
    allowed = replay(policy, traffic, ADMISSION_FIELDS, replays=replays).decisions["allowed"]
    was_denied = np.zeros(len(traffic.names), np.bool_)
    denied = 0
    for part, batch in traffic.batches():
        denied_part = ~allowed[part]
        was_denied[batch.clients[denied_part]] = True
        denied += int(np.count_nonzero(denied_part))
    return denied, int(np.count_nonzero(was_denied))


def build_row(policy: Policy, denied: int, clients_denied: int, requests: int, clients: int) -> SweepRow:
    """Return the row of a policy that denies this many of all requests and clients."""
    return SweepRow(
        algorithm=policy.name,
        quota=policy.quota,
        denied=denied,
        denied_ratio=round(denied / max(1, requests), 6),
        clients_denied=clients_denied,
        clients_denied_ratio=round(clients_denied / max(1, clients), 6),
    )


MAX_QUOTAS = 2_000
"""The largest number of quotas of a sweep."""


def parse_quotas(rates: str, bursts: str | None, steps: int) -> list[Quota]:
    """Return every rate with every burst, in their order; without bursts, each rate with the burst that it implies.

    Both are comma-separated values and ranges. A range stands for `steps` values at equal factors from its first to
    its last value, rounded to whole numbers if both ends are whole, otherwise to three digits. Equal values are used
    once. Raises `InputError` for anything else, and for more than `MAX_QUOTAS` quotas.
    """
    all_rates = [rate for part in rates.split(",") for rate in _parse_rates(part.strip(), steps)]
    all_bursts: Sequence[int | None] = [None]
    if bursts is not None:
        all_bursts = [burst for part in bursts.split(",") for burst in _parse_bursts(part.strip(), steps)]
    count = len(all_rates) * len(all_bursts)
    if count > MAX_QUOTAS:
        raise InputError(f"a sweep may try at most {MAX_QUOTAS:,} quotas, got {count:,}: lower --steps")
    return list(dict.fromkeys(Quota.parse(rate, burst) for rate in all_rates for burst in all_bursts))


def _parse_rates(text: str, steps: int) -> list[str]:
    """Parse a rate or a range of rates; the unit is that of the first."""
    first, dots, last = (part.strip() for part in text.partition(".."))
    if not dots:
        Quota.parse(text)
        return [text]
    if not (first and last):
        raise InputError(f"a range of rates must look like 10/min..1000/min, got {short_repr(text)}")
    low, high = Quota.parse(first), Quota.parse(last)
    count, _, unit = first.partition("/")
    start = Fraction(count)
    stop = start * Fraction(high.limit, high.period) / Fraction(low.limit, low.period)
    return [f"{value}/{unit}" for value in _spread_values(start, stop, steps, text)]


def _parse_bursts(text: str, steps: int) -> list[int]:
    """Parse a burst or a range of bursts."""
    first, dots, last = (part.strip() for part in text.partition(".."))
    numbers = (first, last) if dots else (first,)
    if not all(part.isascii() and part.isdigit() and len(part) < 20 and int(part) for part in numbers):
        raise InputError(f"bursts must be whole numbers >= 1, such as 5,10,20 or 5..100, got {short_repr(text)}")
    if not dots:
        return [int(first)]
    return [int(value) for value in _spread_values(Fraction(first), Fraction(last), steps, text)]


def _spread_values(start: Fraction, stop: Fraction, steps: int, text: str) -> list[str]:
    """Return the values of a range as text; the first and the last are not rounded."""
    if stop <= start:
        raise InputError(f"a range must go from less to more, got {short_repr(text)}: swap its ends")
    are_whole = start.denominator == stop.denominator == 1
    factor = float(stop / start)
    inner = (float(start) * factor ** (step / (steps - 1)) for step in range(1, steps - 1))
    values = (f"{value:.0f}" if are_whole else _remove_exponent(f"{value:.3g}") for value in inner)
    first, last = (_remove_exponent(f"{float(end):.12g}") for end in (start, stop))
    return list(dict.fromkeys([first, *values, last]))


def _remove_exponent(number: str) -> str:
    """Return a number without an exponent: `1e+05` as `100000`."""
    return f"{Decimal(number):f}"
