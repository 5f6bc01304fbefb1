"""What the service counts, for Prometheus; nothing in it tells clients apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from ratelab.http.asgi import App, site
from ratelab.http.counters import Counts
from ratelab.stores.memory import Stats
from ratelab.stores.resilient import Health


class Gathered(Collector):
    """The counters of a middleware, of its limiter and of a shared store, read when they are asked for."""

    def __init__(
        self, algorithm: str, counts: Counts, stats: Callable[[], Stats], health: Callable[[], Health] | None = None
    ) -> None:
        self._algorithm, self._counts, self._stats, self._health = algorithm, counts, stats, health

    def collect(self) -> Iterator[Metric]:
        """Yield every metric as it stands."""
        counts, stats = self._counts, self._stats()
        outcomes = {
            "admitted": counts.admitted,
            "denied": counts.denied,
            "dropped": counts.dropped,
            "ambiguous": counts.ambiguous,
            "unavailable": counts.unavailable,
        }
        requests = CounterMetricFamily("ratelab_requests", "Requests by outcome.", labels=("algorithm", "outcome"))
        for outcome, count in outcomes.items():
            requests.add_metric((self._algorithm, outcome), count)
        yield requests
        yield CounterMetricFamily("ratelab_delayed", "Requests admitted after a wait.", counts.delayed)
        yield GaugeMetricFamily("ratelab_waiting", "Requests that wait for their turn.", counts.waiting)
        yield GaugeMetricFamily("ratelab_keys", "Keys with a state of their own.", stats.keys)
        yield CounterMetricFamily(
            "ratelab_evictions", "Keys dropped because they were as good as new.", stats.evictions
        )
        yield CounterMetricFamily(
            "ratelab_overflow_hits", "Hits on buckets shared for want of room.", stats.overflow_hits
        )
        if self._health is not None:
            yield from _of_store(self._health())


def _of_store(health: Health) -> Iterator[Metric]:
    yield GaugeMetricFamily("ratelab_store_up", "1 while the store is asked, 0 while it is down.", int(health.up))
    errors = CounterMetricFamily("ratelab_store_errors", "Failures of the store by kind.", labels=("kind",))
    for kind, count in health.errors.items():
        errors.add_metric((kind,), count)
    yield errors
    yield CounterMetricFamily(
        "ratelab_store_fallback_decisions", "Requests answered without the store.", health.fallback_decisions
    )


def metrics_app(
    algorithm: str, counts: Counts, stats: Callable[[], Stats], health: Callable[[], Health] | None = None
) -> App:
    """Make the application that answers `GET /metrics`; `health` is given for a limiter with a shared store."""
    registry = CollectorRegistry()
    registry.register(Gathered(algorithm, counts, stats, health))
    return site({"/metrics": lambda: (CONTENT_TYPE_LATEST.encode(), generate_latest(registry))})
