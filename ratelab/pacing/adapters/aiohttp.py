"""Client middleware of aiohttp that paces requests; aiohttp 3.12 introduced these."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import ClientHandlerType, ClientRequest, ClientResponse
from aiohttp.payload import BytesPayload

from ratelab.pacing.adapters.retries import check_key, check_retries, choose_pacer, may_resend
from ratelab.pacing.pacer import Pacer


def host_of(request: ClientRequest) -> str:
    """Return the host and port of a request, the key unless there is another."""
    return request.url.host_port_subcomponent or ""


class PacedMiddleware:
    """Pace the requests of an `aiohttp.ClientSession(middlewares=[PacedMiddleware()])`.

    The arguments are those of `PacedTransport`. The time-outs of aiohttp include the wait of a request.
    """

    def __init__(
        self,
        pacer: Pacer | None = None,
        *,
        key: Callable[[ClientRequest], str] = host_of,
        retries: int = 0,
    ) -> None:
        self.pacer = choose_pacer(pacer)
        self._key, self._retries = check_key(key), check_retries(retries)

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        """Send a request at its time, and learn from the response."""
        for retries_left in range(self._retries, -1, -1):
            async with self.pacer.request(self._key(request)) as permit:
                response = await handler(request)
                advice = permit.observe(response.status, response.headers)
            in_memory = isinstance(request.body, bytes | BytesPayload)
            if not retries_left or not may_resend(advice, response.status, request.method, in_memory):
                break
            response.release()
        return response
