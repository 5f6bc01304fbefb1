"""Named bugs in client identification, responses and the middleware, each of which a test must catch."""

from __future__ import annotations

from mutate import Mutant, mutate, rewritten

from ratelab.http import (
    addresses,
    delayed_admission,
    gate,
    guard,
    headers,
    identity,
    middleware,
    responses,
    scope_functions,
)
from ratelab.http.addresses import Proxies
from ratelab.http.asgi import Scope, Send
from ratelab.http.guard import GuardFinder
from ratelab.http.headers import HeaderWriter
from ratelab.http.identity import Identity
from ratelab.http.middleware import RateLimitMiddleware
from ratelab.http.responses import PROBLEM_HEADERS
from ratelab.quota import NS_PER_S


def _mutate_value(right: str, wrong: str) -> Mutant:
    return mutate(Identity, "_find_by_value", right, wrong)


def _mutate_forwarded(right: str, wrong: str) -> Mutant:
    return Mutant(identity, "read_forwarded", rewritten(addresses.read_forwarded, right, wrong))


def _mutate_call(right: str, wrong: str) -> Mutant:
    return mutate(RateLimitMiddleware, "__call__", right, wrong)


def _mutate_delay(right: str, wrong: str) -> Mutant:
    return Mutant(delayed_admission, "delay_request", rewritten(delayed_admission.delay_request, right, wrong))


def _mutate_guard(right: str, wrong: str) -> Mutant:
    return Mutant(gate, "create_guard", rewritten(guard.create_guard, right, wrong))


async def _send_nothing(scope: Scope, send: Send) -> None: ...


UNLIMITED = "await app(scope, receive, send)\n        return"
CHARGE = 'scope["type"] == "http" and guard.decide(self._find_key(scope), 1)'
IDENTIFY = "key: str | None = None"
DENY = "return\n    if delay_ns"
COPY = "message = dict(message)"
ADD = 'message["headers"] = fields + headers if type(fields) is list else [*fields, *headers]'

IDENTITIES = {
    "the leftmost address is taken": _mutate_forwarded("reversed(entries)", "iter(entries)"),
    "only the last of several lines is read": _mutate_forwarded('b",".join(lines)', 'b"".join([*lines][-1:])'),
    "whitespace around an address is kept": _mutate_forwarded('.strip(b" \\t")', ""),
    "any forwarding header is read": mutate(
        Identity, "_read_forwarded", "if name == wanted", 'if name in (wanted, b"x-real-ip")'
    ),
    "empty elements count": _mutate_forwarded("if text:", "if True:"),
    "every peer is trusted": mutate(Identity, "_find_by_address", "elif _peer_host(scope) in self._proxies:", "else:"),
    "one hop too many is trusted": mutate(Identity, "_find_by_address", "self._hops - 1", "self._hops"),
    "entries that are not addresses are skipped": mutate(Proxies, "first_untrusted", "is None or", "is not None and"),
    "a mapped address is not unwrapped": Mutant(
        identity, "parse_address", rewritten(addresses.parse_address, "address.ipv4_mapped or ", "")
    ),
    "a proxy's mapped address is not unwrapped": mutate(addresses, "parse_address", "address.ipv4_mapped or ", ""),
    "a mapped network is not unwrapped": mutate(addresses, "_parse_network", "network.subnet_of(_MAPPED)", "False"),
    "a trusted network may cover all addresses": mutate(addresses, "_parse_network", "network.prefixlen == 0", "False"),
    "each address of a /64 is a client": Mutant(identity, "client_bytes", lambda address, _: address.packed),
    "neighboring /64 networks are one client": Mutant(
        identity, "client_bytes", rewritten(addresses.client_bytes, "128 - ipv6_prefix", "72")
    ),
    "all clients behind NAT64 are one": Mutant(
        identity, "client_bytes", rewritten(addresses.client_bytes, "address in _NAT64", "False")
    ),
    "the prefix of an IPv6 network is ignored": mutate(Identity, "_key_of_address", ", self._ipv6_prefix", ""),
    "a header with an address is a plain key": Mutant(identity, "is_address_header", lambda _: False),
    "whitespace around a value is kept": mutate(identity, "read_header", '.strip(b" \\t")', ""),
    "the case of a value is ignored": mutate(identity, "read_header", ".strip(", ".lower().strip("),
    "the first of two values counts": mutate(identity, "read_header", "len(values) > 1", "False"),
    "a value may have any length": _mutate_value(" <= MAX_HEADER_VALUE_BYTES", ""),
    "the longest value is ignored": _mutate_value("<= MAX_HEADER_VALUE_BYTES", "< MAX_HEADER_VALUE_BYTES"),
    "an empty value is a client": _mutate_value("0 < len", "0 <= len"),
    "a request without a value is unlimited": _mutate_value("self.find_address(scope)", "os.urandom(16).hex()"),
    "the name and the value are ambiguous": _mutate_value("%s:%s", "%s|%s"),
    "the same value of all headers is one client": _mutate_value("(self._kind, value)", "(b'', value)"),
    "the hash has no key": mutate(Identity, "__init__", ", key=_derive_hash_key(secret)", ""),
    "a key reveals the client": mutate(Identity, "_hash", "state.hexdigest()", "name.decode('latin-1')"),
}
"""Bugs in the identification of clients."""

RESPONSES = {
    "a wait is rounded down": _mutate_guard("-(-retry_after_ns // NS_PER_S)", "retry_after_ns // NS_PER_S"),
    "a wait is a second too long": _mutate_guard("-(-retry_after_ns // NS_PER_S)", "retry_after_ns // NS_PER_S + 1"),
    "the wait of a decision is rounded down": mutate(
        HeaderWriter, "format_decision", "ceil_seconds(retry_after_ns)", "retry_after_ns // NS_PER_S"
    ),
    "a reset is rounded down": _mutate_call("reset_after_ns + NS_PER_S_LESS_ONE", "reset_after_ns"),
    "the reset of a decision is rounded down": mutate(
        HeaderWriter, "format_decision", "ceil_seconds(reset_after_ns)", "reset_after_ns // NS_PER_S"
    ),
    "a denied request has quota left": _mutate_guard("format(0, wait", "format(1, wait"),
    "the decision of a denied request has quota left": mutate(
        HeaderWriter, "format_decision", "(0, ceil_seconds", "(remaining, ceil_seconds"
    ),
    "an infinite wait is sent": mutate(
        HeaderWriter, "format_decision", "allowed or retry_after_ns == NEVER", "allowed"
    ),
    "a denial has no Retry-After": mutate(HeaderWriter, "_format", "if denied:", "if False:"),
    "huge numbers are not clamped": mutate(headers, "format_state", "min(remaining, MAX_FIELD_INTEGER)", "remaining"),
    "headers are cached without a bound": mutate(HeaderWriter, "format", "self.cache.clear()", "pass"),
    "the window of a policy is rounded down": Mutant(headers, "ceil_seconds", lambda window: window // NS_PER_S),
    "an epoch is rounded down": mutate(
        headers, "format_legacy", "ceil_seconds(default_clocks.wall())", "default_clocks.wall() // NS_PER_S"
    ),
    "an epoch is cached": mutate(HeaderWriter, "format", 'denied or self._legacy == "epoch"', "denied"),
    "the epoch of a denial is cached": _mutate_guard('deny_for if legacy == "epoch"', "deny_for if False"),
    "quotes are not escaped": mutate(headers, "format_string", ".replace('\"', '\\\\\"')", ""),
    "a cache may store a denial": Mutant(responses, "PROBLEM_HEADERS", PROBLEM_HEADERS[:1]),
    "a denial has no headers": _mutate_guard("429, writer.format(0, wait, True)", "429, ()"),
    "the text of a denial has another wait": _mutate_guard(
        "quota_exceeded((policy_name,), wait)", "quota_exceeded((policy_name,), wait - 1)"
    ),
    "a cost above the burst is answered 429": _mutate_guard("retry_after_ns != NEVER", "True"),
    "the response to HEAD has a body": _mutate_call('b"" if scope["method"] == "HEAD" else body', "body"),
}
"""Bugs in the responses to clients."""

PASSAGES = {
    "the application's message is changed": _mutate_call(COPY, "pass"),
    "the application's list is changed": _mutate_call(ADD, 'message["headers"] += headers'),
    "an application must send headers": _mutate_call(
        'message["type"] == "http.response.start":', '"headers" in message:'
    ),
    "a client that leaves the queue gets no response": Mutant(middleware, "send_dropped", _send_nothing),
    "a coroutine function is accepted": Mutant(scope_functions, "is_deferred", lambda _: False),
    "a mount point is part of the path": Mutant(scope_functions, "route_path", lambda scope: scope["path"]),
    "two limiters send two sets of fields": Mutant(responses, "join_legacy", lambda fields, added: [*fields, *added]),
    "a delay is not slept": _mutate_call("if delay_ns and cost:", "if False:"),
    "a delay is cut short": _mutate_delay("-(-delay_ns // NS_PER_MS)", "delay_ns // NS_PER_MS"),
    "exempt requests are charged": _mutate_call(UNLIMITED, f"{CHARGE}\n        {UNLIMITED}"),
    "exempt requests are limited": _mutate_call("exempt(scope)", "False"),
    "any true value exempts": _mutate_call('exempted is True or check_bool("exempt", exempted)', "True"),
    "a request that names two clients is charged": _mutate_call(IDENTIFY, f"guard.decide('', 1)\n    {IDENTIFY}"),
    "other protocols are limited": _mutate_call('scope["type"] != "http" or', ""),
    "a denied request reaches the application": _mutate_call(DENY, DENY.replace("return", "pass")),
    "the first limiter chosen decides all requests": mutate(
        GuardFinder, "find", "self._guards.get(id(limiter))", "next(iter(self._guards.values()), None)"
    ),
    "an overridden hit is not called": mutate(guard, "_row_function", "is MemoryLimiter.hit", "is not None"),
}
"""Bugs in the requests and messages that pass through the middleware."""
