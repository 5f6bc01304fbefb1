"""Named mistakes about a store's network, one each, that its promises must catch."""

from __future__ import annotations

from types import ModuleType

from http_mutants import Mutant
from mutate import rewritten

from ratelab.stores.valkey import async_limiter, session, sync_limiter
from ratelab.stores.valkey.async_limiter import AsyncValkeyLimiter, PipelinedConnection
from ratelab.stores.valkey.script import Script
from ratelab.stores.valkey.sync_limiter import BlockingConnection, ValkeyLimiter

Mutants = tuple[Mutant, ...]


def _mutant(owner: type | ModuleType, attribute: str, right: str, wrong: str) -> Mutants:
    return (Mutant(owner, attribute, rewritten(getattr(owner, attribute), right, wrong)),)


def _talk(right: str, wrong: str) -> Mutants:
    """Make a mistake in what both clients say."""
    made = rewritten(session.session, right, wrong)
    return tuple(Mutant(module, "session", made) for module in (sync_limiter, async_limiter))


def _link(attribute: str, right: str, wrong: str) -> Mutants:
    return _mutant(BlockingConnection, attribute, right, wrong)


def _send(right: str, wrong: str) -> Mutants:
    return _mutant(AsyncValkeyLimiter, "_send", right, wrong)


AGAIN = '{"StoreError": "reconnect", "ConnectionResetError": "reconnect", '
NAMED = 'blake2b(name.encode(errors="surrogatepass"), digest_size=16).hexdigest()'

MUTANTS: dict[str, Mutants] = {
    "a lost reply is asked for again": _talk('{"NoScriptError"', f'{AGAIN}"NoScriptError"'),
    "a late task is asked for again": _talk('{"NoScriptError"', f'{AGAIN}"NoScriptError"'),
    "a late reply answers the next": _link("_exchange", "except BaseException:", "except ZeroDivisionError:"),
    "each piece has a deadline of its own": _link("_limit", "left = due - time.monotonic()", "left = 5.0"),
    "who waits for a connection has no deadline": _mutant(ValkeyLimiter, "_wait", "due -", "due + 0.2 -"),
    "tasks are told late": (Mutant(async_limiter, "_LATE", 0.2),),
    "a loop is held up": _mutant(
        PipelinedConnection, "_open", "await conn", "__import__('time').sleep(0.06); await conn"
    ),
    "those who leave early keep a dead connection": (
        Mutant(PipelinedConnection, "is_late", lambda stream, now: False),
    ),
    "who is not greeted stays": _link("_open", "except BaseException:", "except ZeroDivisionError:"),
    "a greeting is not waited for": _mutant(PipelinedConnection, "_send_unsent", "and not self._greetings", ""),
    "a turn is sent in another order": _send("for hit in waiting:", "for hit in reversed(waiting):"),
    "a turn is sent at once": (Mutant(async_limiter, "LARGEST_BATCH", 1),),
    "who has left is charged": _send("if not hit.decision.done():", "if True:"),
    "a lost script is a failure": _talk('"NoScriptError": "tell", ', ""),
    "a lost script is told for ever": _talk('known and remedy != "tell"', "known"),
    "connections outlive their loop": _mutant(AsyncValkeyLimiter, "_enter", "self._streams.clear()", "pass"),
    "a store learns names": _mutant(Script, "_key", NAMED, "name.ljust(32)[:32]"),
}
"""Mistakes, each made in one or two places."""

MOVED = _talk(', "MOVED": "move"', "")
"""A key that has moved is a failure."""
