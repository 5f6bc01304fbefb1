"""Values of policy files: names, keys, costs, routes and headers."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import PlainValidator

from ratelab.documents import Example
from ratelab.errors import InputError, short_repr
from ratelab.policies.routes import parse_route

VERSION = "1"
"""The version of the format."""

KEYS = ("ip", "header:NAME", "account", "all")
"""The values of `key`."""

COUNTED_COSTS = ("requests", "bytes")
"""The costs that the middleware can count without functions of the application."""

FORGEABLE_HEADERS = ("x-forwarded-for", "forwarded")
"""Headers that never identify a client: proxies add to a list of addresses that the client may begin."""

_NO_COSTS = ("true", "false", "yes", "no", "on", "off", "null", "none", "inf", "infinity", "nan")  # words of YAML

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:/-]{0,99}")


def check_name(value: str) -> str:
    """Return the name of a policy, plan or cost, which header fields and metrics can hold."""
    if type(value) is not str or not _NAME.fullmatch(value):
        rule = "expected a name of at most 100 letters, digits, spaces and ._:/-, a letter or digit first"
        raise InputError(f"{rule}, got {short_repr(value)}")
    return value


def check_version(value: str) -> str:
    """Return the version of the format."""
    if value != VERSION:
        rule = f"expected {VERSION}, the version of this format"
        raise InputError(f"{rule}, got {short_repr(value)}: write version: {VERSION}")
    return value


def check_cost(value: str) -> str:
    """Return the name of a cost; reject numbers, other values of YAML, and other spellings of `COUNTED_COSTS`."""
    meant = next((cost for cost in COUNTED_COSTS if check_name(value).lower() in (cost, cost.removesuffix("s"))), value)
    if meant != value:
        raise InputError(f"unknown cost {short_repr(value)}; did you mean {meant!r}?")
    if not value[0].isalpha() or value.lower() in _NO_COSTS:
        rule = "expected requests, bytes or a name, a letter first and not a word such as true"
        raise InputError(f"{rule}, got {short_repr(value)}: a number is the cost= of RateLimitMiddleware")
    return value


def check_header(value: str) -> str:
    """Return the name of a header."""
    if type(value) is not str or not _HEADER_NAME.fullmatch(value):
        raise InputError(f"expected the name of a header, such as X-Plan, got {short_repr(value)}")
    return value


def check_identifying_header(value: str) -> str:
    """Return the name of a header that identifies a client or an account."""
    if check_header(value).lower() in FORGEABLE_HEADERS:
        raise InputError(f"{value} can be forged by clients: use the key ip, and name the trusted proxies")
    return value


def check_key(value: str) -> str:
    """Return the kind of clients that a policy counts."""
    kind, _, name = value.partition(":") if type(value) is str else ("", "", "")
    if (value not in KEYS and not (kind == "header" and _HEADER_NAME.fullmatch(name))) or value == "header:NAME":
        raise InputError(f"expected one of {', '.join(KEYS)}, got {short_repr(value)}")
    if kind == "header":
        check_identifying_header(name)
    return value


def check_match(value: str) -> str:
    """Return a route."""
    parse_route(value)
    return value


Name = Annotated[str, PlainValidator(check_name)]
CostName = Annotated[str, PlainValidator(check_cost)]
HeaderName = Annotated[str, PlainValidator(check_header), Example("X-Plan")]
IdentifyingHeaderName = Annotated[str, PlainValidator(check_identifying_header), Example("X-Account")]
KeyName = Annotated[str, PlainValidator(check_key)]
RouteText = Annotated[str, PlainValidator(check_match)]
Version = Annotated[str, PlainValidator(check_version), Example(VERSION)]
