"""`ratelab verify --policies`: a service of several policies agrees with the simulation of its file."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from cli_runner import get_error, invoke
from serve_process import run_server

from ratelab import InputError
from ratelab.policies.policy_file import read_policies
from ratelab.verify.reference import combine_policies

FILE = """\
version: 1
policies:
  - {name: minute, algorithm: token-bucket, rate: 6/min, burst: 3}
  - {name: hour, algorithm: sliding-log, rate: 6/h}
  - {name: day, algorithm: fixed-window, rate: 100/day, timezone: Europe/Berlin}
  - {name: tight, algorithm: gcra, rate: 1/h, shadow: true}
  - {name: login, algorithm: gcra, rate: 1/h, match: POST /login}
plan: {header: X-Plan, default: free}
plans:
  free: {}
  premium: {minute: {burst: 5}, hour: {rate: 4/h}}
"""
SCENARIO = """\
name: short
duration: 450ms
quota: {rate: 1/s}
clients:
  - name: alice
    count: 2
    traffic:
      - {pattern: burst, at: 13ms, size: 5, spacing: 7ms}
      - {pattern: burst, at: 413ms, size: 4, spacing: 7ms}
"""
"""Each request is several seconds away from a time at which the decision would be different."""

KEY = ("--key", "header:X-API-Key")


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "policies.yaml").write_text(FILE)
    (tmp_path / "short.yaml").write_text(SCENARIO)
    return str(tmp_path / "policies.yaml")


@pytest.mark.slow
@pytest.mark.usefixtures("in_turn")
@pytest.mark.parametrize("store", [(), ("--store", "embedded")], ids=["memory", "store"])
def test_a_service_with_the_file_agrees_on_each_plan(file: str, store: tuple[str, ...]) -> None:
    scenario = file.replace("policies.yaml", "short.yaml")
    with run_server("--policies", file, *KEY, *store) as server:
        url = server.banner["serving"]
        free = invoke("verify", scenario, "--url", url, *KEY, "--policies", file)
        assert (free.exit_code, free.stderr) == (0, ""), free.output
        assert "short against" in free.stdout
        assert "minute: 6 requests per minute, at most 3 at once, token-bucket\n" in free.stdout
        assert "18 of 18 responses as simulated (100 %)\nheader fields correct" in free.stdout
        premium = invoke("verify", scenario, "--url", url, *KEY, "--policies", file, "--plan", "premium", "--json")
        report = json.loads(premium.stdout)
        assert (premium.exit_code, report["agreeing"], report["used_keys"]) == (0, 18, 0)
        assert [policy["name"] for policy in report["policies"]] == ["minute", "hour", "day"]
        other = invoke("verify", scenario, "--url", url, *KEY, "--policies", file, "--plan", "free")
        assert other.exit_code == 0


@pytest.mark.slow
@pytest.mark.usefixtures("in_turn")
def test_a_service_with_other_policies_disagrees(file: str) -> None:
    scenario = file.replace("policies.yaml", "short.yaml")
    with run_server("--policies", file, *KEY) as server:
        url = server.banner["serving"]
        other = Path(file).with_name("other.yaml")
        other.write_text(FILE.replace("6/h", "2/h"))
        result = invoke("verify", scenario, "--url", url, *KEY, "--policies", other)
        assert result.exit_code == 1
        assert re.search(r"1[0-7] of 18 responses as simulated", result.stdout)
        other.write_text(FILE.replace("burst: 3", "burst: 4"))
        message = get_error("verify", scenario, "--url", url, *KEY, "--policies", other)
        assert message == (
            "the server grants q=3;w=30, the file q=4;w=40: run ratelab serve with the same --policies\n"
        )


INVALID = [
    (("--plan", "premium"), "--plan premium needs --policies FILE"),
    (("--policies", "FILE", "--algo", "gcra"), "--algo must be left out with --policies FILE: write it into the file"),
    (("--policies", "FILE", "--rate", "1/s"), "--rate must be left out with --policies FILE: write it into the file"),
    (("--policies", "FILE", "--plan", "gold"), "--plan gold needs a plan of this name, and plan: {header: NAME}, in"),
]


@pytest.mark.parametrize(("options", "message"), INVALID)
def test_options_that_do_not_fit_are_rejected(file: str, options: tuple[str, ...], message: str) -> None:
    given = [file if option == "FILE" else option for option in options]
    error = get_error("verify", file.replace("policies.yaml", "short.yaml"), "--url", "http://127.0.0.1:9/ping", *given)
    assert error.startswith(message.replace("FILE", file) if len(options) > 2 else message)


CASES = [
    ("key: all", 2, "the clients of a run share the all of policy minute: use a scenario with one client"),
    ("key: ip", 2, "the clients of a run share the ip of policy minute: use a scenario with one client"),
    ("cost: tokens", 1, "policy minute counts tokens: only requests can be verified"),
]


@pytest.mark.parametrize(("field", "clients", "message"), CASES)
def test_policies_that_a_run_cannot_compare_are_rejected(file: str, field: str, clients: int, message: str) -> None:
    Path(file).write_text(FILE.replace("burst: 3", f"burst: 3, {field}"))
    with pytest.raises(InputError) as raised:
        combine_policies(read_policies(file), None, "X-API-Key", "/ping", clients)
    assert str(raised.value) == f"{file}: {message}"


def test_policies_of_other_requests_and_shadow_policies_are_left_out(file: str) -> None:
    combined = combine_policies(read_policies(file), "premium", "X-API-Key", "/ping", 2)
    assert [policy.name for policy in combined.algorithm.policies] == ["minute", "hour", "day"]  # type: ignore[attr-defined]
    assert combined.quota.burst == 100
    Path(file).write_text("version: 1\npolicies:\n- {algorithm: gcra, rate: 1/s, match: POST /login}\n")
    with pytest.raises(InputError, match="no policy denies a request by GET for /ping: name a page"):
        combine_policies(read_policies(file), None, "X-API-Key", "/ping", 1)
