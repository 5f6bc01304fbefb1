"""Named bugs in the handling of a failing store, each of which a test must catch."""

from __future__ import annotations

from mutate import Mutant, mutate, rewritten

from ratelab.errors import StoreError
from ratelab.http import gate, guard, prometheus, responses
from ratelab.http.middleware import RateLimitMiddleware
from ratelab.http.responses import quota_exceeded
from ratelab.quota import NS_PER_S
from ratelab.stores import circuit_breaker, outages
from ratelab.stores.circuit_breaker import CircuitBreaker
from ratelab.stores.fallback import Fallback
from ratelab.stores.outages import Outages
from ratelab.stores.resilient import BaseResilientLimiter


def _mutate_breaker(method: str, right: str, wrong: str) -> Mutant:
    return mutate(CircuitBreaker, method, right, wrong)


def _mutate_limiter(method: str, right: str, wrong: str) -> Mutant:
    return mutate(BaseResilientLimiter, method, right, wrong)


def _mutate_outages(method: str, right: str, wrong: str) -> Mutant:
    return mutate(Outages, method, right, wrong)


def _mutate_fallback(method: str, right: str, wrong: str) -> Mutant:
    return mutate(Fallback, method, right, wrong)


def _mutate_middleware(right: str, wrong: str) -> Mutant:
    return mutate(RateLimitMiddleware, "__call__", right, wrong)


def _mutate_response(right: str, wrong: str) -> Mutant:
    return Mutant(responses, "build_unavailable", rewritten(responses.build_unavailable, right, wrong))


IF_OLD = "if not self._is_current(epoch):"
NEVER_OLD = "epoch = self.epoch\n    if False:"
CHARGE = 'if charged and _is_allowed(result) and method != "reserve" and self.on_store_error == "local":'
DECIDE_AS_NEW = "self._decide_as_new(method, key, cost, plan, **options)"
FINISH = "node.breaker.finish(epoch)"
ANSWER = "await send_unavailable(scope, send, error.retry_after_ns)\n        return"

BREAKERS = {
    "the circuit never opens": _mutate_breaker("record_failure", "failures >= MAX_FAILURES", "False"),
    "one failure opens the circuit": Mutant(circuit_breaker, "MAX_FAILURES", 1),
    "a success does not reset the count": _mutate_breaker("record_success", "epoch.failures or ", ""),
    "failures in flight count one by one": _mutate_breaker("record_failure", IF_OLD, NEVER_OLD),
    "there are no probes": _mutate_breaker("begin", "now < epoch.next_probe", "True"),
    "all requests probe": _mutate_breaker("begin", "self._find_probe() is not None or ", ""),
    "a probe follows another at once": _mutate_breaker("begin", "= now + MIN_PROBE_INTERVAL_NS", "= now"),
    "probes do not back off": _mutate_breaker(
        "record_failure", "now + MAX_PROBE_INTERVAL_NS", "now + MIN_PROBE_INTERVAL_NS"
    ),
    "probes back off too far": Mutant(circuit_breaker, "MAX_PROBE_INTERVAL_NS", 4 * NS_PER_S),
    "the first probe comes at once": _mutate_breaker(
        "record_failure", "next_probe=now + MIN_PROBE_INTERVAL_NS", "next_probe=now"
    ),
    "a probe whose error is kept blocks all others": _mutate_limiter("_call", FINISH, "pass"),
    "a probe that was interrupted blocks all others": _mutate_breaker("begin", "ref(probe)", "lambda: probe"),
    "probe calls a store that is up": _mutate_limiter("_probe", "if not node.breaker.up:", "if True:"),
    "probe charges a key": _mutate_limiter("_probe", '"", 0', '"", 1'),
    "a success does not close the circuit": _mutate_breaker("record_success", "= Epoch(), None", "= self.epoch, None"),
    "failures survive a recovery": _mutate_breaker("record_success", "= Epoch(), None", "= Epoch(failures=2), None"),
    "an old failure counts after the recovery": _mutate_breaker("record_failure", IF_OLD, NEVER_OLD),
    "an old success ends the outage": _mutate_breaker("record_success", IF_OLD, NEVER_OLD),
    "a request skips the probe": _mutate_limiter("_ask", "if self._probe_node is not None:", "if False:"),
    "all nodes share a circuit": _mutate_limiter("_ask", "self._node_of(key)", "None"),
    "reads end an outage of writes": _mutate_outages("_record_success", "wrote or", "True or"),
    "no read ends an outage": _mutate_outages("_record_success", "wrote or node.failure not in WRITE_ERRORS", "wrote"),
    "an overload counts as a failure": _mutate_outages("_record_failure", 'error.kind == "overload"', "False"),
    "a clock set back stops the probes": _mutate_limiter("__init__", "monotonic(clock)", "clock"),
}
"""Bugs in when the store is called."""

FALLBACKS = {
    "the local fallback is not charged": _mutate_limiter("_ask", CHARGE, "if False:"),
    "denied requests are charged": _mutate_limiter("_ask", CHARGE, CHARGE.replace("_is_allowed(result) and ", "")),
    "every fallback is charged": _mutate_limiter("_ask", 'self.on_store_error == "local"', "True"),
    "the local fallback admits all": _mutate_fallback("decide", 'fallback == "open"', "True"),
    "failing open ignores the burst": _mutate_fallback("decide", DECIDE_AS_NEW, "Decision(True, 0, 0, 0, 0)"),
    "failing open denies": _mutate_fallback("decide", DECIDE_AS_NEW, "self._local.hit(key, cost)"),
    "failing closed admits": _mutate_fallback("decide", "raise error", f"return {DECIDE_AS_NEW}"),
    "failing closed hides the reason": _mutate_fallback("decide", "raise error", "raise StoreError('down', '')"),
    "failing closed permits an immediate retry": Mutant(
        outages, "create_down_error", lambda: StoreError("down", "", 0)
    ),
    "an invalid cost is a failure": _mutate_limiter(
        "_ask",
        "charged = any(name_costs(self.policies, cost).values())",
        "charged = True\n    if type(cost) is not int or cost < 0: raise StoreError('other', '')",
    ),
    "any exception is a failure": _mutate_limiter(
        "_call", "except StoreError as error:", "except Exception as error:\n        error.kind = ''"
    ),
    "all failures are of one kind": _mutate_outages("_record_failure", "error.kind]", "'other']"),
    "fallback decisions are not counted": _mutate_outages("_count_fallback", "self._fallbacks += 1", "pass"),
    "every failure is logged": _mutate_outages(
        "record_failure", "if self._lock.call(self._record_failure, node, epoch, error):", "if True:"
    ),
    "an error is logged in several lines": _mutate_outages(
        "record_failure", '" ".join(str(error).split())', "str(error)"
    ),
    "failures before the circuit opened are left out": _mutate_outages(
        "_record_failure", "not node.breaker.failing", "node.breaker.up"
    ),
    "the recovery is not logged": _mutate_outages("record_success", "since is not None", "False"),
}
"""Bugs in decisions without the store, and in reports of them."""

RESPONSES = {
    "a failure is a 429": _mutate_response("503", "429"),
    "Retry-After is rounded down": _mutate_response("ceil_seconds(retry_after_ns)", "retry_after_ns // 10**9"),
    "Retry-After may be zero": _mutate_response("max(1, ceil_seconds(retry_after_ns))", "ceil_seconds(retry_after_ns)"),
    "a failure has no Retry-After": _mutate_response('(b"retry-after", b"%d" % wait)', ""),
    "a failure may be cached": Mutant(responses, "PROBLEM_HEADERS", responses.PROBLEM_HEADERS[:1]),
    "a failure reveals its message": _mutate_response("reduced_capacity(wait)", "problem(503, str(retry_after_ns))"),
    "a failure violates a policy": Mutant(responses, "reduced_capacity", lambda wait: quota_exceeded("", wait)),
    "a failure admits": _mutate_middleware(ANSWER, "row = (True, 0, 0, 0, 0)"),
    "a failure is not counted": _mutate_middleware("counts.unavailable += 1", "pass"),
    "a failure is counted as a denial": _mutate_middleware("counts.unavailable += 1", "counts.denied += 1"),
    "a failure is not answered": _mutate_middleware("except StoreError", "except ZeroDivisionError"),
    "a blocking limiter is accepted": Mutant(
        gate, "check_limiter", rewritten(guard.check_limiter, 'getattr(limiter, "blocking", False)', "False")
    ),
    "metrics report a store that is down as up": mutate(prometheus, "_collect_store_health", "int(health.up)", "1"),
    "metrics omit unavailable requests": mutate(
        prometheus.CounterCollector, "collect", "for outcome in OUTCOMES:", "for outcome in OUTCOMES[:-1]:"
    ),
}
"""Bugs in responses and metrics."""
