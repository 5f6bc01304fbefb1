"""Policy files in `ratelab replay`, `tune` and `diff`: the fields that they need, and what each policy denies."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cli_runner import get_error, get_json, get_output, invoke

LINE = '{{"time": {second}, "ip": "{host}", "method": "{method}", "path": "{path}", "bytes": {size}}}\n'
START = 1_793_491_200  # a Sunday, 00:00 UTC
POLICIES = """\
version: 1
policies:
  - {name: second, algorithm: token-bucket, rate: 1/s, burst: 4}
  - {name: login, algorithm: fixed-window, rate: 3/min, match: "POST /login"}
  - {name: bytes, algorithm: token-bucket, rate: 1000/s, burst: 5000, cost: bytes, key: all, shadow: true}
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Return a log of alice and bob, who send ten requests each in ten seconds; every other one of bob is a login."""
    lines = []
    for second in range(10):
        alice = {"host": "192.0.2.1", "method": "GET", "path": "/items/7?page=2", "size": 100}
        bob = {"host": "192.0.2.2", "method": "POST", "path": "/login/" if second % 2 else "/items", "size": 1500}
        lines += [LINE.format(second=START + second, **client) for client in (alice, bob)]
    path = tmp_path / "access.jsonl"
    path.write_text("".join(lines))
    return path


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    path = tmp_path / "policies.yaml"
    path.write_text(POLICIES)
    return path


def test_a_log_is_replayed_through_the_policies_that_apply_to_each_request(log: Path, policies: Path) -> None:
    document = get_json("replay", log, "--policies", policies)
    whole, second, login, size = document["results"][0]["policies"]
    assert [row["offered"] for row in (whole, second, login, size)] == [20, 20, 5, 20]
    assert (second["denied"], login["denied"], whole["denied"]) == (0, 2, 2)
    assert size["peak_in_window"] > 5000 * 0.9
    assert size["denied"] > 0
    assert {row["client"]: row["bound"]["login"] for row in document["results"][0]["per_client"]} == {
        "192.0.2.1": 0, "192.0.2.2": 2,
    }  # fmt: skip


def test_what_a_shadow_policy_lets_through_is_no_breach_of_its_quota(log: Path, policies: Path) -> None:
    strict = "  - {name: strict, algorithm: gcra, rate: 1/min, shadow: true}"
    policies.write_text(f"{POLICIES}{strict}\n")
    document = get_json("replay", log, "--policies", policies)
    whole, *each = document["results"][0]["policies"]
    assert each[-1]["peak_in_window"] > 1
    assert "quota is 1)" not in get_output("replay", log, "--policies", policies)
    assert whole["peak_in_window"] == max(each[:2], key=lambda row: row["overshoot"])["peak_in_window"]


@pytest.mark.slow
def test_captions_of_charts_name_shadow_policies_and_units(log: Path, policies: Path, tmp_path: Path) -> None:
    get_output("replay", log, "--policies", policies, "--plot", tmp_path / "chart.svg", "--chart", "bound")
    caption = " ".join(re.findall("<!-- (.*) -->", (tmp_path / "chart.svg").read_text()))
    assert "bytes 1,000/s, burst 5,000 of bytes (shadow)" in caption


def test_accounts_and_plans_come_from_the_fields_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    rows = [(n, f"10.0.0.{n % 4}", "acme" if n % 4 < 2 else "other", "premium" if n % 4 < 2 else "") for n in range(80)]
    log.write_text(
        "".join(
            f'{{"time": {1_700_000_000 + n / 10}, "ip": "{ip}", "X-Account": "{account}", "X-Plan": "{plan}"}}\n'
            for n, ip, account, plan in rows
        )
    )
    file = tmp_path / "plans.yaml"
    file.write_text(
        "version: 1\naccount: {header: X-Account}\nplan: {header: X-Plan, default: free}\n"
        "policies:\n  - {name: second, algorithm: token-bucket, rate: 1/s, burst: 2}\n"
        "  - {name: account, algorithm: fixed-window, rate: 30/min, key: account}\n"
        "plans: {free: {}, premium: {second: {rate: 100/s}}}\n"
    )
    document = get_json("replay", log, "--policies", file)
    rows_by_name = {row["policy"]: row for row in document["results"][0]["policies"]}
    assert list(rows_by_name) == ["all together", "second (premium)", "second (free)", "account"]
    assert rows_by_name["second (premium)"]["denied"] == 0
    assert rows_by_name["second (free)"]["denied"] > 0
    assert rows_by_name["account"]["clients"] == 2
    assert rows_by_name["account"]["denied"] == 10  # of the 40 requests of acme
    without = log.with_name("without.jsonl")
    without.write_text(log.read_text().replace("X-Account", "a").replace("X-Plan", "p"))
    text = " ".join(get_output("replay", without, "--policies", file).split())
    assert "lines have no X-Account: its policies count each client" in text
    assert "lines have no X-Plan: each client has the default plan" in text


@pytest.mark.slow
def test_both_readers_find_the_same_requests(tmp_path: Path, policies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    log = tmp_path / "access.log"
    get_output("sample", log, "--lines", "8000")
    file = policies.with_name("products.yaml")
    file.write_text(POLICIES.replace("POST /login", "GET /products/{id}").replace("cost: bytes, ", ""))
    columnar = get_json("replay", log, "--policies", file)
    monkeypatch.setattr("ratelab.lab.traces.reader.is_arrow_installed", lambda: False)
    assert get_json("replay", log, "--policies", file) == columnar


def test_tune_checks_each_policy_alone_and_together(log: Path, policies: Path) -> None:
    document = get_json("tune", log, "--policies", policies, "--policy", "login")
    alone = {row["policy"]: (row["denied_alone"], row["denied"]) for row in document["policies"]}
    assert document["policy"] == "login"
    assert document["offered"] == 5
    assert alone["login"] == (2, 2)
    text = " ".join(get_output("tune", log, "--policies", policies).split())
    assert "Together, the policies deny 2 of 20 requests (10 %)." in text
    assert "For second, now token-bucket, 1/s, burst 4:" in text
    assert re.search(rf"in {policies}, give second rate: \S+, burst: \d+; then ratelab replay {log} --policies", text)


def test_the_advice_of_tune_is_a_valid_change_of_any_policy(log: Path, policies: Path) -> None:
    day = "{name: day, algorithm: fixed-window, rate: 100/day, timezone: Europe/Berlin}"
    policies.write_text(f"{POLICIES}  - {day}\n")
    text = get_output("tune", log, "--policies", policies, "--policy", "day")
    advice = re.search("give day (algorithm: token-bucket, rate: .*, burst: .*) without a timezone; then", text)
    assert advice is not None
    policies.write_text(f"{POLICIES}  - {{name: day, {advice[1]}}}\n")
    get_output("policies", "check", policies)
    assert "give login algorithm: token-bucket, " in get_output(
        "tune", log, "--policies", policies, "--policy", "login"
    )


def test_diff_compares_policy_files_and_limits(log: Path, policies: Path) -> None:
    stricter = policies.with_name("stricter.yaml")
    stricter.write_text(POLICIES.replace("rate: 3/min", "rate: 1/min"))
    result = invoke("diff", policies, stricter, log)
    assert result.exit_code == 1
    text = "".join(result.stdout.split())  # lines end within long paths, too
    assert f"Old:{policies},3policiestogether,denies2of20requests(10%)." in text
    assert "Newlydenied:2of20requests(10%),of1of2clients(50%)." in text
    assert get_json("diff", policies, policies, log)["newly_denied"] == 0


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (("cost: bytes", "cost: tokens"), (), "no field tokens, a cost of "),
        (("match: ", "cost: requests, key: header:X, match: "), ("--cost", "bytes"), "leave out --cost"),
        (("cost: requests", "cost: units"), ("--rate", "1/s"), "leave out --rate"),
        (("name: login", "name: second"), (), "policies[1]: duplicate policy name 'second'"),
    ],
)
def test_a_file_that_does_not_fit_the_log_is_reported(
    log: Path, policies: Path, change: tuple[str, str], arguments: tuple[str, ...], message: str
) -> None:
    policies.write_text(POLICIES.replace(*change))
    assert message in get_error("replay", log, "--policies", policies, *arguments)


def test_a_policy_without_a_file_is_rejected(log: Path, policies: Path) -> None:
    assert "add --policies FILE" in get_error("tune", log, "--policy", "login")
    assert "--policy must be one of second, login, bytes, got 'x'" in get_error(
        "tune", log, "--policies", policies, "--policy", "x"
    )
    assert "add --policies FILE" in get_error("replay", log, "--rate", "1/s", "--semantics", "atomic")
