"""OpenTelemetry hook: the counters of a door as metrics, and denials on the spans of requests.

The metrics are read when they are exported, so that a request does no further work; without this module, none of
OpenTelemetry is imported.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from weakref import WeakKeyDictionary

from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

from ratelab.http.counters import OUTCOMES, Counts
from ratelab.http.gate import Gate
from ratelab.limiter import NEVER, Decision

Observed = list[tuple[Counts, dict[str, str]]]
"""The counters that are exported, each with its attributes."""

_observed_globally: Observed = []
_observed: WeakKeyDictionary[MeterProvider, Observed] = WeakKeyDictionary()


def observe_middleware(middleware: Gate, provider: MeterProvider | None = None, name: str | None = None) -> None:
    """Export the counters of `middleware` by the meters of `provider`, by default the global one.

    It may also be the gate of another door, such as `view.gate` in Flask. The metrics are those of Prometheus:
    `ratelab.requests` by `outcome`, `ratelab.delayed` and `ratelab.waiting`. With a `name`, they have the attribute
    `limiter`, for a process with several.
    """
    observed = _observed_globally if provider is None else _observed.setdefault(provider, [])
    observed.append((middleware.counts, {} if name is None else {"limiter": name}))
    if len(observed) > 1:
        return  # a meter has one instrument of a name, whose callback reads all counters

    def observe_requests(_: CallbackOptions) -> Iterable[Observation]:
        return [
            Observation(getattr(counts, outcome), {**limiter, "outcome": outcome})
            for counts, limiter in observed
            for outcome in OUTCOMES
        ]

    def observe_delayed(_: CallbackOptions) -> Iterable[Observation]:
        return [Observation(counts.delayed, limiter) for counts, limiter in observed]

    def observe_waiting(_: CallbackOptions) -> Iterable[Observation]:
        return [Observation(counts.waiting, limiter) for counts, limiter in observed]

    meter = metrics.get_meter("ratelab", meter_provider=provider)
    meter.create_observable_counter("ratelab.requests", [observe_requests], "{request}", "Requests by outcome.")
    meter.create_observable_counter(
        "ratelab.delayed", [observe_delayed], "{request}", "Admitted requests that had to queue."
    )
    meter.create_observable_gauge("ratelab.waiting", [observe_waiting], "{request}", "Requests in the queue.")


def trace_denial(request: Any, decision: Decision) -> None:  # noqa: ARG001  (the signature of `on_denied`)
    """Add the event `ratelab.denied` to the current span: `RateLimitMiddleware(app, limiter, on_denied=trace_denial)`.

    Its attributes are `ratelab.policy`, the policy that denied the request, and `ratelab.retry_after` in seconds, which
    is missing if no wait is enough. No attribute identifies the client.
    """
    attributes: dict[str, Any] = {}
    if decision.bound_by is not None:
        attributes["ratelab.policy"] = decision.bound_by
    if decision.retry_after_ns != NEVER:
        attributes["ratelab.retry_after"] = decision.retry_after
    trace.get_current_span().add_event("ratelab.denied", attributes)
