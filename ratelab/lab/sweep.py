"""A sweep: the same traffic through many quotas and algorithms, and what each would deny."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np

from ratelab.algorithms.plugins import blaming
from ratelab.lab.comparison import check_names
from ratelab.lab.decisions import Progress
from ratelab.lab.replay import admitted, advise
from ratelab.lab.traffic import Asked
from ratelab.limiter import Algorithm
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


def built(kinds: Sequence[type[Algorithm]], quotas: Sequence[Quota]) -> list[tuple[Quota, Algorithm]]:
    """Build every algorithm for every quota; raise `InputError` if one of them cannot grant it."""
    check_names(kinds)
    found = []
    for quota, kind in product(quotas, kinds):
        with blaming(kind):
            found.append((quota, kind.from_quota(quota)))
    return found


def sweep(
    candidates: Sequence[tuple[Quota, Algorithm]],
    traffic: Asked,
    progress: Progress = lambda _: None,
    workers: int | None = None,
) -> list[Swept]:
    """Replay `traffic` through each of the `candidates`, in so many threads (by default one for each processor).

    The results are in the order of the candidates, and the same for any number of workers. `progress` is called with
    how many more requests have been decided.
    """
    advise(traffic, len(candidates))
    sent = np.zeros(len(traffic.names), np.bool_)
    for part in traffic.parts():
        sent[traffic.part(part).clients] = True
    senders = int(np.count_nonzero(sent))
    pool = ThreadPoolExecutor(workers or os.cpu_count())
    try:
        return list(_reported(pool.map(partial(_swept, traffic, senders), candidates), len(traffic), progress))
    finally:
        pool.shutdown(cancel_futures=True)


def _reported(results: Iterator[Swept], requests: int, progress: Progress) -> Iterator[Swept]:
    for result in results:
        progress(requests)
        yield result


def _swept(traffic: Asked, senders: int, candidate: tuple[Quota, Algorithm]) -> Swept:
    quota, algorithm = candidate
    allowed, requests = admitted(algorithm, traffic), 0
    ever = np.zeros(len(traffic.names), np.bool_)
    for part in traffic.parts():
        denied = ~allowed[part]
        ever[traffic.part(part).clients[denied]] = True
        requests += int(np.count_nonzero(denied))
    clients = int(np.count_nonzero(ever))
    return Swept(
        algorithm=algorithm.name,
        quota=quota,
        offered=len(traffic),
        denied=requests,
        denied_ratio=round(requests / max(1, len(traffic)), 6),
        clients=senders,
        clients_denied=clients,
        clients_denied_ratio=round(clients / max(1, senders), 6),
    )
