"""Populations of clients that react to their answers: those of scenario files, and those of a log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, get_args

import numpy as np
from pydantic import Field, PlainValidator

from ratelab.algorithms import COMPARED
from ratelab.documents import (
    AlgorithmName,
    Document,
    OptionDocument,
    Place,
    Value,
    create_choice_parser,
    suggest,
    validate,
)
from ratelab.errors import InputError, short_repr
from ratelab.lab import LOOP_CHARTS
from ratelab.lab.closed_loop.behavior import Behavior, Population, RetryPolicy
from ratelab.lab.scenarios import schema
from ratelab.lab.scenarios.backend import (
    AnyFault,
    Outage,
    Problem,
    ServerFields,
    check_faults,
    check_server,
    create_fault,
    create_server,
)
from ratelab.lab.scenarios.clients import (
    MAX_LOOP_CLIENTS,
    LoopClient,
    create_behavior,
    expand_preset,
    find_problems,
    rejects_locally,
    repeats_at_once,
)
from ratelab.lab.scenarios.presets import PRESETS
from ratelab.lab.traffic import Traffic


class LoopScenarioFile(schema.ScenarioFields):
    """A scenario file with clients that react to their answers, a server or faults."""

    chart: Annotated[str, PlainValidator(create_choice_parser(LOOP_CHARTS))] = LOOP_CHARTS[0]
    quota: schema.QuotaFields | None = None
    algorithms: list[AlgorithmName] = Field(list(COMPARED), min_length=1, max_length=100)
    server: ServerFields | None = None
    faults: list[Annotated[AnyFault, Field(discriminator="fault")]] = Field([], max_length=100)
    expect: schema.Expectations = Field([])
    clients: Annotated[list[LoopClient], Field(min_length=1), schema.A_CLIENT]


def check_file(document: Document, file: LoopScenarioFile) -> None:
    """Raise `InputError` for the first keys that contradict others."""
    for place, problem in _find_problems(file):
        raise document.error(place, problem)


def _find_problems(file: LoopScenarioFile) -> Iterator[Problem]:
    for number, client in enumerate(file.clients):
        for place, problem in find_problems(client):
            yield ("clients", number, *place), problem
        yield from _check_progress(file, client, number)
    total = sum(client.count for client in file.clients)
    if total > MAX_LOOP_CLIENTS:
        yield ("clients",), f"a scenario may have at most {MAX_LOOP_CLIENTS:,} clients, got {total:,}: lower count"
    if file.quota is None:
        if file.server is None:
            yield (), "missing key 'quota': add quota: {rate: 2/s, burst: 5}, or a server that needs no limiter"
        if "algorithms" in file.model_fields_set:
            yield ("algorithms",), "algorithms need a quota: add it, or remove algorithms"
    if file.server is not None:
        yield from check_server(file.server, any(client.timeout is not None for client in file.clients))
    faults = [create_fault(fault) for fault in file.faults]
    yield from check_faults(faults, file.duration, file.quota is not None, file.server is not None)


def _check_progress(file: LoopScenarioFile, client: LoopClient, number: int) -> Iterator[Problem]:
    """Yield a client that may send without end at one time."""
    match repeats_at_once(client):
        case "retry":
            remedy = "add network: {latency: 10ms}, a base, or a number of attempts"
            yield ("clients", number, "retry"), f"retries at once and without a limit never end: {remedy}"
        case "think":
            if rejects_locally(client) or not _takes_time(file):
                place: Place = ("clients", number, "think") if client.think else ("clients", number)
                more = "" if rejects_locally(client) else " or network latency"
                yield place, f"requests without a pause between them never end: add think: 1s, or pace{more}"


def _takes_time(file: LoopScenarioFile) -> bool:
    """Return whether every answer takes time: nothing is denied or shed at once."""
    server = file.server
    if file.quota is not None or server is None or server.queue is not None or not server.service.mean:
        return False
    return not any(isinstance(fault, Outage) and fault.requests == "fail" for fault in file.faults)


def create_population(document: Document, file: LoopScenarioFile, traffic: Traffic, seed: int) -> Population | None:
    """Return the population of a scenario; None if its clients do not react to answers and meet no server.

    `traffic` has the first tries of the open clients. Raises `InputError` for a spike of nothing.
    """
    behaviors = tuple(create_behavior(client) for client in file.clients)
    faults = tuple(create_fault(fault) for fault in file.faults)
    if file.server is None and not faults and all(behavior == Behavior() for behavior in behaviors):
        return None
    is_serial = any(client.loop == "serial" for client in file.clients)
    for number, fault in enumerate(faults):
        begin, end = np.searchsorted(traffic.times, [fault.begin, fault.end])
        if fault.kind == "spike" and begin == end and not is_serial:
            raise document.error(("faults", number), "no request begins during the spike: move it")
    return Population(
        first_tries=traffic,
        behaviors=behaviors,
        behavior_of=np.repeat(np.arange(len(behaviors)), [client.count for client in file.clients]),
        seed=seed,
        server=None if file.server is None else create_server(file.server),
        faults=faults,
    )


# --- clients that all react alike

RETRY_EXAMPLE = "full-jitter,base=1s,attempts=5"

ANY_TRAFFIC: list[Value] = [{"pattern": "at", "times": ["0s"]}]
"""Traffic that stands for that of a log."""


def create_uniform_population(traffic: Traffic, behavior: Behavior, seed: int = 0) -> Population:
    """Return the clients of `traffic`, whose requests are first tries, and who all react as `behavior` describes."""
    return Population(traffic, (behavior,), np.zeros(len(traffic.names), np.int64), seed)


def parse_behavior(option: str, text: str) -> Behavior:
    """Parse a policy or a preset, then keys and values, as the option called `option` takes them.

    The keys are those of `retry` in a scenario, and `timeout`. The failures of `retry_on` are joined by `+`. Raises
    `InputError` for an unknown policy, and for keys and values that a scenario would not accept.
    """
    document = OptionDocument(option, expand_preset(_parse_client(option, text)))
    client = validate(document, LoopClient)
    for place, problem in find_problems(client):
        raise document.error(place, problem)
    if repeats_at_once(client):
        raise document.error((), "retries at once and without a limit never end: give a base or a number of attempts")
    return create_behavior(client)


def _parse_client(option: str, text: str) -> dict[str, Value]:
    """Return the keys of a client in a scenario that stand for the text."""
    name, *items = text.split(",")
    retry = _parse_items(option, items)
    client: dict[str, Value] = {"name": "client", "traffic": ANY_TRAFFIC}
    if "timeout" in retry:
        client["timeout"] = retry.pop("timeout")
    if name in PRESETS:
        return {**client, "preset": name, **({"retry": retry} if retry else {})}
    _check_policy(option, name)
    return {**client, "retry": {"policy": name, **retry}}


def _parse_items(option: str, items: list[str]) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals:
            raise InputError(f"{option}: expected key=value, got {short_repr(item)}: write it as in {RETRY_EXAMPLE}")
        if key in values:
            raise InputError(f"{option}: {key} is given twice: remove one")
        values[key] = [*value.split("+")] if key == "retry_on" else value
    return values


def _check_policy(option: str, name: str) -> None:
    policies: tuple[str, ...] = get_args(RetryPolicy)
    if name not in policies:
        raise InputError(f"{option}: unknown policy {short_repr(name)}; {suggest(name, [*policies, *PRESETS])}")
