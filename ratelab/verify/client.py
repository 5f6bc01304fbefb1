"""HTTP client that sends each request of a schedule on time and records the responses."""

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
from types import MappingProxyType
from urllib.parse import urlsplit

import aiohttp
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from ratelab.errors import InputError, format_reason, short_repr
from ratelab.http.headers import read_policy, read_state
from ratelab.verify.schedule import Response, ScheduledRequest

CONNECT_LEAD_NS = 200_000_000
"""Nanoseconds before its time at which a request acquires a connection."""

_WAKE_MARGIN_NS = 1_500_000  # the loop stops sleeping this long before a request's time: epoll counts milliseconds
_KEEP_ALIVE_S = 1.5  # the common servers close idle connections later
_MAX_CONNECTIONS = 500  # a process is often limited to 1024 open files
_CONNECT_TIMEOUT_S = 10
_REQUEST_ERRORS = (aiohttp.ClientError, OSError)  # a timeout is an OSError


_EPOCH_NS = time.time_ns() - time.monotonic_ns()


def read_clock() -> int:
    """Return the nanoseconds since 1970-01-01 UTC, by a clock that does not step while this process runs."""
    return _EPOCH_NS + time.monotonic_ns()


def check_url(url: str) -> None:
    """Raise `InputError` unless `url` has the scheme http or https and a host."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not url.isprintable() or " " in url:
        raise InputError(f"the URL must look like http://127.0.0.1:8000/ping, got {short_repr(url)}")


def is_local(url: str) -> bool:
    """Return whether the endpoint is on this machine.

    This opens a connection and closes it without a request, so that no client is charged. Raises `InputError` if
    the connection fails.
    """
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with socket.create_connection((parts.hostname, port), timeout=_CONNECT_TIMEOUT_S) as connection:
            local, peer = connection.getsockname()[0], connection.getpeername()[0]
    except (OSError, UnicodeError) as error:
        raise InputError(
            f"cannot connect to {url} ({format_reason(error)}): start the service or correct the URL"
        ) from None
    return local == peer or ip_address(peer.partition("%")[0]).is_loopback


def send_requests(
    url: str,
    header: str,
    requests: Sequence[ScheduledRequest],
    choose_start: Callable[[int], int],
    timeout_s: float,
    on_response: Callable[[Response], None],
    fields: Mapping[str, str] = MappingProxyType({}),
) -> tuple[int, list[Response]]:
    """Send a GET for each of `requests` at its time; return the start time and the responses in the requests' order.

    `choose_start` gets the earliest possible start, on the clock of `read_clock`, and returns the start.
    `header` carries the request's key, and `fields` are further header fields. Each request has a connection ready
    before its time, idle or new, so that no request waits for the response to another. Requests of one instant are
    written in their order. There are no redirects, retries, cookies or proxies. A response that takes longer than
    `timeout_s` is an error.

    `on_response` is called with each response as it arrives; an exception from it ends the run. There is no request
    to learn the policy beforehand: a server that identifies clients by address would charge it.
    """
    thresholds = gc.get_threshold()
    gc.set_threshold(*thresholds[:2], 2**31 - 1)  # a full collection would pause the schedule for too long
    try:
        return asyncio.run(_send_all(url, header, requests, choose_start, timeout_s, on_response, fields))
    finally:
        gc.set_threshold(*thresholds)


class _ScheduleSlot:
    """The time slot of one request."""

    def __init__(self, due_ns: int) -> None:
        self.due_ns = due_ns
        self.is_due = asyncio.Event()
        self.sent_ns: int | None = None


_slot: ContextVar[_ScheduleSlot] = ContextVar("slot")
"""The slot of the request that a task sends."""


async def _send_all(
    url: str,
    header: str,
    requests: Sequence[ScheduledRequest],
    choose_start: Callable[[int], int],
    timeout_s: float,
    on_response: Callable[[Response], None],
    fields: Mapping[str, str],
) -> tuple[int, list[Response]]:
    async with _create_session(timeout_s + CONNECT_LEAD_NS / 1e9) as session:
        start = choose_start(read_clock() + 2 * CONNECT_LEAD_NS)
        slots = [_ScheduleSlot(start + request.at_ns) for request in requests]

        async def send(slot: _ScheduleSlot, key: str) -> Response:
            response = await _send(session, url, {**fields, header: key}, slot)
            on_response(response)
            return response

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_open_slots(slots))
                tasks = []
                for slot, request in zip(slots, requests, strict=True):
                    await _sleep_until(slot.due_ns - CONNECT_LEAD_NS)
                    tasks.append(group.create_task(send(slot, request.key)))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return start, [task.result() for task in tasks]


async def _open_slots(slots: Sequence[_ScheduleSlot]) -> None:
    """Let each request be sent at its time."""
    for slot in slots:
        await _sleep_until(slot.due_ns)
        slot.is_due.set()


async def _sleep_until(time_ns: int) -> None:
    """Sleep until shortly before `time_ns`, then yield to other tasks until that time."""
    while (rest := time_ns - read_clock()) > 0:
        await asyncio.sleep(max(0, rest - _WAKE_MARGIN_NS) / 1e9)


async def _send(session: aiohttp.ClientSession, url: str, fields: Mapping[str, str], slot: _ScheduleSlot) -> Response:
    """Send one request when its slot is due and return the response; a task calls this once."""
    _slot.set(slot)
    try:
        async with session.get(url, headers=fields, allow_redirects=False) as response:
            received = read_clock()
            with suppress(*_REQUEST_ERRORS):  # only header fields matter; the body is read to reuse the connection
                await response.read()
    except _REQUEST_ERRORS as error:
        failed = read_clock()
        return Response(slot.sent_ns or failed, failed, 0, error=_describe_error(error))
    remaining, reset = read_state(_get_header(response, "RateLimit") or "") or (None, None)
    return Response(
        sent_ns=slot.sent_ns or received,
        received_ns=received,
        status=response.status,
        policy=read_policy(_get_header(response, "RateLimit-Policy") or ""),
        remaining=remaining,
        reset=reset,
        retry_after=_get_header(response, "Retry-After"),
    )


def _get_header(response: aiohttp.ClientResponse, name: str) -> str | None:
    """Return the value of a header field, its lines joined (RFC 9110, section 5.3); None if it is missing."""
    lines = response.headers.getall(name, [])
    return ", ".join(lines) if lines else None


def _create_session(timeout_s: float) -> aiohttp.ClientSession:
    tracing = aiohttp.TraceConfig()
    tracing.on_request_headers_sent.append(_record_send_time)
    return aiohttp.ClientSession(
        connector=_SlotConnector(limit=_MAX_CONNECTIONS, keepalive_timeout=_KEEP_ALIVE_S, ttl_dns_cache=None),
        timeout=aiohttp.ClientTimeout(total=timeout_s),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": "ratelab"},
        auto_decompress=False,
        middlewares=(_prevent_resend,),
        trace_configs=[tracing],
    )


class _SlotConnector(aiohttp.TCPConnector):
    """A connector that opens connections early and releases each to its request when the slot is due."""

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        connection = await super().connect(req, traces, timeout)
        try:
            await _slot.get().is_due.wait()
        except BaseException:
            connection.close()
            raise
        return connection


async def _record_send_time(*_: object) -> None:
    """Record that the header fields of a request are about to be written."""
    _slot.get().sent_ns = read_clock()


async def _prevent_resend(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Fail where aiohttp would resend a GET on a new connection: the server might charge it twice."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectionError as error:
        raise aiohttp.ClientError(_describe_error(error)) from error


def _describe_error(error: Exception) -> str:
    """Describe in a few words why there is no response."""
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, aiohttp.ClientConnectorError):
        error = error.os_error
    if isinstance(error, OSError) and (error.errno or 0) > 0:
        return os.strerror(error.errno or 0)
    return str(error) or type(error).__name__
