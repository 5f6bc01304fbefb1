"""Invalid keys of clients that react to answers, servers and faults: a one-line error with the place and a remedy."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_runner import REMEDY, invoke

from ratelab import InputError
from ratelab.lab.scenarios import load_scenario

SERIAL = "{name: a, loop: serial, think: 1s, KEYS}"
OPEN = "{name: a, traffic: [{pattern: steady, rate: 1/s, from: 30s}], KEYS}"

RETRY = {
    "policy: full-jiter": ".policy: expected one of none, immediate, fixed, exponential, equal-jitter, full-jitter",
    "attempts: 5": ": missing key 'policy': add policy: full-jitter",
    "policy: fixed, bsae: 1s": ".bsae: unknown key; did you mean 'base'?",
    "policy: none, attempts: 5": ".attempts: attempts has no effect with the policy none: remove it",
    "policy: none, base: 1s": ".base: base has no effect with the policy none",
    "policy: immediate, cap: 1s": ".cap: cap has no effect with the policy immediate",
    "policy: fixed, multiplier: 2": ".multiplier: multiplier has no effect with the policy fixed",
    "policy: full-jitter, jitter: full": ".jitter: jitter has no effect with the policy full-jitter",
    "policy: decorrelated-jitter, multiplier: 3": ".multiplier: multiplier has no effect with the policy decorrelated",
    "policy: retry-after, honors: none": ".honors: the policy retry-after honors the denial: remove honors",
    "policy: fixed, base: 0s": ".base: expected a duration above 0s, got 0s: for no wait, use the policy immediate",
    "policy: exponential, base: 5s, cap: 2s": ".cap: expected a cap of at least the base of 5s, got 2s",
    "policy: exponential, base: 30s": ".base: expected a cap of at least the base of 30s, got 20s",
    "policy: fixed, cap: 0s": ".cap: a duration must be above 0s, got '0s'",
    "policy: fixed, attempts: 1": ".attempts: expected a whole number from 2 to 1000, or unlimited, got 1",
    "policy: fixed, attempts: many": ".attempts: expected a whole number from 2 to 1000, or unlimited, got 'many'",
    "policy: fixed, attempts: [5]": ".attempts: expected a whole number from 2 to 1000, or unlimited, got ['5']",
    "policy: exponential, multiplier: 0.5": ".multiplier: must be a number from 1 to 100, got 0.5",
    "policy: exponential, multiplier: x": ".multiplier: expected a number such as 2 or 1.5, got 'x'",
    "policy: fixed, budget: 0%": ".budget.ratio: must be above 0% and at most 1000%, got 0%",
    "policy: fixed, budget: 0.1": ".budget.ratio: expected a percentage such as 10%, got '0.1'",
    "policy: fixed, budget: {cap: 5}": ".budget: missing key 'ratio': add ratio: 10%",
    "policy: fixed, budget: {ratio: 5%, cots: 5}": ".budget.cots: unknown key; did you mean 'cost'?",
    "policy: fixed, budget: [5%]": ".budget: expected keys and values, got ['5%']",
    "policy: fixed, budget: {ratio: 10%, cap: 2, cost: 5}": ".budget: a budget of at most 2 tokens never pays",
    "policy: fixed, honors: ratelimits": ".honors: expected one of none, retry-after, ratelimit, got 'ratelimits'",
    "policy: fixed, retry_on: denied": ".retry_on: expected a list of denied, error, timeout, shed, such as",
    "policy: fixed, retry_on: []": ".retry_on: expected a list of denied",
    "policy: fixed, retry_on: [429]": ".retry_on: expected one of denied, error, timeout, shed, got '429'",
    "policy: immediate, attempts: unlimited": ": retries at once and without a limit never end: add network",
}

CLIENTS = {
    "loop: seriel": ".loop: expected one of open, serial, got 'seriel'",
    "traffic: [{pattern: steady, rate: 1/s}]": ".traffic: a serial client sends its next request after the last",
    "pace: 1s": ".pace: a client has think, from the end of a request, or pace, from its start: remove one",
    "thnk: 1s": ".thnk: unknown key; did you mean 'think'?",
    "requests: 0": ".requests: expected a whole number from 1",
    "timeout: 0s": ".timeout: a duration must be above 0s, got '0s'",
    "timeout: {exponential: 1s}": ".timeout: a duration must look like 10s",
    "count: 1000001": ".count: expected a whole number from 1 to 1000000, got 1000001",
    "network: 10ms": ".network: expected keys and values, got '10ms'",
    "network: {}": ".network: missing key 'latency': add latency: 10ms",
    "network: {latency: {normal: 10ms}}": ".network.latency: expected a duration such as 50ms, {exponential: 50ms}",
    "network: {latency: {exponential: 0s}}": ".network.latency: a duration must be above 0s, got '0s'",
    "network: {latency: {mean: 1ms, cv: 11}}": ".network.latency: must be a number from 0 to 10, got 11",
    "network: {latency: {table: {}}}": ".network.latency: expected durations with weights",
    "network: {latency: {table: {1s: 1, 1000ms: 1}}}": ".network.latency: duplicate duration in",
    "network: {latency: {table: {1s: 0}}}": ".network.latency: the weights of the durations must add up to more than 0",
    "network: {latency: fast}": ".network.latency: a duration must look like 10s, 0.5s or 2min, got 'fast'",
    "retry: fixed": ".retry: expected keys and values, got 'fixed'",
    "preset: botocore-standrad": ".preset: unknown preset 'botocore-standrad'; did you mean 'botocore-standard'?",
    "preset: [curl]": ".preset: unknown preset ['curl']",
    "preset: curl, retry: 5": ".retry: expected keys and values, got '5'",
    "preset: curl, retry: {cap: 1ms}": ".retry.cap: expected a cap of at least the base of 1s, got 1ms",
    "breaker: 10%": ".breaker: expected keys and values, got '10%'",
    "breaker: {failures: 101%}": ".breaker.failures: must be above 0% and at most 100%, got 101%",
    "breaker: {failures: 10%, stops: retries}": ".breaker.stops: there are no retries to stop: add a retry policy",
    "retry: {policy: fixed}, breaker: {failures: 10%, stops: retries, pause: 1s}": ".breaker.pause: pause has",
    "breaker: {failures: 10%, window: some}": ".breaker.window: a duration must look like",
    "adaptive: {k: 0.5}": ".adaptive.k: must be a number from 1 to 100, got 0.5",
    "hedge: {most: 2}": ".hedge: missing key 'after': add after: 100ms",
    "hedge: {after: 1s, most: 99}": ".hedge.most: expected a whole number from 1 to 10, got 99",
    "hedge: {after: 2s}, timeout: 2s": ".hedge.after: expected a time before the timeout of 2s, got 2s: shorten it",
    "aimd: {rate: 1/min}": ".aimd.rate: a rate must be at least 0.1/s, got 1/min",
    "aimd: {rate: 1/s, decrease: 100%}": ".aimd.decrease: must be above 0% and at most 99%, got 100%",
}

OPEN_CLIENTS = {
    "think: 1s": ".think: think is for serial clients: add loop: serial, or remove think",
    "pace: 1s": ".pace: pace is for serial clients",
    "requests: 5": ".requests: requests is for serial clients",
    "preset: tenacity": ".retry: retries at once and without a limit never end: add network: {latency: 10ms}",
}

SERVERS = {
    "workers: 0": ".workers: expected a whole number from 1 to 1000000000, or unlimited, got 0",
    "workrs: 5": ".workrs: unknown key; did you mean 'workers'?",
    "queue: 5": ".queue: without a number of workers no request waits: add workers, or remove queue",
    "order: lifo": ".order: without a number of workers no request waits",
    "workers: 5": ".workers: workers without a service time never have work: add service, such as 50ms",
    "workers: 5, service: 1s, queue: 0, order: lifo": ".order: no request waits in a queue of 0: raise it",
    "workers: 5, service: 1s, queue: 0, drop: over 1s": ".drop: no request waits in a queue of 0",
    "workers: 5, service: 1s, queue: -1": ".queue: expected a whole number from 0 to 1000000000, or unlimited, got -1",
    "workers: 5, service: 1s, order: random": ".order: expected one of fifo, lifo, got 'random'",
    "workers: 5, service: 1s, drop: old": ".drop: expected one of none, stale, over 100ms, over 200, got 'old'",
    "workers: 5, service: 1s, drop: over": ".drop: expected one of none, stale, over 100ms, over 200, got 'over'",
    "workers: 5, service: 1s, drop: over 0": ".drop: no unit in '0'",
    "workers: 5, service: 1s, drop: over 0s": ".drop: a duration must be above 0s, got '0s'",
    "workers: 5, service: 1s, drop: stale": ".drop: no client has a timeout, so no request is stale",
    "workers: 5, service: 1s, queue: 10, drop: over 10": ".drop: expected fewer than the queue of 10, got over",
    "errors: 0%": ".errors: must be above 0% and at most 100%, got 0%",
    "contention: pessimistic": ".contention: expected one of none, optimistic, got 'pessimistic'",
    "contention: optimistic, service: 5ms": ".service: service has no effect with contention: optimistic: remove it",
}

FAULTS = {
    "{fault: outrage}": "[0].fault: unknown fault 'outrage'; did you mean 'outage'?",
    "{at: 1s}": "[0]: missing key 'fault'; choose one of outage, slow, spike, limiter-restart",
    "{fault: outage, at: 1s}": "[0]: missing key 'for': add for: 10s",
    "{fault: outage, at: 1s, for: 0s}": "[0].for: a duration must be above 0s, got '0s'",
    "{fault: outage, at: 1s, for: 2s, by: 2}": "[0].by: unknown key; choose one of at, for, fault, requests",
    "{fault: outage, at: 1s, for: 2s, requests: lose}": "[0].requests: expected one of fail, hold, got 'lose'",
    "{fault: limiter-restart, at: 1s, for: 2s}": "[0].for: unknown key; choose one of fault, at",
    "{fault: slow, at: 1s, for: 2s, by: 1}": "[0].by: expected a whole number from 2 to 1000, got 1",
    "{fault: slow, at: 1s, for: 2s, by: 1.5}": "[0].by: expected a whole number from 2 to 1000, got '1.5'",
    "{fault: outage, at: 60s, for: 2s}": "[0]: a fault must be within the duration of 1min, got 1min to 62s: move it",
    "{fault: outage, at: 59s, for: 2s}": "[0]: a fault must be within the duration of 1min, got 59s to 61s",
    "{fault: limiter-restart, at: 60s}": "[0]: a fault must be within the duration of 1min, got 1min",
    "{fault: slow, at: 1s, for: 2s, by: 2}, {fault: slow, at: 2s, for: 1s, by: 3}": "[1]: overlaps with another slow",
    "{fault: spike, at: 1s, for: 2s, by: 2}": "[0]: no request begins during the spike: move it",
}

LOCAL = "breaker: {failures: 10%}, network: {latency: 1ms}"
OUTAGE = "{fault: outage, at: 1s, for: 1s}"
RESTART = "{fault: limiter-restart, at: 1s}"
SLOW = "{fault: slow, at: 1s, for: 1s, by: 2}"
MANY = "{name: a, count: 600000, loop: serial, think: 1s}"
POLICIES = "policies: [{name: a, algorithm: gcra, rate: 1/s}]"
LIMITED, SERVED = "quota: {rate: 1/s}", "server: {service: 1s}"
CLIENT = "clients: [{name: a, loop: serial, think: 1s}]"

FILES = {
    CLIENT: ":1: missing key 'quota': add quota: {rate: 2/s, burst: 5}, or a server that needs no limiter",
    "server: {}\nclients: [{name: a, loop: serial}]": ":4: clients[0]: requests without a pause between them never end",
    f"{LIMITED}\n{SERVED}\nclients: [{{name: a, loop: serial, think: 0s}}]": ":5: clients[0].think: requests without",
    f"{SERVED}\nclients: [{{name: a, loop: serial, adaptive: {{}}}}]": ":4: clients[0]: requests without a pause",
    f"{SERVED}\nclients: [{{name: a, loop: serial, {LOCAL}}}]": ":4: clients[0]: requests without a pause",
    f"{SERVED}\nfaults: [{OUTAGE}]\nclients: [{{name: a, loop: serial}}]": ":5: clients[0]: requests without a pause",
    f"{LIMITED}\nclients: [{{name: a, timeout: 1s}}]": ":4: clients[0]: missing key 'traffic'; add it, or loop: serial",
    f"{SERVED}\nalgorithms: [gcra]\n{CLIENT}": ":4: algorithms: algorithms need a quota: add it, or remove algorithms",
    f"{SERVED}\nfaults: [{RESTART}]\n{CLIENT}": ":4: faults[0]: there is no limiter to restart: add quota",
    f"{LIMITED}\nfaults: [{SLOW}]\n{CLIENT}": ":4: faults[0]: there is no server for the fault slow: add server",
    f"{LIMITED}\nclients: [{MANY}, {MANY}]": ":4: clients: a scenario may have at most 1,000,000 clients, got 1,200",
    f"srever: {{}}\n{CLIENT}": ":3: srever: unknown key; did you mean 'server'?",
    f"{POLICIES}\n{CLIENT}": ":4: clients[0].loop: clients that react to answers take no policies yet: remove loop",
    f"{POLICIES}\n{SERVED}\n{CLIENT}": ":4: server: clients that react to answers take no policies yet: remove server",
}


def find_error(tmp_path: Path, content: str) -> str:
    """Return the error of a file, without its path."""
    path = tmp_path / "bad.yaml"
    path.write_text(f"name: bad\nduration: 60s\n{content}\n")
    with pytest.raises(InputError) as caught:
        load_scenario(str(path))
    message = str(caught.value)
    assert message.startswith(f"{path}:")
    assert len(message.splitlines()) == 1
    assert REMEDY.search(message), message
    assert len(message) < 400
    return message.removeprefix(str(path))


@pytest.mark.parametrize(("keys", "message"), RETRY.items())
def test_an_invalid_retry_is_a_one_line_error(tmp_path: Path, keys: str, message: str) -> None:
    client = SERIAL.replace("KEYS", f"\n  retry: {{{keys}}}")
    assert find_error(tmp_path, f"quota: {{rate: 1/s}}\nclients: [{client}]").startswith(
        f":5: clients[0].retry{message}"
    )


@pytest.mark.parametrize(("keys", "message"), CLIENTS.items())
def test_an_invalid_serial_client_is_a_one_line_error(tmp_path: Path, keys: str, message: str) -> None:
    loop = "loop: serial, " if "loop" not in keys else ""
    client = SERIAL.replace("loop: serial, ", loop).replace("KEYS", f"\n  {keys}")
    error = find_error(tmp_path, f"quota: {{rate: 1/s}}\nclients: [{client}]")
    assert error.startswith(f":5: clients[0]{message}")


@pytest.mark.parametrize(("keys", "message"), OPEN_CLIENTS.items())
def test_an_invalid_open_client_is_a_one_line_error(tmp_path: Path, keys: str, message: str) -> None:
    error = find_error(tmp_path, f"quota: {{rate: 1/s}}\nclients: [{OPEN.replace('KEYS', keys)}]")
    assert error.startswith(f":4: clients[0]{message}")


@pytest.mark.parametrize(("keys", "message"), SERVERS.items())
def test_an_invalid_server_is_a_one_line_error(tmp_path: Path, keys: str, message: str) -> None:
    client = SERIAL.replace(", KEYS", "")
    error = find_error(tmp_path, f"quota: {{rate: 1/s}}\nclients: [{client}]\nserver: {{{keys}}}")
    assert error.startswith(f":5: server{message}")


@pytest.mark.parametrize(("faults", "message"), FAULTS.items())
def test_an_invalid_fault_is_a_one_line_error(tmp_path: Path, faults: str, message: str) -> None:
    client = OPEN.replace("KEYS", "timeout: 1s")
    content = f"quota: {{rate: 1/s}}\nserver: {{}}\nclients: [{client}]\nfaults: [{faults}]"
    assert find_error(tmp_path, content).startswith(f":6: faults{message}")


@pytest.mark.parametrize(("content", "message"), FILES.items())
def test_contradictions_of_a_file_are_a_one_line_error(tmp_path: Path, content: str, message: str) -> None:
    assert find_error(tmp_path, content).startswith(message)


def test_tune_rejects_a_closed_loop(tmp_path: Path) -> None:
    path = tmp_path / "loop.yaml"
    path.write_text("name: loop\nduration: 60s\nserver: {}\nclients: [{name: a, loop: serial, think: 1s}]\n")
    result = invoke("tune", path)
    assert result.exit_code == 2
    assert "the clients of loop react to their answers" in result.stderr
