"""Prometheus metrics of a service, at `/metrics`; no label identifies a client."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from ratelab.http.counters import OUTCOMES, CounterValues, PolicyCounts
from ratelab.stores.outages import Health

Page = Callable[[], tuple[bytes, bytes]]
"""Returns the content type and the body of a page."""


def metrics_page(algorithm: str, read_counters: Callable[[], CounterValues]) -> Page:
    """Create the page that shows the current counters."""
    registry = CollectorRegistry()
    registry.register(CounterCollector(algorithm, read_counters))
    return lambda: (CONTENT_TYPE_LATEST.encode(), generate_latest(registry))


class CounterCollector(Collector):
    """Converts the counters to metrics at each scrape."""

    def __init__(self, algorithm: str, read_counters: Callable[[], CounterValues]) -> None:
        self._algorithm, self._read_counters = algorithm, read_counters

    def collect(self) -> Iterator[Metric]:
        """Yield every metric with its current value."""
        counts, stats, health = self._read_counters()
        requests = CounterMetricFamily("ratelab_requests", "Requests by outcome.", labels=("algorithm", "outcome"))
        for outcome in OUTCOMES:
            requests.add_metric((self._algorithm, outcome), getattr(counts, outcome))
        yield requests
        yield from _collect_policies(counts.policies)
        yield CounterMetricFamily("ratelab_delayed", "Admitted requests that had to queue.", counts.delayed)
        yield GaugeMetricFamily("ratelab_waiting", "Requests in the queue.", counts.waiting)
        yield GaugeMetricFamily("ratelab_keys", "Keys in memory.", stats.keys)
        yield CounterMetricFamily("ratelab_evictions", "Keys evicted after full replenishment.", stats.evictions)
        yield CounterMetricFamily(
            "ratelab_overflow_hits", "Hits on shared buckets, because max_keys left no room.", stats.overflow_hits
        )
        if health is not None:
            yield from _collect_store_health(health)


def _collect_policies(policies: Mapping[str, PolicyCounts]) -> Iterator[Metric]:
    if not policies:
        return
    denied = CounterMetricFamily(
        "ratelab_policy_denied",
        "Requests that each policy denied or, as a shadow policy, would have denied.",
        labels=("policy", "mode"),
    )
    differing = CounterMetricFamily(
        "ratelab_shadow_differing",
        "Requests that a shadow policy would have decided otherwise, by its decision.",
        labels=("policy", "decision"),
    )
    for name, counts in policies.items():
        denied.add_metric((name, "shadow" if counts.shadow else "enforced"), counts.denied)
        if counts.shadow:
            differing.add_metric((name, "denied"), counts.stricter)
            differing.add_metric((name, "admitted"), counts.looser)
    yield denied
    yield differing


def _collect_store_health(health: Health) -> Iterator[Metric]:
    yield GaugeMetricFamily("ratelab_store_up", "1 while the store is in use, 0 while it is down.", int(health.up))
    errors = CounterMetricFamily("ratelab_store_errors", "Store failures by kind.", labels=("kind",))
    for kind, count in health.errors.items():
        errors.add_metric((kind,), count)
    yield errors
    yield CounterMetricFamily(
        "ratelab_store_fallback_decisions",
        "Requests decided without the store, or rejected because it was down.",
        health.fallback_decisions,
    )
