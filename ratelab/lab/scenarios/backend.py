"""Keys of scenario files for the server behind the limiter, and for faults."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, PlainValidator

from ratelab.documents import Duration, Example, Place, Strict, Value, create_choice_parser, create_integer_parser
from ratelab.errors import InputError, short_repr
from ratelab.lab.closed_loop.behavior import Delay, Fault, Server
from ratelab.lab.scenarios.durations import DrawnDuration, LongDuration, parse_limit, parse_positive, parse_share
from ratelab.quota import format_duration

Problem = tuple[Place, str]
"""The path of a value, and the rule that it breaks."""

Factor = Annotated[int, PlainValidator(create_integer_parser(2, 1000)), Example("2")]


class Drop(NamedTuple):
    """The requests in the queue that are dropped."""

    kind: Literal["none", "stale", "wait", "count"] = "none"
    limit: int = 0


def parse_drop(value: Value) -> Drop:
    """Parse `none`, `stale`, `over 100ms` or `over 200`."""
    if value in ("none", "stale"):
        return Drop(value)  # type: ignore[arg-type]
    limit = value.removeprefix("over ").strip() if isinstance(value, str) and value.startswith("over ") else ""
    if limit.isascii() and limit.isdecimal() and int(limit):
        return Drop("count", create_integer_parser(1)(limit))
    if not limit:
        raise InputError(f"expected one of none, stale, over 100ms, over 200, got {short_repr(value)}")
    return Drop("wait", parse_positive(limit))


class ServerFields(Strict):
    """The server behind the limiter."""

    workers: Annotated[int | None, PlainValidator(parse_limit(1))] = None
    service: DrawnDuration = Delay(0)
    queue: Annotated[int | None, PlainValidator(parse_limit(0))] = None
    order: Annotated[Literal["fifo", "lifo"], PlainValidator(create_choice_parser(["fifo", "lifo"]))] = "fifo"
    drop: Annotated[Drop, PlainValidator(parse_drop)] = Drop()
    slowdown: Duration = 0
    errors: Annotated[Fraction, PlainValidator(parse_share(100))] = Fraction(0)
    contention: Annotated[
        Literal["none", "optimistic"], PlainValidator(create_choice_parser(["none", "optimistic"]))
    ] = "none"


def create_server(fields: ServerFields) -> Server:
    """Return the server that the keys describe."""
    return Server(
        workers=fields.workers,
        service=fields.service,
        queue=fields.queue,
        order=fields.order,
        drop=fields.drop.kind,
        drop_limit=fields.drop.limit,
        slowdown=fields.slowdown,
        errors=fields.errors,
        optimistic=fields.contention == "optimistic",
    )


def check_server(server: ServerFields, has_timeout: bool) -> Iterator[Problem]:
    """Yield the keys of a server that contradict others."""
    given = server.model_fields_set
    if server.contention == "optimistic":
        for key in ("workers", "service", "queue", "order", "drop", "slowdown"):
            if key in given:
                yield ("server", key), f"{key} has no effect with contention: optimistic: remove it"
        return
    for key in ("queue", "order", "drop"):
        if key in given and server.workers is None:
            yield ("server", key), f"without a number of workers no request waits: add workers, or remove {key}"
        elif key != "queue" and key in given and server.queue == 0:
            yield ("server", key), f"no request waits in a queue of 0: raise it, or remove {key}"
    if server.drop.kind == "stale" and not has_timeout:
        yield ("server", "drop"), "no client has a timeout, so no request is stale: add timeout to a client"
    if server.drop.kind == "count" and server.queue is not None and server.drop.limit >= server.queue:
        yield (
            ("server", "drop"),
            f"expected fewer than the queue of {server.queue}, got over {server.drop.limit}: lower it",
        )
    if "slowdown" not in given and "service" not in given and not server.errors and server.workers is not None:
        yield ("server", "workers"), "workers without a service time never have work: add service, such as 50ms"


# --- faults


class _Span(Strict):
    at: Duration
    length: Annotated[LongDuration, Example("10s")] = Field(alias="for")


class Outage(_Span):
    """Requests that reach the server fail, or arrive when the outage ends."""

    fault: Literal["outage"]
    requests: Annotated[Literal["fail", "hold"], PlainValidator(create_choice_parser(["fail", "hold"]))] = "fail"


class Slow(_Span):
    """Service takes `by` times as long."""

    fault: Literal["slow"]
    by: Factor


class Spike(_Span):
    """`by` times as many requests begin."""

    fault: Literal["spike"]
    by: Factor


class LimiterRestart(Strict):
    """The limiter forgets the state of every key."""

    fault: Literal["limiter-restart"]
    at: Duration


AnyFault = Outage | Slow | Spike | LimiterRestart


def create_fault(fields: AnyFault) -> Fault:
    """Return the fault that the keys describe."""
    match fields:
        case Outage():
            return Fault("outage", fields.at, fields.at + fields.length, hold=fields.requests == "hold")
        case Slow():
            return Fault("slow", fields.at, fields.at + fields.length, fields.by)
        case Spike():
            return Fault("spike", fields.at, fields.at + fields.length, fields.by)
        case LimiterRestart():
            return Fault("limiter-restart", fields.at, fields.at)


def check_faults(faults: Sequence[Fault], duration: int, has_quota: bool, has_server: bool) -> Iterator[Problem]:
    """Yield the faults that are outside of the duration, affect nothing or overlap with others of their kind."""
    for number, fault in enumerate(faults):
        place = ("faults", number)
        if fault.begin >= duration or fault.end > duration:
            end = f" to {format_duration(fault.end)}" if fault.end > fault.begin else ""
            span = f"{format_duration(fault.begin)}{end}"
            yield place, f"a fault must be within the duration of {format_duration(duration)}, got {span}: move it"
        if fault.kind in ("outage", "slow") and not has_server:
            yield place, f"there is no server for the fault {fault.kind}: add server"
        if fault.kind == "limiter-restart" and not has_quota:
            yield place, "there is no limiter to restart: add quota"
    ordered = sorted(enumerate(faults), key=lambda item: (item[1].kind, item[1].begin))
    for (_, first), (number, second) in pairwise(ordered):
        if first.kind == second.kind and second.begin < first.end:
            yield ("faults", number), f"overlaps with another {second.kind} until {format_duration(first.end)}: move it"
