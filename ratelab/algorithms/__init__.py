"""Registry of the algorithms, policies, and `create` to build a policy by name.

Every kernel counts in credits: a nanosecond earns `limit` of them and a unit of cost spends `period`, so that nothing
is divided before the last line. Waits are rounded up, written `-(-x // y)` because Python's `//` rounds down.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ratelab.algorithms.calendar_window import CalendarWindow
from ratelab.algorithms.fixed_window import FixedWindow
from ratelab.algorithms.gcra import Gcra
from ratelab.algorithms.leaky_bucket import LeakyBucket
from ratelab.algorithms.penalty import Penalized, Penalty, penalize
from ratelab.algorithms.plugins import build_checked, entry_points_by_name, load_entry_point, load_file
from ratelab.algorithms.sliding_counter import SlidingCounter
from ratelab.algorithms.sliding_log import SlidingLog
from ratelab.algorithms.token_bucket import TokenBucket
from ratelab.errors import InputError, short_repr
from ratelab.limiter import Algorithm, Row, State, charge_without_decision, traits_of
from ratelab.quota import Quota

__all__ = [
    "ALGORITHMS",
    "BUILT_IN",
    "COMPARED",
    "Policy",
    "available",
    "build_policy",
    "create",
    "find",
    "parse_policy",
    "select",
    "traits_of",
]

ALGORITHMS: dict[str, type[Algorithm]] = {
    "token-bucket": TokenBucket,
    "leaky-bucket": LeakyBucket,
    "fixed-window": FixedWindow,
    "sliding-log": SlidingLog,
    "sliding-counter": SlidingCounter,
    "gcra": Gcra,
}
"""The built-in algorithms by name; a new one is a file and a line here."""

_BY_CALENDAR: dict[type[Algorithm], type[Algorithm]] = {FixedWindow: CalendarWindow}
"""The algorithms that grant a quota with a calendar, by those that grant the others."""

_PLAIN = {by_calendar: plain for plain, by_calendar in _BY_CALENDAR.items()}

BUILT_IN = (*ALGORITHMS.values(), *_BY_CALENDAR.values())
"""The classes of the built-in algorithms."""

COMPARED = ("token-bucket", "leaky-bucket", "fixed-window", "sliding-log", "sliding-counter")
"""The algorithms of a comparison by default: `gcra` would repeat the decisions of `token-bucket`."""


def available() -> dict[str, type[Algorithm]]:
    """Return the built-in algorithms and those of installed packages (entry points `ratelab.algorithms`), by name.

    Raises `InputError` if a package's entry cannot be loaded.
    """
    return {**{name: load_entry_point(entry) for name, entry in entry_points_by_name().items()}, **ALGORITHMS}


def find(name: str, from_file: bool = True) -> type[Algorithm]:
    """Return the algorithm called `name` or, with `from_file`, the class that `path/to/file.py:Class` names.

    Raises `InputError` for an unknown name, with the nearest known one.
    """
    if not isinstance(name, str):
        raise InputError(f"algorithm must be the name of one, such as token-bucket, got {short_repr(name)}")
    if name in ALGORITHMS:
        return ALGORITHMS[name]
    if from_file and ".py:" in name:
        return load_file(name)
    plugins = entry_points_by_name()
    if name in plugins:
        return load_entry_point(plugins[name])
    names = [*ALGORITHMS, *plugins]
    near = _find_similar_names(name, names)
    choices = ", ".join(names) + (", or FILE.py:CLASS" if from_file else "")
    hint = f"did you mean {' or '.join(near)}?" if near else f"choose one of {choices}"
    if from_file and name.endswith(".py"):
        hint = f"name its class, too, as in {name}:CLASS"
    raise InputError(f"unknown algorithm {short_repr(name)}: {hint}")


_OTHER_NAMES = {
    "bucket": ("token-bucket", "leaky-bucket"),
    "cell-rate": ("gcra",),
    "fixed": ("fixed-window",),
    "leaky": ("leaky-bucket",),
    "log": ("sliding-log",),
    "moving": ("sliding-log", "sliding-counter"),
    "moving-window": ("sliding-log", "sliding-counter"),
    "rolling-window": ("sliding-log", "sliding-counter"),
    "sliding": ("sliding-log", "sliding-counter"),
    "sliding-window": ("sliding-log", "sliding-counter"),
    "sliding-window-counter": ("sliding-counter",),
    "sliding-window-log": ("sliding-log",),
    "token": ("token-bucket",),
    "window": ("fixed-window", "sliding-log", "sliding-counter"),
}
"""Names that other libraries and textbooks use, and the algorithms that they may stand for."""


def _find_similar_names(name: str, names: Sequence[str]) -> Sequence[str]:
    """Return the algorithms that an unknown name probably stands for; none if it resembles no name."""
    from difflib import get_close_matches  # slow to import

    plain = re.sub(r"[^a-z]+", "-", re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()).strip("-")
    return _OTHER_NAMES.get(plain) or get_close_matches(plain, names, n=1) or get_close_matches(name, names, n=1)


def select(names: Sequence[str], default: Sequence[str]) -> list[type[Algorithm]]:
    """Return the algorithms called `names`, or those of `default` without any; `all` stands for all available ones.

    Raises `InputError` for an unknown name.
    """
    wanted = dict.fromkeys(names or default)
    every = list(available().values()) if "all" in wanted else []
    return list(dict.fromkeys(kind for name in wanted for kind in (every if name == "all" else [find(name)])))


@dataclass(frozen=True, slots=True)
class Policy:
    """A named quota enforced by one algorithm; the item that a `RateLimit-Policy` header describes."""

    name: str
    quota: Quota
    algorithm: Algorithm
    key: str | None = None
    """What the policy counts: None for the limiter's own key, `all` for one counter, else text for the door."""
    cost: str = "requests"
    """`requests`, or the name of a cost that the caller gives."""
    match: str | None = None
    """Requests that the policy applies to, as a route such as `POST /login`; evaluated by the door."""
    shadow: bool = False
    """Whether the policy only counts and reports the requests that it would deny."""

    @classmethod
    def create(
        cls,
        algorithm: str,
        rate: str | Quota,
        burst: int | None = None,
        *,
        name: str | None = None,
        key: str | None = None,
        cost: str = "requests",
        match: str | None = None,
        shadow: bool = False,
        timezone: str | None = None,
        penalty: object = None,
    ) -> Policy:
        """Return the policy of the algorithm called `algorithm` for `rate` (text or a `Quota`) and `burst`.

        Its name is by default that of the algorithm. With a `timezone`, its windows are days, weeks or months of the
        calendar there. A `penalty`, a mapping or a `Penalty`, denies everything for a time after several denials.
        Raises `InputError` for an invalid argument.
        """
        quota, kind = Quota.of(rate, burst), find(algorithm)
        if penalty is not None:
            kind = penalize(kind, Penalty.parse(penalty))
        policy = build_policy(kind, quota if timezone is None else quota.in_timezone(timezone))
        policy = replace(policy, name=policy.name if name is None else name, key=key, cost=cost, match=match)
        policy = replace(policy, shadow=shadow)
        _check_fields(policy)
        return policy

    @property
    def counts_denials(self) -> bool:
        """Whether a denied hit may change later decisions, as one with a penalty does."""
        return traits_of(self.algorithm).counts_denials

    def with_quota(self, rate: str | Quota, burst: int | None = None) -> Policy:
        """Return this policy with another quota; a time zone stays, unless the quota has one, and so does a penalty.

        Raises `InputError` for a quota that the algorithm cannot grant.
        """
        quota = Quota.of(rate, burst)
        if self.quota.calendar is not None and (not isinstance(rate, Quota) or rate.calendar is None):
            quota = quota.in_timezone(self.quota.calendar.timezone)
        return replace(self, quota=quota, algorithm=build_policy(type(self.algorithm), quota).algorithm)

    @property
    def start(self) -> Callable[[int], list[int]]:
        """The algorithm's `start`."""
        return self.algorithm.start

    @property
    def step(self) -> Callable[[State, int, int], Row]:
        """The algorithm's `step`."""
        return self.algorithm.step

    def charge(self, state: State, now: int, cost: int, at: int | None = None) -> None:
        """Charge `cost` without a decision, even below zero; if it is negative, refund a charge of the time `at`.

        A refund leaves at most the quota of a new key. An algorithm that does not declare `Traits.charges` is charged
        up to its remaining quota, and refunds nothing.
        """
        charge_without_decision(self.algorithm, state, now, cost, at)


def _check_fields(policy: Policy) -> None:
    """Raise `InputError` unless the fields of a policy that describe its use are valid."""
    for field in ("name", "key", "cost", "match"):
        value = getattr(policy, field)
        if not (isinstance(value, str) and value) and (value is not None or field in ("name", "cost")):
            raise InputError(f"{field} of a policy must be text that is not empty, got {short_repr(value)}")
    if type(policy.shadow) is not bool:
        raise InputError(f"shadow of a policy must be True or False, got {short_repr(policy.shadow)}")


def create(name: str, rate: str | Quota, burst: int | None = None) -> Policy:
    """Return the policy of the algorithm called `name` for `rate` (text or a `Quota`) and `burst`.

    Without `burst`, the rate's own count is the burst. Raises `InputError` for an unknown name and for a quota that
    the algorithm cannot grant.
    """
    return build_policy(find(name), Quota.of(rate, burst))


def build_policy(kind: type[Algorithm], quota: Quota) -> Policy:
    """Return the policy that grants `quota` by algorithm `kind`, named after it.

    Raises `InputError` if the algorithm cannot grant the quota, or fails.
    """
    if issubclass(kind, Penalized):
        inner = build_policy(kind.kind, quota).algorithm
        return Policy(kind.name, quota, penalize(type(inner), kind.penalty)(inner))
    kind = _PLAIN.get(kind, kind)
    if quota.calendar is not None:
        kind = _find_by_calendar(kind, quota)
    built_in = kind in BUILT_IN
    algorithm = kind.from_quota(quota) if built_in else build_checked(kind, traits_of(kind), quota)
    return Policy(kind.name, quota, algorithm)


def _find_by_calendar(kind: type[Algorithm], quota: Quota) -> type[Algorithm]:
    """Return the algorithm that grants a quota with a calendar instead of `kind`; raise `InputError` without one."""
    assert quota.calendar is not None  # noqa: S101  (for mypy)
    if kind in _BY_CALENDAR.values():
        return kind
    if kind in _BY_CALENDAR:
        return _BY_CALENDAR[kind]
    if quota.calendar.unit == "month":
        raise InputError(
            f"{kind.name} needs a period of fixed length, and a month has 28 to 31 days: "
            f"use fixed-window, or a rate such as {quota.burst}/30day"
        )
    raise InputError(
        f"{kind.name} has no windows for timezone {quota.calendar.timezone} to align: "
        f"use fixed-window, or leave out the timezone"
    )


_POLICY = re.compile(r"(?P<algorithm>.+?):(?P<rate>[^:/]+/[^:]+)(?::(?P<burst>[0-9]{1,19}))?")


def parse_policy(text: str) -> Policy:
    """Parse a policy such as `token-bucket:100/min:40`: an algorithm, a rate and, unless its count is meant, a burst.

    Raises `InputError` for other text.
    """
    match = _POLICY.fullmatch(text)
    if match is None:
        raise InputError(
            f"a policy must look like ALGORITHM:RATE:BURST, such as token-bucket:100/min:40, got {short_repr(text)}"
        )
    return create(match["algorithm"], match["rate"], int(match["burst"]) if match["burst"] else None)
