"""Named bugs in the Valkey clients, each of which a test must catch."""

from __future__ import annotations

from types import ModuleType

from mutate import Mutant, mutate, rewritten

from ratelab.stores.valkey import async_limiter, script, session, sync_limiter
from ratelab.stores.valkey.async_limiter import AsyncValkeyLimiter
from ratelab.stores.valkey.connection_pool import BlockingConnection, ConnectionPool
from ratelab.stores.valkey.pipelined_connection import Connections, PipelinedConnection

Mutants = tuple[Mutant, ...]


def _mutate(owner: type | ModuleType, attribute: str, right: str, wrong: str) -> Mutants:
    return (mutate(owner, attribute, right, wrong),)


def _mutate_session(right: str, wrong: str) -> Mutants:
    """Change the session of both clients."""
    mutant = rewritten(session.decide_hits, right, wrong)
    return tuple(Mutant(module, "decide_hits", mutant) for module in (sync_limiter, async_limiter))


def _mutate_remedies(*codes: str) -> Mutants:
    """Handle some replies as failures."""
    remedies = {code: remedy for code, remedy in session._REMEDIES.items() if code not in codes}
    return (Mutant(session, "_REMEDIES", remedies),)


RESENDS = _mutate_session('isinstance(error, ReplyError) else ""', 'isinstance(error, ReplyError) else "READONLY"')
HASHED = 'blake2b(client.encode(errors="surrogatepass"), digest_size=16).hexdigest()'

MUTANTS: dict[str, Mutants] = {
    "threads resend after a lost reply": RESENDS,
    "tasks resend after a timeout": RESENDS,
    "a late reply answers the next command": _mutate(
        BlockingConnection, "exchange", "except BaseException:", "except ZeroDivisionError:"
    ),
    "each chunk has a separate deadline": _mutate(
        BlockingConnection, "_set_timeout", "rest = due - time.monotonic()", "rest = 5.0"
    ),
    "waiting for a connection has no deadline": _mutate(ConnectionPool, "_take", "until -", "until + 0.2 -"),
    "tasks fail late": (Mutant(session, "_TIMER_SLACK_S", 0.2),),
    "connecting blocks the loop": _mutate(
        PipelinedConnection, "_open", "try:", "__import__('time').sleep(0.06)\n    try:"
    ),
    "cancelled hits keep a dead connection": (Mutant(PipelinedConnection, "is_overdue", lambda stream, now: False),),
    "a rejected handshake is ignored": _mutate(
        BlockingConnection, "_open", "if isinstance(reply, Exception):", "if False:"
    ),
    "commands precede the handshake's replies": _mutate(
        PipelinedConnection, "_send_unsent", "and not self._handshakes", ""
    ),
    "a batch is sent in another order": _mutate(
        AsyncValkeyLimiter, "_send_batch", "for hit in batch:", "for hit in reversed(batch):"
    ),
    "each hit is a separate call": (Mutant(async_limiter, "MAX_BATCH_HITS", 1),),
    "a cancelled hit is charged": _mutate(AsyncValkeyLimiter, "_send_waiting", "if not hit.decision.done()", ""),
    "a lost script is a failure": _mutate_remedies("NOSCRIPT"),
    "a lost script is never sent": _mutate_session('cached and remedy != "send the script"', "cached"),
    "connections outlive their loop": _mutate(
        Connections, "move_to", 'self._close(StoreError("unreachable", "the event loop has ended"))', "pass"
    ),
    "a limiter closes the connections of another": _mutate(
        Connections, "remove_user", "if not self._users:", "if True:"
    ),
    "keys hold the client's name": _mutate(script, "hash_client", HASHED, "client.ljust(32)[:32]"),
    "keys have no name": _mutate(script, "format_suffix", "escape_name(name)", "''"),
}

MOVED = _mutate_remedies("MOVED")
"""A key that has moved is a failure."""
