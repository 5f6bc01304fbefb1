"""`ratelab verify`: a scenario sent to a live endpoint and compared with its simulation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from itertools import pairwise
from secrets import token_hex
from urllib.parse import urlsplit

import click

from ratelab.algorithms import Policy, build_policy, find
from ratelab.cli.options import require, scenario_options
from ratelab.cli.output import LateProgress, create_console
from ratelab.cli.usage_errors import Interrupted
from ratelab.errors import InputError
from ratelab.http.identity import Identity
from ratelab.lab.scenarios import load_scenario
from ratelab.lab.traffic import Traffic
from ratelab.policies.policy_file import PolicyFile, read_policies
from ratelab.quota import Quota
from ratelab.verify.agreement import compare_responses
from ratelab.verify.reference import ReferenceFinder, ResponseCounter, combine_policies
from ratelab.verify.report import VerifyReport, render_report, report_object
from ratelab.verify.schedule import Response, ScheduledRequest, align_start, find_max_delay, scale_traffic

RESPONSE_TIMEOUT_S = 10.0
"""Time that a response may take beyond the longest simulated delay."""


@click.command()
@click.argument("scenario", metavar="SCENARIO")
@click.option("--url", required=True, metavar="URL", help="The limited page, such as http://127.0.0.1:8000/ping.")
@click.option(
    "--key",
    default="header:X-API-Key",
    show_default=True,
    metavar="header:NAME",
    help="The header in which each client sends its key, as in `ratelab serve --key`.",
)
@click.option(
    "--algo",
    "-a",
    metavar="NAME|FILE.py:CLASS",
    help="Algorithm to simulate, instead of the one that the server names.",
)
@click.option("--policies", metavar="FILE", help="Policy file of the server, instead of --algo, --rate and --burst.")
@click.option("--plan", metavar="NAME", help="Plan of all clients, sent in the header that the policy file names.")
@scenario_options
@click.option("--speed", type=float, default=1.0, show_default=True, help="Send the requests this many times as fast.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
@click.pass_context
def verify(
    context: click.Context,
    scenario: str,
    url: str,
    key: str,
    algo: str | None,
    policies: str | None,
    plan: str | None,
    rate: str | None,
    burst: int | None,
    seed: int | None,
    speed: float,
    as_json: bool,
) -> None:
    """Send the requests of SCENARIO, a YAML file, to a live endpoint, and compare each response with the simulation.

    The endpoint must grant the scenario's quota, for example:

    \b
      ratelab serve --rate 2/s --burst 5 --key header:X-API-Key
      ratelab verify scenarios/burst.yaml --url http://127.0.0.1:8000/ping

    With --policies, the endpoint must have the policies of that file; the quota of the scenario is not used.

    --speed divides all times of the scenario, and the simulation uses the same times. If the server identifies
    clients by address, use a scenario with one client.

    A close call is a difference that the unknown time of the server's decision can explain. It is shown, and does not
    count as a failure. The exit status is 0 if all responses and header fields are as simulated, 1 if not, 2 if they
    cannot be compared, and 130 after an interrupt.
    """  # noqa: D301  (click's mark for a block)
    require("verify", serve=("aiohttp",))
    if algo is not None:
        find(algo)  # rejects an unknown name before anything is sent
    file = None if policies is None else read_policies(policies)
    fields = _find_plan_fields(file, plan, {"--algo": algo, "--rate": rate, "--burst": burst})
    from ratelab.verify.client import check_url  # needs aiohttp

    check_url(url)
    header = _parse_key(key)
    with LateProgress("drawing traffic", None):
        loaded = load_scenario(scenario, rate, burst, seed)
    quota, traffic = loaded.open_loop_quota, scale_traffic(loaded.traffic, speed)
    requested = None if algo is None else build_policy(find(algo), quota)
    if file is not None:
        clients = len({*traffic.request_keys.tolist()})
        requested = combine_policies(file, plan, header, urlsplit(url).path or "/", clients)
    policy, traffic, responses = _send_traffic(url, header, quota, traffic, requested, fields)
    agreement = compare_responses(policy, traffic, responses)
    report = VerifyReport(agreement, policy, quota, traffic, loaded.name, loaded.seed, url, header, speed)
    if as_json:
        click.echo(json.dumps(report_object(report), ensure_ascii=False))
    else:
        create_console().print(render_report(report))
    if not agreement.holds:
        context.exit(1)


def _find_plan_fields(file: PolicyFile | None, plan: str | None, others: Mapping[str, object]) -> dict[str, str]:
    """Return the header field with the plan; raise `InputError` for options that do not fit together."""
    if file is None:
        if plan is not None:
            raise InputError(f"--plan {plan} needs --policies FILE")
        return {}
    for option, value in others.items():
        if value is not None:
            raise InputError(f"{option} must be left out with --policies {file.path}: write it into the file")
    if plan is None:
        return {}
    if plan not in file.plans or file.plan_header is None:
        raise InputError(f"--plan {plan} needs a plan of this name, and plan: {{header: NAME}}, in {file.path}")
    return {file.plan_header: plan}


def _parse_key(key: str) -> str:
    """Return the name of the header."""
    if key == "ip":
        raise InputError(
            "key must be header:NAME, got 'ip': all requests come from this address; "
            "for a server that identifies clients by address, leave out --key and use a scenario with one client"
        )
    Identity(key, secret="-")  # noqa: S106  (only checks the name)
    return key.partition(":")[2]


def _send_traffic(
    url: str, header: str, quota: Quota, traffic: Traffic, requested: Policy | None, fields: Mapping[str, str]
) -> tuple[Policy, Traffic, list[Response]]:
    """Send the traffic, with keys that no other run uses.

    Return the policy to compare with, the traffic with the start time as its origin, and the responses.
    """
    from ratelab.verify.client import is_local, send_requests  # needs aiohttp

    reference = ReferenceFinder(url, quota, traffic, requested, is_local(url))
    run = token_hex(8)
    times = traffic.times.tolist()
    requests = [
        ScheduledRequest(at, f"{run}-{key}") for at, key in zip(times, traffic.request_keys.tolist(), strict=True)
    ]
    pauses = (later - earlier for earlier, later in pairwise([times[0], *times]))
    counter = ResponseCounter(url, len(requests))
    timeout_s = RESPONSE_TIMEOUT_S + max(
        (find_max_delay(policy, traffic) for policy in reference.candidates), default=0
    )
    with LateProgress("sending", times[-1] - times[0]) as progress:

        def observe(response: Response) -> None:
            reference.observe(response)
            counter.count(response)
            progress(next(pauses, 0))  # by time, since requests come in bursts

        try:
            start = partial(align_start, (quota if requested is None else requested.quota).window)
            origin, responses = send_requests(url, header, requests, start, timeout_s, observe, fields)
        except KeyboardInterrupt:
            raise Interrupted(f"interrupted before the comparison: {counter}") from None
    return reference.policy, replace(traffic, origin=origin), responses
