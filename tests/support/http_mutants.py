"""Named mistakes in what stands before an application, one each, that its promises must catch."""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

from mutate import rewritten

from ratelab.http import addresses, headers, identity, middleware
from ratelab.http.asgi import PROBLEM_HEADERS
from ratelab.http.headers import SECOND, HeaderWriter
from ratelab.http.identity import Identity
from ratelab.http.middleware import Guard, RateLimitMiddleware


class Mutant(NamedTuple):
    """A mistake, and where it stands in for what is right."""

    owner: type | ModuleType
    attribute: str
    made: object


def _mutant(owner: type | ModuleType, attribute: str, right: str, wrong: str) -> Mutant:
    return Mutant(owner, attribute, rewritten(getattr(owner, attribute), right, wrong))


def _key(right: str, wrong: str) -> Mutant:
    return _mutant(Identity, "_by_value", right, wrong)


def _call(right: str, wrong: str) -> Mutant:
    return _mutant(RateLimitMiddleware, "__call__", right, wrong)


def _add(right: str, wrong: str) -> Mutant:
    return _mutant(middleware, "_adding", right, wrong)


def _guard(right: str, wrong: str) -> Mutant:
    return _mutant(Guard, "of", right, wrong)


PASSES = "await app(scope, receive, send)\n        return"
CHARGES = 'scope["type"] == "http" and guard.hit(identify(scope), 1)'
IDENTIFIES = "try:\n        key ="
DENIES = "return\n    if delay_ns"
COPIES = "message = dict(message)\n"
ADDS = 'message["headers"] = [*message.get("headers", ()), *fields]'

IDENTITIES = {
    "the leftmost address is taken": _mutant(identity, "_forwarded", "reversed(entries)", "iter(entries)"),
    "one line of several is read": _mutant(identity, "_forwarded", 'b",".join(lines)', 'b"".join(lines[-1:])'),
    "blanks round an address count": _mutant(identity, "_forwarded", '.strip(b" \\t")', ""),
    "any header that forwards is read": _mutant(
        identity, "_forwarded", '== b"x-forwarded-for"', 'in (b"x-forwarded-for", b"x-real-ip")'
    ),
    "empty elements count": _mutant(identity, "_forwarded", "if text:", "if True:"),
    "anybody is believed": _mutant(Identity, "_by_address", "elif host in self._proxies:", "else:"),
    "a hop too far": _mutant(Identity, "_by_address", "self._hops - 1", "self._hops"),
    "garbage is stepped over": _mutant(Identity, "_first_untrusted", "is None or", "is not None and"),
    "a mapped address is not unwrapped": Mutant(
        identity, "parse_address", rewritten(addresses.parse_address, "address.ipv4_mapped or ", "")
    ),
    "a proxy's mapped address is not unwrapped": _mutant(addresses, "parse_address", "address.ipv4_mapped or ", ""),
    "a mapped network is not unwrapped": _mutant(addresses, "_parse_network", "network.subnet_of(_MAPPED)", "False"),
    "everybody may be a proxy": _mutant(addresses, "_parse_network", "network.prefixlen == 0", "False"),
    "each address of a site is a client": Mutant(
        identity, "client_bytes", rewritten(addresses.client_bytes, "packed[:8]", "packed")
    ),
    "neighbouring sites are one client": Mutant(
        identity, "client_bytes", rewritten(addresses.client_bytes, "packed[:8]", "packed[:7]")
    ),
    "all behind NAT64 are one client": Mutant(
        identity, "client_bytes", rewritten(addresses.client_bytes, "address in _NAT64", "False")
    ),
    "blanks round a value make another key": _mutant(identity, "_only_value", '.strip(b" \\t")', ""),
    "the case of a value is lost": _mutant(identity, "_only_value", ".strip(", ".lower().strip("),
    "the first of two values counts": _mutant(identity, "_only_value", "len(values) > 1", "False"),
    "an over-long value is a key": _key(" <= MAX_HEADER_VALUE_BYTES", ""),
    "the longest value is no key": _key("<= MAX_HEADER_VALUE_BYTES", "< MAX_HEADER_VALUE_BYTES"),
    "an empty value is a key": _key("0 < len", "0 <= len"),
    "a value of no use is unlimited": _key("self._by_address(scope)", "os.urandom(16).hex()"),
    "names run into values": _key("%s:%s", "%s|%s"),
    "all headers share their values": _key("(self._kind, value)", "(b'', value)"),
    "the hash has no key": _mutant(Identity, "__init__", ", key=_secret_key(secret)", ""),
    "a key says who it is": _mutant(Identity, "_hash", "state.hexdigest()", "name.decode('latin-1')"),
}
"""Mistakes about who the client is."""

ANSWERS = {
    "a wait is rounded down": Mutant(middleware, "seconds", lambda wait: wait // SECOND),
    "a wait is a second too long": Mutant(middleware, "seconds", lambda wait: wait // SECOND + 1),
    "a wait told alone is rounded down": _mutant(
        HeaderWriter, "of", "seconds(retry_after_ns)", "retry_after_ns // SECOND"
    ),
    "a reset is rounded down": _call("-(-reset_after_ns // SECOND)", "reset_after_ns // SECOND"),
    "a reset told alone is rounded down": _mutant(
        HeaderWriter, "of", "seconds(reset_after_ns)", "reset_after_ns // SECOND"
    ),
    "a denied request has something left": _guard("written(0, wait", "written(1, wait"),
    "a denied request told alone has something left": _mutant(HeaderWriter, "of", "(0, seconds", "(remaining, seconds"),
    "a wait that never ends is told": _mutant(HeaderWriter, "of", "allowed or retry_after_ns == NEVER", "allowed"),
    "a denial has no Retry-After": _mutant(HeaderWriter, "_write", "if denied:", "if False:"),
    "huge numbers are told whole": _mutant(HeaderWriter, "_write", "min(remaining, _LARGEST)", "remaining"),
    "fields are kept for ever": Mutant(headers, "_MOST_KEPT", None),
    "a policy's window is rounded down": Mutant(headers, "seconds", lambda window: window // SECOND),
    "an epoch is rounded down": _mutant(HeaderWriter, "_with_epoch", "ceil(", "int("),
    "an epoch is remembered": _mutant(
        HeaderWriter, "__init__", "else self._with_epoch", "else lru_cache(self._with_epoch)"
    ),
    "a denial's epoch is remembered": _guard('legacy == "epoch"', "False"),
    "quotes are not escaped": _mutant(headers, "_string", ".replace('\"', '\\\\\"')", ""),
    "a denial may be kept by caches": Mutant(middleware, "PROBLEM_HEADERS", PROBLEM_HEADERS[:1]),
    "a denial has no fields": _guard("429, fields.written(0, wait, True)", "429, ()"),
    "a denial's text tells another wait": _guard("quota_exceeded(policy, wait)", "quota_exceeded(policy, wait - 1)"),
    "a denial of a cost above the burst is a 429": _guard("decision.retry_after_ns != NEVER", "True"),
    "HEAD is answered with a body": _call('b"" if scope["method"] == "HEAD" else body', "body"),
}
"""Mistakes in what a client is told."""

PASSAGES = {
    "the application's message is changed": _add(COPIES, "pass\n"),
    "the application's list is changed": _add(ADDS, 'message["headers"] += fields'),
    "an application must send fields": _add('response.start":', 'response.start" and "headers" in message:'),
    "a delay is not slept": _call("if delay_ns and price:", "if False:"),
    "a delay is cut short": _mutant(
        middleware, "wait_turn", "-(-delay_ns // _MILLISECOND)", "delay_ns // _MILLISECOND"
    ),
    "exempt requests are charged": _call(PASSES, f"{CHARGES}\n        {PASSES}"),
    "exempt requests are limited": _call("exempt(scope)", "False"),
    "two names are charged before they are refused": _call(IDENTIFIES, f"guard.hit('', 1)\n    {IDENTIFIES}"),
    "other protocols are limited": _call('scope["type"] != "http" or', ""),
    "a denied request reaches the application": _call(DENIES, DENIES.replace("return", "pass")),
    "the first limiter chosen is taken for all": _mutant(
        RateLimitMiddleware, "_guard_of", "self._guards.get(id(limiter))", "next(iter(self._guards.values()), None)"
    ),
}
"""Mistakes about what passes through."""
