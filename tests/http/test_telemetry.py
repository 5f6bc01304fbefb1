"""OpenTelemetry: counters as metrics, denials as events of spans, and no client in either."""

from __future__ import annotations

import gc
import sys
from typing import Any

import wsgi
from asgi import PEER, call
from cli_runner import run_python
from flask import Flask
from limited_apps import Handler
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from wsgi_apps import hello

from ratelab import MemoryLimiter, create
from ratelab.flask import limit
from ratelab.http.middleware import RateLimitMiddleware
from ratelab.http.telemetry import ObservedCounts, observe_middleware, trace_denial
from ratelab.wsgi import RateLimitMiddleware as WsgiMiddleware


def read_metrics(reader: InMemoryMetricReader) -> dict[tuple[str, Any], int | float]:
    """Return each value by the metric's name and its attributes."""
    data: Any = reader.get_metrics_data()
    return {
        (metric.name, tuple(point.attributes.values())): point.value
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    }


def test_the_counters_of_a_middleware_are_exported() -> None:
    app = RateLimitMiddleware(Handler(), MemoryLimiter(create("gcra", "2/day")))
    observe_middleware(app, MeterProvider([reader := InMemoryMetricReader()]), name="api")
    for _ in range(5):
        call(app)
    metrics = read_metrics(reader)
    assert metrics["ratelab.requests", ("api", "admitted")] == 2
    assert metrics["ratelab.requests", ("api", "denied")] == 3
    assert metrics["ratelab.waiting", ("api",)] == metrics["ratelab.delayed", ("api",)] == 0
    call(app)
    assert read_metrics(reader)["ratelab.requests", ("api", "denied")] == 4


def test_the_counters_of_other_doors_are_exported_too() -> None:
    site = Flask("shop")
    view: Any = limit("1/day", on_denied=trace_denial)(lambda: "ok")
    site.add_url_rule("/ping", "ping", view)
    middleware = WsgiMiddleware(hello, MemoryLimiter(create("gcra", "1/day")), on_denied=trace_denial)
    provider = MeterProvider([reader := InMemoryMetricReader()])
    observe_middleware(middleware, provider, name="wsgi")
    observe_middleware(view.gate, provider, name="flask")
    for app in (middleware, site):
        assert [wsgi.call(app).status for _ in range(3)] == [200, 429, 429]
    metrics = read_metrics(reader)
    for name in ("wsgi", "flask"):
        assert [metrics["ratelab.requests", (name, outcome)] for outcome in ("admitted", "denied")] == [1, 2]


def test_gates_of_one_name_are_added_up_also_after_their_end() -> None:
    provider = MeterProvider([reader := InMemoryMetricReader()])

    def serve(requests: int) -> None:
        app = RateLimitMiddleware(Handler(), MemoryLimiter(create("gcra", "2/day")))
        for _ in range(3):  # the same one again is counted once
            observe_middleware(app, provider, name="api")
        for _ in range(requests):
            call(app)
        read_metrics(reader)

    for requests in (1, 3, 5):
        serve(requests)
    gc.collect()
    metrics = read_metrics(reader)
    assert [metrics["ratelab.requests", ("api", outcome)] for outcome in ("admitted", "denied")] == [5, 4]


def test_gates_that_replace_others_take_no_memory() -> None:
    observed = ObservedCounts()
    for _ in range(20):
        observed.add(RateLimitMiddleware(Handler(), MemoryLimiter(create("gcra", "2/day"))))
    gc.collect()
    observed.add(RateLimitMiddleware(Handler(), MemoryLimiter(create("gcra", "2/day"))))
    assert len(observed._gates) <= 2
    assert observed.total("admitted") == observed.total("waiting") == 0


def test_a_denial_is_an_event_of_the_current_span() -> None:
    provider, exporter = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    app = RateLimitMiddleware(Handler(), MemoryLimiter(create("sliding-log", "1/day")), on_denied=trace_denial)

    def serve_in_span() -> int:
        with tracer.start_as_current_span("request"):
            return call(app).status

    assert [serve_in_span() for _ in range(2)] == [200, 429]
    admitted, denied = exporter.get_finished_spans()
    assert not admitted.events
    (event,) = denied.events
    assert event.name == "ratelab.denied"
    assert event.attributes is not None
    assert 0 < float(str(event.attributes["ratelab.retry_after"])) <= 86_400
    assert event.attributes["ratelab.policy"] == "sliding-log"
    assert PEER not in denied.to_json()


def test_a_denial_without_a_span_is_answered_as_usual() -> None:
    app = RateLimitMiddleware(Handler(), MemoryLimiter(create("gcra", "1/day")), on_denied=trace_denial)
    assert [call(app).status for _ in range(2)] == [200, 429]


def test_nothing_else_imports_opentelemetry() -> None:
    code = "import sys, ratelab, ratelab.http.app; print([name for name in sys.modules if 'opentelemetry' in name])"
    assert run_python("-c", code) == "[]\n"
    assert sys.modules["opentelemetry"]
