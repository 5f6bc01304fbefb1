"""Command `prove`: findings, timelines, JSON, pictures, exit statuses and errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from chart_inspection import find_overlaps, read_texts
from cli_runner import get_error, get_json, get_output, invoke

from ratelab import Quota
from ratelab.algorithms import find
from ratelab.cli import options
from ratelab.learn.chart import draw_refutation
from ratelab.prove import REFUTED, prove

CARELESS = """\
from ratelab.algorithms.token_bucket import TokenBucket


class Careless(TokenBucket):
    name = "careless"
    traits = TokenBucket.traits

    def step(self, state, now, cost):
        earned = max(0, now - state[1]) * self.limit
        tokens = min(self.capacity, state[0] + earned)
        price = cost * self.period
        allowed = price <= tokens
        wait = 0 if allowed else (price - tokens) // self.limit
        state[0], state[1] = tokens - price if allowed else tokens, now
        return allowed, state[0] // self.period, wait, -((state[0] - self.capacity) // self.limit), 0
"""


@pytest.fixture
def careless(tmp_path: Path) -> str:
    """Write a bucket that rounds a wait down and follows a clock back; return its `FILE.py:CLASS`."""
    (tmp_path / "careless.py").write_text(CARELESS)
    return f"{tmp_path / 'careless.py'}:Careless"


def test_a_proof_names_each_theorem_and_the_invariants() -> None:
    text = get_output("prove", "token-bucket")
    assert text.startswith("token-bucket at 2/s, burst 5\nFor all states, times and costs:\n")
    assert "+  wait is tight  one nanosecond less, or any shorter wait, does not suffice\n" in text
    assert "0 <= tokens, tokens <= capacity, time = latest time." in " ".join(text.split())
    assert text.endswith("All 13 theorems are proved.\n")


@pytest.mark.slow
def test_the_log_is_proved_for_a_size_that_is_stated() -> None:
    text = get_output("prove", "sliding-log", "--theorem", "never")
    assert "For all states, times and costs, for logs of at most 3 entries:" in text
    assert text.endswith("The theorem is proved for logs of at most 3 entries.\n")


def test_a_refutation_is_a_timeline_with_states(careless: str) -> None:
    result = invoke("prove", careless, "--rate", "7/3s", "--burst", "5", "--theorem", "wait suffices")
    assert (result.exit_code, result.stderr) == (1, "")
    assert "x  wait suffices  the same request alone is admitted after the announced wait\n" in result.stdout
    assert "Refuted: the same request alone is admitted after the announced wait\n" in result.stdout
    assert "a new key" in result.stdout
    assert "after the announced wait" in result.stdout
    assert "tokens 15000000000" in result.stdout
    assert result.stdout.endswith("Of 1 theorem: 1 refuted.\n")


def test_json_has_the_timeline_with_every_field(careless: str) -> None:
    chosen = [word for name in ("wait suffices", "never", "step back") for word in ("--theorem", name)]
    result = invoke("prove", careless, "--rate", "7/3s", "--burst", "5", "--json", *chosen)
    document = json.loads(result.stdout)
    assert (result.exit_code, document["is_proved"], document["scope"]) == (1, False, "")
    statuses = {one["name"]: one["status"] for one in document["theorems"]}
    assert statuses["never"] == statuses["step back"] == "refuted"
    (found,) = (one for one in document["theorems"] if one["name"] == "wait suffices")
    *_, denied, again = found["timeline"]
    assert {"at_ns", "cost", "allowed", "remaining", "retry_after_ns", "reset_after_ns", "delay_ns", "state"} <= {
        *again
    }
    assert again["at_ns"] == denied["at_ns"] + denied["retry_after_ns"]
    assert not again["allowed"]
    assert found["new_state"] == [15 * 10**9, found["origin_ns"]]


def test_json_of_a_proof_is_complete_and_the_same_again() -> None:
    document = get_json("prove", "gcra", "--rate", "7/3s", "--burst", "5")
    assert document["is_proved"] is True
    assert {one["status"] for one in document["theorems"]} == {"proved"}
    assert "token-bucket" in [one["name"] for one in document["theorems"]]
    assert document == get_json("prove", "gcra", "--rate", "7/3s", "--burst", "5")


def test_what_is_not_decided_in_time_is_not_proved() -> None:
    result = invoke("prove", "gcra", "--timeout", "1ns", "--theorem", "bound")
    assert result.exit_code == 1
    assert "?  bound" in result.stdout
    assert "(not decided within 1 ns)" in " ".join(result.stdout.split())
    assert result.stdout.endswith("Of 1 theorem: 1 undecided.\n")


# --- pictures


def test_a_picture_shows_the_refutation_in_lanes(careless: str) -> None:
    proof = prove(find(careless), Quota.parse("7/3s", 5), names=["wait suffices", "step back"])
    refuted = {finding.name: finding for finding in proof.findings if finding.status == REFUTED}
    for finding in refuted.values():
        figure = draw_refutation(proof, finding)
        assert figure.get_label() == f"Refuted for careless: {finding.meaning}"
        assert find_overlaps(figure) == []
    assert {"careless", "on time"} <= {*read_texts(draw_refutation(proof, refuted["step back"]))}
    assert "on time" not in read_texts(draw_refutation(proof, refuted["wait suffices"]))


@pytest.mark.slow
def test_a_file_gets_the_first_refutation_and_a_directory_all(careless: str, tmp_path: Path) -> None:
    chosen = ["--theorem", "never", "--theorem", "step back"]
    targets = ["--plot", f"{tmp_path / 'first.svg'}", "--plot", f"{tmp_path / 'all'}/"]
    assert invoke("prove", careless, *chosen, *targets).exit_code == 1
    assert "the wait is NEVER" in (tmp_path / "first.svg").read_text(encoding="utf-8")
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == ["never.png", "step-back.png"]


def test_no_picture_is_written_of_a_proof(tmp_path: Path) -> None:
    result = invoke("prove", "gcra", "--theorem", "never", "--plot", tmp_path / "none.png")
    assert result.exit_code == 0
    assert result.stderr == f"Did not write {tmp_path / 'none.png'}: nothing is refuted.\n"
    assert not (tmp_path / "none.png").exists()


# --- errors


def test_an_invalid_argument_is_rejected_in_one_line(tmp_path: Path, careless: str) -> None:
    assert "did you mean gcra?" in get_error("prove", "gcr")
    assert "rate must look like" in get_error("prove", "gcra", "--rate", "fast")
    assert "--timeout: a duration must look like" in get_error("prove", "gcra", "--timeout", "soon")
    assert "--timeout must be above 0" in get_error("prove", "gcra", "--timeout", "0s")
    assert "unknown theorem 'tight': choose one of" in get_error("prove", "gcra", "--theorem", "tight")
    assert "add --plot" in get_error("prove", "gcra", "--theme", "dark")
    twice = ("--plot", tmp_path / "a.png", "--plot", tmp_path / "a.png")
    assert "would be overwritten" in get_error("prove", careless, *twice)
    assert "windows differ in length" in get_error("prove", "fixed-window", "--rate", "1000/month")


def test_a_step_that_cannot_be_translated_is_rejected_by_its_line(careless: str, tmp_path: Path) -> None:
    path = tmp_path / "careless.py"
    path.write_text(
        CARELESS.replace("min(self.capacity, state[0] + earned)", "sorted([self.capacity, state[0] + earned])[0]")
    )
    error = get_error("prove", careless)
    assert error.startswith(f"{path}:10: `sorted([self.capacity, state[0] + earned])` cannot be proved: ")


def test_without_the_solver_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "find_spec", lambda _: None)
    assert get_error("prove", "gcra") == "ratelab prove needs z3: run pip install '.[prove]' in a ratelab checkout\n"
