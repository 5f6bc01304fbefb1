"""Transports of httpx that pace requests."""

from __future__ import annotations

from collections.abc import Callable

import httpx

from ratelab.pacing.pacer import Pacer
from ratelab.pacing.retries import check_retries, may_resend

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
        self._transport = httpx.HTTPTransport() if transport is None else transport
        self.pacer = Pacer() if pacer is None else pacer
        self._key, self._retries = key, check_retries(retries)

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
        self._transport = httpx.AsyncHTTPTransport() if transport is None else transport
        self.pacer = Pacer() if pacer is None else pacer
        self._key, self._retries = key, check_retries(retries)

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


def _in_memory(request: httpx.Request) -> bool:
    return isinstance(request.stream, httpx.ByteStream)
