"""Parsing of `RateLimit-Policy` and `RateLimit`."""

from __future__ import annotations

import pytest

from ratelab import create
from ratelab.http.headers import HeaderWriter, PolicyHeader, read_items, read_policy, read_state
from ratelab.limiter import Decision


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ('"token-bucket";q=5;w=3', PolicyHeader("token-bucket", 5, 3)),
        ('  "a" ; q=5 ;w=3  ', PolicyHeader("a", 5, 3)),
        ('"a";w=3;qu="requests";q=5;pk=:YQ==:', PolicyHeader("a", 5, 3)),
        ('"a";q=5', PolicyHeader("a", 5, None)),
        ('"a"', PolicyHeader("a", None, None)),
        ("default;q=5;w=3", PolicyHeader("default", 5, 3)),
        ('"a";q=1;w=1, "b";q=100;w=60', PolicyHeader("a", 1, 1)),
        (r'"say \"a\\b\"";q=5;w=3', PolicyHeader(r'say "a\b"', 5, 3)),
        ('"a";q=-5;w=x', PolicyHeader("a", None, None)),
        ("", None),
        ('"a', None),
        ("5;w=3", None),
        ('"a" q=5', None),
    ],
)
def test_the_first_policy_is_parsed(text: str, policy: PolicyHeader | None) -> None:
    assert read_policy(text) == policy


@pytest.mark.parametrize(
    "text", ["; " * 1000 + '"', ";" * 1000 + '"', " " * 1000 + '"', ('; "' * 999), "; \t" * 1000 + "\\,"]
)
def test_a_malformed_field_is_rejected_without_trying_every_split(text: str) -> None:
    assert read_items(f'"a"{text}', "q") == []


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ('"a";r=4;t=1', (4, 1)),
        ('"a";t=1;r=4', (4, 1)),
        ('"a";r=4', None),
        ('"a";r=4;t=1.5', None),
        ('"a";r=4;t=-1', None),
        ("limit=5, remaining=4, reset=1", None),
        ("", None),
    ],
)
def test_a_state_needs_both_numbers(text: str, state: tuple[int, int] | None) -> None:
    assert read_state(text) == state


def test_the_headers_of_the_middleware_are_parsed() -> None:
    fields = dict(HeaderWriter(create("leaky-bucket", "2/s", 5)).format_decision(Decision(True, 4, 0, 500_000_000, 0)))
    assert read_policy(fields[b"ratelimit-policy"].decode()) == PolicyHeader("leaky-bucket", 5, 3)
    assert read_state(fields[b"ratelimit"].decode()) == (4, 1)
