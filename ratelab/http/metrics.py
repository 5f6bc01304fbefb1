"""What the service counts, for Prometheus; nothing in it tells clients apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from ratelab.http.app import site
from ratelab.http.asgi import App
from ratelab.http.middleware import Counts
from ratelab.stores.memory import Stats


class Gathered(Collector):
    """The counters of a middleware and of its limiter, read when they are asked for."""

    def __init__(self, algorithm: str, counts: Counts, stats: Callable[[], Stats]) -> None:
        self._algorithm, self._counts, self._stats = algorithm, counts, stats

    def collect(self) -> Iterator[Metric]:
        """Yield every metric as it stands."""
        counts, stats = self._counts, self._stats()
        outcomes = {
            "admitted": counts.admitted - counts.delayed,
            "delayed": counts.delayed,
            "denied": counts.denied,
            "ambiguous": counts.ambiguous,
        }
        requests = CounterMetricFamily("ratelab_requests", "Requests by outcome.", labels=("algorithm", "outcome"))
        for outcome, count in outcomes.items():
            requests.add_metric((self._algorithm, outcome), count)
        yield requests
        yield GaugeMetricFamily("ratelab_keys", "Keys with a state of their own.", stats.keys)
        yield CounterMetricFamily(
            "ratelab_evictions", "Keys dropped because they were as good as new.", stats.evictions
        )
        yield CounterMetricFamily(
            "ratelab_overflow_hits", "Hits on buckets shared for want of room.", stats.overflow_hits
        )


def metrics_app(algorithm: str, counts: Counts, stats: Callable[[], Stats]) -> App:
    """Make the application that answers `GET /metrics`."""
    registry = CollectorRegistry()
    registry.register(Gathered(algorithm, counts, stats))
    return site({"/metrics": lambda: (CONTENT_TYPE_LATEST.encode(), generate_latest(registry))})
