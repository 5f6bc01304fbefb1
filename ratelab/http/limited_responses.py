"""Responses of an application whose limits are dependencies, which see neither responses nor other limits."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from ratelab.http.asgi import App, Field, Message, Receive, Scope, Send
from ratelab.http.gate import Gate
from ratelab.http.headers import complete_fields, join_legacy
from ratelab.http.responses import Ruling

ADMITTED = "ratelab.admitted"
"""The entry of the scope in which limits leave their header fields, rulings, stores and denials."""

Admitted = tuple[Gate, Scope | None, Ruling | None]
"""A limit that has admitted a request, the scope with its arguments, and its ruling, unless they are the usual ones."""


class LimitedResponses:
    """ASGI middleware around an application: the part of its limits that sees the responses.

    It adds the header fields that responses lack, and refunds requests that `charge` does not charge. A request that
    one limit denies is refunded by the others, and its response has their state after that.

    At the shutdown of the application, it closes the connections of its limits to stores.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._stores: set[Any] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection: a request, a WebSocket or the lifespan."""
        if scope["type"] == "lifespan":
            try:
                await self._app(scope, receive, send)
            finally:
                while self._stores:
                    self._stores.pop().close()
            return
        if ADMITTED in scope:  # by an application in which this one is mounted
            await self._app(scope, receive, send)
            return
        added, denials = list[Field](), list[Any]()  # one denial, unless the application catches the exception
        admitted = list[Admitted]()
        scope[ADMITTED] = added, admitted, self._stores, denials

        def send_with_fields(message: Message) -> Awaitable[None]:
            if (added or admitted or denials) and message["type"] == "http.response.start":
                if denials and denials[-1].status_code == message["status"]:
                    return _send_denial(scope, admitted, denials[-1], message, send)
                present = message.get("headers", ())
                # each limit adds two fields, and one of them may add the three of `X-RateLimit-*`
                fields = join_legacy(present, added) if len(added) % 2 else [*present, *added]
                message = {**message, "headers": fields}
                for limit, _, _ in admitted:
                    if limit.refunds:
                        return _settle_and_send(scope, admitted, message, send)
                admitted.clear()
            return send(message)

        await self._app(scope, receive, send_with_fields)


async def _send_denial(scope: Scope, admitted: list[Admitted], denial: Any, message: Message, send: Send) -> None:
    """Start the response to a request that a limit has denied, with the state of the others after their refunds."""
    added: list[Field] = []
    for limit, given, ruling in admitted:
        added = join_legacy(added, await limit.withdraw(given or scope, ruling))
    admitted.clear()
    present = complete_fields(message.get("headers", ()), denial.raw_headers)
    await send({**message, "headers": join_legacy(present, added)})


async def _settle_and_send(scope: Scope, admitted: list[Admitted], message: Message, send: Send) -> None:
    """Refund a request whose status is not charged, before its response starts."""
    while admitted:
        limit, given, ruling = admitted.pop()
        if ruling is not None:
            await limit.settle(given or scope, ruling, message["status"])
    await send(message)


async def refund_all(scope: Scope, admitted: list[Admitted]) -> None:
    """Refund a connection that another limit has denied."""
    while admitted:
        limit, given, ruling = admitted.pop()
        await limit.refund_request(given or scope, ruling)
