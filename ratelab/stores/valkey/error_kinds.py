"""Kinds of `StoreError` for the replies of a server and the errors of a connection."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from threading import current_thread, main_thread
from traceback import walk_tb

from ratelab.errors import StoreError
from ratelab.stores.valkey.resp import ReplyError

_KINDS_BY_CODE = {
    "ASK": "unreachable",
    "BUSY": "unreachable",
    "CLUSTERDOWN": "unreachable",
    "LOADING": "unreachable",
    "MASTERDOWN": "readonly",
    "MISCONF": "readonly",
    "MOVED": "unreachable",
    "NOREPLICAS": "readonly",
    "READONLY": "readonly",
    "TRYAGAIN": "unreachable",
}
_NOT_NEEDED = "the store has no password for this user: remove it from the URL"
_INVALID = "the user or the password is invalid: check the URL"
_REQUIRED = "the store requires a password: add it to the URL, as in valkey://:password@host"
_REFUSALS = {
    "NOAUTH": _REQUIRED,
    "unauthenticated": _REQUIRED,  # the reply to a long command before authentication
    "WRONGPASS": _INVALID,
    "invalid password": _INVALID,
    "without any password configured": _NOT_NEEDED,
    "no password is set": _NOT_NEEDED,
}
_MISCONFIGURATIONS = {
    "CROSSSLOT": "the server is a node of a cluster: add cluster=true to the URL",
    "not allowed in cluster mode": "a cluster has no databases: remove the number from the URL, add cluster=true",
    "cluster support disabled": "the server is not part of a cluster: remove cluster=true from the URL",
    "DB index is out of range": "the server has no such database: check the number in the URL",
    "variable 'struct'": "the server's Lua has no library struct, as in fakeredis: use Valkey or Redis",
    "global 'struct'": "the server's Lua has no library struct, as in fakeredis: use Valkey or Redis",
    "command called from": "a command that scripts need is disabled or renamed: permit GET, SET and TIME on the server",
    "unknown command": "the server does not run scripts: use Valkey or Redis 6.2 or later, with EVAL and EVALSHA",
}
"""Parts of replies to a client or by a server that is set up wrongly, each with the reason and the remedy."""


def classify_error(error: Exception, script: str = "", cluster: bool = False) -> Exception:
    """Return the `StoreError` for an error of a call; its message holds nothing that was sent.

    An exception that is not an error of a connection or a reply is returned as it is, and so is any that a signal
    handler has raised. `script` is the text of the script that was called; `cluster` whether it was sent to a cluster.
    """
    if isinstance(error, StoreError):
        return error
    if isinstance(error, ReplyError):
        return _classify_reply(error, script, cluster)
    if not isinstance(error, OSError):
        return error
    if (raised := find_signal_exception(error)) is not None:
        return raised
    if isinstance(error, TimeoutError):
        return StoreError("timeout", "the store did not answer in time")
    return StoreError("unreachable", describe_error(error))


def find_signal_exception(error: Exception) -> Exception | None:
    """Return `error`, or the one that it replaces, if a signal handler has raised it, such as a `TimeoutError`."""
    if current_thread() is not main_thread():
        return None  # only the main thread runs signal handlers
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    codes = {_code_of(handler) for handler in handlers if callable(handler)}
    raised: BaseException | None = error
    while isinstance(raised, Exception):
        if any(frame.f_code in codes for frame, _ in walk_tb(raised.__traceback__)):
            return raised
        raised = raised.__context__
    return None


def _code_of(handler: Callable[..., object]) -> object:
    """Return the code object of a function, a method, a `partial` of one, or a callable object."""
    function = getattr(handler, "func", handler)
    return getattr(function, "__code__", None) or getattr(getattr(function, "__call__", None), "__code__", None)  # noqa: B004


def _classify_reply(error: ReplyError, script: str, cluster: bool) -> StoreError:
    text = error.text.removesuffix(".")
    if error.code == "MOVED" and not cluster:
        return StoreError("misconfigured", _MISCONFIGURATIONS["CROSSSLOT"])
    for part, reason in _MISCONFIGURATIONS.items():
        if part in text:
            return StoreError("misconfigured", reason)
    if error.code == "NOPERM":
        return StoreError("refused", _describe_permission(error, script))
    for part, reason in _REFUSALS.items():
        if part in text:
            return StoreError("refused", reason)
    if error.code == "OOM":
        return StoreError("full", "the store is out of memory")
    kind = "unreachable" if "max number of clients reached" in text else _KINDS_BY_CODE.get(error.code, "other")
    return StoreError(kind, text.removeprefix("ERR "))


def _describe_permission(error: ReplyError, script: str) -> str:
    """Name the permission that the user lacks; some servers name only the line of the script."""
    line = script.splitlines()[error.line - 1] if 0 < error.line <= script.count("\n") + 1 else ""
    command = re.search(r"'([\w|]+)' (?:command|or its)", error.text) or re.search(r"call\('(\w+)'", line)
    if command is None:
        return "the user may not use keys that begin with rl: grant it ~rl:*"
    name = command[1].lower()
    return f"the user may not run {name.upper()}{' in scripts' if error.line else ''}: grant it +{name}"


def describe_error(error: Exception) -> str:
    """Return the system's message for a failure of the network, without numbers; else that of the error."""
    system = error if isinstance(error, OSError) else error.__context__
    text = (isinstance(system, OSError) and system.strerror) or str(error)
    if isinstance(system, OSError) and text.startswith("Connect call failed"):  # asyncio's text for any reason
        text = os.strerror(system.errno or 0)
    return text.removesuffix(".")
