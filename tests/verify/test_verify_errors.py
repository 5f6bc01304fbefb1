"""Errors of `ratelab verify`: invalid options, and endpoints that cannot be compared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_runner import BURST, SCENARIOS, get_error, invoke
from click.testing import Result
from dishonest_server import BURST as DISHONEST_BURST
from dishonest_server import RATE as DISHONEST_RATE
from dishonest_server import run_dishonest_server
from scripted_responses import QUOTA, create_traffic

from ratelab import create
from ratelab.errors import InputError
from ratelab.http.headers import PolicyHeader
from ratelab.http.server import listen
from ratelab.verify.reference import ReferenceFinder
from ratelab.verify.schedule import Response

URL = "http://127.0.0.1:1/ping"
KEY = ("--key", "header:X-Client")
QUOTA_OPTIONS = ("--rate", DISHONEST_RATE, "--burst", str(DISHONEST_BURST))


@pytest.fixture(scope="module")
def dishonest_url() -> Iterator[str]:
    with run_dishonest_server() as url:
        yield url


# --- endpoints


@pytest.mark.parametrize(
    ("page", "options", "message"),
    [
        ("/ping?no-ratelimit", QUOTA_OPTIONS, "no RateLimit-Policy that names its algorithm: name it with --algo"),
        (
            "/ping?unknown-name",
            QUOTA_OPTIONS,
            "unknown algorithm 'tolken-bucket': did you mean token-bucket? (named by the server's policy; override",
        ),
        (
            "/ping?file-name",
            QUOTA_OPTIONS,
            "the server's policy is named 'toll.py:Toll': name its algorithm with --algo",
        ),
        ("/ping?redirecting", QUOTA_OPTIONS, "answers 302 (Found): name a rate-limited page that answers GET with 200"),
        ("/pong", QUOTA_OPTIONS, "/pong answers 404 (Not Found): name a rate-limited page"),
        (
            "/ping?none",
            (),
            "the server grants q=2;w=30, the scenario 2/s, burst 5 (q=5;w=3): run ratelab serve --rate 2/s --burst 5, "
            "or pass the server's --rate and --burst here",
        ),
    ],
)
def test_an_endpoint_that_cannot_be_compared_is_rejected_at_once(
    page: str, options: tuple[str, ...], message: str, dishonest_url: str, toll: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ratelab.verify.schedule.MAX_ALIGNMENT_NS", 0)
    monkeypatch.setattr("ratelab.verify.client.CONNECT_LEAD_NS", 0)
    monkeypatch.chdir(Path(toll).parent)  # contains toll.py, which a server must not be able to run
    url = dishonest_url.replace("/ping", page)
    assert message in get_error("verify", BURST, "--url", url, *options, *KEY)


def test_an_unreachable_server_is_a_one_line_error() -> None:
    with listen("127.0.0.1", 0) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/ping"
    message = f"cannot connect to {url} (Connection refused): start the service or correct the URL"
    assert message in get_error("verify", BURST, "--url", url)


# --- options


@pytest.mark.parametrize("url", ["", "x", "ftp://x/", "http://", "http:///ping", "http://a:99999/", "http://[::1/"])
def test_an_invalid_url_is_a_one_line_error(url: str) -> None:
    assert "the URL must look like http://127.0.0.1:8000/ping, got " in get_error("verify", BURST, "--url", url)


@pytest.mark.parametrize(
    ("scenario", "options", "message"),
    [
        (BURST, ["--key", "ip"], "key must be header:NAME, got 'ip': all requests come from this address"),
        (
            BURST,
            ["--key", "header:"],
            "key must be ip, header:NAME such as header:X-API-Key, or in code a function, got 'header:'",
        ),
        (BURST, ["--key", "X-API-Key"], "key must be ip, header:NAME such as"),
        (BURST, ["--speed", "0"], "speed must be a number above 0, got 0.0"),
        (BURST, ["--speed", "nan"], "speed must be a number above 0, got nan"),
        (BURST, ["--rate", "fast"], "rate must look like 2/s"),
        (SCENARIOS / "costly-requests.yaml", [], "cost must be 1 for live requests, got 10: remove `cost`"),
        ("nowhere.yaml", [], "nowhere.yaml: No such file or directory"),
    ],
)
def test_an_invalid_option_is_a_one_line_error(scenario: str | Path, options: list[str], message: str) -> None:
    assert message in get_error("verify", scenario, "--url", URL, *options)


@pytest.mark.parametrize("arguments", [[BURST], ["--url", URL], [BURST, "--url", URL, "--speed", "quick"]])
def test_a_usage_error_refers_to_the_help(arguments: list[str]) -> None:
    assert get_error("verify", *arguments).endswith("; see ratelab verify --help\n")


# --- runs that end early

ADMITTED = Response(0, 1, 200, PolicyHeader("token-bucket", 5, 3))


def verify_until(end: Response | KeyboardInterrupt, monkeypatch: pytest.MonkeyPatch) -> Result:
    """Verify an endpoint that admits one request and denies another before the run ends."""

    def send_requests(*arguments: Any) -> None:
        *_, on_response, _ = arguments
        on_response(ADMITTED)
        on_response(ADMITTED._replace(status=429))
        if isinstance(end, KeyboardInterrupt):
            raise end
        on_response(end)

    monkeypatch.setattr("ratelab.verify.client.send_requests", send_requests)
    monkeypatch.setattr("ratelab.verify.client.is_local", lambda _: True)
    return invoke("verify", BURST, "--url", URL)


def test_a_service_that_stops_during_the_run_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    result = verify_until(Response(0, 1, 0, error="Connection refused"), monkeypatch)
    counts = "2 of 30 answered: 1 with 200, 1 with 429"
    message = f"Error: {URL} stopped during the run (Connection refused; {counts}): restart the service"
    assert (result.exit_code, result.stderr.startswith(message)) == (2, True)


def test_an_interrupt_prints_the_counts_and_no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    result = verify_until(KeyboardInterrupt(), monkeypatch)
    message = "interrupted before the comparison: 2 of 30 answered: 1 with 200, 1 with 429\n"
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", message)


# --- the reference algorithm

TRAFFIC = create_traffic(0, 0, 0, 0, 1500, 1500)


def find_reference(name: str, same_machine: bool, algo: str | None = None, **changes: Any) -> str:
    """Return the algorithm found in a response whose policy has the name `name`."""
    requested = None if algo is None else create(algo, QUOTA)
    reference = ReferenceFinder("http://far.example/", QUOTA, TRAFFIC, requested, same_machine)
    reference.observe(Response(0, 1, 200, PolicyHeader(name, 3, 3))._replace(**changes))
    return reference.policy.name


@pytest.mark.parametrize("name", ["fixed-window", "sliding-counter"])
def test_clock_windows_of_another_machine_are_rejected(name: str) -> None:
    assert find_reference(name, same_machine=True) == name
    message = rf"{name} uses the clock of its machine, and http://far.example/ is on another: run"
    with pytest.raises(InputError, match=message):
        find_reference(name, same_machine=False)


@pytest.mark.parametrize("name", ["token-bucket", "leaky-bucket", "sliding-log", "gcra"])
def test_algorithms_without_clock_windows_may_be_on_another_machine(name: str) -> None:
    assert find_reference(name, same_machine=False) == name


def test_algo_overrides_the_name_of_the_policy() -> None:
    assert find_reference("house-rule", same_machine=True, algo="gcra") == "gcra"
    assert find_reference("house-rule", same_machine=True, algo="gcra", policy=None) == "gcra"


@pytest.mark.parametrize(("q", "w"), [(3, None), (None, 3), (None, None)])
def test_missing_parameters_of_the_policy_are_not_compared(q: int | None, w: int | None) -> None:
    assert find_reference("gcra", same_machine=True, policy=PolicyHeader("gcra", q, w)) == "gcra"


@pytest.mark.parametrize(
    ("status", "message"),
    [(0, r"no response from .* \(reset\)"), (418, r"418 \(I'm a Teapot\)"), (799, r"799 \(unknown status\)")],
)
def test_a_first_response_that_neither_admits_nor_denies_is_rejected(status: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_reference("gcra", same_machine=True, status=status, error="reset")
