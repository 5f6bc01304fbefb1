"""Named mistakes about a store that fails, one each, that its promises must catch."""

from __future__ import annotations

from types import ModuleType

from http_mutants import Mutant
from mutate import rewritten

from ratelab.http import middleware, prometheus
from ratelab.http.asgi import quota_exceeded
from ratelab.http.middleware import Guard, RateLimitMiddleware
from ratelab.stores import circuit_breaker
from ratelab.stores.circuit_breaker import CircuitBreaker
from ratelab.stores.resilient import ResilientLimiter


def _mutant(owner: type | ModuleType, attribute: str, right: str, wrong: str) -> Mutant:
    return Mutant(owner, attribute, rewritten(getattr(owner, attribute), right, wrong))


def _hit(right: str, wrong: str) -> Mutant:
    return _mutant(ResilientLimiter, "hit", right, wrong)


def _ask(right: str, wrong: str) -> Mutant:
    return _mutant(ResilientLimiter, "_call_store", right, wrong)


def _without(right: str, wrong: str) -> Mutant:
    return _mutant(ResilientLimiter, "_fall_back", right, wrong)


def _failed(right: str, wrong: str) -> Mutant:
    return _mutant(CircuitBreaker, "record_failure", right, wrong)


def _succeeded(right: str, wrong: str) -> Mutant:
    return _mutant(CircuitBreaker, "record_success", right, wrong)


def _begin(right: str, wrong: str) -> Mutant:
    return _mutant(CircuitBreaker, "begin", right, wrong)


def _call(right: str, wrong: str) -> Mutant:
    return _mutant(RateLimitMiddleware, "__call__", right, wrong)


def _refuse(right: str, wrong: str) -> Mutant:
    return _mutant(middleware, "_unavailable", right, wrong)


OTHER_EPOCH = "if epoch is not self._epoch:"
WARM = 'if decision.allowed and cost and self.on_store_error == "local":'
AS_NEW = "Decision(*self.policy.step(self.policy.start(now), now, cost))"
FINISHES = "finally:\n        self._breaker.finish(epoch)\n    "
ANSWERED = "await answer(scope, send, *_unavailable(error))\n        return"

BREAKERS = {
    "it never opens": _failed("failures >= MAX_FAILURES", "False"),
    "it opens at once": Mutant(circuit_breaker, "MAX_FAILURES", 1),
    "a success does not begin anew": _succeeded("epoch.failures or ", ""),
    "a stall is as many failures as requests": _failed(OTHER_EPOCH, "epoch = self._epoch\n    if False:"),
    "it never probes": _begin("now < epoch.next_probe", "True"),
    "all requests probe": _begin("epoch.probing or ", ""),
    "a probe follows on the other": _begin(", now + MIN_PROBE_INTERVAL_NS", ", now"),
    "probes do not back off": _failed("now + MAX_PROBE_INTERVAL_NS", "now + MIN_PROBE_INTERVAL_NS"),
    "probes back off too far": Mutant(
        circuit_breaker, "MAX_PROBE_INTERVAL_NS", 4 * circuit_breaker.MAX_PROBE_INTERVAL_NS
    ),
    "the first probe is at once": _failed("next_probe=now + MIN_PROBE_INTERVAL_NS", "next_probe=now"),
    "a cancelled probe blocks all others": _ask(FINISHES, ""),
    "a look asks a store that is up": _mutant(ResilientLimiter, "probe", "None if self._breaker.up else ", ""),
    "a look is charged": _mutant(ResilientLimiter, "probe", '"", 0', '"", 1'),
    "a success does not bring it back": _succeeded("self._epoch = Epoch()", "self._epoch = self._epoch"),
    "it is back with its failures": _succeeded("self._epoch = Epoch()", "self._epoch = Epoch(failures=2)"),
    "a failure is counted after the recovery": _failed(OTHER_EPOCH, "epoch = self._epoch\n    if False:"),
    "an old success ends the outage": _succeeded(OTHER_EPOCH, "epoch = self._epoch\n    if False:"),
    "a clock set back stops the probes": _mutant(ResilientLimiter, "__init__", "monotonic(clock)", "clock"),
}
"""Mistakes about when the store is asked."""

FALLBACKS = {
    "the local limiter is not kept warm": _hit(WARM, "if False:"),
    "what the store denies is charged": _hit(WARM, WARM.replace("decision.allowed and ", "")),
    "every door is kept warm": _hit(WARM, "if decision.allowed and cost:"),
    "local lets all through": _without('self.on_store_error == "local"', "False"),
    "an open door has no burst": _without(AS_NEW, "Decision(True, 0, 0, 0, 0)"),
    "an open door denies": _without(AS_NEW, "self._local.hit(key, cost)"),
    "a closed door lets through": _without("raise error or", f"now = self._clock(); return {AS_NEW} or"),
    "a closed door says nothing of why": _without("error or ", ""),
    "a closed door is asked again at once": _without("MAX_PROBE_INTERVAL_NS", "0"),
    "a bad cost is a failure": _hit(
        "check_cost(cost)", "if type(cost) is not int or cost < 0: raise StoreError('other', '')"
    ),
    "any exception is a failure": _ask(
        "except StoreError as error:", "except Exception as error:\n        error.kind = ''"
    ),
    "failures are one kind": _mutant(ResilientLimiter, "_record_failure", "error.kind]", "'other']"),
    "answers without the store are not counted": _without("self._fallbacks += 1", "pass"),
    "each failure is told": _mutant(
        ResilientLimiter, "_record_failure", "if self._breaker.record_failure(epoch, self._clock()):", "if True:"
    ),
    "what the store says may be two lines": _mutant(
        ResilientLimiter, "_record_failure", '" ".join(str(error).split())', "str(error)"
    ),
    "what came before it was down is left out": _mutant(
        ResilientLimiter, "_record_failure", "not self._breaker.failing", "self._breaker.up"
    ),
    "the recovery is not told": _mutant(ResilientLimiter, "_record_success", "since is not None", "False"),
}
"""Mistakes about what is decided without it, and told of it."""

ANSWERS = {
    "a failure is a 429": _refuse("503", "429"),
    "a wait of a failure is rounded down": _refuse("seconds(error.retry_after_ns)", "error.retry_after_ns // 10**9"),
    "a failure may be asked again at once": _refuse(
        "max(1, seconds(error.retry_after_ns))", "seconds(error.retry_after_ns)"
    ),
    "a failure has no Retry-After": _refuse('(b"retry-after", b"%d" % wait)', ""),
    "a failure may be kept by caches": _refuse("*PROBLEM_HEADERS", "PROBLEM_HEADERS[0]"),
    "a failure tells its text": _refuse("reduced_capacity(wait)", "problem(503, str(error))"),
    "a failure violates a policy": Mutant(middleware, "reduced_capacity", lambda wait: quota_exceeded("", wait)),
    "a failure lets through": _call(ANSWERED, "decision = Decision(True, 0, 0, 0, 0)"),
    "a failure is not counted": _call("counts.unavailable += 1", "pass"),
    "a failure is counted as a denial": _call("counts.unavailable += 1", "counts.denied += 1"),
    "a failure is not answered": _call("except StoreError", "except ZeroDivisionError"),
    "who blocks is let in": _mutant(Guard, "of", 'getattr(limiter, "blocking", False)', "False"),
    "a store that is down is told up": _mutant(prometheus, "_collect_store_health", "int(health.up)", "1"),
    "metrics leave the unavailable out": _mutant(
        prometheus.CounterCollector, "collect", '"unavailable": counts.unavailable,', ""
    ),
}
"""Mistakes in what a client and an operator are told."""
