"""A quota that several processes share through a store."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

from ratelab.errors import InputError, StoreError
from ratelab.http.app import Service
from ratelab.http.identity import SECRET, Identity
from ratelab.quota import Quota
from ratelab.stores.resilient import ON_STORE_ERROR, ResilientLimiter
from ratelab.stores.valkey import AsyncValkeyLimiter
from ratelab.stores.valkey.connection import hidden

if TYPE_CHECKING:
    from ratelab.http.app import Service
    from ratelab.http.identity import Identity
    from ratelab.limiter import Algorithm
    from ratelab.quota import Quota

STORE_STARTUP_TIMEOUT_S = 1.0
"""Seconds in which a store answers at the start, when it may have to be found first."""

_NO_CLUSTER = "cluster support disabled"


class StoreBackend(NamedTuple):
    """Where a quota is kept, and what is done while that place does not answer."""

    url: str
    on_error: str
    deadline: float
    """Seconds that a decision may take."""
    max_keys: int
    algorithm: str
    quota: Quota

    def limiter(self, deadline: float = 0) -> AsyncValkeyLimiter:
        """Make a limiter for one event loop; raise `InputError` if the store cannot keep the quota."""
        deadline = max(deadline, self.deadline)
        return AsyncValkeyLimiter(self.url, self.algorithm, self.quota, deadline=deadline)

    def service(self, identity: Identity, legacy: str) -> Service:
        """Make a service for one event loop."""
        limiter = self.limiter()
        resilient = ResilientLimiter(limiter, self.on_error, max_keys=self.max_keys)
        return Service(resilient, identity, legacy, limiter.close)

    def described(self, private: bool) -> dict[str, str]:
        """Return what there is to know of the store, by label; nobody else can come to a private one."""
        where = f"shared through valkey at {hidden(self.url)}"
        lines = {"store": f"{where}; while it does not answer, {ON_STORE_ERROR[self.on_error]}"}
        if not private and SECRET not in os.environ:
            lines["secret"] = f"set {SECRET}, the same for all, to share quotas with other instances"
        return lines

    def silence(self) -> str | None:
        """Ask the store, at nobody's cost; if it does not answer, return what there is to say of that.

        Raises `InputError` if it answers that it will not, which no wait can mend.
        """
        try:
            asyncio.run(self._ask())
        except StoreError as error:
            if error.kind == "refused" or _NO_CLUSTER in str(error):
                remedy = "mend the password, the user's rights or the URL"
                raise InputError(f"the store at {hidden(self.url)} refuses ({error}): {remedy}") from None
            meanwhile = ON_STORE_ERROR[self.on_error]
            return f"the store does not answer ({error.kind}: {error}); until it does, {meanwhile}"
        return None

    async def _ask(self) -> None:
        limiter = self.limiter(STORE_STARTUP_TIMEOUT_S)
        try:
            await limiter.hit("", 0)
        finally:
            limiter.close()


class Backing(NamedTuple):
    """What a service stands on, ready to be used."""

    service: Callable[[Identity, str], Service]
    """Makes the service, in the process that is to run it, of an identity and a style of legacy headers."""
    described: dict[str, str]
    """What there is to know of it, by label."""
    warning: str | None = None
    """What is not as it should be from the start."""
    look: Callable[[], str | None] = lambda: None
    """Sees every second that it is as it should be, and returns what there is to say if it was not."""


def in_memory(algorithm: Algorithm, quota: Quota, max_keys: int, record: str | None, closing: ExitStack) -> Backing:
    """Keep everything in this process, and write it to the new file `record` if there is to be one."""
    from ratelab.http.app import Service
    from ratelab.stores.memory import MemoryLimiter
    from ratelab.stores.recording import RecordingLimiter

    if record is None:
        limiter = MemoryLimiter(algorithm, max_keys=max_keys)
        return Backing(lambda identity, legacy: Service(limiter, identity, legacy), {})
    recording = RecordingLimiter(algorithm, quota, _new_file(record), max_keys=max_keys)
    closing.callback(recording.close)
    return Backing(lambda identity, legacy: Service(recording, identity, legacy), {})


def in_store(
    store: str, on_error: str, deadline: float, algorithm: str, quota: Quota, max_keys: int, closing: ExitStack
) -> Backing:
    """Keep everything in a store: that of a URL, or an `embedded` one that is started here and ended by `closing`.

    `deadline` is in seconds.
    """
    from ratelab.stores.valkey.server import EmbeddedServer

    url = "unix:///nowhere" if store == "embedded" else store  # until all else is known to be right
    shared = StoreBackend(url, on_error, deadline, max_keys, algorithm, quota)
    shared.limiter()
    if store != "embedded":
        return Backing(shared.service, shared.described(private=False), shared.silence())
    keeper = closing.enter_context(EmbeddedServer())
    shared = shared._replace(url=keeper.url)
    return Backing(shared.service, shared.described(private=True), shared.silence(), keeper.look)


def _new_file(name: str) -> IO[str]:
    if name == "":
        raise InputError("the name of the file to record to is empty: name a new file, or leave out --record")
    try:
        return Path(name).open("x", encoding="utf-8")
    except FileExistsError:
        raise InputError(f"{name} exists, and a recording is not written over: name a new file") from None
    except (OSError, ValueError) as error:
        reason = isinstance(error, OSError) and error.strerror
        raise InputError(f"cannot write {name}: {reason or error}") from None
