"""Transports of httpx that pace requests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx

from ratelab.errors import InputError, short_repr
from ratelab.pacing.adapters.retries import check_key, check_retries, choose_pacer, may_resend
from ratelab.pacing.pacer import Pacer

Key = Callable[[httpx.Request], str]


def host_of(request: httpx.Request) -> str:
    """Return the host and port of a request, the key unless there is another."""
    return request.url.netloc.decode("ascii")


class PacedTransport(httpx.BaseTransport):
    """Pace the requests of an `httpx.Client`: `httpx.Client(transport=PacedTransport())`.

    `transport` sends the requests. Requests with one `key`, by default their host, share a limit; several transports
    with one `pacer` share one pace. A response that denies a request, such as a 429, is returned to the caller.
    With `retries`, the request is first sent that many more times, each at its time, if its body is in memory.

    A request that would have to wait for longer than the pacer permits raises `RateLimitExceeded`. The time-outs of
    httpx start when a request is sent.
    """

    def __init__(
        self,
        transport: httpx.BaseTransport | None = None,
        pacer: Pacer | None = None,
        *,
        key: Key = host_of,
        retries: int = 0,
    ) -> None:
        self._transport = _check_transport(transport, "handle_request") or httpx.HTTPTransport()
        self.pacer = choose_pacer(pacer)
        self._key, self._retries = check_key(key), check_retries(retries)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request at its time, and learn from the response."""
        for retries_left in range(self._retries, -1, -1):
            with self.pacer.request(self._key(request)) as permit:
                response = self._transport.handle_request(request)
                advice = permit.observe(response.status_code, response.headers.multi_items())
            if not retries_left or not may_resend(advice, response.status_code, request.method, _in_memory(request)):
                break
            response.close()
        return response

    def close(self) -> None:
        """Close the transport that sends the requests."""
        self._transport.close()


class AsyncPacedTransport(httpx.AsyncBaseTransport):
    """Pace the requests of an `httpx.AsyncClient`, on asyncio or Trio, as `PacedTransport` does."""

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport | None = None,
        pacer: Pacer | None = None,
        *,
        key: Key = host_of,
        retries: int = 0,
    ) -> None:
        self._transport = _check_transport(transport, "handle_async_request") or httpx.AsyncHTTPTransport()
        self.pacer = choose_pacer(pacer)
        self._key, self._retries = check_key(key), check_retries(retries)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request at its time, and learn from the response."""
        for retries_left in range(self._retries, -1, -1):
            async with self.pacer.request(self._key(request)) as permit:
                response = await self._transport.handle_async_request(request)
                advice = permit.observe(response.status_code, response.headers.multi_items())
            if not retries_left or not may_resend(advice, response.status_code, request.method, _in_memory(request)):
                break
            await response.aclose()
        return response

    async def aclose(self) -> None:
        """Close the transport that sends the requests."""
        await self._transport.aclose()


def _check_transport(transport: Any, method: str) -> Any:
    """Return a transport, or None; raise `InputError` for one without the method that sends requests."""
    if transport is not None and not callable(getattr(transport, method, None)):
        raise InputError(f"transport must have the method {method}, got {short_repr(transport)}: pass one of httpx")
    return transport


def _in_memory(request: httpx.Request) -> bool:
    return isinstance(request.stream, httpx.ByteStream)
