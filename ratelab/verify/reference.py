"""Who settles, by the first answer of a live endpoint, what it is held against."""

from __future__ import annotations

import errno
import os
from collections import Counter
from http import HTTPStatus
from typing import TYPE_CHECKING

from ratelab.algorithms import find
from ratelab.algorithms.plugins import attribute_errors
from ratelab.errors import InputError, short_repr
from ratelab.http.headers import HeaderWriter, PolicyHeader, read_policy
from ratelab.limiter import Algorithm, Decision
from ratelab.verify.client import Response
from ratelab.verify.schedule import depends_on_clock

if TYPE_CHECKING:
    from ratelab.lab.traffic import Traffic
    from ratelab.quota import Quota


class Referee:
    """Hold an endpoint to the algorithm called `algo` or, if that is None, to the one that its own policy names.

    Called with each answer; `algorithm` is known after the first. Raises `InputError`, by then at the latest, for an
    endpoint that cannot be compared: no answer, no limited page, no known algorithm, another quota than `quota`, or
    a clock that is not `ours` where the algorithm goes by the clock.
    """

    def __init__(self, url: str, quota: Quota, traffic: Traffic, algo: str | None, ours: bool) -> None:
        self._url, self._quota, self._traffic, self._ours = url, quota, traffic, ours
        self._given = None if algo is None else _built(algo, quota)
        self._settled: Algorithm | None = None

    def __call__(self, answer: Response) -> None:
        """Look at an answer; only the first one decides."""
        if self._settled is None:
            self._check_status(answer)
            algorithm = self._given or self._named(answer.policy)
            if answer.policy is not None:
                self._check_quota(algorithm, answer.policy)
            self._check_clock(algorithm)
            self._settled = algorithm

    @property
    def slowest(self) -> Algorithm:
        """The algorithm that may be settled on and lets requests queue the longest."""
        return self._given or _built("leaky-bucket", self._quota)

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm that the endpoint is held against."""
        if self._settled is None:
            raise InputError(f"{self._url} gave no answer: name a limited page that answers GET")
        return self._settled

    def _check_status(self, answer: Response) -> None:
        if not answer.status:
            raise InputError(f"{self._url} gave no answer ({answer.error}): start the service, or mend the URL")
        if not answer.admitted and not answer.denied:
            phrase = HTTPStatus(answer.status).phrase if answer.status in set(HTTPStatus) else "no known status"
            raise InputError(
                f"{self._url} answers {answer.status} ({phrase}): "
                "name a limited page that answers GET with 200, such as /ping of ratelab serve"
            )

    def _named(self, policy: PolicyHeader | None) -> Algorithm:
        if policy is None:
            raise InputError(
                f"{self._url} answers without a RateLimit-Policy that names its algorithm: "
                "say with --algo which one to hold it against"
            )
        if ".py:" in policy.name:  # a server does not say which file of ours is run
            raise InputError(
                f"the server's policy is called {short_repr(policy.name)}: say with --algo what it should do"
            )
        try:
            return _built(policy.name, self._quota)
        except InputError as error:
            raise InputError(f"the server's policy: {error} (with --algo)") from None

    def _check_quota(self, algorithm: Algorithm, policy: PolicyHeader) -> None:
        expected = _policy_of(algorithm)
        for told, ours in ((policy.quota, expected.quota), (policy.window, expected.window)):
            if told not in (None, ours):
                quota = self._quota
                raise InputError(
                    f"the server grants q={policy.quota};w={policy.window}, the scenario {quota} "
                    f"(q={expected.quota};w={expected.window}): run ratelab serve --rate {quota.rate} "
                    f"--burst {quota.burst}, or give --rate and --burst here as the server has them"
                )

    def _check_clock(self, algorithm: Algorithm) -> None:
        if not self._ours and depends_on_clock(algorithm, self._traffic, self._quota.window):
            raise InputError(
                f"{algorithm.name} decides by the clock of its machine, and {self._url} is on another: "
                "run ratelab verify there, or a scenario that is decided alike wherever a window begins"
            )


def _built(name: str, quota: Quota) -> Algorithm:
    kind = find(name)
    with attribute_errors(kind):
        return kind.from_quota(quota)


def _policy_of(algorithm: Algorithm) -> PolicyHeader:
    """Return the policy that a server with `algorithm` tells."""
    with attribute_errors(algorithm):
        told = dict(HeaderWriter(algorithm).of(Decision(True, 0, 0, 0, 0)))
    policy = read_policy(told[b"ratelimit-policy"].decode())
    assert policy is not None  # noqa: S101  (it is written by `HeaderWriter`)
    return policy


GONE = os.strerror(errno.ECONNREFUSED)


class Seen:
    """Count the answers to so many requests; called with each.

    Raises `InputError` when the endpoint takes no connections any more: what it would have answered is unknown.
    """

    def __init__(self, url: str, requests: int) -> None:
        self._url, self._requests = url, requests
        self._answered = Counter[int]()

    def __call__(self, answer: Response) -> None:
        """Take note of an answer."""
        if answer.error == GONE:
            raise InputError(f"{self._url} has gone ({GONE}; {self}): start the service again, and play the whole")
        if answer.status:
            self._answered[answer.status] += 1

    def __str__(self) -> str:
        statuses = ", ".join(f"{count:,} with {status}" for status, count in sorted(self._answered.items()))
        return f"{self._answered.total():,} of {self._requests:,} answered{statuses and f': {statuses}'}"
