"""The fingerprint of a secret in a store, by which instances notice that they have different ones."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from math import inf
from typing import Any

from ratelab.errors import StoreError
from ratelab.quota import NS_PER_S
from ratelab.stores.valkey.resp import encode_command
from ratelab.stores.valkey.script import escape_name

CLAIM_TTL_S = 24 * 3600
"""Seconds for which the fingerprint of a secret is kept after its last use, at least."""

COMPARISON_INTERVAL_S = 3600.0
"""Seconds from one comparison of secrets to the next."""

_log = logging.getLogger("ratelab")


class SecretClaim:
    """Note in the store that the keys of the limiter `name` depend on the secret with a `fingerprint`.

    It is used like a `Script`. The reply is the fingerprint that the store holds, or else this one, which is then
    stored for at least a day, and for `window_ns`, unless the secret was `generated`: such a secret ends with its
    process, so that nothing can be concluded from it.
    """

    def __init__(self, name: str, fingerprint: str, generated: bool, window_ns: int) -> None:
        self.text = _CLAIM
        self.key = f"rl:{{secret}}:{escape_name(name)}"
        self.fingerprint = fingerprint
        self.description = (
            f"instances with different secrets share the limiter {name!r}, so each grants its clients the whole quota: "
            f"set the same RATELAB_KEY_SECRET for all (to replace the secret, first delete {self.key} from the store)"
        )
        """The meaning of another fingerprint in the store."""
        ttl = 0 if generated else CLAIM_TTL_S + -(-window_ns // NS_PER_S)
        self._command = encode_command("EVAL", _CLAIM, 1, self.key, fingerprint, ttl)

    def encode(self, keys: Sequence[bytes], costs: Sequence[Any], cached: bool = True) -> bytes:  # noqa: ARG002
        """Return the command that claims the keys."""
        return self._command

    def decode(self, reply: bytes) -> list[bool]:
        """Return whether the secret is that of the other instances."""
        return [reply == self.fingerprint.encode()]


class SecretWatch:
    """Compare a secret with that of other instances, at the first hit and then every hour, for tasks.

    If it is another one, a warning is logged.
    """

    def __init__(self) -> None:
        self._claim: SecretClaim | None = None
        self.due = inf
        """The loop's time of the next comparison; infinite without a claim."""
        self.start_over()

    def watch(self, claim: SecretClaim) -> None:
        """Compare the secret of a claim from the next hit on."""
        self._claim, self.due = claim, 0.0

    def start_over(self) -> None:
        """Compare it at the next hit, in a new event loop."""
        self.due = inf if self._claim is None else 0.0
        self._comparing: asyncio.Task[None] | None = None

    def compare(self, now: float, send: Callable[[SecretClaim], Awaitable[bool]]) -> None:
        """Start a task that compares the secret at the loop's time `now`, when it is due.

        `send` sends a claim, and returns whether the secret is the same.
        """
        if self._claim is not None:
            self.due = now + COMPARISON_INTERVAL_S
            self._comparing = asyncio.get_running_loop().create_task(_compare(self._claim, send))


async def _compare(claim: SecretClaim, send: Callable[[SecretClaim], Awaitable[bool]]) -> None:
    with suppress(StoreError):  # which hits report, too
        if not await send(claim):
            _log.warning("%s", claim.description)


_CLAIM = """
local found = redis.pcall('GET', KEYS[1])
if type(found) == 'table' then
  if not string.find(found.err, 'WRONGTYPE', 1, true) then redis.call('GET', KEYS[1]) end  -- raises the error
  found = false  -- another program has written the key
end
if tonumber(ARGV[2]) > 0 and (not found or found == ARGV[1]) then
  redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
end
return found or ARGV[1]
"""
