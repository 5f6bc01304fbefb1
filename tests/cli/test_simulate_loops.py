"""`ratelab simulate` with clients that react to answers: tables, JSON, CSV, events, charts, pages and options."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from cli_runner import BURST, SCENARIOS, get_error, get_json, get_output
from outage_scenario import OUTAGE

from ratelab.report.loops import LOOP_FIGURES

HERD = """\
name: herd
description: Clients that share a quota.
duration: 20s
seed: 1
quota: {rate: 5/s, burst: 4}
algorithms: [token-bucket, fixed-window]
clients:
  - name: worker
    count: 10
    key: shared
    loop: serial
    think: {exponential: 1s}
    retry: {policy: retry-after, attempts: 5}
"""
VARIANTS = """\
variants:
  plain: {}
  jitter:
    clients: {worker: {retry: {jitter: full}}}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / f"{text.split()[1]}.yaml"
    path.write_text(text)
    return path


def test_each_algorithm_has_a_row_and_clients_are_described(tmp_path: Path) -> None:
    text = " ".join(get_output("simulate", write(tmp_path, HERD)).split())
    assert "10 clients sharing 1 key in 20 s quota for each key: 5/s, burst 4 (window 800 ms)" in text
    assert "10 clients, worker-1 to worker-10, each (on the key shared): one request at a time, " in text
    assert "each algorithm meets traffic of its own, since clients react to its answers" in text
    assert "do not react" not in text
    assert "algorithm served goodput tries per request" in text
    assert all(f" {name} " in text for name in ("token-bucket", "fixed-window", "served", "gave up"))


@pytest.mark.parametrize("width", [60, 80, 140])
def test_no_line_is_wider_than_the_terminal(tmp_path: Path, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from ratelab.cli import ratelab_command

    runner = CliRunner(env={"COLUMNS": str(width), "TERM": "dumb"})
    result = runner.invoke(ratelab_command, ["simulate", str(write(tmp_path, HERD)), "--all-figures"])
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= width


def test_json_and_csv_have_the_same_figures(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    document = get_json("simulate", write(tmp_path, HERD), "--csv", table)
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [row["algorithm"] for row in rows] == ["token-bucket", "fixed-window"]
    for row, result in zip(rows, document["results"], strict=True):
        for name in LOOP_FIGURES:
            assert row[name] == ("" if result[name] is None else str(result[name]))
        assert result["first_tries"] == result["successes"] + result["gave_up"] + result["pending"]
        assert sum(client["successes"] for client in result["per_client"]) == result["successes"]
        assert sum(result["series"]["arrivals"]) == result["attempts"]
        assert result["quota"] == {"rate": "5/s", "burst": 4, "window": 0.8}


def test_events_have_every_try_with_its_decision_and_result(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    document = get_json("simulate", write(tmp_path, HERD), "--events", path)
    events = [json.loads(line) for line in path.read_text().splitlines()]
    for result in document["results"]:
        tries = [event for event in events if event["algorithm"] == result["algorithm"]]
        assert len(tries) == result["attempts"]
        assert sum(not event["allowed"] for event in tries) == result["denied"] > 0
        assert sum(event["number"] == 1 for event in tries) == result["first_tries"]
        assert sum(event["result"] == "success" for event in tries) == result["successes"]
        assert all(event["sent_ns"] <= event["at_ns"] for event in tries)
        assert all((event["ended_ns"] is None) == (event["result"] == "pending") for event in tries)


def test_a_scenario_without_a_quota_is_one_run(tmp_path: Path) -> None:
    document = get_json("simulate", write(tmp_path, OUTAGE))
    (result,) = document["results"]
    assert (result["algorithm"], result["quota"], result["overshoot"]) == ("no-limit", None, None)
    assert result["recovery_time"] is not None
    text = " ".join(get_output("simulate", write(tmp_path, OUTAGE)).split())
    assert "no limiter server: 1 worker, 50 ms a request" in text
    assert "After the outage, goodput was back" in text


def test_a_rate_adds_a_limiter_and_options_select_algorithms(tmp_path: Path) -> None:
    limited = get_json("simulate", write(tmp_path, OUTAGE), "--rate", "8/s", "--algo", "gcra", "--burst", "2")
    assert [(row["algorithm"], row["quota"]["rate"]) for row in limited["results"]] == [("gcra", "8/s")]
    seeds = [get_json("simulate", write(tmp_path, HERD), "--seed", seed)["results"][0] for seed in ("1", "2", "1")]
    assert seeds[0] == seeds[2] != seeds[1]


def test_variants_are_rows_of_one_table(tmp_path: Path) -> None:
    table, events = tmp_path / "table.csv", tmp_path / "events.csv"
    path = write(tmp_path, HERD + VARIANTS)
    text = get_output("simulate", path, "--algo", "token-bucket", "--csv", table, "--events", events)
    assert any(line.startswith("jitter: retries ") and "full jitter" in line for line in text.splitlines())
    assert [row["variant"] for row in csv.DictReader(table.read_text().splitlines())] == ["plain", "jitter"]
    assert {row["variant"] for row in csv.DictReader(events.read_text().splitlines())} == {"plain", "jitter"}
    both = get_json("simulate", path)["results"]
    assert [(row["variant"], row["algorithm"]) for row in both[:2]] == [
        ("plain", "token-bucket"),
        ("plain", "fixed-window"),
    ]


def test_scenarios_of_all_kinds_share_a_document(tmp_path: Path) -> None:
    herd, table = write(tmp_path, HERD), tmp_path / "table.csv"
    policies = SCENARIOS / "starved-organisation.yaml"
    document = get_json("simulate", BURST, herd, policies, "--csv", table)
    assert [run["scenario"] for run in document["runs"]] == ["burst", "herd", "starved-organisation"]
    alone = get_json("simulate", herd)
    assert document["runs"][1] == alone
    assert get_output("simulate", BURST) in get_output("simulate", BURST, herd)


def test_a_timeline_has_a_line_for_each_algorithm(tmp_path: Path) -> None:
    lines = get_output("simulate", write(tmp_path, HERD), "--timeline").splitlines()
    assert (
        sum(line.startswith(("token-bucket ", "fixed-window ")) and set(line[16:]) <= set(".|~+x") for line in lines)
        == 2
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--accuracy"], "--accuracy compares decisions on the same requests, but clients that react send others to"),
        (["--equalize", "peak"], "--equalize compares decisions on the same requests, but clients that react send"),
        (["--client-timeout", "1s"], "the timeout of a client is its key timeout: leave out --client-timeout"),
        (["--plot", "x.png", "--chart", "window"], "--chart window shows one quota, unlike herd: choose one of loop, "),
        (
            ["--policies", "policies.yaml"],
            "the clients of herd react to answers and take no policies: leave out --policies",
        ),
    ],
)
def test_options_for_clients_that_do_not_react_are_rejected(
    tmp_path: Path, options: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("policies.yaml").write_text("version: 1\npolicies:\n  - {name: a, algorithm: gcra, rate: 2/s}\n")
    assert get_error("simulate", write(tmp_path, HERD), *options).startswith(message)
    assert {path.name for path in tmp_path.iterdir()} == {"policies.yaml", "herd.yaml"}


def test_an_algorithm_needs_a_quota(tmp_path: Path) -> None:
    error = get_error("simulate", write(tmp_path, OUTAGE), "--algo", "gcra")
    assert error == "outage has no quota: give --rate, or leave out --algo\n"


def test_a_chart_of_clients_that_react_does_not_show_others(tmp_path: Path) -> None:
    error = get_error("simulate", BURST, "--chart", "goodput", "--plot", tmp_path / "x.png")
    assert error.startswith("--chart goodput shows clients that react to answers, unlike burst: choose one of ")


@pytest.mark.slow
def test_charts_and_pages_show_each_run(tmp_path: Path) -> None:
    get_output("simulate", write(tmp_path, HERD), "--plot", f"{tmp_path}/charts/", "--html", f"{tmp_path}/gallery/")
    assert sorted(path.stem for path in (tmp_path / "charts").iterdir()) == [
        "attempts", "goodput", "loop", "time-to-success",
    ]  # fmt: skip
    page = (tmp_path / "gallery" / "herd.html").read_text()
    assert page.count("<picture>") == 3
    assert all(f"<code>{name}</code>" in page for name in LOOP_FIGURES)
    assert "HotOS 2021" in page
