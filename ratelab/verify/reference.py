"""Reference policy of a live endpoint, determined from its first response."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import ClassVar, Self

from ratelab.algorithms import ALGORITHMS, Policy, build_policy, find, traits_of
from ratelab.algorithms.composite import Composite
from ratelab.errors import InputError, short_repr
from ratelab.http.headers import HeaderWriter, PolicyHeader, read_policy
from ratelab.lab.traffic import Traffic
from ratelab.limiter import Decision, Row, State, Traits
from ratelab.policies.policy_file import PolicyFile
from ratelab.policies.routes import parse_route
from ratelab.quota import Quota
from ratelab.verify.schedule import Response, depends_on_clock

CONNECTION_REFUSED = os.strerror(errno.ECONNREFUSED)


class CombinedPolicies:
    """Several policies as one algorithm, for clients that share no counter."""

    name: ClassVar[str] = "policies"
    traits: ClassVar[Traits] = Traits(queues=True)

    def __init__(self, policies: Sequence[Policy]) -> None:
        self.policies = tuple(policies)
        composite = Composite.of(policies)
        self.start: Callable[[int], list[int]] = composite.start
        self.step: Callable[[State, int, int], Row] = composite.step

    @classmethod
    def from_quota(cls, quota: Quota) -> Self:
        """Raise `InputError`: each policy has its own quota."""
        raise InputError(f"policies are combined from a file, and not built from a quota such as {quota}")


def combine_policies(file: PolicyFile, plan: str | None, key: str, path: str, clients: int) -> Policy:
    """Return the enforcing policies of a file, on a plan, as one policy for requests by GET for a path.

    Its quota is the one with the longest window. `key` is the header that identifies each of the `clients` of the run.
    Raises `InputError` if no policy applies, and for policies that the run cannot compare.
    """
    chosen = []
    for policy in file.policies_of(plan=plan):
        applies = policy.match is None or parse_route(policy.match).matches("GET", path)
        if policy.shadow or not applies or policy.cost == "bytes":  # a request by GET has none
            continue
        if policy.cost != "requests":
            raise InputError(f"{file.path}: policy {policy.name} counts {policy.cost}: only requests can be verified")
        if policy.key not in (None, f"header:{key}") and clients > 1:
            shared = f"the clients of a run share the {policy.key} of policy {policy.name}"
            raise InputError(f"{file.path}: {shared}: use a scenario with one client")
        chosen.append(policy)
    if not chosen:
        raise InputError(f"{file.path}: no policy denies a request by GET for {path}: name a page that one applies to")
    longest = max(chosen, key=lambda policy: policy.quota.window)
    return Policy("policies", longest.quota, CombinedPolicies(chosen))


class ReferenceFinder:
    """Find the policy to compare an endpoint with: `requested` or, if it is None, that of the server's policy name.

    `quota` and `traffic` are those of the scenario; `same_machine` is whether the endpoint shares this clock.
    """

    def __init__(self, url: str, quota: Quota, traffic: Traffic, requested: Policy | None, same_machine: bool) -> None:
        self._url, self._quota, self._traffic, self._same_machine = url, quota, traffic, same_machine
        self._requested = requested
        self._found: Policy | None = None

    def observe(self, response: Response) -> None:
        """Find the policy in the first response; ignore all others.

        Raises `InputError` if the endpoint cannot be compared: no response, no rate-limited page, an unknown
        algorithm, another quota, or another machine's clock where decisions depend on it.
        """
        if self._found is None:
            self._check_status(response)
            policy = self._requested or self._build_named(response.policy)
            if response.policy is not None:
                self._check_quota(policy, response.policy)
            self._check_clock(policy)
            self._found = policy

    @property
    def policy(self) -> Policy:
        """The policy, once a response has been observed."""
        if self._found is None:
            raise InputError(f"no response from {self._url}: name a rate-limited page that answers GET")
        return self._found

    @property
    def candidates(self) -> list[Policy]:
        """The policies that may be found, without built-in ones that never delay requests."""
        kinds = [kind for kind in ALGORITHMS.values() if traits_of(kind).queues]
        return [self._requested] if self._requested else [build_policy(kind, self._quota) for kind in kinds]

    def _check_status(self, response: Response) -> None:
        if not response.status:
            raise InputError(f"no response from {self._url} ({response.error}): start the service or correct the URL")
        if not response.admitted and not response.denied:
            known = response.status in set(HTTPStatus)
            phrase = HTTPStatus(response.status).phrase if known else "unknown status"
            raise InputError(
                f"{self._url} answers {response.status} ({phrase}): "
                "name a rate-limited page that answers GET with 200, such as /ping of ratelab serve"
            )

    def _build_named(self, header: PolicyHeader | None) -> Policy:
        if header is None:
            raise InputError(f"{self._url} sends no RateLimit-Policy that names its algorithm: name it with --algo")
        if ".py:" in header.name:  # a server must not choose a local file to run
            raise InputError(f"the server's policy is named {short_repr(header.name)}: name its algorithm with --algo")
        try:
            return build_policy(find(header.name), self._quota)
        except InputError as error:
            raise InputError(f"{error} (named by the server's policy; override it with --algo)") from None

    def _check_quota(self, policy: Policy, header: PolicyHeader) -> None:
        combined = policy.algorithm if isinstance(policy.algorithm, CombinedPolicies) else None
        expected = _parse_own_header(policy if combined is None else combined.policies[0])
        for actual, simulated in ((header.quota, expected.quota), (header.window, expected.window)):
            if actual not in (None, simulated):
                quota = self._quota
                if combined is not None:
                    raise InputError(
                        f"the server grants q={header.quota};w={header.window}, the file "
                        f"q={expected.quota};w={expected.window}: run ratelab serve with the same --policies"
                    )
                raise InputError(
                    f"the server grants q={header.quota};w={header.window}, the scenario {quota} "
                    f"(q={expected.quota};w={expected.window}): run ratelab serve --rate {quota.rate} "
                    f"--burst {quota.burst}, or pass the server's --rate and --burst here"
                )

    def _check_clock(self, policy: Policy) -> None:
        if not self._same_machine and depends_on_clock(policy, self._traffic, policy.quota.window):
            raise InputError(
                f"{policy.name} uses the clock of its machine, and {self._url} is on another: run ratelab verify "
                "there, or use a scenario whose decisions do not depend on where a window begins"
            )


def _parse_own_header(policy: Policy) -> PolicyHeader:
    """Return the policy header that a server with `policy` sends."""
    fields = dict(HeaderWriter(policy).format_decision(Decision(True, 0, 0, 0, 0)))
    header = read_policy(fields[b"ratelimit-policy"].decode())
    assert header is not None  # noqa: S101  (`HeaderWriter` has written it)
    return header


class ResponseCounter:
    """Count the responses to `requests` requests by status; `str()` formats the counts."""

    def __init__(self, url: str, requests: int) -> None:
        self._url, self._requests = url, requests
        self._counts = Counter[int]()

    def count(self, response: Response) -> None:
        """Count a response; raise `InputError` when the endpoint refuses connections, since the rest is unknown."""
        if response.error == CONNECTION_REFUSED:
            raise InputError(
                f"{self._url} stopped during the run ({response.error}; {self}): restart the service and repeat the run"
            )
        if response.status:
            self._counts[response.status] += 1

    def __str__(self) -> str:
        statuses = ", ".join(f"{count:,} with {status}" for status, count in sorted(self._counts.items()))
        return f"{self._counts.total():,} of {self._requests:,} answered{statuses and f': {statuses}'}"
