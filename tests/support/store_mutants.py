"""Named mistakes about a store that fails, one each, that its promises must catch."""

from __future__ import annotations

from types import ModuleType

from http_mutants import Mutant
from mutate import rewritten

from ratelab.http import middleware, prometheus
from ratelab.http.asgi import quota_exceeded
from ratelab.http.middleware import Guard, RateLimitMiddleware
from ratelab.stores import circuit_breaker
from ratelab.stores.circuit_breaker import Breaker
from ratelab.stores.resilient import ResilientLimiter


def _mutant(owner: type | ModuleType, attribute: str, right: str, wrong: str) -> Mutant:
    return Mutant(owner, attribute, rewritten(getattr(owner, attribute), right, wrong))


def _hit(right: str, wrong: str) -> Mutant:
    return _mutant(ResilientLimiter, "hit", right, wrong)


def _ask(right: str, wrong: str) -> Mutant:
    return _mutant(ResilientLimiter, "_ask", right, wrong)


def _without(right: str, wrong: str) -> Mutant:
    return _mutant(ResilientLimiter, "_without_store", right, wrong)


def _failed(right: str, wrong: str) -> Mutant:
    return _mutant(Breaker, "failed", right, wrong)


def _succeeded(right: str, wrong: str) -> Mutant:
    return _mutant(Breaker, "succeeded", right, wrong)


def _begin(right: str, wrong: str) -> Mutant:
    return _mutant(Breaker, "begin", right, wrong)


def _call(right: str, wrong: str) -> Mutant:
    return _mutant(RateLimitMiddleware, "__call__", right, wrong)


def _refuse(right: str, wrong: str) -> Mutant:
    return _mutant(middleware, "_unavailable", right, wrong)


OF_ANOTHER_SPELL = "if spell is not self._spell:"
WARM = 'if decision.allowed and cost and self.on_store_error == "local":'
AS_NEW = "Decision(*self.algorithm.step(self.algorithm.start(now), now, cost))"
FINISHES = "finally:\n        self._breaker.end(spell)\n    "
ANSWERED = "await answer(scope, send, *_unavailable(error))\n        return"

BREAKERS = {
    "it never opens": _failed("failures >= FAILURES", "False"),
    "it opens at once": Mutant(circuit_breaker, "FAILURES", 1),
    "a success does not begin anew": _succeeded("spell.failures or ", ""),
    "a stall is as many failures as requests": _failed(OF_ANOTHER_SPELL, "spell = self._spell\n    if False:"),
    "it never probes": _begin("now < spell.next_probe", "True"),
    "all requests probe": _begin("spell.probing or ", ""),
    "a probe follows on the other": _begin(", now + FIRST_PAUSE", ", now"),
    "probes do not back off": _failed("now + LONGEST_PAUSE", "now + FIRST_PAUSE"),
    "probes back off too far": Mutant(circuit_breaker, "LONGEST_PAUSE", 4 * circuit_breaker.LONGEST_PAUSE),
    "the first probe is at once": _failed("next_probe=now + FIRST_PAUSE", "next_probe=now"),
    "a cancelled probe blocks all others": _ask(FINISHES, ""),
    "a look asks a store that is up": _mutant(ResilientLimiter, "probe", "None if self._breaker.up else ", ""),
    "a look is charged": _mutant(ResilientLimiter, "probe", '"", 0', '"", 1'),
    "a success does not bring it back": _succeeded("self._spell = Spell()", "self._spell = self._spell"),
    "it is back with its failures": _succeeded("self._spell = Spell()", "self._spell = Spell(failures=2)"),
    "a failure is counted after the recovery": _failed(OF_ANOTHER_SPELL, "spell = self._spell\n    if False:"),
    "an old success ends the outage": _succeeded(OF_ANOTHER_SPELL, "spell = self._spell\n    if False:"),
    "a clock set back stops the probes": _mutant(ResilientLimiter, "__init__", "steady(clock)", "clock"),
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
    "a closed door is asked again at once": _without("LONGEST_PAUSE", "0"),
    "a bad cost is a failure": _hit(
        "check_cost(cost)", "if type(cost) is not int or cost < 0: raise StoreError('other', '')"
    ),
    "any exception is a failure": _ask(
        "except StoreError as error:", "except Exception as error:\n        error.kind = ''"
    ),
    "failures are one kind": _mutant(ResilientLimiter, "_failed", "error.kind]", "'other']"),
    "answers without the store are not counted": _without("self._fallbacks += 1", "pass"),
    "each failure is told": _mutant(
        ResilientLimiter, "_failed", "if self._breaker.failed(spell, self._clock()):", "if True:"
    ),
    "what the store says may be two lines": _mutant(
        ResilientLimiter, "_failed", '" ".join(str(error).split())', "str(error)"
    ),
    "what came before it was down is left out": _mutant(
        ResilientLimiter, "_failed", "not self._breaker.failing", "self._breaker.up"
    ),
    "the recovery is not told": _mutant(ResilientLimiter, "_succeeded", "since is not None", "False"),
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
