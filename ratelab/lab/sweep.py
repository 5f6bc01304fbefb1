"""A sweep: the same traffic through many quotas and algorithms, and what each would deny."""

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

from ratelab.algorithms import build_policy
from ratelab.errors import InputError, short_repr
from ratelab.lab.comparison import check_names
from ratelab.lab.decisions import ADMITTED, Progress
from ratelab.lab.replay import replay, suggest_compiler
from ratelab.lab.traffic import Traffic
from ratelab.limiter import Algorithm, Policy
from ratelab.quota import Quota


@dataclass(frozen=True)
class Swept:
    """What one algorithm made of the traffic under one quota; counts are of requests."""

    algorithm: str
    quota: Quota
    offered: int
    denied: int
    denied_ratio: float
    """`denied` over `offered`."""
    clients: int
    """Clients that sent anything."""
    clients_denied: int
    """Clients that were denied at least once."""
    clients_denied_ratio: float
    """`clients_denied` over `clients`."""


def build_policies(kinds: Sequence[type[Algorithm]], quotas: Sequence[Quota]) -> list[Policy]:
    """Build every algorithm for every quota; raise `InputError` if one of them cannot grant it."""
    check_names(kind.name for kind in kinds)
    return [build_policy(kind, quota) for quota, kind in product(quotas, kinds)]


def sweep(
    policies: Sequence[Policy],
    traffic: Traffic,
    progress: Progress = lambda _: None,
    workers: int | None = None,
) -> list[Swept]:
    """Replay `traffic` through each of the `policies` in `workers` threads (by default one for each processor).

    The results are in the order of the policies, and the same for any number of workers. `progress` is called with the
    number of further requests decided.
    """
    suggest_compiler(traffic, len(policies))
    sent = np.zeros(len(traffic.names), np.bool_)
    for _, batch in traffic.batches():
        sent[batch.clients] = True
    senders = int(np.count_nonzero(sent))
    pool = ThreadPoolExecutor(workers or os.cpu_count())
    try:
        return list(_reported(pool.map(partial(_swept, traffic, senders), policies), len(traffic), progress))
    finally:
        pool.shutdown(cancel_futures=True)


def _reported(results: Iterator[Swept], requests: int, progress: Progress) -> Iterator[Swept]:
    for result in results:
        progress(requests)
        yield result


def _swept(traffic: Traffic, senders: int, policy: Policy) -> Swept:
    allowed, requests = replay(policy, traffic, ADMITTED).decisions["allowed"], 0
    ever = np.zeros(len(traffic.names), np.bool_)
    for part, batch in traffic.batches():
        denied = ~allowed[part]
        ever[batch.clients[denied]] = True
        requests += int(np.count_nonzero(denied))
    clients = int(np.count_nonzero(ever))
    return Swept(
        algorithm=policy.name,
        quota=policy.quota,
        offered=len(traffic),
        denied=requests,
        denied_ratio=round(requests / max(1, len(traffic)), 6),
        clients=senders,
        clients_denied=clients,
        clients_denied_ratio=round(clients / max(1, senders), 6),
    )


MAX_QUOTAS = 2_000
"""The most quotas that a sweep may try."""


def quotas(rates: str, bursts: str | None, steps: int) -> list[Quota]:
    """Return every rate with every burst, in their order; without bursts, each rate with the one that it names.

    Both are values or ranges with commas between. Of a range, `steps` values are taken from its first to its last, each
    as many times the one before, and rounded: to whole numbers if both ends are, else to three digits. What rounding
    makes equal is tried once. Raises `InputError` for anything else, and for more than `MAX_QUOTAS` quotas.
    """
    found = [rate for part in rates.split(",") for rate in _rates(part.strip(), steps)]
    sizes = [None] if bursts is None else [size for part in bursts.split(",") for size in _bursts(part.strip(), steps)]
    if len(found) * len(sizes) > MAX_QUOTAS:
        raise InputError(
            f"a sweep may try at most {MAX_QUOTAS:,} quotas, got {len(found) * len(sizes):,}: lower --steps"
        )
    return list(dict.fromkeys(Quota.parse(rate, burst) for rate in found for burst in sizes))


def _rates(text: str, steps: int) -> list[str]:
    first, dots, last = (part.strip() for part in text.partition(".."))
    if not dots:
        Quota.parse(text)
        return [text]
    if not (first and last):
        raise InputError(f"a range of rates must look like 10/min..1000/min, got {short_repr(text)}")
    low, high = Quota.parse(first), Quota.parse(last)
    count, _, unit = first.partition("/")
    begin = Fraction(count)
    end = begin * Fraction(high.limit, high.period) / Fraction(low.limit, low.period)
    return [f"{value}/{unit}" for value in _spread(begin, end, steps, text)]


def _bursts(text: str, steps: int) -> list[int]:
    first, dots, last = (part.strip() for part in text.partition(".."))
    numbers = (first, last) if dots else (first,)
    if not all(part.isascii() and part.isdigit() and len(part) < 20 and int(part) for part in numbers):
        raise InputError(f"bursts must be whole numbers >= 1, such as 5,10,20 or 5..100, got {short_repr(text)}")
    if not dots:
        return [int(first)]
    return [int(value) for value in _spread(Fraction(first), Fraction(last), steps, text)]


def _spread(begin: Fraction, end: Fraction, steps: int, text: str) -> list[str]:
    """Return the values of a range, written shortly; its ends as they are."""
    if end <= begin:
        raise InputError(f"a range must go from less to more, got {short_repr(text)}: turn it round")
    whole = begin.denominator == end.denominator == 1
    factor = float(end / begin)
    inner = (float(begin) * factor ** (step / (steps - 1)) for step in range(1, steps - 1))
    values = (f"{value:.0f}" if whole else _written(f"{value:.3g}") for value in inner)
    return list(dict.fromkeys([_written(f"{float(begin):.12g}"), *values, _written(f"{float(end):.12g}")]))


def _written(number: str) -> str:
    """Write a number without an exponent."""
    return f"{Decimal(number):f}"
