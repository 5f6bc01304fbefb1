"""Policy files and files of plans: their content, and one-line errors with file, line, path and remedy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, get_origin

import pytest
from asgi import call
from cli_runner import PLAIN, REMEDY, invoke
from invalid_policies import INVALID_POLICY_FILES, VALID_POLICIES, InvalidPolicyFile
from limited_apps import Handler
from pydantic import BaseModel

from ratelab import InputError, Policy
from ratelab.cli.serve import check_policies
from ratelab.documents import Example, Strict
from ratelab.http import RateLimitMiddleware
from ratelab.http.file_policies import FilePolicies
from ratelab.http.identity import Identity
from ratelab.lab.scenarios.population import LoopScenarioFile
from ratelab.lab.scenarios.schema import ScenarioFile
from ratelab.policies.description import describe_limit
from ratelab.policies.policy_file import read_plan_file, read_policies


@pytest.mark.parametrize("invalid", INVALID_POLICY_FILES.values(), ids=INVALID_POLICY_FILES.keys())
def test_an_invalid_policy_file_is_a_one_line_error(tmp_path: Path, invalid: InvalidPolicyFile) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(invalid.content)
    result = invoke("policies", "check", path)
    assert (result.exit_code, result.stdout) == (2, ""), result.exception
    assert result.stderr.startswith(f"Error: {path}{invalid.message}")
    assert invalid.other_part in result.stderr
    assert REMEDY.search(result.stderr), result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert len(result.stderr) < 500


def test_a_missing_policy_file_is_a_one_line_error(tmp_path: Path) -> None:
    result = invoke("policies", "check", tmp_path / "no.yaml")
    assert result.stderr == f"Error: {tmp_path / 'no.yaml'}: No such file or directory: name a policy file\n"


INVALID_PLAN_FILES = {
    "alice\n": ":1: expected KEY,PLAN, got 'alice'",
    "key,plan\nalice,premium,x\n": ":2: expected KEY,PLAN, got 'alice,premium,x'",
    "key,plan\n,premium\n": ":2: expected KEY,PLAN, got ',premium'",
    "alice,premum\n": ":1: unknown plan 'premum'; did you mean 'premium'?",
    "alice,free\nbob,free\nalice,premium\n": ":3: duplicate key 'alice': keep one of its plans",
    'alice,"free\n': ":1: invalid CSV",
}


@pytest.mark.parametrize("text", INVALID_PLAN_FILES)
def test_an_invalid_file_of_plans_is_an_error_with_its_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "plans.csv"
    path.write_text(text)
    with pytest.raises(InputError) as raised:
        read_plan_file(str(path), ["free", "premium"])
    assert str(raised.value).startswith(f"{path}{INVALID_PLAN_FILES[text]}")
    assert REMEDY.search(str(raised.value))


def test_a_file_of_plans_may_have_a_header_blank_lines_and_repeated_lines(tmp_path: Path) -> None:
    path = tmp_path / "plans.csv"
    path.write_text("\ufeffkey,plan\r\nalice,premium\r\n\r\nbob, free\r\nalice,premium\r\n", encoding="utf-8")
    assert read_plan_file(str(path), ["free", "premium"]) == {"alice": "premium", "bob": "free"}


def test_a_plan_changes_quotas_and_an_override_replaces_them(tmp_path: Path) -> None:
    path = tmp_path / "policies.yaml"
    path.write_text(VALID_POLICIES)
    content = read_policies(str(path))
    quotas = [str(policy.quota) for policy in content.policies_of()]
    assert quotas == ["10/s, burst 20", "1000/day, burst 1000", "5000/s, burst 5000"]
    assert [str(policy.quota) for policy in content.policies_of("bob", "premium")] == [
        "50/s, burst 100",
        "20000/day, burst 20000",
        "5000/s, burst 5000",
    ]
    assert str(content.policies_of("alice", "premium")[0].quota) == "10/s, burst 40"
    assert [policy.shadow for policy in content.policies] == [False, False, True]
    assert [policy.key for policy in content.policies] == [None, None, "all"]


def test_a_file_of_plans_is_found_next_to_the_policy_file(tmp_path: Path) -> None:
    (tmp_path / "plans.csv").write_text("alice,premium\n")
    path = tmp_path / "policies.yaml"
    path.write_text(VALID_POLICIES.replace("header: X-Plan", "file: plans.csv"))
    content = read_policies(str(path))
    assert str(content.policies_of("bob")[1].quota) == "1000/day, burst 1000"
    assert str(content.policies_of("alice")[1].quota) == "20000/day, burst 20000"
    assert content.files == (str(path), str(tmp_path / "plans.csv"))


def test_policies_check_prints_every_limit_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PLAIN, "COLUMNS", "160")
    path = tmp_path / "policies.yaml"
    path.write_text(VALID_POLICIES)
    result = invoke("policies", "check", path)
    assert (result.exit_code, result.stderr) == (0, "")
    _, *rows, plan, account = [" | ".join(re.split(r" {2,}", line)) for line in result.stdout.splitlines()]
    assert rows == [
        "second | token-bucket | 10 requests per second, at most 20 at once | each client | all",
        "day | fixed-window | 1,000 requests per day, at most 1,000 at once | each client | all",
        "global (shadow) | gcra | 5,000 requests per second, at most 5,000 at once | all clients together | all",
        "second | token-bucket | 50 requests per second, at most 100 at once | each client on premium | all",
        "day | fixed-window | 20,000 requests per day, at most 20,000 at once | each client on premium | all",
        "second | token-bucket | 10 requests per second, at most 40 at once | alice | all",
    ]
    assert plan == "plan: X-Plan, which only your authentication layer may set; without one, it is free"
    assert account == "account: X-Account, which only your authentication layer may set"


def test_policies_check_truncates_nothing_in_a_narrow_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PLAIN, "COLUMNS", "60")
    path = tmp_path / "policies.yaml"
    day = "rate: 1/day, timezone: Europe/Berlin, match: '/a/{b:path}'}"
    path.write_text(VALID_POLICIES.replace("rate: 1000/day}", day))
    output = invoke("policies", "check", path).stdout
    assert "\N{HORIZONTAL ELLIPSIS}" not in output
    assert max(map(len, output.splitlines())) <= 60
    assert {"token-bucket", "fixed-window"} <= {*output.split()}


def test_a_penalty_and_a_timezone_are_those_of_the_policy(tmp_path: Path) -> None:
    (tmp_path / "policies.yaml").write_text(
        "version: 1\n"
        "policies:\n"
        "  - {name: login, algorithm: fixed-window, rate: 5/min,\n"
        "     penalty: {after: 3, within: 1min, for: 5min, growth: 1.5, at_most: 1h}}\n"
        "  - {name: month, algorithm: fixed-window, rate: 100000/month, timezone: Europe/Berlin}\n"
    )
    penalty = {"after": 3, "within": "1min", "for": "5min", "growth": 1.5, "at_most": "1h"}
    content = read_policies(str(tmp_path / "policies.yaml"))
    assert content.policies == (
        Policy.create("fixed-window", "5/min", name="login", penalty=penalty),
        Policy.create("fixed-window", "100000/month", name="month", timezone="Europe/Berlin"),
    )
    login, month = map(describe_limit, content.policies)
    assert login.endswith(
        "penalty after 3 denials within 1 min, for 5 min, each 1.5 times as long as the last, up to 1 h"
    )
    assert month == "100,000 requests in each month of Europe/Berlin"


def test_a_file_of_plans_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ratelab.policies.policy_file.MAX_PLANNED_CLIENTS", 2)
    path = tmp_path / "plans.csv"
    path.write_text("a,free\nb,free\nc,free\n")
    with pytest.raises(InputError, match=r":3: more than 2 keys: use plan: {header: NAME}"):
        read_plan_file(str(path), ["free"])


ODD_POLICIES = [
    "name: 1, algorithm: gcra, rate: 1/s",
    f"name: {'a' * 100}, algorithm: gcra, rate: 1/s",
    "name: all, algorithm: gcra, rate: 1/s, key: all",
    "name: 'a b/c:d.e_f-g', algorithm: gcra, rate: ' 5 / s '",
    "algorithm: gcra, rate: 1/s, key: 'header:x-api-key'",
    "algorithm: gcra, rate: 1/s, key: 'header:Host'",
    "algorithm: gcra, rate: 1/s, key: 'header:CF-Connecting-IP'",
    "algorithm: gcra, rate: 1/s, key: account",
    "algorithm: gcra, rate: 1/s, match: /",
    "algorithm: gcra, rate: 1/s, match: 'FOO /caf\u00e9/{a}/{a}'",
    "algorithm: gcra, rate: 1/s, cost: bytes",
    "algorithm: gcra, rate: 1/s, cost: bytes, shadow: true",
    "algorithm: gcra, rate: 1/s, key: all, penalty: {after: 3, within: 1min, for: 5min}",
    "algorithm: leaky-bucket, rate: 7/0.3333s, penalty: {after: 3, within: 1min, for: 5min}",
    "algorithm: sliding-log, rate: 1000000/day",
    "algorithm: token-bucket, rate: 1000000000000000000/s",
    "algorithm: fixed-window, rate: 1/36500day",
    "algorithm: gcra, rate: 1/50000day",
    "algorithm: fixed-window, rate: 5/month",
    "algorithm: fixed-window, rate: 5/week, timezone: Pacific/Apia",
]


@pytest.mark.parametrize("fields", ODD_POLICIES)
def test_a_file_that_the_check_accepts_is_accepted_by_services(tmp_path: Path, fields: str) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(f"version: 1\npolicies:\n  - {{{fields}}}\naccount: {{header: X-Account}}\n", encoding="utf-8")
    assert invoke("policies", "check", path).exit_code == 0
    identity = Identity(trusted_proxies=["10.0.0.1"])
    file = FilePolicies(str(path))
    check_policies(file.find_plans(identity).policies, file, identity)
    app = RateLimitMiddleware.from_file(Handler(), str(path), key=identity)
    assert call(app).status == 200


def test_the_check_prints_what_the_policies_need_besides_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PLAIN, "COLUMNS", "250")
    path = tmp_path / "needs.yaml"
    path.write_text(
        "version: 1\n"
        "policies:\n"
        "  - {name: a, algorithm: gcra, rate: 1/50000day, key: 'header:CF-Connecting-IP', cost: points}\n"
        "  - {name: b, algorithm: gcra, rate: 1/s, key: account, cost: tokens}\n"
        "account: {header: X-Real-IP}\n"
    )
    *_, account, costs, first, second, store = invoke("policies", "check", path).stdout.splitlines()
    assert account == "account: X-Real-IP, which only your authentication layer may set"
    assert costs == "costs: points, tokens, which an application counts; ratelab serve cannot"
    assert first == "proxies: CF-Connecting-IP needs the proxies that set it, as --trusted-proxy or trusted_proxies"
    assert second == "proxies: X-Real-IP needs the proxies that set it, as --trusted-proxy or trusted_proxies"
    assert store.startswith("store: refused, since gcra with 1/50000day, burst 1 needs numbers of 2**53 or more")
    assert store.endswith("the nearest quota that fits is 1/2978420050.954405s, burst 1")


def list_models(model: type[BaseModel]) -> list[type[BaseModel]]:
    found = [model]
    for each in found:
        found += [one for one in each.__subclasses__() if one not in found]
    return found


def test_every_required_key_has_an_example_for_the_error_that_it_is_missing() -> None:
    models = list_models(Strict)
    assert {ScenarioFile, LoopScenarioFile} <= {*models}
    for model in models:
        for name, field in model.model_fields.items():
            if field.is_required() and get_origin(field.annotation) is not Literal:
                assert any(isinstance(each, Example) for each in field.metadata), f"{model.__name__}.{name}"
