"""When a store that may fail is asked: values alone, told the time and what became of each call."""

from __future__ import annotations

from dataclasses import dataclass

FAILURES = 3
"""In a row, after which the store is taken to be down; those of calls that were under way together are one."""

FIRST_PAUSE = 500_000_000
"""Nanoseconds before a store that went down is asked again, and at least from one such probe to the next."""

LONGEST_PAUSE = 1_000_000_000
"""Nanoseconds after a probe that failed."""


@dataclass(slots=True)
class Spell:
    """A time in which nothing new is learned about the store; a call that began in another says nothing about it."""

    down_since: int | None = None
    failures: int = 0
    """In a row, before it."""
    next_probe: int = 0
    probing: bool = False


class Breaker:
    """Spare a store that is down all calls but one at a time, and notice when it is back.

    Every call begins with `begin`; `failed` or `succeeded` says what became of it, if anything did, and then `end`
    that it is over. A success begins the count of failures anew; failures of calls that were under way together count
    once, for one lost connection or one stall breaks them all. While the store is down, a call is due `FIRST_PAUSE`
    after it went down or after a probe that said nothing, and `LONGEST_PAUSE` after one that failed; it is let through
    as soon as somebody asks. `now` must not fall.
    """

    def __init__(self) -> None:
        self._spell = Spell()

    @property
    def up(self) -> bool:
        """Whether the store is asked."""
        return self._spell.down_since is None

    @property
    def failing(self) -> bool:
        """Whether the last that is known of the store is a failure."""
        return self._spell.failures > 0 or not self.up

    def begin(self, now: int) -> Spell | None:
        """Return the spell in which a call begins, or None if the store is not to be asked now."""
        spell = self._spell
        if spell.down_since is not None:
            if spell.probing or now < spell.next_probe:
                return None
            spell.probing, spell.next_probe = True, now + FIRST_PAUSE
        return spell

    def failed(self, spell: Spell, now: int) -> bool:
        """Take note of a failure; return whether it is the one by which the store goes down."""
        if spell is not self._spell:
            return False
        if spell.down_since is not None:
            spell.next_probe = now + LONGEST_PAUSE
            return False
        failures = spell.failures + 1
        down = failures >= FAILURES
        self._spell = Spell(now, next_probe=now + FIRST_PAUSE) if down else Spell(failures=failures)
        return down

    def succeeded(self, spell: Spell) -> int | None:
        """Take note of an answer; return since when the store has been down if this is how it comes back."""
        if spell is not self._spell:
            return None
        if spell.failures or spell.down_since is not None:
            self._spell = Spell()
        return spell.down_since

    def end(self, spell: Spell) -> None:
        """Take note that a call is over, even if it was cancelled."""
        spell.probing = False
