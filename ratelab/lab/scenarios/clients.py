"""Keys of scenario files for clients that react to their answers: their schema, and the behavior that they describe."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field, PlainValidator

from ratelab.documents import (
    Count,
    Duration,
    Example,
    Rate,
    Strict,
    Value,
    create_choice_parser,
    create_integer_parser,
    suggest,
)
from ratelab.errors import InputError, short_repr
from ratelab.lab.closed_loop import behavior
from ratelab.lab.closed_loop.behavior import RETRIED, Behavior, Failure, RetryPolicy
from ratelab.lab.scenarios import schema
from ratelab.lab.scenarios.descriptions import describe_behavior
from ratelab.lab.scenarios.durations import (
    DrawnDuration,
    LongDuration,
    parse_factor,
    parse_limit,
    parse_positive,
    parse_share,
)
from ratelab.lab.scenarios.presets import PRESETS, Keys
from ratelab.quota import NS_PER_S, Quota, format_duration

MAX_LOOP_CLIENTS = 1_000_000
"""Clients of a closed loop."""

MAX_ATTEMPTS = 1000

MIN_RATE = 100_000
"""The lowest rate of a client that adapts its own, in millionths of a try a second."""

Problem = tuple[tuple[str, ...], str]
"""The path of a value within a client, and the rule that it breaks."""

_BACKOFF = ("base", "cap", "multiplier")
_LIMITS = ("attempts", "deadline", "budget", "retry_on", "honors")

SHAPES: dict[str, tuple[str, ...]] = {
    "none": (),
    "immediate": ("base", *_LIMITS),
    "fixed": ("base", "jitter", *_LIMITS),
    "exponential": (*_BACKOFF, "jitter", *_LIMITS),
    "equal-jitter": (*_BACKOFF, *_LIMITS),
    "full-jitter": (*_BACKOFF, *_LIMITS),
    "decorrelated-jitter": ("base", "cap", *_LIMITS),
    "retry-after": (*_BACKOFF, "jitter", *_LIMITS),
}
"""The keys that have an effect with each policy; `jitter` also has one with `honors`."""


# --- presets


def _check_preset(name: Value) -> str:
    if not isinstance(name, str) or name not in PRESETS:
        raise InputError(f"unknown preset {short_repr(name)}; {suggest(str(name), PRESETS)}")
    return name


def expand_presets(value: Value) -> Value:
    """Return a file in which the keys of presets are written out; the keys of the client itself come first."""
    clients = value.get("clients") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(clients, list):
        return value
    return {**value, "clients": [expand_preset(client) for client in clients]}


def expand_preset(client: Value) -> Value:
    """Return a client in which the keys of its preset are written out; its own keys come first."""
    name = client.get("preset") if isinstance(client, dict) else None
    if not isinstance(client, dict) or not isinstance(name, str) or name not in PRESETS:
        return client
    keys = PRESETS[name].keys
    preset, retry = keys["retry"], client.get("retry", {})
    if not isinstance(preset, dict) or not isinstance(retry, dict):
        return {**keys, **client}
    return {**keys, **client, "retry": {**_select(preset, retry), **retry}}


def _select(preset: Keys, retry: Keys) -> Keys:
    """Return the keys of a preset, without those that have no effect with the policy of `retry`."""
    policy = retry.get("policy", preset["policy"])
    honors = retry.get("honors", preset.get("honors", "none"))
    return {key: value for key, value in preset.items() if _has_effect(key, str(policy), str(honors))}


def _has_effect(key: str, policy: str, honors: str) -> bool:
    return key == "policy" or key in SHAPES.get(policy, ()) or (key == "jitter" and honors != "none")


# --- schema


def _choose(*choices: str) -> PlainValidator:
    return PlainValidator(create_choice_parser(choices))


def _write_ratio(value: Value) -> Value:
    """Write a budget of a ratio alone as an object."""
    return {"ratio": value} if isinstance(value, str) else value


def _parse_failures(value: Value) -> tuple[Failure, ...]:
    """Parse a list of failures."""
    if not isinstance(value, list) or not value:
        raise InputError(f"expected a list of {', '.join(RETRIED)}, such as [denied, timeout], got {short_repr(value)}")
    parse = create_choice_parser(RETRIED)
    given = {parse(failure) if isinstance(failure, str) else parse(str(failure)) for failure in value}
    return tuple(failure for failure in RETRIED if failure in given)


def _parse_window(value: Value) -> int | None:
    """Parse a span, or `all`."""
    return None if value == "all" else parse_positive(value)


class BudgetFields(Strict):
    """A token bucket that pays for the retries of a client."""

    ratio: Annotated[Fraction, PlainValidator(parse_share(1000)), Example("10%")]
    on: Annotated[Literal["start", "success"], _choose("start", "success")] = "start"
    cap: Annotated[Fraction, PlainValidator(parse_factor(1, 10**6))] = Fraction(10)
    cost: Annotated[Fraction, PlainValidator(parse_factor(1, 10**6))] = Fraction(1)


class RetryFields(Strict):
    """When a client tries again."""

    policy: Annotated[RetryPolicy, _choose(*get_args(RetryPolicy)), Example("full-jitter")]
    base: Duration = 100 * behavior.MS
    cap: LongDuration = 20 * NS_PER_S
    multiplier: Annotated[Fraction, PlainValidator(parse_factor(1, 100))] = Fraction(2)
    attempts: Annotated[int | None, PlainValidator(parse_limit(2, MAX_ATTEMPTS))] = 3
    deadline: LongDuration | None = None
    budget: Annotated[BudgetFields, BeforeValidator(_write_ratio)] | None = None
    honors: Annotated[Literal["none", "retry-after", "ratelimit"], _choose("none", "retry-after", "ratelimit")] = "none"
    jitter: Annotated[Literal["none", "equal", "full"], _choose("none", "equal", "full")] = "none"
    retry_on: Annotated[tuple[Failure, ...], PlainValidator(_parse_failures)] = RETRIED


class BreakerFields(Strict):
    """When a client stops its retries, or all of its tries."""

    failures: Annotated[Fraction, PlainValidator(parse_share(100)), Example("10%")]
    window: Annotated[int | None, PlainValidator(_parse_window)] = 10 * NS_PER_S
    stops: Annotated[Literal["retries", "calls"], _choose("retries", "calls")] = "calls"
    pause: LongDuration = 5 * NS_PER_S


class ThrottleFields(Strict):
    """When a client rejects its own tries."""

    k: Annotated[Fraction, PlainValidator(parse_factor(1, 100))] = Fraction(2)
    window: LongDuration = 120 * NS_PER_S


class HedgeFields(Strict):
    """When a client sends a request again before it has an answer."""

    after: Annotated[LongDuration, Example("100ms")]
    most: Annotated[int, PlainValidator(create_integer_parser(1, 10))] = 1


class AimdFields(Strict):
    """The rate at which a client sends, and how it changes."""

    rate: Rate
    increase: Rate = Quota(1, NS_PER_S)
    decrease: Annotated[Fraction, PlainValidator(parse_share(99))] = Fraction(1, 2)


class NetworkFields(Strict):
    """The network between a client, the limiter and the server."""

    latency: Annotated[DrawnDuration, Example("10ms")]


class LoopClient(schema.Client):
    """A client that reacts to its answers, or several similar ones."""

    count: Annotated[int, PlainValidator(create_integer_parser(1, MAX_LOOP_CLIENTS))] = 1
    traffic: schema.Patterns = Field([])
    loop: Annotated[Literal["open", "serial"], _choose("open", "serial")] = "open"
    think: DrawnDuration | None = None
    pace: DrawnDuration | None = None
    requests: Count | None = None
    timeout: LongDuration | None = None
    retry: RetryFields | None = None
    breaker: BreakerFields | None = None
    adaptive: ThrottleFields | None = None
    hedge: HedgeFields | None = None
    aimd: AimdFields | None = None
    network: NetworkFields | None = None
    preset: Annotated[str, PlainValidator(_check_preset)] | None = None

    def describe_behavior(self) -> str:
        """Return in words how the client reacts to its answers."""
        words = describe_behavior(create_behavior(self))
        return f"{words}; as {self.preset} does by default" if self.preset else words


# --- rules


def find_problems(client: LoopClient) -> Iterator[Problem]:
    """Yield the keys of a client that contradict others."""
    yield from _check_loop(client)
    if client.retry is not None:
        yield from _check_retry(client.retry)
    retries = client.retry is not None and client.retry.policy != "none"
    if client.breaker is not None and client.breaker.stops == "retries":
        if not retries:
            yield ("breaker", "stops"), "there are no retries to stop: add a retry policy, or write stops: calls"
        if "pause" in client.breaker.model_fields_set:
            yield ("breaker", "pause"), "pause has no effect with stops: retries: remove it"
    if client.hedge is not None and client.timeout is not None and client.hedge.after >= client.timeout:
        after, timeout = format_duration(client.hedge.after), format_duration(client.timeout)
        yield ("hedge", "after"), f"expected a time before the timeout of {timeout}, got {after}: shorten it"
    if client.aimd is not None and _per_second(client.aimd.rate) < MIN_RATE:
        yield ("aimd", "rate"), f"a rate must be at least 0.1/s, got {client.aimd.rate.rate}"


def _check_loop(client: LoopClient) -> Iterator[Problem]:
    if client.loop == "open":
        for key in ("think", "pace", "requests"):
            if key in client.model_fields_set:
                yield (key,), f"{key} is for serial clients: add loop: serial, or remove {key}"
        if not client.traffic:
            yield (), "missing key 'traffic'; add it, or loop: serial for a client that waits for its answers"
        return
    if client.traffic:
        yield ("traffic",), "a serial client sends its next request after the last: remove traffic, or loop: serial"
    if client.think is not None and client.pace is not None:
        yield ("pace",), "a client has think, from the end of a request, or pace, from its start: remove one"


def _check_retry(retry: RetryFields) -> Iterator[Problem]:
    policy = retry.policy
    for key in RetryFields.model_fields:
        if key in retry.model_fields_set and not _has_effect(key, policy, retry.honors):
            yield ("retry", key), f"{key} has no effect with the policy {policy}: remove it"
    if policy == "retry-after" and retry.honors == "none" and "honors" in retry.model_fields_set:
        yield ("retry", "honors"), "the policy retry-after honors the denial: remove honors, or choose another policy"
    if "base" in SHAPES[policy] and policy != "immediate" and not retry.base:
        yield ("retry", "base"), "expected a duration above 0s, got 0s: for no wait, use the policy immediate"
    if "cap" in SHAPES[policy] and retry.cap < retry.base:
        base, cap = format_duration(retry.base), format_duration(retry.cap)
        given = "cap" if "cap" in retry.model_fields_set else "base"
        yield ("retry", given), f"expected a cap of at least the base of {base}, got {cap}: give a higher cap"
    if retry.budget is not None and retry.budget.cost > retry.budget.cap:
        tokens, cost = float(retry.budget.cap), float(retry.budget.cost)
        yield ("retry", "budget"), f"a budget of at most {tokens:g} tokens never pays a cost of {cost:g}: raise its cap"


def repeats_at_once(client: LoopClient) -> str | None:
    """Return the key of a client that may send tries without end and without a wait between them, if there is one."""
    retry, has_latency = client.retry, client.network is not None and client.network.latency.mean > 0
    if retry is not None and retry.policy == "immediate" and retry.attempts is None and not _base(retry):
        return None if has_latency else "retry"
    waits = any(delay is not None and delay.mean > 0 for delay in (client.pace, client.think))
    if client.loop == "open" or client.requests is not None or waits:
        return None
    return "think" if rejects_locally(client) or not has_latency else None


def rejects_locally(client: LoopClient) -> bool:
    """Return whether a client may reject its own tries, which takes no time."""
    return client.adaptive is not None or (client.breaker is not None and client.breaker.stops == "calls")


# --- behavior


def create_behavior(client: LoopClient) -> Behavior:
    """Return the behavior that the keys of a client describe."""
    is_serial = client.loop == "serial"
    retry, throttle, hedge = client.retry, client.adaptive, client.hedge
    return Behavior(
        loop=client.loop,
        think=behavior.Delay(0) if is_serial and client.think is None and client.pace is None else client.think,
        pace=client.pace,
        requests=client.requests,
        timeout=client.timeout,
        retry=behavior.Retry() if retry is None or retry.policy == "none" else _create_retry(retry),
        breaker=None if client.breaker is None else _create_breaker(client.breaker),
        adaptive=None if throttle is None else behavior.Throttle(throttle.k, throttle.window),
        hedge=None if hedge is None else behavior.Hedge(hedge.after, hedge.most),
        aimd=None if client.aimd is None else _create_aimd(client.aimd),
        latency=None if client.network is None else client.network.latency,
        costs=tuple(client.cost.items()) if is_serial else Behavior.costs,
    )


def _create_retry(fields: RetryFields) -> behavior.Retry:
    budget = fields.budget
    return behavior.Retry(
        policy=fields.policy,
        base=_base(fields),
        cap=fields.cap,
        multiplier=fields.multiplier,
        attempts=fields.attempts,
        deadline=fields.deadline,
        budget=None if budget is None else behavior.Budget(budget.ratio, budget.on, budget.cap, budget.cost),
        honors="retry-after" if fields.policy == "retry-after" and fields.honors == "none" else fields.honors,
        jitter=fields.jitter,
        retry_on=fields.retry_on,
    )


def _base(fields: RetryFields) -> int:
    """Return the base of the waits: that of the policy `immediate` is 0 unless it is given."""
    return 0 if fields.policy == "immediate" and "base" not in fields.model_fields_set else fields.base


def _create_breaker(fields: BreakerFields) -> behavior.Breaker:
    counts_all = fields.stops == "retries" and "window" not in fields.model_fields_set
    return behavior.Breaker(fields.failures, None if counts_all else fields.window, fields.stops, fields.pause)


def _create_aimd(fields: AimdFields) -> behavior.Aimd:
    return behavior.Aimd(_per_second(fields.rate), _per_second(fields.increase), 1 - fields.decrease)


def _per_second(rate: Quota) -> int:
    """Return a rate in millionths of a try a second."""
    return 1_000_000 * NS_PER_S * rate.limit // rate.period
