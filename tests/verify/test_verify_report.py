"""Report of `ratelab verify` as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import StringIO

import pytest
from rich.console import Console
from scripted_responses import MS, QUOTA, create_token_bucket, create_traffic, respond_correctly

from ratelab.lab.traffic import Traffic
from ratelab.verify.agreement import compare_responses
from ratelab.verify.report import VerifyReport, render_report, report_object
from ratelab.verify.schedule import Response

Change = Callable[[list[Response]], object]


def create_report(traffic: Traffic, change: Change = lambda _: None, late: int = 0) -> VerifyReport:
    """Create the report of a token bucket whose responses have been changed."""
    responses = respond_correctly(create_token_bucket(), traffic, late)
    change(responses)
    policy = create_token_bucket()
    agreement = compare_responses(policy, traffic, responses)
    return VerifyReport(agreement, policy, QUOTA, traffic, "[b]urst", 42, "http://x/ping", "X-API-Key", 1.0)


def render_text(report: VerifyReport) -> str:
    output = StringIO()
    Console(file=output, width=80, highlight=False).print(render_report(report))
    lines = output.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    return "\n".join(line.rstrip() for line in lines)


TRAFFIC = create_traffic(0, 10, 20, 30, 40)


def test_full_agreement_is_reported_in_eight_lines() -> None:
    assert render_text(create_report(TRAFFIC)) == (
        "[b]urst against http://x/ping, token-bucket\n"
        "5 requests from 1 client in 40 ms\n"
        "quota for each client: 1/s, burst 3 (window 3 s)\n"
        "\n"
        "5 of 5 responses as simulated (100 %)\n"
        "header fields correct\n"
        "latency:      p50 1 ms  p90 1 ms  p99 1 ms  max 1 ms\n"
        "sent late by: p50 0 s  p90 0 s  p99 0 s  max 0 s"
    )


def fail_all(responses: list[Response]) -> None:
    responses[:] = [response._replace(status=503) for response in responses]


def test_ten_differences_are_listed_and_the_rest_counted() -> None:
    text = render_text(create_report(create_traffic(*range(0, 120, 10)), fail_all))
    assert "\n0 of 12 responses as simulated (0 %)\nrequest      at  client    simulated  answered\n" in text
    assert "\n      1  0.000s  client-0  admitted   status 503\n" in text
    assert "\n     10  0.090s  client-0  denied     status 503\n... and 2 more\n" in text


def test_partial_agreement_is_never_rounded_to_100_percent() -> None:
    def fail_one(responses: list[Response]) -> None:
        responses[999] = responses[999]._replace(status=503)

    traffic = create_traffic(*range(0, 2000 * 2000, 2000))
    assert "1,999 of 2,000 responses as simulated (99.9 %)\n" in render_text(create_report(traffic, fail_one))


def remove_retry_after(responses: list[Response]) -> None:
    responses[3:] = [response._replace(retry_after=None) for response in responses[3:]]


def test_a_header_error_is_reported_with_an_example() -> None:
    text = render_text(create_report(TRAFFIC, remove_retry_after))
    assert "5 of 5 responses as simulated (100 %)\nerrors in header fields\nresponses  error " in text
    assert "\n        2  429 without Retry-After  request 4, client-0: no Retry-After\n" in text


def delay_last(responses: list[Response]) -> None:
    sent = responses[4].sent_ns + 1000 * MS
    responses[4] = responses[4]._replace(sent_ns=sent, received_ns=sent + MS, status=200, remaining=0)


def use_quota_before(responses: list[Response]) -> None:
    responses[0] = responses[0]._replace(remaining=0)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (delay_last, "4 of 5 responses as simulated (80 %), the rest a close call "),
        (delay_last, "1 close call: for some decision time between request and response, the simulation agrees"),
        (delay_last, "Requests were sent up to 1 s late: lower --speed, or use a less busy machine."),
        (use_quota_before, "The client started with a used quota, since the server had counted earlier requests"),
        (use_quota_before, "or run the server with --key header:X-API-Key."),
    ],
)
def test_a_probable_cause_is_reported_with_a_remedy(change: Change, sentence: str) -> None:
    assert sentence in " ".join(render_text(create_report(TRAFFIC, change)).split())


def test_clients_that_share_a_quota_are_reported() -> None:
    def share(responses: list[Response]) -> None:
        responses[1:] = [response._replace(remaining=0) for response in responses[1:]]

    text = " ".join(render_text(create_report(create_traffic(0, 10, 20, keys=[0, 1, 2]), share)).split())
    assert "2 of 3 clients started with a used quota, as if they shared it: run the server with" in text


JSON_KEYS = (
    "version scenario seed url algorithm quota speed duration requests agreeing agreement close_calls errors "
    "used_keys differing faults latency lateness"
)


def test_json_is_one_object() -> None:
    report = json.loads(json.dumps(report_object(create_report(TRAFFIC, remove_retry_after, late=MS))))
    assert list(report) == JSON_KEYS.split()
    assert (report["version"], report["scenario"], report["seed"], report["speed"]) == (1, "[b]urst", 42, 1.0)
    assert (report["requests"], report["agreeing"], report["agreement"], report["used_keys"]) == (5, 5, 1.0, 0)
    assert report["quota"] == {"rate": "1/s", "burst": 3, "window": 3.0}
    assert report["faults"][0]["examples"][0] == {"request": 4, "client": "client-0", "told": "no Retry-After"}
    assert report["lateness"] == dict.fromkeys(("p50", "p90", "p99", "max"), 0.001)


def test_json_lists_each_difference() -> None:
    report = report_object(create_report(TRAFFIC, fail_all))
    assert report["latency"]["max"] == 0.001
    assert report["differing"][1] == {
        "request": 2,
        "at": 0.01,
        "client": "client-0",
        "simulated": "admitted",
        "answered": "status 503",
        "close_call": False,
    }
