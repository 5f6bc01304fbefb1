"""Limiters on a store, right and wrong ones: fixed windows that a script of the server counts."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from valkey import Valkey
from valkey.backoff import NoBackoff
from valkey.exceptions import ValkeyError
from valkey.retry import Retry

Answer = tuple[bool, float | None]
Hit = Callable[[str], Answer]

COUNT = """
local used = tonumber(redis.call('GET', KEYS[1]) or '0')
if used >= tonumber(ARGV[1]) then return {0, redis.call('PTTL', KEYS[1])} end
redis.call('INCR', KEYS[1])
if used == 0 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return {1, 0}
"""

COUNT_ALL = """
local used = redis.call('INCR', KEYS[1])
if used == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return {used <= tonumber(ARGV[1]) and 1 or 0, redis.call('PTTL', KEYS[1])}
"""


def connect(url: str, retries: int) -> Any:
    return Valkey.from_url(url, socket_timeout=0.3, retry=Retry(NoBackoff(), retries), retry_on_timeout=retries > 0)


class Windows:
    """A factory for limiters in memory that nothing judges, and for ones on a store."""

    retries = 0
    script = COUNT

    def __call__(self, limit: int, period: float, burst: int) -> Hit:
        raise NotImplementedError

    def store(self, url: str, limit: int, period: float, burst: int) -> Hit:
        client = connect(url, self.retries)
        prefix = secrets.token_hex(4)

        def hit(key: str, cost: int = 1) -> Answer:
            allowed, wait = client.eval(self.script, 1, f"{prefix}:{key}", limit, round(period * 1000))
            return bool(allowed), wait / 1000

        return self.guard(hit)

    def guard(self, hit: Hit) -> Hit:
        return hit


store_window: Any = Windows()


class Resending(Windows):
    """Sends a command again whose reply it has not got."""

    retries = 3


resending_window: Any = Resending()


class FailingOpen(Windows):
    """Admits everything while the store is down."""

    def guard(self, hit: Hit) -> Hit:
        def guarded(key: str, cost: int = 1) -> Answer:
            try:
                return hit(key)
            except ValkeyError:
                return True, None

        return guarded


failing_open: Any = FailingOpen()


class DeclaredOpen(FailingOpen):
    """The same, as its documentation says."""

    fails_open = True


declared_open: Any = DeclaredOpen()


class Denying(Windows):
    """Denies everything while the store is down."""

    def guard(self, hit: Hit) -> Hit:
        def guarded(key: str, cost: int = 1) -> Answer:
            try:
                return hit(key)
            except ValkeyError:
                return False, None

        return guarded


denying_window: Any = Denying()


class Refreshing(Windows):
    """Extends the window with each hit."""

    script = COUNT_ALL.replace("if used == 1 then ", "").replace("ARGV[2]) end", "ARGV[2])")


refreshing_window: Any = Refreshing()


class Racing(Windows):
    """Reads and writes in two commands."""

    def store(self, url: str, limit: int, period: float, burst: int) -> Hit:
        client = connect(url, 0)
        prefix = secrets.token_hex(4)

        def hit(key: str, cost: int = 1) -> Answer:
            name = f"{prefix}:{key}"
            used = int(client.get(name) or 0)
            if used >= limit:
                return False, None
            client.set(name, used + 1, keepttl=True)
            if used == 0:
                client.pexpire(name, round(period * 1000))
            return True, None

        return hit


racing_store: Any = Racing()
