"""Clients, servers and faults in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from fractions import Fraction

from ratelab.lab.closed_loop.behavior import (
    RETRIED,
    Behavior,
    Breaker,
    Budget,
    Delay,
    Failure,
    Fault,
    Population,
    Retry,
    Server,
)
from ratelab.lab.scenarios import schema
from ratelab.quota import spell_duration

FAILURE_WORDS: dict[Failure, str] = {
    "denied": "denials",
    "error": "errors",
    "timeout": "timeouts",
    "shed": "full queues",
    "local": "local rejections",
}


# --- clients


def describe_client(client: schema.Client) -> str:
    """Return the traffic of a client in words, such as `alice: 1/s, evenly; and 20 requests at once at 3s`."""
    subject = _isolate(client.name)
    if client.count > 1:
        first, last = (_isolate(f"{client.name}-{number}") for number in (1, client.count))
        subject = f"{client.count:,} clients, {first} to {last}, each"
    key = f" (on the key {_isolate(client.key)})" if client.key and client.key != client.name else ""
    traffic, behavior = "; and ".join(map(_describe_pattern, client.traffic)), client.describe_behavior()
    separator = "; " if traffic and behavior else ""
    return f"{subject}{key}: {traffic}{separator}{behavior}{_describe_costs(client.cost)}"


def _isolate(name: str) -> str:
    """Enclose a name in Unicode isolates, so that right-to-left text does not reorder the words around it."""
    return name if name.isascii() else f"\u2068{name}\u2069"


def _describe_pattern(pattern: schema.Pattern) -> str:
    begin = f", from {spell_duration(pattern.begin)} on" if pattern.begin else ""
    end = f", until {spell_duration(pattern.end)}" if pattern.end is not None else ""
    return f"{_describe_requests(pattern)}{begin}{end}"


def _describe_requests(pattern: schema.Pattern) -> str:
    match pattern:
        case schema.Steady():
            return f"{pattern.rate.rate}, evenly"
        case schema.Burst():
            spacing = f"{spell_duration(pattern.spacing)} apart" if pattern.spacing else "at once"
            return f"{pattern.size:,} requests {spacing} at {spell_duration(pattern.at)}"
        case schema.Poisson():
            return f"{pattern.rate.rate} on average, at random"
        case schema.Ramp():
            return f"from {pattern.start.rate} to {pattern.finish.rate}, changing evenly"
        case schema.Wave():
            cycle = spell_duration(pattern.cycle)
            return f"{pattern.mean.rate}, varying by {pattern.amplitude.rate} in a cycle of {cycle}"
        case schema.OnOff():
            on, off = spell_duration(pattern.on), spell_duration(pattern.off)
            return f"{pattern.rate.rate} for {on}, then none for {off}, repeatedly"
        case schema.At():
            counts = Counter(pattern.times)
            times = ", ".join(f"{count} at {spell_duration(at)}" for at, count in list(counts.items())[:10])
            return f"{times}{' and so on' if len(counts) > 10 else ''}"
        case schema.TraceFile():
            return f"the requests recorded in {pattern.file}"


def _describe_costs(weights: dict[int, float]) -> str:
    if len(weights) == 1:
        (cost,) = weights
        return "" if cost == 1 else f"; each request costs {cost:,}"
    total = sum(weights.values())
    shares = ", ".join(f"{100 * weight / total:.3g} % cost {cost:,}" for cost, weight in weights.items())
    return f"; of the requests, {shares}"


# --- behavior


def describe_behavior(behavior: Behavior) -> str:
    """Return how a client sends requests and reacts to answers, such as `retries with full jitter, 5 tries at most`."""
    return "; ".join(_list_behavior(behavior))


def _list_behavior(behavior: Behavior) -> Iterator[str]:
    if behavior.loop == "serial":
        yield _describe_loop(behavior)
    if behavior.timeout is not None:
        yield f"waits {spell_duration(behavior.timeout)} for an answer"
    yield _describe_retry(behavior.retry) if behavior.retry.policy != "none" else "does not retry"
    if behavior.breaker is not None:
        yield _describe_breaker(behavior.breaker)
    if behavior.adaptive is not None:
        k, window = _format_number(behavior.adaptive.k), spell_duration(behavior.adaptive.window)
        yield f"rejects tries itself beyond {k} times those accepted in {window}"
    if behavior.hedge is not None:
        after, most = spell_duration(behavior.hedge.after), behavior.hedge.most
        yield f"sends {most} more {'try' if most == 1 else 'tries'} {after} apart without an answer"
    if behavior.aimd is not None:
        rate, increase = (
            _format_number(Fraction(value, 10**6)) for value in (behavior.aimd.rate, behavior.aimd.increase)
        )
        cut = _format_share(1 - behavior.aimd.decrease)
        yield f"sends at most {rate}/s, {increase}/s more after successes and {cut} less after a denial"
    if behavior.latency is not None:
        yield f"network latency {describe_delay(behavior.latency)} each way"


def _describe_loop(behavior: Behavior) -> str:
    end = f", {behavior.requests:,} in all" if behavior.requests is not None else ""
    if behavior.pace is not None:
        return f"one request at a time, {describe_delay(behavior.pace)} after the start of the last{end}"
    think = behavior.think or Delay(0)
    pause = f"{describe_delay(think)} after the end of the last" if think.mean else "without a pause"
    return f"one request at a time, {pause}{end}"


def _describe_retry(retry: Retry) -> str:
    attempts = "without a limit" if retry.attempts is None else f"{retry.attempts} tries at most"
    facts = [
        f"retries {_describe_waits(retry)}",
        attempts,
        *([f"until {spell_duration(retry.deadline)} after the first"] if retry.deadline is not None else []),
        *(
            [f"after {_join([FAILURE_WORDS[failure] for failure in retry.retry_on])}"]
            if retry.retry_on != RETRIED
            else []
        ),
        *([_describe_budget(retry.budget)] if retry.budget is not None else []),
    ]
    return ", ".join(facts)


def _describe_waits(retry: Retry) -> str:
    base, cap = spell_duration(retry.base), spell_duration(retry.cap)
    factor = "doubling" if retry.multiplier == 2 else f"times {_format_number(retry.multiplier)}"
    growth = "" if retry.attempts == 2 or retry.cap == retry.base else f", {factor} up to {cap}"
    jitter = "" if retry.jitter == "none" else f" with {retry.jitter} jitter"
    honored = {"none": "", "retry-after": "Retry-After", "ratelimit": "RateLimit"}[retry.honors]
    longer = f", or as {honored} asks{jitter} if that is longer" if honored else ""
    match retry.policy:
        case "immediate":
            return f"{f'after {base}' if retry.base else 'at once'}{longer}"
        case "fixed":
            return f"after {base}{jitter}{longer}"
        case "exponential":
            return f"after {base}{growth}{jitter}{longer}"
        case "equal-jitter":
            return f"after {base}{growth}, of which half is random (equal jitter){longer}"
        case "full-jitter":
            return f"after at most {base}{growth}, at random (full jitter){longer}"
        case "decorrelated-jitter":
            return f"after {base} to three times the last wait, up to {cap}, at random (decorrelated jitter){longer}"
        case _:
            return f"as {honored} asks{jitter}, or without one after {base}{growth}"


def _describe_budget(budget: Budget) -> str:
    earned = {"start": "of the first tries", "success": "of the successes"}[budget.on]
    cost = f", {_format_number(budget.cost)} for each retry" if budget.cost != 1 else ""
    return f"a budget of {_format_share(budget.ratio)} {earned} (up to {_format_number(budget.cap)} tokens{cost})"


def _describe_breaker(breaker: Breaker) -> str:
    share = _format_share(breaker.failures)
    window = "" if breaker.window is None else f" in {spell_duration(breaker.window)}"
    if breaker.stops == "retries":
        return f"stops retries while more than {share} fail{window}"
    return f"stops for {spell_duration(breaker.pause)} once more than {share} fail{window}"


def describe_delay(delay: Delay) -> str:
    """Return a duration, and how it is drawn."""
    mean = spell_duration(delay.mean)
    match delay.kind:
        case "constant":
            return mean
        case "exponential":
            return f"{mean} on average (exponential)"
        case "normal":
            return f"{mean} on average (normal, deviation {spell_duration(delay.deviation)})"
        case "spread":
            return f"{mean} on average (coefficient of variation {delay.deviation / delay.mean:.3g})"
        case "table":
            total = sum(delay.weights)
            rows = zip(delay.values, delay.weights, strict=True)
            return _join([f"{spell_duration(value)} ({100 * weight / total:.3g} %)" for value, weight in rows], "or")


# --- servers and faults


def describe_server(server: Server) -> str:
    """Return the capacity of a server, such as `40 workers, 50 ms a request, a queue of 200`."""
    return ", ".join(_list_server(server))


def _list_server(server: Server) -> Iterator[str]:
    if server.optimistic:
        yield "each request reads a row and writes it, and fails if another wrote it in between"
    else:
        workers = "workers without a limit" if server.workers is None else _count(server.workers, "worker")
        yield f"{workers}, {describe_delay(server.service)} a request"
    if server.slowdown:
        yield f"{spell_duration(server.slowdown)} more for each in service"
    if server.workers is not None:
        queue = "a queue without a limit" if server.queue is None else f"a queue of {server.queue:,}"
        yield f"{queue}{', last in first out' if server.order == 'lifo' and server.queue != 0 else ''}"
    match server.drop:
        case "stale":
            yield "drops requests whose caller has left"
        case "wait":
            yield f"drops requests that waited over {spell_duration(server.drop_limit)}"
        case "count":
            yield f"drops the oldest while over {server.drop_limit:,} wait"
    if server.errors:
        yield f"{_format_share(server.errors)} fail"


def describe_fault(fault: Fault) -> str:
    """Return a fault, such as `outage from 30 s to 40 s`."""
    span = f"from {spell_duration(fault.begin)} to {spell_duration(fault.end)}"
    match fault.kind:
        case "outage":
            return f"outage {span}: requests {'wait until it ends' if fault.hold else 'fail'}"
        case "slow":
            return f"service takes {fault.factor} times as long {span}"
        case "spike":
            return f"{fault.factor} times as many requests {span}"
        case "limiter-restart":
            return f"the limiter restarts at {spell_duration(fault.begin)}"


def describe_backend(population: Population) -> list[str]:
    """Return the server and the faults of a closed loop, a line for each."""
    server = [] if population.server is None else [f"server: {describe_server(population.server)}"]
    return [*server, *(f"fault: {describe_fault(fault)}" for fault in population.faults)]


def _join(parts: list[str], word: str = "and") -> str:
    *first, last = parts
    return f"{', '.join(first)} {word} {last}" if first else last


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _format_number(value: Fraction) -> str:
    return f"{float(value):.6g}"


def _format_share(share: Fraction) -> str:
    return f"{float(100 * share):.6g} %"
