"""The one error that a person's input can cause, and how it shows what was given."""

from __future__ import annotations


class InputError(ValueError):
    """What was given cannot be used; the message states the value, the rule and the remedy."""


def shown(value: object) -> str:
    """Write a refused value for an error message, cut to a line."""
    text = repr(value[:80] if isinstance(value, str) else value)
    return text if len(text) <= 60 else f"{text[:57]}..."
