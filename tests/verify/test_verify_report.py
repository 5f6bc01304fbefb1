"""What a person reads of a verdict, and its JSON, which says the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from io import StringIO

import pytest
from rich.console import Console
from scripted_responses import MS, QUOTA, served, token_bucket, traffic

from ratelab.lab.traffic import Traffic
from ratelab.verify.agreement import Agreement, agree
from ratelab.verify.client import Response
from ratelab.verify.report import VerifyReport, verdict_object, verdict_text

Answers = list[Response]


def verdict(asked: Traffic, change: Callable[[Answers], object] = lambda _: None, late: int = 0) -> VerifyReport:
    """Judge a token bucket whose answers have been changed."""
    told = served(token_bucket(), asked, late)
    change(told)
    found = agree(token_bucket(), asked, told)
    return VerifyReport(found, QUOTA, asked, "token-bucket", "[b]urst", 42, "http://x/ping", "X-API-Key", 1.0)


def text(judged: VerifyReport) -> str:
    console = Console(file=StringIO(), width=80, highlight=False)
    console.print(verdict_text(judged))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= 80
    return "\n".join(line.rstrip() for line in lines)


ASKED = traffic(0, 10, 20, 30, 40)


def test_full_agreement_is_told_in_eight_lines() -> None:
    assert text(verdict(ASKED)) == (
        "[b]urst against http://x/ping, token-bucket\n"
        "5 requests from 1 client in 40ms\n"
        "quota for each client: 1/s, burst 3 (window 3s)\n"
        "\n"
        "5 of 5 answers as simulated (100 %)\n"
        "header fields as they should be\n"
        "latency:      p50 1ms  p90 1ms  p99 1ms  max 1ms\n"
        "sent late by: p50 0s  p90 0s  p99 0s  max 0s"
    )


def refuse_all(answers: Answers) -> None:
    answers[:] = [one._replace(status=503) for one in answers]


def test_ten_differences_are_shown_and_the_rest_counted() -> None:
    told = text(verdict(traffic(*range(0, 120, 10)), refuse_all))
    assert "\n0 of 12 answers as simulated (0 %)\nrequest      at  client    simulated  answered\n" in told
    assert "\n      1  0.000s  client-0  admitted   status 503\n" in told
    assert "\n     10  0.090s  client-0  denied     status 503\n... and 2 more\n" in told


def test_less_than_all_is_never_rounded_to_all() -> None:
    asked = traffic(*range(0, 4000 * 2000, 2000))
    assert "3,999 of 4,000 answers as simulated (99.9 %)\n" in text(
        verdict(asked, lambda answers: answers.__setitem__(1999, answers[1999]._replace(status=503)))
    )


def forget_waits(answers: Answers) -> None:
    answers[3:] = [one._replace(retry_after=None) for one in answers[3:]]


def test_a_fault_is_told_with_an_example() -> None:
    told = text(verdict(ASKED, forget_waits))
    assert "5 of 5 answers as simulated (100 %)\nheader fields with faults\nanswers  fault " in told
    assert "\n      2  429 without Retry-After  request 4, client-0: no Retry-After\n" in told


def be_late(answers: Answers) -> None:
    answers[4] = answers[4]._replace(sent_ns=answers[4].sent_ns + 1000 * MS, status=200, remaining=0)
    answers[4] = answers[4]._replace(answered_ns=answers[4].sent_ns + MS)


def start_lower(answers: Answers) -> None:
    answers[0] = answers[0]._replace(remaining=0)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (be_late, "4 of 5 answers as simulated (80 %), the rest a close call "),
        (be_late, "1 close call: asked at some time between a request's sending and its answer, the algorithm decides"),
        (be_late, "Requests were sent up to 1s late: lower --speed, or use a quieter machine."),
        (start_lower, "The client was not new to the server, which had counted requests of its before: wait until"),
        (start_lower, "or run the server with --key header:X-API-Key."),
    ],
)
def test_what_may_be_behind_it_is_told(change: Callable[[Answers], None], says: str) -> None:
    assert says in " ".join(text(verdict(ASKED, change)).split())


def test_clients_that_share_a_quota_are_told_so() -> None:
    def share(answers: Answers) -> None:
        answers[1:] = [one._replace(remaining=0) for one in answers[1:]]

    told = " ".join(text(verdict(traffic(0, 10, 20, keys=[0, 1, 2]), share)).split())
    assert "2 of 3 clients were not new to the server, as if they shared a quota: run the server with" in told


def test_json_is_one_object_of_the_same_names() -> None:
    told = json.loads(json.dumps(verdict_object(verdict(ASKED, forget_waits, late=MS))))
    assert {field.name for field in fields(Agreement)} - {"used"} <= told.keys()
    assert (told["version"], told["scenario"], told["seed"], told["speed"]) == (1, "[b]urst", 42, 1.0)
    assert (told["requests"], told["agreeing"], told["agreement"], told["used_keys"]) == (5, 5, 1.0, 0)
    assert told["quota"] == {"rate": "1/s", "burst": 3, "window": 3.0}
    assert told["faults"][0]["examples"][0] == {"request": 4, "client": "client-0", "told": "no Retry-After"}
    assert told["lateness"] == dict.fromkeys(("p50", "p90", "p99", "max"), 0.001)


def test_json_tells_each_difference() -> None:
    told = verdict_object(verdict(ASKED, refuse_all))
    assert told["latency"]["max"] == 0.001
    assert told["differing"][1] == {
        "request": 2,
        "at": 0.01,
        "client": "client-0",
        "simulated": "admitted",
        "answered": "status 503",
        "close_call": False,
    }
