"""`ratelab simulate` with several policies: tables, JSON, CSV, events, charts and pages."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from cli_runner import BURST, SCENARIOS, get_error, get_json, get_output

BURNED = str(SCENARIOS / "burned-quota.yaml")
POLICIES = """\
version: 1
policies:
  - {name: second, algorithm: token-bucket, rate: 2/s, burst: 5}
  - {name: minute, algorithm: sliding-log, rate: 12/min}
  - {name: candidate, algorithm: gcra, rate: 1/s, burst: 3, shadow: true}
"""


@pytest.fixture
def policies(tmp_path: Path) -> str:
    path = tmp_path / "policies.yaml"
    path.write_text(POLICIES)
    return str(path)


def test_the_table_has_a_row_for_the_whole_and_for_each_policy() -> None:
    text = get_output("simulate", BURNED)
    rows = [line.split() for line in text.splitlines() if line.startswith(("atomic ", "sequential ", "- "))]
    assert [row[:2] for row in rows[:6]] == [
        ["atomic", "1,859"], ["-", "day"], ["-", "second"], ["sequential", "1,859"], ["-", "day"], ["-", "second"],
    ]  # fmt: skip
    assert "Sequential policies deny 219 requests of poller that atomic ones admit." in text


def test_json_and_csv_have_the_same_figures(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    document = get_json("simulate", BURNED, "--csv", table)
    rows = list(csv.DictReader(table.read_text().splitlines()))
    written = [{"semantics": each["semantics"], **row} for each in document["results"] for row in each["policies"]]
    assert len(rows) == len(written) == 6
    for row, expected in zip(rows, written, strict=True):
        assert row == {"scenario": "burned-quota", **{k: "" if v is None else str(v) for k, v in expected.items()}}
    bound = document["results"][1]["per_client"][0]["bound"]
    assert sum(bound.values()) == document["results"][1]["policies"][0]["denied"]


def test_events_name_the_policies_that_bound_and_denied(tmp_path: Path, policies: str) -> None:
    path = tmp_path / "events.jsonl"
    document = get_json("simulate", BURST, "--policies", policies, "--events", path)
    events = [json.loads(line) for line in path.read_text().splitlines()]
    whole, *each = document["results"][0]["policies"]
    assert len(events) == whole["offered"]
    assert sum(not event["allowed"] for event in events) == whole["denied"] > 0
    for row in each:
        assert sum(event["bound_by"] == row["policy"] for event in events) == row["bound"]
        assert sum(row["policy"] in event["denied_by"].split(", ") for event in events) == row["denied"]
    assert all(event["bound_by"] in event["denied_by"] for event in events if not event["allowed"])


def test_a_policy_file_takes_the_place_of_the_quota(policies: str) -> None:
    text = " ".join(get_output("simulate", BURST, "--policies", policies, "--semantics", "independent").split())
    assert "candidate: gcra, 1/s, burst 3 (window 3 s), for each client; a shadow, which only counts" in text
    assert "The shadow policy candidate would deny" in text
    assert "independent: each policy charges" in text


def test_scenarios_of_both_kinds_share_a_table_and_a_document(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    document = get_json("simulate", BURST, BURNED, "--csv", table)
    assert [next(iter(run.items())) for run in document["runs"]] == [("version", 1)] * 2
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert {row["policy"] for row in rows} == {"", "all together", "day", "second"}
    assert get_output("simulate", BURST) in get_output("simulate", BURNED, BURST)


@pytest.mark.slow
def test_charts_and_pages_show_each_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    get_output("simulate", BURNED, "--html", f"{tmp_path}/pages/")
    monkeypatch.setattr("ratelab.cli.artifacts.render_figure", lambda *_: b"")  # the page has rendered them
    get_output("simulate", BURNED, BURST, "--plot", f"{tmp_path}/charts/")
    assert {path.name for path in (tmp_path / "charts").iterdir()} >= {
        "burned-quota-policies.png", "burned-quota-bound.png", "burned-quota-left.png", "burst-comparison.png",
    }  # fmt: skip
    page = (tmp_path / "pages" / "burned-quota.html").read_text()
    assert "bound by" not in page  # there is a single client
    assert all(text in page for text in ('<h2 id="results">', "9 of 5", "denied_alone", "Scenario file"))
    assert "Accuracy" not in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((BURNED, "--rate", "1/s"), "has policies, each with its quota: leave out --rate and --burst"),
        ((BURNED, "--algo", "gcra"), "each policy has its algorithm and its quota: leave out --algo"),
        ((BURNED, "--accuracy"), "--accuracy compares algorithms at one quota, and not several policies: leave it out"),
        ((BURNED, "--equalize", "peak"), "--equalize compares algorithms at one quota"),
        ((BURST, "--semantics", "atomic"), "--semantics is for several policies: add --policies FILE"),
        ((BURNED, "--plot", "x.png", "--chart", "window"), "--chart window shows one quota, unlike burned-quota"),
        ((BURST, "--plot", "x.png", "--chart", "bound"), "--chart bound shows several policies, unlike burst"),
        ((BURST, "--policies", "none.yaml"), "none.yaml: No such file or directory"),
    ],
)
def test_options_that_need_one_quota_are_rejected(arguments: tuple[str, ...], message: str) -> None:
    assert message in get_error("simulate", *arguments)


def test_a_chart_of_what_is_left_needs_no_policy_that_charges_at_once(tmp_path: Path) -> None:
    scenario = SCENARIOS / "published-figures" / "tokens-charged-afterwards.yaml"
    get_output("simulate", scenario, "--plot", tmp_path / "left.svg", "--chart", "left")
    assert (tmp_path / "left.svg").read_text(encoding="utf-8").endswith("</svg>\n")
