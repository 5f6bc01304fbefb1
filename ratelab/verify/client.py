"""A player of traffic: each request goes to a live endpoint at its own time, whatever becomes of the others."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import urlsplit

import aiohttp
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from ratelab.errors import InputError, short_repr
from ratelab.http.headers import PolicyHeader, read_policy, read_state


class Response(NamedTuple):
    """What became of one request; times are what `time.monotonic_ns` read."""

    sent_ns: int
    """Just before the request was written, or when it failed if it never was."""
    answered_ns: int
    """When the head of the answer had come, or the failure."""
    status: int
    """0 if there was no answer."""
    policy: PolicyHeader | None = None
    remaining: int | None = None
    """`r` of `RateLimit`."""
    reset: int | None = None
    """`t` of `RateLimit`, in seconds."""
    retry_after: str | None = None
    """`Retry-After` as it was written."""
    error: str = ""
    """Why there was no answer."""

    @property
    def admitted(self) -> bool:
        """Whether the request went through."""
        return 200 <= self.status < 300

    @property
    def denied(self) -> bool:
        """Whether the request was over the quota."""
        return self.status == 429


LEAD = 200_000_000
"""Nanoseconds before its time at which a request takes a connection, a new one if need be."""

_MARGIN = 1_500_000  # nanoseconds before a request's time at which the player stops sleeping: epoll counts milliseconds
_KEPT = 1.5  # seconds for which an idle connection is used again; no common server closes one so soon
_MOST_CONNECTIONS = 500  # a process may often have no more than 1024 files
_CONNECTING = 10  # seconds
_UNANSWERED = (aiohttp.ClientError, OSError)  # a timeout is an OSError


class ScheduledRequest(NamedTuple):
    """One request of a schedule."""

    at: int
    """Nanoseconds after the beginning; never falling from one request to the next."""
    value: str
    """What the header that names the client says."""


def checked_url(url: str) -> str:
    """Return `url`; raise `InputError` unless it is one of http or https with a host."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not url.isprintable() or " " in url:
        raise InputError(f"the URL must look like http://127.0.0.1:8000/ping, got {short_repr(url)}")
    return url


def reach(url: str) -> bool:
    """Open a bare connection and close it, which charges nobody; say whether the endpoint is on this machine.

    Raises `InputError` if there is no connection.
    """
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with socket.create_connection((parts.hostname, port), timeout=_CONNECTING) as connection:
            ours, theirs = connection.getsockname()[0], connection.getpeername()[0]
    except (OSError, UnicodeError) as error:
        reason = isinstance(error, OSError) and error.strerror
        raise InputError(f"cannot reach {url} ({reason or error}): start the service, or mend the URL") from None
    return ours == theirs or ip_address(theirs.partition("%")[0]).is_loopback


def play(
    url: str,
    header: str,
    requests: Sequence[ScheduledRequest],
    begin: Callable[[int], int],
    patience: float,
    on_answer: Callable[[Response], None],
) -> tuple[int, list[Response]]:
    """GET `url` for each of `requests` at its time, and return when that began and what was answered, in their order.

    `begin` is given the earliest beginning, as `time.monotonic_ns` counts, and returns the one to keep to; nothing is
    sent before its time. `header` carries the request's value. Each request has a connection waiting for it, kept
    alive from earlier ones where there are any, so that none has to wait for another's answer; those of one instant
    are written in their order. There are no redirects, retries, cookies or proxies. An answer that takes longer than
    `patience` seconds is an error. There is no probe: it would charge a client of a server that tells clients apart
    by their address, so `on_answer`, called with each answer as it comes, sees the policy in the first; what it
    raises ends the play.
    """
    thresholds = gc.get_threshold()
    gc.set_threshold(*thresholds[:2], 2**31 - 1)  # a look at all objects there are would halt the play for long
    try:
        return asyncio.run(_play(url, header, requests, begin, patience, on_answer))
    finally:
        gc.set_threshold(*thresholds)


class _ScheduleSlot:
    """A request's place in the schedule."""

    def __init__(self, due: int) -> None:
        self.due = due
        self.come = asyncio.Event()
        self.sent_ns: int | None = None


_turn: ContextVar[_ScheduleSlot] = ContextVar("turn")
"""The turn of the request that a task sends."""


async def _play(
    url: str,
    header: str,
    requests: Sequence[ScheduledRequest],
    begin: Callable[[int], int],
    patience: float,
    on_answer: Callable[[Response], None],
) -> tuple[int, list[Response]]:
    async with _session(patience + LEAD / 1e9) as session:
        origin = begin(time.monotonic_ns() + 2 * LEAD)
        turns = [_ScheduleSlot(origin + request.at) for request in requests]

        async def ask(turn: _ScheduleSlot, value: str) -> Response:
            answer = await _ask(session, url, {header: value}, turn)
            on_answer(answer)
            return answer

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_call(turns))
                asked = []
                for turn, request in zip(turns, requests, strict=True):
                    await _until(turn.due - LEAD)
                    asked.append(group.create_task(ask(turn, request.value)))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return origin, [task.result() for task in asked]


async def _call(turns: Sequence[_ScheduleSlot]) -> None:
    """Give each request its turn when it is due."""
    for turn in turns:
        await _until(turn.due)
        turn.come.set()


async def _until(moment: int) -> None:
    """Sleep until shortly before `moment`, then let others run until it has come."""
    while (left := moment - time.monotonic_ns()) > 0:
        await asyncio.sleep(max(0, left - _MARGIN) / 1e9)


async def _ask(session: aiohttp.ClientSession, url: str, fields: Mapping[str, str], turn: _ScheduleSlot) -> Response:
    """Send one request when its turn has come, and tell what was answered; a task asks once."""
    _turn.set(turn)
    try:
        async with session.get(url, headers=fields, allow_redirects=False) as response:
            answered = time.monotonic_ns()
            with suppress(*_UNANSWERED):  # the head is all that counts; the body goes, so that the connection can stay
                await response.read()
    except _UNANSWERED as error:
        failed = time.monotonic_ns()
        return Response(turn.sent_ns or failed, failed, 0, error=_reason(error))
    remaining, reset = read_state(_joined(response, "RateLimit") or "") or (None, None)
    return Response(
        sent_ns=turn.sent_ns or answered,
        answered_ns=answered,
        status=response.status,
        policy=read_policy(_joined(response, "RateLimit-Policy") or ""),
        remaining=remaining,
        reset=reset,
        retry_after=_joined(response, "Retry-After"),
    )


def _joined(response: aiohttp.ClientResponse, name: str) -> str | None:
    """Return the value of a field that may stand on several lines (RFC 9110, section 5.3); None if it is missing."""
    lines = response.headers.getall(name, [])
    return ", ".join(lines) if lines else None


def _session(patience: float) -> aiohttp.ClientSession:
    tracing = aiohttp.TraceConfig()
    tracing.on_request_headers_sent.append(_note_sending)
    return aiohttp.ClientSession(
        connector=_Connector(limit=_MOST_CONNECTIONS, keepalive_timeout=_KEPT, ttl_dns_cache=None),
        timeout=aiohttp.ClientTimeout(total=patience),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": "ratelab"},
        auto_decompress=False,
        middlewares=(_only_once,),
        trace_configs=[tracing],
    )


class _Connector(aiohttp.TCPConnector):
    """Connections that are made ready, and handed out to each request when its turn has come."""

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        connection = await super().connect(req, traces, timeout)
        try:
            await _turn.get().come.wait()
        except BaseException:
            connection.close()
            raise
        return connection


async def _note_sending(*_: object) -> None:
    """Note when the head of a request is about to be written."""
    _turn.get().sent_ns = time.monotonic_ns()


async def _only_once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Fail where aiohttp would send a GET again on a new connection: it might be charged twice."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectionError as error:
        raise aiohttp.ClientError(_reason(error)) from error


def _reason(error: Exception) -> str:
    """Say in a few words why there is no answer."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, aiohttp.ClientConnectorError):
        error = error.os_error
    if isinstance(error, OSError) and (error.errno or 0) > 0:
        return os.strerror(error.errno or 0)
    return str(error) or type(error).__name__
