"""Penalties: a key that is denied too often is denied everything for a growing time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from math import isfinite
from typing import Any, ClassVar, NoReturn, Self

from ratelab.errors import InputError, short_repr
from ratelab.limiter import NEVER, Algorithm, Level, Row, State, Traits, charge_without_decision, traits_of
from ratelab.quota import UNITS, Quota, format_duration, parse_duration, spell_duration

MAX_COUNTED_DENIALS = 100
"""The largest number of denials after which a penalty may begin: a state holds the time of each."""

MAX_GROWTH = 1000

_KEYS = ("after", "within", "for", "growth", "at_most")


@dataclass(frozen=True, slots=True)
class Penalty:
    """After `after` denials in less than `within`, deny everything for `length`; times are in nanoseconds.

    Each further penalty is `growth` times as long as the one before, and at most `at_most`. A penalty is forgotten as
    long after its end as it lasted: the next one is then a first one again.
    """

    after: int
    within: int
    length: int
    growth: Fraction = Fraction(1)
    at_most: int = UNITS["day"]

    @classmethod
    def parse(cls, value: object) -> Penalty:
        """Return the penalty of a mapping such as `{"after": 3, "within": "1min", "for": "5min", "growth": 2}`.

        `growth` is 1 unless given, and `at_most` a day, or `for` if that is longer. Raises `InputError` for others.
        """
        if isinstance(value, Penalty):
            return value
        if not isinstance(value, Mapping):
            raise InputError(
                f"penalty must look like {{after: 3, within: 1min, for: 5min, growth: 2}}, got {short_repr(value)}"
            )
        _check_names(value)
        after, length = value["after"], _parse_duration("for", value["for"])
        if type(after) is not int or not 1 <= after <= MAX_COUNTED_DENIALS:
            _reject("after", f"a whole number from 1 to {MAX_COUNTED_DENIALS}", after)
        at_most = _parse_duration("at_most", value["at_most"]) if "at_most" in value else max(length, UNITS["day"])
        if at_most < length:
            _reject("at_most", f"at least that of `for`, {format_duration(length)}", value["at_most"])
        return cls(after, _parse_duration("within", value["within"]), length, _parse_growth(value), at_most)

    def in_microseconds(self) -> Penalty:
        """Return this penalty with the microsecond as its unit of time; raise `InputError` if that is not exact."""
        times = {"within": self.within, "for": self.length, "at_most": self.at_most}
        for name, time in times.items():
            if time % UNITS["us"]:
                _reject(name, "a whole number of microseconds in a store", format_duration(time))
        within, length, at_most = (time // UNITS["us"] for time in times.values())
        return Penalty(self.after, within, length, self.growth, at_most)

    def spell(self) -> dict[str, object]:
        """Return the mapping that `parse` reads as this penalty."""
        growth = self.growth
        return {
            "after": self.after,
            "within": format_duration(self.within),
            "for": format_duration(self.length),
            "growth": growth.numerator if growth.denominator == 1 else float(growth),
            "at_most": format_duration(self.at_most),
        }

    def __str__(self) -> str:
        denials = f"{self.after} denials" if self.after > 1 else "a denial"
        growth = f", each {float(self.growth):g} times as long as the last, up to {spell_duration(self.at_most)}"
        return (
            f"after {denials} within {spell_duration(self.within)}, for {spell_duration(self.length)}"
            f"{growth if self.growth > 1 else ''}"
        )


def _check_names(value: Mapping[Any, object]) -> None:
    unknown = next((name for name in value if name not in _KEYS), None)
    if unknown is not None:
        raise InputError(f"unknown key {short_repr(unknown)} in penalty: choose from {', '.join(_KEYS)}")
    missing = next((name for name in _KEYS[:3] if name not in value), None)
    if missing is not None:
        raise InputError(f"missing key {missing!r} in penalty: give after, within and for")


def _parse_duration(name: str, value: object) -> int:
    if not isinstance(value, str):
        _reject(name, "a duration such as 5min", value)
    try:
        duration = parse_duration(value)
    except InputError as error:
        raise InputError(f"penalty.{name}: {error}") from None
    if not 0 < duration <= 366 * UNITS["day"]:
        _reject(name, "above 0 and at most 366day", value)
    return duration


def _parse_growth(value: Mapping[Any, object]) -> Fraction:
    growth = value.get("growth", 1)
    is_number = type(growth) is int or (isinstance(growth, float) and isfinite(growth))
    exact = Fraction(str(growth)) if is_number else Fraction(0)
    if not 1 <= exact <= MAX_GROWTH or exact.denominator > MAX_GROWTH:
        _reject("growth", f"a number from 1 to {MAX_GROWTH} with at most three decimals", growth)
    return exact


def _reject(name: str, rule: str, value: object) -> NoReturn:
    raise InputError(f"penalty.{name} must be {rule}, got {short_repr(value)}")


@dataclass(frozen=True, slots=True)
class Penalized:
    """An algorithm whose denials are counted, and punished by a penalty; `penalize` makes the classes.

    A denial counts if a later request of the same cost could be admitted, and if no penalty is in force: then nothing
    is counted or charged, so that waiting for its end is always enough.

    The state is the latest time, the end and the length of the latest penalty, the times of the latest denials that
    count, the newest first, and then the state of the algorithm.
    """

    name: ClassVar[str]
    traits: ClassVar[Traits]
    kind: ClassVar[type[Algorithm]]
    penalty: ClassVar[Penalty]

    inner: Algorithm

    @classmethod
    def from_quota(cls, quota: Quota) -> Self:
        """Build the algorithm that grants `quota`."""
        return cls(cls.kind.from_quota(quota))

    def start(self, now: int) -> list[int]:
        """Return a state without denials."""
        penalty = self.penalty
        return [now, now, 0, *[now - penalty.within] * (penalty.after - 1), *self.inner.start(now)]

    def step(self, state: State, now: int, cost: int) -> Row:
        """Decide a hit by the algorithm, unless a penalty is in force, and count it if it is denied."""
        penalty, first = self.penalty, 2 + self.penalty.after
        now = max(now, state[0])
        end, length = state[1], state[2]
        part = [*state[first:]]
        allowed, remaining, retry_after, reset_after, delay = self.inner.step(part, now, cost)
        if now < end:
            if allowed and cost:
                part = [*state[first:]]
                _, _, _, reset_after, _ = self.inner.step(part, now, 0)
            allowed, remaining, delay = cost == 0, 0, 0
            retry_after = 0 if allowed else max(retry_after, end - now)
        elif not allowed and cost and retry_after != NEVER:
            times = [now, *state[3:first]]
            if now - times[-1] < penalty.within:
                length = self._next_length(now, end, length)
                end, remaining, retry_after = now + length, 0, max(retry_after, length)
                times = [now - penalty.within] * penalty.after
            state[3:first] = times[:-1]
        state[0], state[1], state[2] = now, end, length
        state[first:] = part
        counted_until = state[3] + penalty.within if penalty.after > 1 else now
        reset_after = max(reset_after, end + length - now if length else 0, counted_until - now)
        return allowed, remaining, retry_after, reset_after, delay

    def _next_length(self, now: int, end: int, length: int) -> int:
        """Return the length of a penalty that begins, after one that has ended."""
        growth = self.penalty.growth
        if not length or now >= end + length:
            return self.penalty.length
        return min(length * growth.numerator // growth.denominator, self.penalty.at_most)

    def charge(self, state: State, now: int, cost: int, at: int | None = None) -> None:
        """Charge the algorithm without a decision, also while a penalty is in force; denials stay counted."""
        first = 2 + self.penalty.after
        part = [*state[first:]]
        charge_without_decision(self.inner, part, max(now, state[0]), cost, at)
        state[first:] = part

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.kind, self.penalty, self.inner)


@cache
def penalize(kind: type[Algorithm], penalty: Penalty) -> type[Penalized]:
    """Return the class of the algorithms of a `kind` that have a penalty."""
    traits, first = traits_of(kind), 2 + penalty.after
    level, bound = traits.level, traits.bound
    attributes = {
        "__slots__": (),
        "name": kind.name,
        "kind": kind,
        "penalty": penalty,
        "traits": traits._replace(
            state=("time", "end of the penalty", "its length", *_name_denials(penalty), *traits.state),
            level=level
            and Level(level.label, lambda algorithm, state, now: level.read(algorithm.inner, state[first:], now)),
            bound=bound
            and (
                lambda algorithm, latest, cost, idle: max(
                    bound(algorithm.inner, latest, cost, idle),
                    latest + penalty.within + 2 * penalty.at_most,
                    penalty.at_most * penalty.growth.numerator,
                )
            ),
            admits_need=False,
            counts_denials=True,
            charges=True,
        ),
    }
    return type(f"Penalized{kind.__name__}", (Penalized,), attributes)


def in_microseconds(kind: type[Algorithm]) -> type[Algorithm]:
    """Return the class of the algorithms of a `kind` whose penalty, if they have one, counts in microseconds."""
    return penalize(kind.kind, kind.penalty.in_microseconds()) if issubclass(kind, Penalized) else kind


def _name_denials(penalty: Penalty) -> tuple[str, ...]:
    return (f"times of {penalty.after - 1} denials",) if penalty.after > 1 else ()


def _rebuild(kind: type[Algorithm], penalty: Penalty, inner: Algorithm) -> Penalized:
    return penalize(kind, penalty)(inner)
