"""What `ratelab verify` refuses, in one red line: endpoints that cannot be compared, and options that cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_runner import BURST, SCENARIOS, invoke, refused
from click.testing import Result
from dishonest_server import BURST as LIARS_BURST
from dishonest_server import RATE as LIARS_RATE
from dishonest_server import lying_server
from scripted_responses import QUOTA, traffic

from ratelab.errors import InputError
from ratelab.http.headers import PolicyHeader
from ratelab.http.server import listen
from ratelab.verify.client import Response
from ratelab.verify.reference import Referee

URL = "http://127.0.0.1:1/ping"
AS_LIARS = ("--rate", LIARS_RATE, "--burst", str(LIARS_BURST), "--key", "header:X-Client")


@pytest.fixture(scope="module")
def liar() -> Iterator[str]:
    with lying_server() as url:
        yield url


@pytest.mark.parametrize(
    ("query", "options", "says"),
    [
        ("no-ratelimit", AS_LIARS, "answers without a RateLimit-Policy that names its algorithm: say with --algo"),
        ("own-name", AS_LIARS, "unknown algorithm 'tolken-bucket': did you mean token-bucket? (with --algo)"),
        ("a-file", AS_LIARS, "the server's policy is called 'toll.py:Toll': say with --algo what it should do"),
        ("redirecting", AS_LIARS, "answers 302 (Found): name a limited page that answers GET with 200"),
        ("/pong", AS_LIARS, "/pong answers 404 (Not Found): name a limited page"),
        (
            "none",
            AS_LIARS[4:],
            "the server grants q=2;w=2, the scenario 2/s, burst 5 (q=5;w=3): run ratelab serve --rate 2/s --burst 5, "
            "or give --rate and --burst here",
        ),
    ],
)
def test_an_endpoint_that_cannot_be_compared_is_refused_at_its_first_answer(
    query: str, options: tuple[str, ...], says: str, liar: str, toll: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ratelab.verify.schedule.LONGEST_ALIGNMENT", 0)
    monkeypatch.setattr("ratelab.verify.client.LEAD", 0)
    monkeypatch.chdir(Path(toll).parent)  # where there is a toll.py, which must not be run for a stranger
    url = f"{liar}?{query}" if query.isidentifier() or "-" in query else liar.replace("/ping", query)
    assert says in refused("verify", BURST, "--url", url, *options)


def test_a_server_that_is_not_there_is_one_line() -> None:
    with listen("127.0.0.1", 0) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/ping"
    assert f"cannot reach {url} (Connection refused): start the service, or mend the URL" in refused(
        "verify", BURST, "--url", url
    )


@pytest.mark.parametrize("url", ["", "x", "ftp://x/", "http://", "http:///ping", "http://a:99999/", "http://[::1/"])
def test_a_url_that_is_none_is_one_line(url: str) -> None:
    assert "the URL must look like http://127.0.0.1:8000/ping, got " in refused("verify", BURST, "--url", url)


@pytest.mark.parametrize(
    ("scenario", "options", "says"),
    [
        (BURST, ["--key", "ip"], "key must be header:NAME, got 'ip': all requests come from this address"),
        (BURST, ["--key", "header:"], "key must be ip or header:NAME, such as header:X-API-Key, got 'header:'"),
        (BURST, ["--key", "X-API-Key"], "key must be ip or header:NAME"),
        (BURST, ["--speed", "0"], "speed must be a number above 0, got 0.0"),
        (BURST, ["--speed", "nan"], "speed must be a number above 0, got nan"),
        (BURST, ["--rate", "fast"], "rate must look like 2/s"),
        (SCENARIOS / "costly-requests.yaml", [], "a live request costs 1, got a client whose cost is 10: leave `cost`"),
        ("nowhere.yaml", [], "nowhere.yaml: No such file or directory"),
    ],
)
def test_an_option_that_cannot_be_is_one_line(scenario: str | Path, options: list[str], says: str) -> None:
    assert says in refused("verify", scenario, "--url", URL, *options)


@pytest.mark.parametrize("arguments", [[BURST], ["--url", URL], [BURST, "--url", URL, "--speed", "quick"]])
def test_an_option_of_the_wrong_kind_is_one_line(arguments: list[str]) -> None:
    assert refused("verify", *arguments).endswith("; see ratelab verify --help\n")


# --- a play that ends before its time

ADMITTED = Response(0, 1, 200, PolicyHeader("token-bucket", 5, 3))


def played_until(end: Response | KeyboardInterrupt, monkeypatch: pytest.MonkeyPatch) -> Result:
    """Verify against an endpoint that answers two requests, of which it denies the second, before the end."""

    def play(*arguments: Any) -> None:
        see = arguments[-1]
        see(ADMITTED)
        see(ADMITTED._replace(status=429))
        if isinstance(end, KeyboardInterrupt):
            raise end
        see(end)

    monkeypatch.setattr("ratelab.verify.client.play", play)
    monkeypatch.setattr("ratelab.verify.client.reach", lambda _: True)
    return invoke("verify", BURST, "--url", URL)


def test_a_service_that_goes_away_cannot_be_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    result = played_until(Response(0, 1, 0, error="Connection refused"), monkeypatch)
    said = f"{URL} has gone (Connection refused; 2 of 30 answered: 1 with 200, 1 with 429): start the service again"
    assert (result.exit_code, result.stderr.startswith(f"Error: {said}")) == (2, True)


def test_an_interrupt_tells_what_was_seen_and_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    result = played_until(KeyboardInterrupt(), monkeypatch)
    told = "interrupted, and not compared: 2 of 30 answered: 1 with 200, 1 with 429\n"
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", told)


# --- the referee

ASKED = traffic(0, 0, 0, 0, 1500, 1500)


def settle(name: str, ours: bool, algo: str | None = None, **changes: Any) -> str:
    """Let the referee look at an answer of another machine or of ours, and return the algorithm that it settles on."""
    referee = Referee("http://far.example/", QUOTA, ASKED, algo, ours)
    referee(Response(0, 1, 200, PolicyHeader(name, 3, 3))._replace(**changes))
    return referee.algorithm.name


@pytest.mark.parametrize("name", ["fixed-window", "sliding-counter"])
def test_windows_of_another_machines_clock_are_refused(name: str) -> None:
    assert settle(name, ours=True) == name
    with pytest.raises(InputError, match=rf"{name} decides by the clock .* http://far.example/ is on another: run"):
        settle(name, ours=False)


@pytest.mark.parametrize("name", ["token-bucket", "leaky-bucket", "sliding-log", "gcra"])
def test_an_algorithm_that_only_measures_time_may_be_far_away(name: str) -> None:
    assert settle(name, ours=False) == name


def test_algo_takes_the_place_of_the_policys_name() -> None:
    assert settle("house-rule", ours=True, algo="gcra") == "gcra"
    assert settle("house-rule", ours=True, algo="gcra", policy=None) == "gcra"


@pytest.mark.parametrize(("q", "w"), [(3, None), (None, 3), (None, None)])
def test_only_what_a_policy_tells_is_held_against_it(q: int | None, w: int | None) -> None:
    assert settle("gcra", ours=True, policy=PolicyHeader("gcra", q, w)) == "gcra"


@pytest.mark.parametrize(
    ("status", "says"), [(0, r"gave no answer \(cut\)"), (418, r"418 \(I'm a Teapot\)"), (799, "799")]
)
def test_a_first_answer_that_is_no_decision_is_refused(status: int, says: str) -> None:
    with pytest.raises(InputError, match=says):
        settle("gcra", ours=True, status=status, error="cut")
