"""Rate limits read from the status and the header fields of a response."""

from __future__ import annotations

from email.utils import formatdate

import pytest

from ratelab.pacing import RateAdvice, advice
from ratelab.pacing.advice import Allowance
from ratelab.quota import NS_PER_S

NOW = 1_800_000_000
DATE = f"Date: {formatdate(NOW, usegmt=True)}"
S = NS_PER_S


def read(status: int, *lines: str) -> RateAdvice:
    pairs = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    return advice.read_advice(status, pairs, NOW)


def x(limit: str, remaining: str, reset: str) -> tuple[str, ...]:
    return f"X-RateLimit-Limit: {limit}", f"X-RateLimit-Remaining: {remaining}", f"X-RateLimit-Reset: {reset}"


@pytest.mark.parametrize(
    ("lines", "allowances"),
    [
        (('RateLimit-Policy: "a";q=5;w=3', 'RateLimit: "a";r=4;t=1'), [(5, 3, 4, 1)]),
        (('RateLimit-Policy: "a";q=5;w=3', 'RateLimit: "b";r=4;t=1'), [(5, 3, None, None), (None, None, 4, 1)]),
        (('RateLimit-Policy: "a";q=5;w=3, "b";q=9;w=60', 'RateLimit: "b";r=4'), [(5, 3, None, None), (9, 60, 4, None)]),
        (('RateLimit-Policy: "a,b";q=5;w=3;qu="x,;y"', 'RateLimit: "a,b";r=4'), [(5, 3, 4, None)]),
        (('RateLimit-Policy: "a";q=5', 'RateLimit-Policy: "b";q=6;w=1'), [(5, None, None, None), (6, 1, None, None)]),
        (('RateLimit: "a";r=4;t=1, "b";r=-1',), []),
        (('RateLimit: "a";r=4;t=1, b"',), []),
        (('RateLimit: "a";t=1',), []),
        (('RateLimit: "a";r=1.5',), []),
        (('RateLimit-Policy: "a";w=3',), []),
        (('RateLimit-Policy: "a";q=5;w=99999999',), [(5, None, None, None)]),
        (("RateLimit-Limit: 10, 10;w=60", "RateLimit-Remaining: 9", "RateLimit-Reset: 50"), [(10, None, 9, 50)]),
        (x("60", "59", "30"), [(60, None, 59, 30)]),
        (x("60", "59", str(NOW + 30)), [(60, None, 59, 30)]),
        (x("60", "59", str((NOW + 30) * 1000)), [(60, None, 59, 30)]),
        (x("60", "59", str((NOW + 30) * 10**6)), [(60, None, 59, 30)]),
        (x("60", "59", f"{NOW + 30}.5"), [(60, None, 59, 30.5)]),
        (x("60", "59", str(NOW - 1)), [(60, None, 59, 0)]),
        (x("60", "59", str(NOW - 100)), [(60, None, 59, None)]),
        (x("60", "59", str(NOW + 10**8)), [(60, None, 59, None)]),
        (x("60", "59", "-5"), [(60, None, 59, None)]),
        (x("60", "59", "NaN"), [(60, None, 59, None)]),
        (x("60", "59", "9" * 400), [(60, None, 59, None)]),
        (x("60", "-1", "30"), []),
        (x("many", "3", "30"), [(None, None, 3, 30)]),
        (x("60", "NaN", "30"), []),
    ],
)
def test_allowances_are_read_and_malformed_fields_ignored(lines: tuple[str, ...], allowances: list[tuple]) -> None:  # type: ignore[type-arg]
    expected = [
        Allowance(q, None if w is None else w * S, r, None if t is None else int(t * S)) for q, w, r, t in allowances
    ]
    assert [*read(200, *lines).allowances] == expected


@pytest.mark.parametrize(
    ("status", "lines", "denied", "wait_s"),
    [
        (429, (), True, None),
        (503, (), True, None),
        (403, (), False, None),
        (403, ("Retry-After: 60",), True, 60),
        (403, x("60", "0", str(NOW + 30)), True, 30),
        (403, x("60", "9", str(NOW + 30)), False, None),
        (200, ("Retry-After: 60",), False, None),
        (500, ("Retry-After: 60",), False, None),
        (429, ("Retry-After: 60",), True, 60),
        (429, ("Retry-After: 60", *x("60", "0", "30")), True, 60),
        (429, x("60", "0", "30"), True, 30),
        (429, ('RateLimit: "a";r=0;t=7',), True, 7),
        (429, ('RateLimit: "a";r=3;t=7',), True, None),
        (429, (f"Retry-After: {formatdate(NOW + 60, usegmt=True)}",), True, 60),
        (429, (f"Retry-After: {formatdate(NOW - 60, usegmt=True)}",), True, None),
        (429, ("Retry-After: 0",), True, None),
        (429, ("Retry-After: -5",), True, None),
        (429, ("Retry-After: 1.5",), True, None),
        (429, ("Retry-After: soon",), True, None),
        (429, ("Retry-After: 999999999999",), True, None),
        (429, ("Retry-After: 60", "Retry-After: 60"), True, None),
    ],
)
def test_denials_are_recognized_with_their_wait(
    status: int, lines: tuple[str, ...], denied: bool, wait_s: int | None
) -> None:
    found = read(status, *lines)
    assert (found.denied, found.wait_ns) == (denied, None if wait_s is None else wait_s * S)


def test_times_count_from_the_date_of_the_response() -> None:
    lines = (DATE, *x("60", "0", str(NOW + 30)))
    found = advice.read_advice(429, [tuple(line.split(": ")) for line in lines], NOW + 5000)  # type: ignore[misc]
    assert found.wait_ns == 30 * S


def test_a_response_from_a_cache_shows_nothing() -> None:
    assert read(200, "Age: 3", 'RateLimit: "a";r=0;t=60') == RateAdvice(False, cached=True)
    assert not read(200, "Age: 0", 'RateLimit: "a";r=0;t=60').cached


def test_names_of_fields_may_have_any_case_and_come_as_a_mapping() -> None:
    assert advice.read_advice(429, {"RETRY-after": "3"}).wait_ns == 3 * S
