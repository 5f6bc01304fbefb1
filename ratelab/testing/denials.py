"""Assertion that a number of calls is admitted, and the next one denied."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any

from ratelab.errors import InputError, RateLimitExceeded, short_repr

TOO_MANY_REQUESTS = 429

MIN_FAILURE = 400
"""The lowest status of a response that reports a failure."""

RATE_LIMIT_FIELDS = ("ratelimit", "retry-after", "x-ratelimit", "x-rate-limit")
"""How the names of the header fields begin that a message shows."""


def assert_limited(call: Callable[[], Any], after: int, status: int | None = None) -> Any:
    """Call `call()` `after` times, each of which must be admitted, and once more, which must be denied.

    Return the denial: a `Decision` or ticket that is not allowed, a response of status 429 from `requests`, `httpx`,
    `aiohttp` or a test client, or the `RateLimitExceeded` that was raised. An admitted response has the status `status`
    if it is given, as that of a failed login, and otherwise one below 400. Any other result of a call counts as
    admitted. If `call` returns an awaitable, so does this function: `await assert_limited(...)`.

    Raises `AssertionError` with the number and result of the call that differs. Other exceptions of calls propagate.
    """
    __tracebackhide__ = True
    if not callable(call):
        raise InputError(f"call must be a function of no arguments, got {short_repr(call)}: write lambda: ...")
    if type(after) is not int or after < 0:
        raise InputError(f"after must be a whole number >= 0, got {short_repr(after)}")
    for number in range(1, after + 2):
        try:
            result = call()
        except RateLimitExceeded as denial:
            result = denial
        if isawaitable(result):
            return _await_rest(result, call, after, status)
        _check_call(number, result, after, status)
    return result


async def _await_rest(result: Awaitable[Any], call: Callable[[], Any], after: int, status: int | None) -> Any:
    """Do the same for an asynchronous `call`, whose first result is `result`."""
    __tracebackhide__ = True
    for number in range(1, after + 2):
        try:
            returned = await (result if number == 1 else call())
        except RateLimitExceeded as denial:
            returned = denial
        _check_call(number, returned, after, status)
    return returned


def _check_call(number: int, result: Any, after: int, status: int | None) -> None:
    __tracebackhide__ = True
    code = _find_status(result)
    denied = isinstance(result, RateLimitExceeded) or code == TOO_MANY_REQUESTS or _is_allowed(result) is False
    if number > after:
        if not denied:
            raise AssertionError(f"call {number} was not denied, after {after} that were admitted: {_describe(result)}")
    elif denied:
        raise AssertionError(f"call {number} of {after} was denied: {_describe(result)}")
    elif code is not None and (code >= MIN_FAILURE if status is None else code != status):
        expected = f"a status below {MIN_FAILURE}" if status is None else f"status {status}"
        raise AssertionError(f"call {number} of {after} failed: {_describe(result)}; expected {expected}")


def _is_allowed(result: Any) -> bool | None:
    """Return whether a decision or ticket is allowed; None for any other result."""
    allowed = getattr(result, "allowed", None)
    return allowed if isinstance(allowed, bool) else None


def _find_status(result: Any) -> int | None:
    """Return the status of a response; None for any other result."""
    for name in ("status_code", "status"):
        status = getattr(result, name, None)
        if isinstance(status, int):
            return int(status)
    return None


def _describe(result: Any) -> str:
    """Format a result for a message: of a response, the status and the header fields on rate limits."""
    code = _find_status(result)
    if code is None:
        return f"raised {result}" if isinstance(result, RateLimitExceeded) else f"returned {_format_result(result)}"
    headers = getattr(result, "headers", None) or {}
    # those of Flask yield pairs, not names
    fields = [f"{name}: {value}" for name, value in headers.items() if name.lower().startswith(RATE_LIMIT_FIELDS)]
    return f"status {code}, " + (", ".join(fields) or "without rate limit headers")


def _format_result(result: Any) -> str:
    return repr(result) if _is_allowed(result) is not None else f"{short_repr(result)}, which is not a decision"
