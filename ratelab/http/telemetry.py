"""OpenTelemetry hook: the counters of a door as metrics, and denials on the spans of requests.

The metrics are read when they are exported, so that a request does no further work; without this module, none of
OpenTelemetry is imported.
"""

from __future__ import annotations

from collections.abc import Iterable
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary, ref

from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

from ratelab.http.counters import OUTCOMES, Counts
from ratelab.http.gate import Gate
from ratelab.limiter import NEVER, Decision


class ObservedCounts:
    """The counts of all gates with one name.

    Those of a gate that is no longer in use are added up, so that memory does not grow as gates replace others.
    """

    def __init__(self) -> None:
        self._gates: list[tuple[ref[Gate], Counts]] = []
        self._ended = dict.fromkeys((*OUTCOMES, "delayed"), 0)
        self._lock = Lock()

    def add(self, gate: Gate) -> None:
        """Count the requests of a gate, too; one that is added again is counted once."""
        with self._lock:
            self._forget_ended()
            if all(counts is not gate.counts for _, counts in self._gates):
                self._gates.append((ref(gate), gate.counts))

    def total(self, name: str) -> int:
        """Return the sum of a field of `Counts`."""
        with self._lock:
            self._forget_ended()
            live: list[int] = [getattr(counts, name) for _, counts in self._gates]
            return self._ended.get(name, 0) + sum(live)

    def _forget_ended(self) -> None:
        for gate, counts in [*self._gates]:
            if gate() is None:
                self._gates.remove((gate, counts))
                for name in self._ended:
                    self._ended[name] += getattr(counts, name)


Observed = dict[str | None, ObservedCounts]
"""The counts that are exported, by name."""

_observed_globally: Observed = {}
_observed: WeakKeyDictionary[MeterProvider, Observed] = WeakKeyDictionary()


def observe_middleware(middleware: Gate, provider: MeterProvider | None = None, name: str | None = None) -> None:
    """Export the counters of `middleware` by the meters of `provider`, by default the global one.

    It may also be the gate of another door, such as `view.gate` in Flask. The metrics are those of Prometheus:
    `ratelab.requests` by `outcome`, `ratelab.delayed` and `ratelab.waiting`. With a `name`, they have the attribute
    `limiter`, for a process with several; those of the same name are added up, also after their end.
    """
    observed = _observed_globally if provider is None else _observed.setdefault(provider, {})
    is_first = not observed
    observed.setdefault(name, ObservedCounts()).add(middleware)
    if is_first:  # a meter has one instrument of a name, whose callback reads all counters
        _create_instruments(provider, observed)


def _create_instruments(provider: MeterProvider | None, observed: Observed) -> None:
    def observe_requests(_: CallbackOptions) -> Iterable[Observation]:
        return [
            Observation(counts.total(outcome), {**_limiter(name), "outcome": outcome})
            for name, counts in observed.items()
            for outcome in OUTCOMES
        ]

    def observe_delayed(_: CallbackOptions) -> Iterable[Observation]:
        return [Observation(counts.total("delayed"), _limiter(name)) for name, counts in observed.items()]

    def observe_waiting(_: CallbackOptions) -> Iterable[Observation]:
        return [Observation(counts.total("waiting"), _limiter(name)) for name, counts in observed.items()]

    meter = metrics.get_meter("ratelab", meter_provider=provider)
    meter.create_observable_counter("ratelab.requests", [observe_requests], "{request}", "Requests by outcome.")
    meter.create_observable_counter(
        "ratelab.delayed", [observe_delayed], "{request}", "Admitted requests that had to queue."
    )
    meter.create_observable_gauge("ratelab.waiting", [observe_waiting], "{request}", "Requests in the queue.")


def _limiter(name: str | None) -> dict[str, str]:
    return {} if name is None else {"limiter": name}


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
