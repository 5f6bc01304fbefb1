"""Recordings of several policies: the recorded calls are made again, with the same decisions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import pytest
from cli_runner import get_error, get_json, get_output, invoke
from custom_algorithms import written

from ratelab import ManualClock, Policy
from ratelab.policies.policy_file import read_policies
from ratelab.stores.plans import QuotaChanges
from ratelab.stores.recording import RecordingLimiter

SECOND = 10**9
POLICIES = (
    Policy.create("token-bucket", "10/min", name="minute"),
    Policy.create("fixed-window", "60/day", name="all", key="all", timezone="Europe/Berlin"),
    Policy.create("sliding-log", "5/min", name="login", match="POST /login", key="header:X-User"),
    Policy.create("gcra", "3/min", name="strict", shadow=True),
)
PLANS: dict[str, QuotaChanges] = {"free": {}, "premium": {"minute": "20/min", "strict": ("6/min", 9)}}
OVERRIDES: dict[str, QuotaChanges] = {"key-1": {"minute": ("5/min", 3)}}
AS_RECORDING = ("--format", "recording")


def record(path: Path, hits: int = 300, policies: Sequence[Policy] = POLICIES) -> list[dict[str, Any]]:
    """Record all kinds of calls at irregular times, and return the lines."""
    random, clock = Random(7), ManualClock(1_700_000_000 * SECOND)
    with path.open("x") as file:
        limiter = RecordingLimiter(policies, file, clock, plans=PLANS, overrides=OVERRIDES)
        for number in range(hits):
            clock.advance(random.choice([0, 1, SECOND, 5 * SECOND]))
            key, plan, cost = f"key-{random.randrange(4)}", random.choice([None, *PLANS]), random.choice([0, 1, 1, 3])
            keys = {"minute": key, "all": key, "strict": key, "login": "alice"}
            match number % 5:
                case 0:
                    ticket = limiter.reserve(key, cost, plan)
                case 1:
                    ticket.settle(random.choice([0, 1, 4]))
                case 2 if number % 3 == 0:
                    limiter.refund(key)
                case 3:
                    limiter.hit(keys if number % 2 else {"minute": key}, {"minute": cost, "all": 0}, plan)
                case _:
                    limiter.hit(key, cost, plan)
            if number == hits // 2:
                changed = [policies[0].with_quota("12/min"), *policies[1:]]
                limiter.update(changed, plans={**PLANS, "premium": {"minute": "30/min"}})
        assert limiter.failure is None
    return read(path)


def read(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a recording."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path: Path, lines: Sequence[dict[str, Any]]) -> Path:
    """Write the lines of a recording, and return its path."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recording") / "live.jsonl"
    record(path)
    return path


@pytest.fixture
def lines(recording: Path) -> list[dict[str, Any]]:
    return read(recording)


def list_hits(lines: Sequence[dict[str, Any]]) -> Iterator[int]:
    """Yield the positions of the decisions."""
    return (number for number, line in enumerate(lines) if "allowed" in line)


def test_plans_tickets_refunds_and_updates_replay_to_exactly_the_same_decisions(recording: Path) -> None:
    document = get_json("replay", recording, *AS_RECORDING)
    lines = read(recording)
    verdict, hits = document["recording"], [lines[number] for number in list_hits(lines)]
    assert (verdict["decisions"], verdict["differing"]) == (len(hits), 0)
    assert verdict["recorded_sha256"] == verdict["replayed_sha256"]
    assert {line["bound_by"] for line in hits} == {None, "minute", "all", "login"}
    assert any("settled" in line for line in lines)
    assert any("refund" in line for line in lines)


def test_the_report_counts_the_recorded_decisions_of_each_policy(recording: Path) -> None:
    document, lines = get_json("replay", recording, *AS_RECORDING), read(recording)
    whole, *parts = document["results"][0]["policies"]
    hits = [lines[number] for number in list_hits(lines) if is_charged(lines[number])]
    bound = [line["bound_by"] for line in hits]
    assert (whole["denied"], whole["bound"]) == (sum(not line["allowed"] for line in hits),) * 2
    for name in ("minute", "all", "login"):
        assert sum(part["bound"] for part in parts if part["policy"].partition(" (")[0] == name) == bound.count(name)
    denied = sum(part["denied"] for part in parts if part["policy"].startswith("strict"))
    assert denied == sum("strict" in line["shadow"] for line in hits)


def test_a_header_has_the_policies_and_the_lines_after_it_the_plans(lines: list[dict[str, Any]]) -> None:
    header, free, premium, override, *_ = lines
    assert (header["recording"], [*header["policies"]]) == (2, ["minute", "all", "login", "strict"])
    assert header["policies"]["login"] == {
        "algorithm": "sliding-log", "rate": "5/min", "burst": 5, "key": "header:X-User", "match": "POST /login"
    }  # fmt: skip
    assert header["policies"]["all"]["timezone"] == "Europe/Berlin"
    assert free == {"plan": "free", "quotas": {}}
    assert premium["quotas"]["strict"] == {"algorithm": "gcra", "rate": "6/min", "burst": 9}
    assert (override["override"], [*override["quotas"]]) == ("key-1", ["minute"])


def is_charged(hit: dict[str, Any]) -> bool:
    """Return whether a hit costs something."""
    costs = hit["cost"]
    return bool(costs) if isinstance(costs, int) else any(costs.get(name, 1) for name in hit["policies"])


CHANGES: dict[str, Any] = {
    "allowed": lambda line: not line["allowed"],
    "remaining": lambda line: line["remaining"] + 1,
    "bound_by": lambda _: "nobody",
    "shadow": lambda _: ["strict", "strict"],
}


@pytest.mark.parametrize("field", CHANGES)
def test_one_changed_field_is_found(tmp_path: Path, lines: list[dict[str, Any]], field: str) -> None:
    number = [*list_hits(lines)][50]
    lines[number][field] = CHANGES[field](lines[number])
    result = invoke("replay", write(tmp_path / "other.jsonl", lines), *AS_RECORDING)
    text = " ".join(result.stdout.split())
    assert f"differ, the first in line {number + 1}: recorded: {field} " in text
    assert (result.exit_code, "1 of " in text) == (1, True)


def test_a_changed_number_of_one_policy_is_found(tmp_path: Path, lines: list[dict[str, Any]]) -> None:
    number = [*list_hits(lines)][50]
    lines[number]["policies"]["minute"]["remaining"] += 1
    result = invoke("replay", write(tmp_path / "other.jsonl", lines), *AS_RECORDING)
    assert (result.exit_code, "policies.minute.remaining" in result.stdout) == (1, True)


def test_a_policy_that_was_asked_but_is_not_recorded_is_found(tmp_path: Path, lines: list[dict[str, Any]]) -> None:
    number = [*list_hits(lines)][50]
    del lines[number]["policies"]["minute"]
    result = invoke("replay", write(tmp_path / "other.jsonl", lines), *AS_RECORDING)
    assert (result.exit_code, "recorded: policies.minute None" in result.stdout) == (1, True)


def test_names_in_a_recording_are_printed_without_control_characters(
    tmp_path: Path, lines: list[dict[str, Any]]
) -> None:
    lines[[*list_hits(lines)][50]]["policies"]["\x1b[1m"] = "\x1b[1m"
    result = invoke("replay", write(tmp_path / "other.jsonl", lines), *AS_RECORDING)
    assert (result.exit_code, "\x1b" in result.stdout) == (1, False)
    assert "recorded: policies.\\x1b[1m '\\x1b[1m'" in result.stdout


def test_a_lost_line_is_found(tmp_path: Path, lines: list[dict[str, Any]]) -> None:
    lost = next(n for n, line in enumerate(lines) if line.get("settled", {}).get("minute") == 4)
    del lines[lost]
    assert invoke("replay", write(tmp_path / "other.jsonl", lines), *AS_RECORDING).exit_code == 1


def test_an_incomplete_last_line_is_left_out(tmp_path: Path, recording: Path) -> None:
    (tmp_path / "cut.jsonl").write_bytes(recording.read_bytes()[:-20])
    verdict = get_json("replay", tmp_path / "cut.jsonl", *AS_RECORDING)["recording"]
    assert (verdict["differing"], verdict["unfinished"]) == (0, True)


SAME_FILE = """\
version: 1
policies:
  - {name: minute, algorithm: token-bucket, rate: 10/min}
  - {name: all, algorithm: sliding-counter, rate: 300/h, key: all}
  - {name: login, algorithm: leaky-bucket, rate: 5/min, key: header:X-User, match: POST /login, cost: tokens}
  - {name: strict, algorithm: gcra, rate: 3/min, shadow: true}
plans: {premium: {minute: {rate: 20/min}}}
"""


def test_the_engine_of_the_lab_makes_the_recorded_decisions(tmp_path: Path) -> None:
    (tmp_path / "policies.yaml").write_text(SAME_FILE)
    content = read_policies(str(tmp_path / "policies.yaml"))
    random, clock, path = Random(3), ManualClock(1_700_000_000 * SECOND), tmp_path / "live.jsonl"
    with path.open("x") as stream:
        limiter = RecordingLimiter(content.policies, stream, clock, plans=content.plans)
        for _ in range(400):
            clock.advance(random.choice([0, 1, SECOND, 5 * SECOND]))
            number = random.randrange(6)
            keys = {"minute": f"key-{number}", "all": f"key-{number}", "strict": f"key-{number}"}
            login = {"login": f"user-{random.randrange(3)}"} if random.random() < 0.5 else {}
            plan = "premium" if number % 2 else None  # that of a client stays
            limiter.hit(keys | login, {"login": random.randrange(4)}, plan)
    recorded = get_json("replay", path, *AS_RECORDING)["results"]
    replayed = get_json("replay", path, *AS_RECORDING, "--policies", tmp_path / "policies.yaml")["results"]
    wholes, clients = ([result[0][part] for result in (recorded, replayed)] for part in ("policies", "per_client"))
    assert 0 < wholes[0][0]["denied"] < 400
    for name in ("offered", "admitted", "denied", "bound", "delayed", "mean_delay"):
        assert wholes[0][0][name] == wholes[1][0][name]
    parts = [[(row["policy"], row["bound"]) for row in whole[1:]] for whole in wholes]
    assert parts[0] == parts[1]
    assert clients[0] == clients[1]


def test_hits_of_several_threads_are_recorded_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "live.jsonl"
    with path.open("x") as stream:
        limiter = RecordingLimiter(POLICIES, stream, plans=PLANS)

        def work(number: int) -> None:
            for n in range(60):
                ticket = limiter.reserve(f"key-{n % 3}", 2, "premium" if number % 2 else None)
                limiter.hit(f"key-{n % 3}")
                ticket.settle(n % 4)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
    verdict = get_json("replay", path, *AS_RECORDING)["recording"]
    assert (verdict["decisions"], verdict["differing"]) == (480, 0)


def test_decisions_on_shared_buckets_are_counted(tmp_path: Path) -> None:
    with (tmp_path / "live.jsonl").open("x") as stream:
        limiter = RecordingLimiter(POLICIES[:2], stream, ManualClock(SECOND), max_keys=1)
        for number in range(20):
            limiter.hit(f"key-{number}")
    result = invoke("replay", tmp_path / "live.jsonl", *AS_RECORDING, "--json")
    assert json.loads(result.stdout)["recording"]["shared"] > 0


FILE = """\
version: 1
policies:
  - {name: other, algorithm: fixed-window, rate: 2/h}
  - {name: users, algorithm: gcra, rate: 1/day, key: header:X-User, match: POST /login}
plans: {premium: {other: {rate: 4/h}}}
"""


def test_a_recording_is_replayed_through_the_policies_of_a_file(tmp_path: Path, recording: Path) -> None:
    (tmp_path / "policies.yaml").write_text(FILE)
    document = get_json("replay", recording, *AS_RECORDING, "--policies", tmp_path / "policies.yaml")
    whole, *parts = document["results"][0]["policies"]
    labels = [part["policy"] for part in parts]
    assert labels == ["other (no plan, free)", "other (premium)", "users"]
    assert parts[2]["admitted"] == 5  # one for each user: alice, and the keys of the hits without a mapping
    assert sum(part["offered"] for part in parts[:2]) == whole["offered"]
    text = get_output("replay", recording, *AS_RECORDING, "--policies", tmp_path / "policies.yaml")
    assert f"of {whole['offered']} requests (" in text
    assert "the recorded limits denied" in text


def test_only_requests_that_cost_nothing_are_left_out_of_the_report(tmp_path: Path) -> None:
    policies = [
        Policy.create("gcra", "5/day", name="requests"),
        Policy.create("gcra", "9/day", name="t", cost="tokens"),
    ]
    with (tmp_path / "live.jsonl").open("x") as stream:
        limiter = RecordingLimiter(policies, stream, ManualClock(SECOND))
        for costs in ({"t": 0}, {"t": 4}, {"requests": 0, "t": 4}, {"requests": 0, "t": 0}, {"t": 3}):
            limiter.hit("alice", costs)
    file = tmp_path / "policies.yaml"
    file.write_text("version: 1\npolicies: [{name: more, algorithm: fixed-window, rate: 11/day, cost: tokens}]\n")
    for arguments, admitted in (((), 3), (("--policies", file), 4)):
        whole, *_ = get_json("replay", tmp_path / "live.jsonl", *AS_RECORDING, *arguments)["results"][0]["policies"]
        assert (whole["offered"], whole["admitted"]) == (4, admitted)


def test_a_route_that_was_not_recorded_is_refused(tmp_path: Path, recording: Path) -> None:
    file = tmp_path / "policies.yaml"
    file.write_text(FILE.replace("POST /login", "GET /"))
    problem = "policies.yaml: policy 'users' applies to GET /, but the requests have no routes: leave out its match"
    assert problem in get_error("replay", recording, *AS_RECORDING, "--policies", file)


def test_a_recording_of_one_quota_is_replayed_through_the_policies_of_a_file(tmp_path: Path) -> None:
    with (tmp_path / "live.jsonl").open("x") as stream:
        limiter = RecordingLimiter(Policy.create("gcra", "5/day"), stream, ManualClock(SECOND))
        for _ in range(8):
            limiter.hit("alice")
    (tmp_path / "policies.yaml").write_text("version: 1\npolicies: [{algorithm: gcra, rate: 2/day}]\n")
    text = get_output("replay", tmp_path / "live.jsonl", *AS_RECORDING, "--policies", tmp_path / "policies.yaml")
    assert "the recorded limits denied 3 of 8 requests (37.5 %)" in text
    assert "6 of 8 requests (75 %) were denied" in text


def test_one_quota_with_tickets_is_repeated_too(tmp_path: Path) -> None:
    path = tmp_path / "live.jsonl"
    with path.open("x") as stream:
        limiter = RecordingLimiter(Policy.create("gcra", "5/day"), stream, ManualClock(SECOND))
        limiter.hit("alice")
        limiter.reserve("alice", 4).settle(1)
        limiter.hit("alice", 3)
        limiter.refund("alice", 2)
        limiter.update(Policy.create("gcra", "10/day"))
        assert [limiter.hit("alice").allowed for _ in range(5)] == [True] * 4 + [False]
    verdict = get_json("replay", path, *AS_RECORDING)["recording"]
    assert (verdict["decisions"], verdict["differing"], verdict["settlements_and_refunds"]) == (8, 0, 2)
    problem = ":3: a call that is not a hit: give the file by its name"
    assert problem in get_error("replay", "-", *AS_RECORDING, stdin=path.read_bytes())


def test_a_settlement_that_comes_too_late_is_not_recorded(tmp_path: Path) -> None:
    clock = ManualClock(SECOND)
    with (tmp_path / "live.jsonl").open("x") as stream:
        limiter = RecordingLimiter(POLICIES[:2], stream, clock)
        ticket = limiter.reserve("alice", 3, deadline=10)
        clock.advance(11 * SECOND)
        assert ticket.settle(1) is False
    assert "settled" not in (tmp_path / "live.jsonl").read_text()


@pytest.mark.parametrize("name", ["mine.py:Toll", "os:system", "toll", "./mine.py:Toll"])
@pytest.mark.parametrize("place", [0, 2])
def test_a_recording_chooses_no_code_to_run(
    tmp_path: Path, lines: list[dict[str, Any]], name: str, place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("open('ran', 'w').close()")
    lines[place]["policies" if place == 0 else "quotas"]["minute"]["algorithm"] = name
    problem = f"live.jsonl:{place + 1}: policy 'minute' was recorded with '{name}', which is not built in: give it with"
    assert problem in get_error("replay", write(Path("live.jsonl"), lines), *AS_RECORDING)
    assert not (tmp_path / "ran").exists()


def test_custom_algorithms_are_those_of_the_command_line(tmp_path: Path) -> None:
    toll = written(tmp_path, 'toll"', 'toll"')
    path = tmp_path / "live.jsonl"
    with path.open("x") as stream:
        limiter = RecordingLimiter([Policy.create(toll, "2/s"), POLICIES[0]], stream, ManualClock(1))
        for _ in range(4):
            limiter.hit("a")
    assert get_json("replay", path, *AS_RECORDING, "--algo", toll)["recording"]["differing"] == 0
    message = get_error("replay", path, *AS_RECORDING, "--algo", toll, "--algo", "gcra")
    assert message.endswith("no request was decided by gcra: leave out --algo gcra\n")


def test_penalties_and_their_plans_are_repeated(tmp_path: Path) -> None:
    penalty = {"after": 2, "within": "1min", "for": "5min", "growth": 1.5}
    policy = Policy.create("fixed-window", "2/day", timezone="Asia/Tokyo", penalty=penalty)
    clock, path = ManualClock(1_700_000_000 * SECOND), tmp_path / "live.jsonl"
    with path.open("x") as stream:
        limiter = RecordingLimiter(policy, stream, clock, plans={"premium": {policy.name: "4/day"}})
        decisions = [limiter.hit("alice", 1, plan) for plan in [None, None, None, None, "premium", None]]
    assert [decision.allowed for decision in decisions] == [True, True, False, False, False, False]
    assert get_json("replay", path, *AS_RECORDING)["recording"]["differing"] == 0


INVALID: dict[str, tuple[int, dict[str, Any], str]] = {
    "another version": (1, {"recording": 3}, ": not a recording of version 1 or 2: give a file that"),
    "no policies": (1, {"policies": {}}, ": not a recording of version 1 or 2"),
    "a list of policies": (1, {"policies": [1]}, ": not a recording of version 1 or 2"),
    "a policy that is text": (1, {"policies": {"a": "gcra"}}, ":1: policy 'a' must be an object, got 'gcra'"),
    "no rate": (1, {"policies": {"a": {"algorithm": "gcra"}}}, ":1: rate of policy 'a' must be printable text, got"),
    "an invalid rate": (1, {"policies": {"a": {"algorithm": "gcra", "rate": "2"}}}, ":1: rate must look like 2/s"),
    "an unknown field": (1, {"policies": {"a": {"rat": 1}}}, ":1: unknown field 'rat' of policy 'a'"),
    "a terminal escape": (1, {"policies": {"\x1b[1m": {}}}, ":1: name of policy '\\x1b[1m' must be printable text"),
    "an unknown policy of a plan": (3, {"quotas": {"x": {}}}, ":3: unknown policy 'x': choose from minute, all"),
    "a plan without quotas": (3, {"quotas": None}, ":3: expected a call, with its time at_ns, or policies"),
    "a key for a plan": (3, {"quotas": {"minute": {"key": "all"}}}, ":3: unknown field 'key' of policy 'minute'"),
    "a time that falls": (30, {"at_ns": 1}, ":30: at_ns must be a whole number that never falls"),
    "a huge time": (30, {"at_ns": 2**62}, ":30: at_ns must be a whole number that never falls, and at most 2**62"),
    "no key": (30, {"key": None}, ":30: key must be text or an object, got None"),
    "a key of an unknown policy": (30, {"key": {"x": "a"}}, ":30: unknown policy 'x' in key: choose from"),
    "a negative cost": (30, {"cost": -1}, ":30: cost must be a whole number >= 0, got -1"),
    "a huge cost": (30, {"cost": 2**62}, ":30: cost must be at most 2**62 - 1"),
    "an unknown plan": (30, {"plan": "gold"}, ":30: unknown plan 'gold': choose from free, premium"),
    "no decision": (30, {"remaining": None}, ":30: a decision must have the whole numbers allowed, remaining"),
    "a huge number": (
        30,
        {"remaining": 2**63},
        ":30: allowed, remaining, retry_after_ns, reset_after_ns, delay_ns must",
    ),
    "a ticket that is text": (30, {"ticket": "1"}, ":30: ticket must be a whole number, got '1'"),
    "an unknown ticket": (30, {"ticket": 99, "settled": 1}, ":30: settled needs a ticket of a line before"),
    "a refund that is text": (30, {"refund": "1"}, ":30: cost must be a whole number >= 0, got '1'"),
}


@pytest.mark.parametrize("name", INVALID)
def test_an_invalid_line_is_named(tmp_path: Path, lines: list[dict[str, Any]], name: str) -> None:
    number, change, message = INVALID[name]
    place = number - 1 if number < 5 else next(n for n in list_hits(lines) if n >= number - 1)
    lines[place] |= change
    message = message.replace(":30:", f":{place + 1}:")
    path = write(tmp_path / "live.jsonl", lines)
    assert get_error("replay", path, *AS_RECORDING).startswith(f"{path}{message}")


def test_a_line_that_is_not_json_is_named(tmp_path: Path, recording: Path) -> None:
    path = tmp_path / "live.jsonl"
    path.write_text(recording.read_text().replace('{"plan": "free"', "free", 1))
    assert get_error("replay", path, *AS_RECORDING).startswith(f"{path}:2: expected a JSON object, got 'free,")


def test_a_recording_without_costs_has_nothing_to_report(tmp_path: Path) -> None:
    with (tmp_path / "live.jsonl").open("x") as stream:
        limiter = RecordingLimiter(POLICIES, stream)
        limiter.hit("alice", 0)
    assert "the recording has no request with a cost" in get_error("replay", tmp_path / "live.jsonl", *AS_RECORDING)


def test_options_for_one_quota_are_rejected(recording: Path) -> None:
    for option in ("--accuracy", "--equalize=peak"):
        assert "compares algorithms at one quota" in get_error("replay", recording, *AS_RECORDING, option)
    problem = "--semantics is for several policies: add --policies FILE"
    assert problem in get_error("replay", recording, *AS_RECORDING, "--semantics", "sequential")
