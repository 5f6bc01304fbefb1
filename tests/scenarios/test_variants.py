"""Variants of a scenario: named changes to a file."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from cli_runner import get_json, invoke
from hypothesis import given, settings
from hypothesis import strategies as st
from mutated_lines import mutate_lines

from ratelab import InputError, Quota
from ratelab.lab.scenarios import load_scenario, load_variants

BASE = """\
name: base
duration: 10s
quota: {rate: 2/s, burst: 5}
algorithms: [token-bucket]
clients:
  - name: alice
    traffic: [{pattern: steady, rate: 1/s}]
    retry: {policy: fixed, base: 1s}
  - name: bob
    loop: serial
    think: 1s
"""


def write(tmp_path: Path, variants: str) -> str:
    path = tmp_path / "base.yaml"
    path.write_text(f"{BASE}{variants}", encoding="utf-8")
    return str(path)


def test_a_file_without_variants_is_its_only_variant(tmp_path: Path) -> None:
    (scenario,) = load_variants(write(tmp_path, ""))
    assert scenario.variant is None


def test_variants_change_keys_and_keep_the_others(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "variants:\n"
        "  plain: {}\n"
        "  jitter: {clients: {alice: {retry: {jitter: full}}}}\n"
        "  more: {quota: {rate: 4/s}, seed: 3, clients: {bob: {count: 4}}}\n",
    )
    plain, jitter, more = load_variants(path)
    assert [scenario.variant for scenario in (plain, jitter, more)] == ["plain", "jitter", "more"]
    assert {scenario.name for scenario in (plain, jitter, more)} == {"base"}
    for scenario, expected in ((plain, "none"), (jitter, "full"), (more, "none")):
        assert scenario.population is not None
        assert scenario.population.behaviors[0].retry.jitter == expected
        assert scenario.population.behaviors[0].retry.policy == "fixed"
    assert (more.quota, more.seed) == (Quota.parse("4/s", burst=5), 3)
    assert len(more.traffic.names) == 5


def test_a_list_replaces_that_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "variants: {other: {clients: {alice: {traffic: [{pattern: burst, at: 1s, size: 3}]}}}}\n")
    (scenario,) = load_variants(path)
    assert len(scenario.traffic) == 3
    assert len(load_scenario(path).traffic) == 10


def test_an_open_loop_may_have_variants_too(tmp_path: Path) -> None:
    path = tmp_path / "open.yaml"
    client = "clients: [{name: a, traffic: [{pattern: steady, rate: 9/s}]}]"
    path.write_text(
        f"name: open\nduration: 10s\nquota: {{rate: 1/s}}\nalgorithms: [gcra]\n{client}\n"
        "variants: {slow: {}, fast: {quota: {rate: 5/s}}}\n"
    )
    slow, fast = load_variants(str(path))
    assert (slow.quota, fast.quota) == (Quota.parse("1/s"), Quota.parse("5/s"))
    results = get_json("simulate", path, "--json")["results"]
    assert [result["variant"] for result in results] == ["slow", "fast"]
    assert results[0]["denied"] > results[1]["denied"] > 0


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ("variants: {}", ":12: variants: expected 1 to 100 names, each with changes to the file, got {}"),
        ("variants: [plain]", ":12: variants: expected 1 to 100 names, each with changes to the file, got ['plain']"),
        ("variants: {plain: 5}", ":12: variants.plain: expected keys and values, got '5'"),
        ("variants: {'': {}}", ":12: variants.: expected printable text, got ''"),
        ("variants:\n  x: {clients: [alice]}", ":13: variants.x.clients: expected the names of clients with changes"),
        ("variants:\n  x: {clients: {alcie: {}}}", ":13: variants.x.clients.alcie: unknown client 'alcie'; did"),
        ("variants:\n  x: {clients: {bob: 5}}", ":13: clients[1]: expected keys and values, got '5'"),
        ("variants:\n  x: {quota: {rate: fast}}", ":13: quota.rate: rate must look like 2/s"),
        ("variants:\n  x: {qouta: {rate: 1/s}}", ":13: qouta: unknown key; did you mean 'quota'?"),
        ("variants:\n  x: {clients: {bob: {pace: 1s}}}", ":13: clients[1].pace: a client has think, from the end of a"),
        ("variants:\n  x: {clients: {alice: {retry: {base: 1h}}}}\n  y: {clients: {alice: {retry: {bsae: 1s}}}}",
         ":14: clients[0].retry.bsae: unknown key; did you mean 'base'?"),
        ("variants:\n  x: {variants: {}}", ":13: variants: unknown key"),
    ],
)  # fmt: skip
def test_an_invalid_variant_is_a_one_line_error_with_its_line(tmp_path: Path, variants: str, message: str) -> None:
    path = write(tmp_path, variants)
    result = invoke("simulate", path)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: {path}{message}")
    assert len(result.stderr.splitlines()) == 1


LINES = f"""\
{BASE}    timeout: 2s
    retry: {{policy: full-jitter, budget: 10%, honors: retry-after, jitter: full}}
    network: {{latency: {{exponential: 10ms}}}}
    breaker: {{failures: 10%}}
    preset: curl
server: {{workers: 4, service: {{mean: 50ms, cv: 1}}, queue: 10, drop: stale, errors: 5%}}
faults:
  - {{fault: outage, at: 1s, for: 2s, requests: hold}}
variants:
  slow: {{clients: {{alice: {{retry: {{base: 2s}}}}}}}}
""".splitlines()
PIECES = [*" ".join(LINES).split(), *"{}[]:-%", "0s", "0%", "unlimited", "1e9", "-1", ""]


@pytest.mark.slow
@settings(max_examples=200)
@given(rng=st.randoms(use_true_random=False))
def test_a_mutated_file_is_a_scenario_or_an_error_with_its_path(
    tmp_path_factory: pytest.TempPathFactory, rng: Random
) -> None:
    path = tmp_path_factory.getbasetemp() / "loop.yaml"
    path.write_text(mutate_lines(LINES, PIECES, rng), encoding="utf-8")
    message = f"{path}:"
    try:
        load_variants(str(path))
    except InputError as error:
        message = str(error)
    assert message.startswith(f"{path}:")
    assert len(message.splitlines()) == 1
