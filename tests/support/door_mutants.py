"""Named bugs in the doors for WSGI and Flask, each of which a test must catch."""

from __future__ import annotations

from mutate import Mutant, mutate, rewritten

from ratelab import flask, wsgi
from ratelab.http import doors, environ, gate
from ratelab.http.doors import BlockingGate
from ratelab.http.gate import Gate
from ratelab.http.guard import Guard
from ratelab.http.identity import Identity
from ratelab.wsgi import RateLimitMiddleware


def _mutate_call(right: str, wrong: str) -> Mutant:
    return mutate(RateLimitMiddleware, "__call__", right, wrong)


def _mutate_admission(right: str, wrong: str) -> Mutant:
    return mutate(BlockingGate, "admit_from", right, wrong)


def _mutate_charged(attribute: str, right: str, wrong: str) -> Mutant:
    return mutate(wsgi._ChargedResponse, attribute, right, wrong)


OTHER_FIELDS = "self.text_fields.get((remaining, seconds))", "next(iter(self.text_fields.values()), None)"

MUTANTS = {
    # the middleware
    "the fields of the application change": _mutate_call("[*headers, *fields]", "headers.__iadd__(fields)"),
    "an error cannot replace a response": _mutate_call("exc_info)", "None)"),
    "a known peer is not delayed": _mutate_admission("and not (delay_ns and cost)", ""),
    "a known peer is not denied": _mutate_admission("if allowed and not (", "if not ("),
    "fields of another time are sent": mutate(Guard, "format_text", *OTHER_FIELDS),
    "a denied request reaches the application": _mutate_call("denial is not None", "False"),
    "a denied request is not counted": _mutate_admission("self.counts.denied += 1", "pass"),
    "an offender is not listed": _mutate_admission("self.offenders.add(key)", "pass"),
    "the response to HEAD has a body": _mutate_admission('b"" if method == "HEAD" else body', "body"),
    "exempt requests are limited": _mutate_admission("self._exempts is not None", "False"),
    "any true value exempts": _mutate_admission(
        'check_bool("exempt", self._exempts(subject))', "self._exempts(subject)"
    ),
    "on_denied is not asked": _mutate_admission("or self._on_denied is not None", ""),
    "the denial of another time is sent": mutate(Guard, "deny_text", "-(-retry_after_ns // NS_PER_S)", "0"),
    "the text of a function may have any length": mutate(
        Identity, "find_named", "0 < len(value) <= MAX_HEADER_VALUE_BYTES", "value"
    ),
    "the body is wrapped": mutate(RateLimitMiddleware, "_pass_on", "self._charge is None", "False"),
    "two limiters send two sets of fields": mutate(
        RateLimitMiddleware, "_start_with_fields", "if self.writes_legacy", "if False"
    ),
    "field names of the application are changed": Mutant(
        wsgi, "merge_fields", rewritten(doors.merge_fields, "if not any(", "if False and any(")
    ),
    # refunds
    "the first status counts": _mutate_charged(
        "_start_response", "int(status[:3])", "int(status[:3]); self._settle_once()"
    ),
    "an empty part starts the response": _mutate_charged("__next__", "if part:", "if True:"),
    "a failure counts as its first status": _mutate_charged("_fail", "self._status = 500", "pass"),
    "a file is wrapped": _mutate_charged("respond", "isinstance(body, wrapper)", "False"),
    "a body is not closed": _mutate_charged("close", "self._body.close()", "pass"),
    "an unread body is never settled": _mutate_charged("close", "self._settle_once()", "pass"),
    "a request is settled twice": _mutate_charged("_settle_once", "self._settled = True", "pass"),
    # delays
    "a delay has no bound": mutate(Gate, "bound_delay", "ruling.delay_ns <= self._max_delay_ns", "True"),
    "a delay above the bound stays charged": mutate(Gate, "_rule_decided", "await refund(limiter, key, cost)", "pass"),
    "a delay is not slept": mutate(BlockingGate, "_hold", "time.sleep(_round_up(ruling.delay_ns))", "pass"),
    "an interrupted delay is not counted": mutate(doors, "_count_delay", "counts.dropped += 1", "pass"),
    # peers and headers
    "joined headers are one client": mutate(environ, "_split", 'value.split(",", 1)', "(value,)"),
    "commas are never usual": mutate(environ, "_split", "_WITH_COMMAS.match(name)", "False"),
    "a replaced peer goes unnoticed": mutate(environ, "_is_replaced", "return any(", "return not any("),
    "Werkzeug's peer of the socket is not looked at": mutate(
        environ, "_is_replaced", "isinstance(original, dict)", "False"
    ),
    "a local peer counts as replaced": mutate(environ, "_is_replaced", 'or host.startswith("127.")', ""),
    "Waitress's Unix socket is a host": mutate(environ, "_read_peer", 'host == "localhost"', "False"),
    "a mount point is part of the path": mutate(environ.EnvironScope, "__missing__", 'name == "root_path"', "False"),
    "a function of an identity takes the scope": mutate(gate, "_adapt_identity", "adapt(identity.key)", "identity.key"),
    # Flask
    "a known client of a view is not denied": mutate(BlockingGate, "admit_from", "if allowed and not (", "if not ("),
    "a known client of a view is not delayed": mutate(BlockingGate, "admit_from", "and not (delay_ns and cost)", ""),
    "fields of another client are sent": mutate(Guard, "format_text", *OTHER_FIELDS),
    "an error handler's response lacks the fields": mutate(
        flask, "_complete", "value not in response.headers.getlist(name)", "False"
    ),
    "the default response has its fields twice": mutate(
        flask, "_complete", "value not in response.headers.getlist(name)", "True"
    ),
    "an error handler's own wait is replaced": mutate(
        flask, "_complete", "response.headers.setdefault", "response.headers.set"
    ),
    "a denial without a body has no length": mutate(flask, "_create_response", "[body]", "body"),
    "on_denied is never asked": mutate(flask, "_admit", "or on_denied is None", "or True"),
    "a denied request has no decision in g": mutate(flask, "_admit", "g.ratelimit =", "_ ="),
}
