"""Descriptions of a scenario's clients in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from ratelab.lab.scenarios import describe_client, load_scenario
from ratelab.lab.scenarios.descriptions import describe_backend

PATTERNS = {
    "{pattern: steady, rate: 2/s}": "a: 2/s, evenly",
    "{pattern: burst, at: 3s, size: 20, spacing: 10ms}": "a: 20 requests 10 ms apart at 3 s",
    "{pattern: burst, at: 3s, size: 2000}": "a: 2,000 requests at once at 3 s",
    "{pattern: poisson, rate: 90/min, from: 2s, to: 9s}": "a: 90/min on average, at random, from 2 s on, until 9 s",
    "{pattern: ramp, start: 1/s, end: 9/s}": "a: from 1/s to 9/s, changing evenly",
    "{pattern: wave, mean: 5/s, amplitude: 4/s, cycle: 1min}": "a: 5/s, varying by 4/s in a cycle of 1 min",
    "{pattern: on-off, rate: 9/s, on: 1s, off: 4s}": "a: 9/s for 1 s, then none for 4 s, repeatedly",
    "{pattern: at, times: [0s, 1s, 1s]}": "a: 1 at 0 s, 2 at 1 s",
    "{pattern: steady, rate: 1/s}, {pattern: at, times: [0s]}": "a: 1/s, evenly; and 1 at 0 s",
}

BEHAVIORS = {
    "": "one request at a time, 1 s after the end of the last; does not retry",
    "requests: 1": "one request at a time, 1 s after the end of the last, 1 in all; does not retry",
    "timeout: 2s, retry: {policy: fixed, base: 1s}": "waits 2 s for an answer; retries after 1 s, 3 tries at most",
    "retry: {policy: immediate}": "retries at once, 3 tries at most",
    "retry: {policy: immediate, honors: ratelimit}": "retries at once, or as RateLimit asks if that is longer, 3 tries",
    "retry: {policy: exponential, jitter: equal}": "after 100 ms, doubling up to 20 s with equal jitter, 3 tries",
    "retry: {policy: equal-jitter, multiplier: 3}": "times 3 up to 20 s, of which half is random (equal jitter)",
    "retry: {policy: full-jitter}": "after at most 100 ms, doubling up to 20 s, at random (full jitter)",
    "retry: {policy: full-jitter, attempts: 2}": "after at most 100 ms, at random (full jitter), 2 tries at most",
    "retry: {policy: decorrelated-jitter}": "after 100 ms to three times the last wait, up to 20 s, at random",
    "retry: {policy: retry-after, jitter: full}": "as Retry-After asks with full jitter, or without one after 100 ms",
    "retry: {policy: full-jitter, attempts: unlimited, deadline: 2min}": "without a limit, until 2 min after the first",
    "retry: {policy: full-jitter, retry_on: [shed, denied]}": "3 tries at most, after denials and full queues",
    "retry: {policy: full-jitter, budget: 10%}": "a budget of 10 % of the first tries (up to 10 tokens)",
    "retry: {policy: fixed, budget: {ratio: 5%, on: success, cost: 2}}": "5 % of the successes (up to 10 tokens, 2 for",
    "breaker: {failures: 10%}": "stops for 5 s once more than 10 % fail in 10 s",
    "retry: {policy: fixed}, breaker: {failures: 1%, stops: retries}": "stops retries while more than 1 % fail",
    "adaptive: {k: 1.1}": "rejects tries itself beyond 1.1 times those accepted in 2 min",
    "hedge: {after: 100ms, most: 2}": "sends 2 more tries 100 ms apart without an answer",
    "aimd: {rate: 10/s, decrease: 30%}": "sends at most 10/s, 1/s more after successes and 30 % less after a denial",
    "network: {latency: {exponential: 10ms}}": "network latency 10 ms on average (exponential) each way",
    "network: {latency: {normal: 10ms, deviation: 2ms}}": "10 ms on average (normal, deviation 2 ms) each way",
    "network: {latency: {mean: 10ms, cv: 0.5}}": "10 ms on average (coefficient of variation 0.5) each way",
    "network: {latency: {table: {1ms: 3, 2ms: 1}}}": "1 ms (75 %) or 2 ms (25 %) each way",
    "preset: browser": "does not retry; as browser does by default",
    "cost: 5": "does not retry; each request costs 5",
}

BACKENDS = {
    "server: {}": "server: workers without a limit, 0 s a request",
    "server: {workers: 1, service: 50ms}": "server: 1 worker, 50 ms a request, a queue without a limit",
    "server: {workers: 40, service: {mean: 50ms, cv: 1}, queue: 200, order: lifo, drop: over 100}": (
        "server: 40 workers, 50 ms on average (coefficient of variation 1) a request, a queue of 200, last in "
        "first out, drops the oldest while over 100 wait"
    ),
    "server: {workers: 4, service: 1s, drop: over 2s, slowdown: 10ms, errors: 50%}": (
        "server: 4 workers, 1 s a request, 10 ms more for each in service, a queue without a limit, "
        "drops requests that waited over 2 s, 50 % fail"
    ),
    "server: {contention: optimistic}": "each request reads a row and writes it, and fails if another wrote it",
    "server: {}\nfaults: [{fault: outage, at: 1s, for: 2s}]": "fault: outage from 1 s to 3 s: requests fail",
    "server: {}\nfaults: [{fault: outage, at: 1s, for: 2s, requests: hold}]": "to 3 s: requests wait until it ends",
    "server: {}\nfaults: [{fault: slow, at: 1s, for: 2s, by: 9}]": "service takes 9 times as long from 1 s to 3 s",
    "faults: [{fault: spike, at: 1s, for: 2s, by: 2}]": "fault: 2 times as many requests from 1 s to 3 s",
    "faults: [{fault: limiter-restart, at: 1s}]": "fault: the limiter restarts at 1 s",
}

CLIENTS = {
    "{name: a, count: 3, traffic: T}": "3 clients, a-1 to a-3, each: 1/s, evenly",
    "{name: a, key: k, traffic: T}": "a (on the key k): 1/s, evenly",
    "{name: a, cost: 5, traffic: T}": "a: 1/s, evenly; each request costs 5",
    "{name: a, cost: {1: 3, 10: 1}, traffic: T}": "a: 1/s, evenly; of the requests, 75 % cost 1, 25 % cost 10",
}


def describe(tmp_path: Path, client: str) -> str:
    path = tmp_path / "one.yaml"
    path.write_text(f"name: one\nduration: 10s\nquota: {{rate: 1/s}}\nclients: [{client}]\n")
    (loaded,) = load_scenario(str(path)).clients
    return describe_client(loaded)


@pytest.mark.parametrize(("traffic", "description"), PATTERNS.items())
def test_each_pattern_has_a_description(tmp_path: Path, traffic: str, description: str) -> None:
    assert describe(tmp_path, f"{{name: a, traffic: [{traffic}]}}") == description


@pytest.mark.parametrize(("client", "description"), CLIENTS.items())
def test_a_description_has_the_number_key_and_cost_of_clients(tmp_path: Path, client: str, description: str) -> None:
    assert describe(tmp_path, client.replace("T", "[{pattern: steady, rate: 1/s}]")) == description


@pytest.mark.parametrize(("keys", "description"), BEHAVIORS.items())
def test_a_description_has_the_behavior_of_a_client(tmp_path: Path, keys: str, description: str) -> None:
    assert description in describe(tmp_path, f"{{name: a, loop: serial, think: 1s, {keys}}}")


def test_a_description_has_the_traffic_and_the_behavior_of_an_open_client(tmp_path: Path) -> None:
    client = "{name: a, traffic: [{pattern: steady, rate: 2/s}], retry: {policy: fixed}}"
    assert describe(tmp_path, client) == "a: 2/s, evenly; retries after 100 ms, 3 tries at most"


@pytest.mark.parametrize(("keys", "description"), BACKENDS.items())
def test_a_server_and_a_fault_have_a_description(tmp_path: Path, keys: str, description: str) -> None:
    path = tmp_path / "one.yaml"
    client = "{name: a, loop: serial, think: 1s, timeout: 3s}"
    path.write_text(f"name: one\nduration: 10s\nquota: {{rate: 1/s}}\nclients: [{client}]\n{keys}\n")
    population = load_scenario(str(path)).population
    assert population is not None
    assert description in "\n".join(describe_backend(population))
