"""`ratelab judge`: table, JSON, page, Markdown, exit statuses and errors."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import patch

import pytest
from cli_runner import get_error, invoke

import ratelab.cli.judge
from ratelab.judge import Judgement, Promise

TIMELINE = [
    {"at": 0.0, "until": 0.0, "key": "alice", "hits": 6, "allowed": 5, "retry_after": 1.999, "note": ""},
    {"at": 1.9995, "until": 4.0, "key": "alice", "hits": 1, "allowed": 0, "retry_after": 0.0, "note": "<late> | x"},
]
BROKEN = Judgement(
    "shop:limiter",
    (
        Promise("bound", True, {"requests": 9, "admitted": 10, "bound": 10, "window": 3.5}, [], None),
        Promise(
            "wait",
            False,
            {"limit": 5, "period": 10, "burst": 5},
            TIMELINE,
            "announced a wait of 1.999 s, but 2 s are needed",
        ),
        Promise("store", None, {}, [], "has no store"),
    ),
    {"python": "3.11.7", "ratelab": "0.1.0"},
)
RIGHT = BROKEN._replace(promises=BROKEN.promises[::2])


def run(judgement: Judgement, *arguments: str) -> tuple[int, str]:
    with patch.object(ratelab.cli.judge, "judge_candidate", return_value=judgement):
        result = invoke("judge", "shop:limiter", *arguments)
    assert result.stderr == ""
    return result.exit_code, result.stdout


@pytest.mark.parametrize("options", [[], ["--on-store"]])
def test_all_promises_are_checked_on_a_store_if_told_so(options: list[str]) -> None:
    with patch.object(ratelab.cli.judge, "judge_candidate", return_value=RIGHT) as judged:
        invoke("judge", "shop:limiter", *options)
    assert judged.call_args.kwargs["on_store"] is bool(options)


def test_the_table_has_findings_and_the_failing_timeline() -> None:
    status, output = run(BROKEN)
    assert status == 1
    assert output.splitlines() == [
        "shop:limiter keeps 1 promise; breaks wait; 1 not applicable",
        "",
        "promise                  finding",
        "bound    kept            at most 10 admitted in 3.5 s; the bound is 10",
        "wait     BROKEN          announced a wait of 1.999 s, but 2 s are needed",
        "store    not applicable  has no store",
        "",
        "wait: the shortest failing timeline, with a limit of 5 in 10 s",
        "at          client  hits  allowed  retry after",
        "0 s         alice      6        5      1.999 s",
        "2 s to 4 s  alice      1        0          0 s  <late> | x",
    ]


def test_times_are_not_broken_over_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "48")
    assert "2 s to 4 s  alice      1        0          0 s" in run(BROKEN)[1]


def test_a_timeline_of_several_limits_states_all_of_them() -> None:
    limits = [{"limit": 6, "period": 600}, {"limit": 2, "period": 10}]
    several = Promise("several", False, {"limits": limits}, TIMELINE, "admitted 2 of 6")
    output = run(BROKEN._replace(promises=(several,)))[1]
    caption = "several: the shortest failing timeline, with a limit of 6 in 600 s and one of 2 in 10 s"
    assert caption in " ".join(output.split())


def test_the_status_is_zero_if_no_promise_is_broken() -> None:
    assert run(RIGHT)[0] == 0


def test_json_has_the_promises_in_order() -> None:
    status, output = run(BROKEN, "--json")
    document = json.loads(output)
    assert (status, document["target"]) == (1, "shop:limiter")
    assert [(each["name"], each["kept"]) for each in document["promises"]] == [
        ("bound", True),
        ("wait", False),
        ("store", None),
    ]
    assert document["promises"][1]["timeline"] == TIMELINE
    assert {*document["promises"][0]} == {"name", "kept", "figures", "timeline", "reason"}


def test_markdown_has_a_badge_and_a_table(tmp_path: Path) -> None:
    status, output = run(BROKEN, "--markdown")
    badge, _, header, _, *rows = output.splitlines()
    assert status == 1
    assert badge.startswith("[![ratelab judge: 1 of 2 promises kept](https://img.shields.io/badge/")
    assert "-red)](" in badge
    assert "-brightgreen)](" in run(RIGHT, "--markdown")[1]
    assert header == "| promise | | finding |"
    assert rows[1] == "| `wait` | BROKEN | announced a wait of 1.999 s, but 2 s are needed |"
    run(BROKEN, "--markdown", str(tmp_path / "badge.md"))
    assert (tmp_path / "badge.md").read_text() == output


def test_a_page_has_findings_and_timelines(tmp_path: Path) -> None:
    assert run(BROKEN, "--html", str(tmp_path / "page.html"))[0] == 1
    page = (tmp_path / "page.html").read_text()
    assert "announced a wait of 1.999\N{NO-BREAK SPACE}s" in page or "announced a wait of 1.999 s" in page
    assert "&lt;late&gt; | x" in page
    assert "<late>" not in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["token-buckt"], "did you mean token-bucket?"),
        (["token-bucket", "--promise", "wiat"], "unknown promise 'wiat': did you mean wait?"),
        (["token-bucket", "--json", "--markdown"], "--json and --markdown must not both print: give --markdown a file"),
        (["token-bucket", "--html", "nowhere/page.html"], "there is no directory nowhere"),
        (["shop.py:limiter", "--html", "shop.py"], "shop.py would be overwritten"),
    ],
)
def test_an_error_is_one_line(arguments: list[str], message: str) -> None:
    assert message in get_error("judge", *arguments)
