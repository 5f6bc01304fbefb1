"""Expectations of scenarios: limits for figures, exit status 1 if one is not met, and one-line errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_runner import SCENARIOS, get_error, get_json, get_output, invoke
from outage_scenario import OUTAGE

from ratelab.lab.scenarios.expectations import Expectation, parse_expectation

OPEN = """\
name: plain
duration: 10s
quota: {rate: 2/s, burst: 5}
algorithms: [token-bucket, fixed-window]
clients:
  - name: alice
    traffic: [{pattern: steady, rate: 4/s}]
"""

MET = (
    *("goodput >= 90%", "goodput_ratio = 90%", "goodput >= 9/s", "goodput <= 540/min", "goodput < 9.1"),
    *("amplification <= 1.3", "amplification < 131%", "shed <= 31%", "shed = 120", "pending = 0", "wasted==0"),
    *("recovers within 60s", "recovery_time <= 1min", "not metastable", "time_to_success_p99 <= 2.5s"),
    *("first_tries   >=   300",),
)

FAILED = {
    "goodput > 90%": "90 %",
    "goodput >= 9.1/s": "9/s",
    "amplification <= 1.2": "1.30",
    "amplification <= 120%": "130 %",
    "shed <= 30%": "30.8 %",
    "shed < 120": "120",
    "metastable": "no",
    "time_to_success_p99 <= 2499ms": "2.5 s",
}
"""Expectations that are not met, and the values that are printed."""


def write(folder: Path, text: str, *expected: str) -> Path:
    path = folder / f"{text.split()[1]}.yaml"
    path.write_text(text + "expect:\n" + "".join(f"  - {line}\n" for line in expected))
    return path


def test_figures_within_their_limits_exit_with_0(tmp_path: Path) -> None:
    checks = get_json("simulate", write(tmp_path, OUTAGE, *MET))["expectations"]
    assert [check["passed"] for check in checks] == [True] * len(MET)


@pytest.mark.parametrize(("text", "value"), FAILED.items())
def test_a_figure_beyond_its_limit_exits_with_1_and_names_the_line(tmp_path: Path, text: str, value: str) -> None:
    path = write(tmp_path, OUTAGE, "goodput >= 1%", text)
    result = invoke("simulate", path)
    assert result.exit_code == 1
    assert result.stderr == f"{path}:12: expected {text}, got {value} (no-limit)\n"
    assert "met" in result.stdout
    assert "failed" in result.stdout
    assert invoke("simulate", path, "--json").exit_code == 1


def test_json_has_the_value_of_each_row(tmp_path: Path) -> None:
    path = write(tmp_path, OPEN, "denied <= 40%", "fixed-window: overshoot <= 1.1")
    result = invoke("simulate", path, "--json")
    assert result.exit_code == 1
    rows = [(each["row"], each["line"]) for each in json.loads(result.stdout)["expectations"]]
    assert rows == [("token-bucket", 9), ("fixed-window", 9), ("fixed-window", 10)]


def test_a_limit_for_one_algorithm_is_not_one_for_others(tmp_path: Path) -> None:
    get_output("simulate", write(tmp_path, OPEN, "token-bucket: overshoot <= 1.8"))


def test_a_variant_may_have_expectations_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "variants.yaml"
    change = "{clients: {web: {retry: {attempts: 2}}}, expect: [amplification = 1]}"
    path.write_text(f"{OUTAGE}expect: [amplification <= 1.3]\nvariants:\n  plain: {{}}\n  once: {change}\n")
    result = invoke("simulate", path)
    assert result.exit_code == 1
    assert result.stderr == f"{path}:13: expected amplification = 1, got 1.17 (once)\n"


def test_a_scenario_with_policies_next_to_it_does_not_hide_a_failure(tmp_path: Path) -> None:
    (policies,) = (SCENARIOS / "published-figures").glob("tokens-charged-afterwards.yaml")
    result = invoke("simulate", write(tmp_path, OPEN, "denied <= 1%"), policies)
    assert result.exit_code == 1
    assert "expected denied <= 1%, got" in result.stderr


def test_without_expectations_nothing_is_printed(tmp_path: Path) -> None:
    path = tmp_path / "plain.yaml"
    path.write_text(OPEN)
    assert "expectation" not in get_output("simulate", path)
    assert "expectations" not in get_json("simulate", path)


@pytest.mark.slow
def test_a_page_has_the_expectations(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    get_output("simulate", write(tmp_path, OUTAGE, "goodput >= 90%"), "--html", page)
    assert "goodput &gt;= 90%" in page.read_text()


INVALID = {
    "goodputt >= 90%": "unknown figure 'goodputt'; did you mean 'goodput'?",
    "algorithm = x": "unknown figure 'algorithm'; ",
    "goodput": "expected a comparison such as goodput >= 90%, got 'goodput'",
    "goodput => 90%": "expected ",
    "goodput >= ninety": "expected a rate such as 40/s, got 'ninety'",
    "goodput >= -1%": "expected a percentage such as 90%, got '-1'",
    "goodput_ratio >= 0.9": "expected a percentage such as 90%, got '0.9'",
    "amplification <= 1s": "expected a number such as 1.1, got '1s'",
    "first_tries <= 5%": "first_tries is not a share: expected a number such as 10, got '5%'",
    "recovery_time <= 5": "no unit in '5'",
    "recovers within 5": "no unit in '5'",
    "metastable = no": "unknown figure 'metastable'; write metastable, or not metastable",
    "overshoot <= 1.1": "without a quota there is no overshoot: add quota, or remove it",
    "max_delay <= 1s": "max_delay is not a figure of clients that react to answers; ",
    "gcra: goodput >= 1%": "unknown algorithm 'gcra'; without a quota there is none: remove the name",
    "{a: b, c: d}": "expected a comparison such as",
    "[goodput >= 9%]": "expected a comparison such as",
}


@pytest.mark.parametrize(("text", "message"), INVALID.items())
def test_an_invalid_expectation_is_one_line_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, OUTAGE, "goodput >= 90%", text)
    assert get_error("simulate", path).startswith(f"{path}:12: expect[1]: {message}")


def test_figures_of_the_other_kind_and_unknown_algorithms_are_rejected(tmp_path: Path) -> None:
    for text, message in {
        "amplification <= 1.2": "amplification is not a figure of clients that do not react to answers",
        "recovers within 5s": "recovery_time is not a figure",
        "token-buckt: denied = 0": "unknown algorithm 'token-buckt'; did you mean 'token-bucket'?",
    }.items():
        path = write(tmp_path, OPEN, text)
        assert get_error("simulate", path).startswith(f"{path}:9: expect[0]: {message}")


def test_lists_that_are_none_and_policies_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "plain.yaml"
    for text in ("goodput >= 90%", "[]"):
        path.write_text(f"{OPEN}expect: {text}\n")
        assert f"{path}:8: expect: expected " in get_error("simulate", path)
    path.write_text(f"{OPEN}expect: [denied = 0]\n".replace("quota: {rate: 2/s, burst: 5}", "policies: []"))
    assert "expect: several policies take no expectations yet" in get_error("simulate", path)


def test_an_algorithm_that_does_not_run_is_not_passed_over(tmp_path: Path) -> None:
    path = write(tmp_path, OPEN, "fixed-window: overshoot <= 9")
    error = get_error("simulate", path, "--algo", "token-bucket")
    assert error == f"{path}:9: expect names fixed-window, which does not run: add --algo fixed-window\n"


def test_an_expectation_is_parsed_exactly() -> None:
    parsed = parse_expectation("denied<=5%")
    assert isinstance(parsed, Expectation)
    assert (parsed.text, parsed.figure, parsed.sign, parsed.limit.as_integer_ratio()) == (
        *("denied <= 5%", "denied", "<="),
        (1, 20),
    )


@pytest.mark.slow
def test_the_example_of_the_manual_meets_its_expectations(tmp_path: Path) -> None:
    section = get_output("docs", "scenarios").partition("## Expectations")[2]
    path = tmp_path / "checkout.yaml"
    path.write_text(section.partition("```yaml\n")[2].partition("```")[0])
    assert get_json("simulate", path)["expectations"]
