"""`ratelab verify`: a live endpoint against the simulation."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from secrets import token_hex
from typing import TYPE_CHECKING

import click

from ratelab.cli import Interrupted
from ratelab.errors import InputError

if TYPE_CHECKING:
    from ratelab.lab.traffic import Traffic
    from ratelab.limiter import Algorithm
    from ratelab.quota import Quota
    from ratelab.verify.client import Response
    from ratelab.verify.report import VerifyReport

RESPONSE_TIMEOUT_S = 10.0
"""Seconds that an answer may take beyond the time for which its request may queue."""


@click.command()
@click.argument("scenario", metavar="SCENARIO")
@click.option("--url", required=True, metavar="URL", help="The limited page, such as http://127.0.0.1:8000/ping.")
@click.option(
    "--key",
    default="header:X-API-Key",
    show_default=True,
    metavar="header:NAME",
    help="The header in which each client sends a key of its own, as in `ratelab serve --key`.",
)
@click.option("--algo", "-a", metavar="NAME|FILE.py:CLASS", help="Instead of the algorithm that the server names.")
@click.option("--rate", metavar="RATE", help="Instead of the scenario's rate, such as 100/min.")
@click.option("--burst", type=click.IntRange(min=1), help="Instead of the scenario's burst.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="Instead of the scenario's seed.")
@click.option("--speed", type=float, default=1.0, show_default=True, help="Play so many times as fast.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
@click.pass_context
def verify(
    context: click.Context,
    scenario: str,
    url: str,
    key: str,
    algo: str | None,
    rate: str | None,
    burst: int | None,
    seed: int | None,
    speed: float,
    as_json: bool,
) -> None:
    """Play SCENARIO, a YAML file, against a live endpoint, and compare each answer with the simulated decision.

    The endpoint must grant the scenario's quota, for example:

    \b
      ratelab serve --rate 2/s --burst 5 --key header:X-API-Key
      ratelab verify scenarios/burst.yaml --url http://127.0.0.1:8000/ping

    --speed divides the times of the traffic, and the same faster traffic is simulated. A server that tells clients
    apart by their address serves a scenario of one client. The exit status is 0 if every answer is as simulated and
    every header field as it should be, 1 if not, 2 if the two cannot be compared, 130 after an interrupt. A close call,
    which the time that its request took explains, is shown but is no failure.
    """  # noqa: D301  (click's mark for a block)
    from ratelab.cli.options import require

    require("verify", serve=("aiohttp",))
    from ratelab.cli.progress import LateProgress
    from ratelab.lab.scenarios import load_scenario
    from ratelab.verify.agreement import agree
    from ratelab.verify.client import checked_url
    from ratelab.verify.report import VerifyReport
    from ratelab.verify.schedule import planned

    checked_url(url)
    header = _header(key)
    with LateProgress("drawing traffic", None):
        loaded = load_scenario(scenario, rate, burst, seed)
    quota, traffic = loaded.quota, planned(loaded.traffic, speed)
    algorithm, traffic, answers = _played(url, header, quota, traffic, algo)
    agreement = agree(algorithm, traffic, answers)
    _tell(
        VerifyReport(agreement, quota, traffic, algorithm.name, loaded.name, loaded.seed, url, header, speed), as_json
    )
    if not agreement.holds:
        context.exit(1)


def _header(key: str) -> str:
    """Return the name of the header that `key` asks for."""
    from ratelab.http.identity import Identity

    if key == "ip":
        raise InputError(
            "key must be header:NAME, got 'ip': all requests come from this address; "
            "against a server that goes by addresses, leave --key out and take a scenario of one client"
        )
    Identity(key, secret="-")  # noqa: S106  (nothing is hashed: it checks the name)
    return key.partition(":")[2]


def _played(
    url: str, header: str, quota: Quota, traffic: Traffic, algo: str | None
) -> tuple[Algorithm, Traffic, list[Response]]:
    """Play the traffic, each key with a value of its own that no run has used before.

    Return the algorithm to hold it against, the traffic with its beginning, and the answers.
    """
    from ratelab.cli.progress import LateProgress
    from ratelab.verify.client import ScheduledRequest, play, reach
    from ratelab.verify.reference import Referee, Seen
    from ratelab.verify.schedule import beginning, longest_delay

    referee = Referee(url, quota, traffic, algo, reach(url))
    run = token_hex(8)
    requests = [
        ScheduledRequest(at, f"{run}-{key}")
        for at, key in zip(traffic.times.tolist(), traffic.request_keys.tolist(), strict=True)
    ]
    seen = Seen(url, len(requests))
    patience = RESPONSE_TIMEOUT_S + longest_delay(referee.slowest, traffic)
    with LateProgress("playing", len(requests)) as progress:

        def see(answer: Response) -> None:
            referee(answer)
            seen(answer)
            progress(1)

        try:
            origin, answers = play(url, header, requests, partial(beginning, quota.window), patience, see)
        except KeyboardInterrupt:
            raise Interrupted(f"interrupted, and not compared: {seen}") from None
    return referee.algorithm, replace(traffic, origin=origin), answers


def _tell(verdict: VerifyReport, as_json: bool) -> None:
    from ratelab.cli.output import console_of_80
    from ratelab.verify.report import verdict_object, verdict_text

    if as_json:
        click.echo(json.dumps(verdict_object(verdict), ensure_ascii=False))
    else:
        console_of_80().print(verdict_text(verdict))
