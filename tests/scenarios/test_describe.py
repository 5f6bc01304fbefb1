"""Descriptions of a scenario's clients in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from ratelab.lab.scenarios import describe_client, load_scenario

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
