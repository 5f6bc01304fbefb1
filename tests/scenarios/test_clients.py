"""Scenario files whose clients react to answers: keys, defaults, presets and the population that they describe."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from invalid_scenarios import VALID

from ratelab import Quota
from ratelab.lab.closed_loop.behavior import (
    RETRIED,
    Aimd,
    Behavior,
    Breaker,
    Budget,
    Delay,
    Fault,
    Hedge,
    Population,
    Retry,
    Server,
    Throttle,
)
from ratelab.lab.scenarios import Scenario, load_scenario
from ratelab.quota import NS_PER_S

MS = NS_PER_S // 1000
SERIAL = "{name: a, loop: serial, think: 1s}"


def load(tmp_path: Path, clients: str, more: str = "quota: {rate: 2/s}") -> Scenario:
    path = tmp_path / "loop.yaml"
    path.write_text(f"name: loop\nduration: 60s\n{more}\nclients: [{clients}]\n")
    return load_scenario(str(path))


def populate(tmp_path: Path, clients: str, more: str = "quota: {rate: 2/s}") -> Population:
    population = load(tmp_path, clients, more).population
    assert population is not None
    return population


def behave(tmp_path: Path, keys: str) -> Behavior:
    """Return the behavior of one serial client with further keys."""
    return populate(tmp_path, f"{{name: a, loop: serial, {keys}}}").behaviors[0]


def retry(tmp_path: Path, keys: str) -> Retry:
    """Return how a client retries."""
    return behave(tmp_path, f"think: 1s, retry: {{{keys}}}").retry


@pytest.mark.parametrize("more", ["", "    loop: open\n", "    retry: {policy: none}\n", "    preset: requests\n"])
def test_clients_that_do_not_react_are_an_open_loop(tmp_path: Path, more: str) -> None:
    (tmp_path / "open.yaml").write_text(f"{VALID}{more}")
    (tmp_path / "plain.yaml").write_text(VALID)
    scenario, plain = (load_scenario(str(tmp_path / f"{name}.yaml")) for name in ("open", "plain"))
    assert scenario.population is None
    assert scenario.open_loop_quota == plain.open_loop_quota == Quota.parse("2/s", burst=5)
    assert scenario.traffic.times.tolist() == plain.traffic.times.tolist()


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("", {"think": Delay(0), "latency": Delay(10 * MS)}),
        ("think: 2s", {"think": Delay(2 * NS_PER_S)}),
        ("think: {exponential: 1s}", {"think": Delay(NS_PER_S, "exponential")}),
        ("pace: 100ms", {"pace": Delay(100 * MS), "think": None}),
        ("pace: {exponential: 1s}", {"pace": Delay(NS_PER_S, "exponential")}),
        ("requests: 7", {"requests": 7}),
        ("timeout: 3s", {"timeout": 3 * NS_PER_S}),
        ("cost: {1: 0.9, 10: 0.1}", {"costs": ((1, 0.9), (10, 0.1))}),
        (
            "think: 1s, breaker: {failures: 10%}",
            {"breaker": Breaker(Fraction(1, 10), 10 * NS_PER_S, "calls", 5 * NS_PER_S)},
        ),
        ("think: 1s, breaker: {failures: 0.5%, window: all}", {"breaker": Breaker(Fraction(1, 200), None)}),
        (
            "retry: {policy: fixed}, breaker: {failures: 10%, stops: retries}",
            {"breaker": Breaker(Fraction(1, 10), None, "retries")},
        ),
        ("think: 1s, adaptive: {}", {"adaptive": Throttle(Fraction(2), 120 * NS_PER_S)}),
        ("think: 1s, adaptive: {k: 1.1, window: 1min}", {"adaptive": Throttle(Fraction(11, 10), 60 * NS_PER_S)}),
        ("hedge: {after: 100ms}", {"hedge": Hedge(100 * MS, 1)}),
        ("aimd: {rate: 10/s}", {"aimd": Aimd(10_000_000, 1_000_000, Fraction(1, 2))}),
        (
            "aimd: {rate: 30/min, increase: 0.1/s, decrease: 30%}",
            {"aimd": Aimd(500_000, 100_000, Fraction(7, 10))},
        ),
    ],
)
def test_a_key_describes_a_behavior(tmp_path: Path, keys: str, expected: dict[str, Any]) -> None:
    found = behave(tmp_path, f"network: {{latency: 10ms}}{', ' if keys else ''}{keys}")
    assert found.loop == "serial"
    assert {name: getattr(found, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("policy: none", Retry()),
        ("policy: immediate", Retry("immediate", base=0)),
        ("policy: immediate, base: 10ms", Retry("immediate", base=10 * MS)),
        ("policy: fixed, base: 1s, attempts: 8", Retry("fixed", base=NS_PER_S, attempts=8)),
        (
            "policy: exponential, base: 1s, cap: 10s, multiplier: 1.5, jitter: full",
            Retry("exponential", NS_PER_S, 10 * NS_PER_S, Fraction(3, 2), jitter="full"),
        ),
        (
            "policy: full-jitter, attempts: unlimited, deadline: 2min",
            Retry("full-jitter", attempts=None, deadline=120 * NS_PER_S),
        ),
        ("policy: equal-jitter, budget: 10%", Retry("equal-jitter", budget=Budget(Fraction(1, 10)))),
        (
            "policy: decorrelated-jitter, budget: {ratio: 10%, on: success, cap: 5, cost: 2}",
            Retry("decorrelated-jitter", budget=Budget(Fraction(1, 10), "success", Fraction(5), Fraction(2))),
        ),
        (
            "policy: fixed, budget: {ratio: 10%, cap: 4.9}",
            Retry("fixed", budget=Budget(Fraction(1, 10), cap=Fraction(49, 10))),
        ),
        ("policy: retry-after", Retry("retry-after", honors="retry-after")),
        (
            "policy: retry-after, honors: ratelimit, jitter: equal",
            Retry("retry-after", honors="ratelimit", jitter="equal"),
        ),
        (
            "policy: full-jitter, honors: retry-after, jitter: full",
            Retry("full-jitter", honors="retry-after", jitter="full"),
        ),
        ("policy: fixed, retry_on: [shed, denied, shed]", Retry("fixed", retry_on=("denied", "shed"))),
    ],
)
def test_retry_keys_describe_when_a_client_tries_again(tmp_path: Path, keys: str, expected: Retry) -> None:
    assert retry(tmp_path, keys) == expected


def test_the_defaults_of_retry_are_those_of_the_lab() -> None:
    assert Retry() == Retry("none", 100 * MS, 20 * NS_PER_S, Fraction(2), 3, None, None, "none", "none", RETRIED)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("", Server()),
        ("workers: unlimited", Server()),
        ("workers: 4, service: 50ms, queue: 0", Server(4, Delay(50 * MS), 0)),
        (
            "workers: 40, service: {mean: 50ms, cv: 1.5}, queue: 200, order: lifo, drop: over 100",
            Server(40, Delay(50 * MS, "spread", 75 * MS), 200, "lifo", "count", 100),
        ),
        (
            "workers: 1, service: {mean: 50ms, cv: 0}, drop: over 100ms",
            Server(1, Delay(50 * MS), drop="wait", drop_limit=100 * MS),
        ),
        (
            "service: {table: {10ms: 3, 200ms: 1}}, slowdown: 10ms, errors: 50%",
            Server(
                service=Delay(57_500_000, "table", values=(10 * MS, 200 * MS), weights=(3.0, 1.0)),
                slowdown=10 * MS,
                errors=Fraction(1, 2),
            ),
        ),
        ("contention: optimistic", Server(optimistic=True)),
    ],
)
def test_server_keys_describe_a_server(tmp_path: Path, keys: str, expected: Server) -> None:
    assert populate(tmp_path, SERIAL, f"quota: {{rate: 2/s}}\nserver: {{{keys}}}").server == expected


def test_faults_have_a_begin_and_an_end(tmp_path: Path) -> None:
    faults = (
        "[{fault: outage, at: 30s, for: 10s, requests: hold}, {fault: slow, at: 1s, for: 2s, by: 10}, "
        "{fault: spike, at: 50s, for: 10s, by: 2}, {fault: limiter-restart, at: 5s}]"
    )
    population = populate(tmp_path, SERIAL, f"quota: {{rate: 2/s}}\nserver: {{}}\nfaults: {faults}")
    assert population.faults == (
        Fault("outage", 30 * NS_PER_S, 40 * NS_PER_S, hold=True),
        Fault("slow", NS_PER_S, 3 * NS_PER_S, 10),
        Fault("spike", 50 * NS_PER_S, 60 * NS_PER_S, 2),
        Fault("limiter-restart", 5 * NS_PER_S, 5 * NS_PER_S),
    )


def test_a_scenario_with_a_server_needs_no_quota(tmp_path: Path) -> None:
    scenario = load(tmp_path, SERIAL, "server: {}")
    assert (scenario.quota, scenario.algorithms) == (None, ())
    given = load_scenario(str(tmp_path / "loop.yaml"), rate="3/s", burst=4)
    assert given.quota == Quota.parse("3/s", burst=4)
    assert given.algorithms


def test_each_client_has_the_behavior_of_its_description(tmp_path: Path) -> None:
    clients = (
        f"{{name: b, traffic: [{{pattern: steady, rate: 1/s}}], timeout: 1s}}, {SERIAL[:-1]}, count: 3, key: all}}"
    )
    population = populate(tmp_path, clients)
    assert population.first_tries.names == ("b", "a-1", "a-2", "a-3")
    assert population.first_tries.keys.tolist() == [0, 1, 1, 1]
    assert set(population.first_tries.clients.tolist()) == {0}
    assert len(population.first_tries) == 60
    assert population.behavior_of.tolist() == [0, 1, 1, 1]
    assert [behavior.loop for behavior in population.behaviors] == ["open", "serial"]
    assert population.duration == 60 * NS_PER_S


def test_first_tries_are_drawn_as_in_an_open_loop(tmp_path: Path) -> None:
    client = "{name: b, count: 3, traffic: [{pattern: poisson, rate: 1/s}], cost: {1: 1, 2: 1}"
    plain = load(tmp_path, f"{client}}}").traffic
    first_tries = populate(tmp_path, f"{client}, timeout: 1s}}, {SERIAL}").first_tries
    for name in ("times", "clients", "costs"):
        assert getattr(first_tries, name).tolist() == getattr(plain, name).tolist()


def test_many_clients_have_one_behavior(tmp_path: Path) -> None:
    population = populate(tmp_path, f"{SERIAL[:-1]}, count: 20000}}")
    assert len(population.first_tries.names) == len(population.behavior_of) == 20_000
    assert len(population.behaviors) == 1


def test_keys_of_a_client_override_those_of_its_preset(tmp_path: Path) -> None:
    (first, second, third) = populate(
        tmp_path,
        "{name: a, loop: serial, think: 1s, preset: botocore-standard}, "
        "{name: b, loop: serial, think: 1s, preset: botocore-standard, retry: {attempts: 5, budget: 10%}}, "
        "{name: c, loop: serial, think: 1s, preset: botocore-standard, retry: {policy: fixed, base: 2s}}",
    ).behaviors
    assert first.retry == Retry(
        "full-jitter", NS_PER_S, budget=Budget(Fraction(1), "success", Fraction(500), Fraction(5))
    )
    assert second.retry == Retry("full-jitter", NS_PER_S, attempts=5, budget=Budget(Fraction(1, 10)))
    assert third.retry == Retry("fixed", 2 * NS_PER_S, budget=first.retry.budget)
