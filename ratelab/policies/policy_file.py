"""Policy files: several policies, plans and overrides in YAML."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from ratelab.algorithms import Policy
from ratelab.documents import (
    AlgorithmName,
    Count,
    Document,
    Duration,
    Example,
    Kind,
    Number,
    Place,
    Strict,
    Switch,
    Text,
    suggest,
    validate,
)
from ratelab.errors import InputError, format_reason, short_repr
from ratelab.policies.values import (
    CostName,
    HeaderName,
    IdentifyingHeaderName,
    KeyName,
    Name,
    RouteText,
    Version,
    check_name,
)
from ratelab.quota import format_duration

POLICY_FILE = Kind("policy", "`ratelab docs policies`", "put the plans of many clients into a CSV file")

MAX_POLICIES = 32
"""Policies of a file: each request is decided by all of them."""

MAX_PLANNED_CLIENTS = 100_000
"""Clients of a file of plans, which are kept in memory."""

PLAN_FILE_HEADER = ["key", "plan"]
"""The first line of a file of plans; it may be missing."""

_CAUSE = re.compile(r"\b(?:rate|burst|timezone|penalty(?:\.[a-z_]+)?)\b")  # in messages of `Policy.create`


# --- objects


class PenaltyFields(Strict):
    """After `after` denials within a time, deny for a growing time."""

    after: Count
    within: Duration
    length: Duration = Field(alias="for")
    growth: Number = 1
    at_most: Duration | None = None

    def spell(self) -> dict[str, object]:
        """Return the values as `Policy.create` takes them, with durations as text."""
        values = self.model_dump(by_alias=True, exclude_none=True)
        durations = {"within", "for", "at_most"}
        return {name: format_duration(value) if name in durations else value for name, value in values.items()}


class PolicyFields(Strict):
    """One policy."""

    name: Name | None = None
    algorithm: AlgorithmName
    rate: Annotated[Text, Example("10/s")]
    burst: Count | None = None
    key: KeyName | None = None
    cost: CostName = "requests"
    match: RouteText | None = None
    shadow: Switch = False
    timezone: Text | None = None
    penalty: PenaltyFields | None = None


class QuotaChange(Strict):
    """The quota of a policy in a plan, or for a key; a missing value is that of the policy."""

    rate: Text | None = None
    burst: Count | None = None


class PlanFields(Strict):
    """The source of the plan of a request."""

    header: HeaderName | None = None
    file: Text | None = None
    default: Name | None = None


class AccountFields(Strict):
    """The source of the account of a request."""

    header: IdentifyingHeaderName


A_POLICY = Example("[{algorithm: token-bucket, rate: 10/s}]")

Changes = dict[str, QuotaChange]
"""Changes of quotas, by the names of policies."""


class PolicyFileFields(Strict):
    """A policy file."""

    version: Version
    policies: Annotated[list[PolicyFields], Field(min_length=1, max_length=MAX_POLICIES), A_POLICY]
    account: AccountFields | None = None
    plan: PlanFields | None = None
    plans: dict[str, Changes] = Field({})
    overrides: dict[str, Changes] = Field({})


# --- reading


@dataclass(frozen=True)
class PolicyFile:
    """The content of a policy file, with every quota checked."""

    path: str
    policies: tuple[Policy, ...]
    plans: Mapping[str, tuple[Policy, ...]]
    """The policies of each plan, in the same order and with the same names; only their quotas differ."""
    overrides: Mapping[str, Mapping[str, Policy]]
    """Policies of single clients, by header value or address and by name: they replace those of any plan."""
    plan_header: str | None
    """The header that names the plan of a request, set by the authentication layer."""
    plan_of: Mapping[str, str] | None
    """The plans of clients, by header value or address, if the file names a file of plans."""
    default_plan: str | None
    account_header: str | None
    """The header that names the account of a request, set by the authentication layer."""
    files: tuple[str, ...]
    """The paths of all files that were read."""

    def policies_of(self, client: str | None = None, plan: str | None = None) -> tuple[Policy, ...]:
        """Return the policies of a client on `plan`; by default, its plan in the file of plans, or the default plan."""
        if plan is None:
            plan = (self.plan_of or {}).get(client or "", self.default_plan or "")
        changed = self.overrides.get(client or "", {})
        return tuple(changed.get(policy.name, policy) for policy in self.plans.get(plan, self.policies))


def read_policies(path: str) -> PolicyFile:
    """Read the policy file at `path`, and the file of plans that it names.

    Raises `InputError` for an invalid file, with the file, the line, the path of the value and the remedy.
    """
    document = Document(path, POLICY_FILE)
    fields = validate(document, PolicyFileFields)
    policies, plans = create_policies(document, fields.policies, fields.plans)
    for n, policy in enumerate(policies):
        if policy.key == "account" and fields.account is None:
            remedy = "add account: {header: NAME}, a header that your authentication layer sets"
            raise document.error(("policies", n, "key"), f"account needs a source: {remedy}")
    source = fields.plan or PlanFields()
    _check_plan_source(document, source, list(fields.plans))
    if "" in fields.overrides:
        raise document.error(("overrides", ""), "expected a header value or an address, got '': name the client")
    plan_file = None if source.file is None else str(Path(path).parent / source.file)
    try:
        plan_of = None if plan_file is None else read_plan_file(plan_file, list(fields.plans))
    except (OSError, UnicodeDecodeError) as error:
        problem = f"{plan_file}: {format_reason(error)}: name a CSV file in UTF-8 with lines alice,premium"
        raise document.error(("plan", "file"), problem) from None
    return PolicyFile(
        path=path,
        policies=policies,
        plans=plans,
        overrides={
            client: _change(document, _by_name(policies, fields.policies), changes, ("overrides", client))
            for client, changes in fields.overrides.items()
        },
        plan_header=source.header,
        plan_of=plan_of,
        default_plan=source.default,
        account_header=None if fields.account is None else fields.account.header,
        files=(path,) if plan_file is None else (path, plan_file),
    )


def create_policies(
    document: Document, given: Sequence[PolicyFields], plans: Mapping[str, Changes]
) -> tuple[tuple[Policy, ...], dict[str, tuple[Policy, ...]]]:
    """Return the policies that a document has at `policies`, and those of each plan at `plans`.

    Raises `InputError` for the first error, with its place.
    """
    policies = tuple(_create_policy(document, each, ("policies", n)) for n, each in enumerate(given))
    names: set[str] = set()
    for n, policy in enumerate(policies):
        if policy.name in names:
            raise document.error(("policies", n), f"duplicate policy name {policy.name!r}: give each another name")
        names.add(policy.name)
    changed = {
        check_plan_name(document, plan): _change(document, _by_name(policies, given), changes, ("plans", plan))
        for plan, changes in plans.items()
    }
    return policies, {
        plan: tuple(changes.get(policy.name, policy) for policy in policies) for plan, changes in changed.items()
    }


def _by_name(policies: Sequence[Policy], given: Sequence[PolicyFields]) -> dict[str, PolicyFields]:
    return {policy.name: fields for policy, fields in zip(policies, given, strict=True)}


def _create_policy(document: Document, fields: PolicyFields, place: Place, change: QuotaChange | None = None) -> Policy:
    """Create a policy, or that with a changed quota, and attribute errors to the value that causes them."""
    rate, burst = fields.rate, fields.burst
    if change is not None:
        rate, burst = (fields.rate, change.burst) if change.rate is None else (change.rate, change.burst)
    penalty = None if fields.penalty is None else fields.penalty.spell()
    try:
        return Policy.create(
            fields.algorithm,
            rate,
            burst,
            name=fields.name,
            key=fields.key,
            cost=fields.cost,
            match=fields.match,
            shadow=fields.shadow,
            timezone=fields.timezone,
            penalty=penalty,
        )
    except InputError as error:
        given = (change or fields).model_fields_set
        causes = [found.split(".") for found in _CAUSE.findall(str(error))]
        cause: list[str] = next((found for found in causes if found[0] in given), [])
        raise document.error((*place, *cause), str(error)) from None


def _change(
    document: Document, policies: Mapping[str, PolicyFields], changes: Changes, place: Place
) -> dict[str, Policy]:
    """Return the changed policies by name."""
    changed = {}
    for name, change in changes.items():
        if name not in policies:
            raise document.error((*place, name), f"unknown policy {short_repr(name)}; {suggest(name, policies)}")
        if change.rate is None and change.burst is None:
            raise document.error((*place, name), "expected a rate or a burst, got neither: add one")
        changed[name] = _create_policy(document, policies[name], (*place, name), change)
    return changed


def check_plan_name(document: Document, name: str) -> str:
    """Return the name of a plan."""
    try:
        return check_name(name)
    except InputError as error:
        raise document.error(("plans", name), str(error)) from None


def _check_plan_source(document: Document, source: PlanFields, plans: list[str]) -> None:
    """Raise `InputError` unless the source of the plan is one, and its default plan exists."""
    place: Place = ("plan",)
    if source.header is not None and source.file is not None:
        raise document.error(place, "expected header or file, got both: remove one of them")
    if (source.header or source.file) and not plans:
        raise document.error(place, "expected the plans that it chooses from, got none: add plans")
    if source.default is not None and source.default not in plans:
        problem = f"unknown plan {short_repr(source.default)}"
        raise document.error((*place, "default"), f"{problem}; {suggest(source.default, plans)}")


# --- files of plans


def read_plan_file(path: str, plans: Sequence[str]) -> dict[str, str]:
    """Return the plan of each client of a file; raise `InputError` with the line of the first error.

    Raises `OSError` or `UnicodeDecodeError` for a file that cannot be read.
    """
    plan_of: dict[str, str] = {}
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, strict=True)
            for row in rows:
                if not row or (rows.line_num == 1 and row == PLAN_FILE_HEADER):
                    continue
                place = f"{path}:{rows.line_num}"
                if len(row) != len(PLAN_FILE_HEADER) or not all(row):
                    got = short_repr(",".join(row))
                    raise InputError(f"{place}: expected KEY,PLAN, got {got}: write lines such as alice,premium")
                key, plan = (value.strip() for value in row)
                if plan not in plans:
                    raise InputError(f"{place}: unknown plan {short_repr(plan)}; {suggest(plan, plans)}")
                if plan_of.setdefault(key, plan) != plan:
                    raise InputError(f"{place}: duplicate key {short_repr(key)}: keep one of its plans")
                if len(plan_of) > MAX_PLANNED_CLIENTS:
                    raise InputError(f"{place}: more than {MAX_PLANNED_CLIENTS:,} keys: use plan: {{header: NAME}}")
    except csv.Error as error:
        raise InputError(f"{path}:{rows.line_num}: invalid CSV ({error}): write lines such as alice,premium") from None
    return plan_of
