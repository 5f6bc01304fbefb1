"""Backends of `ratelab serve`: quotas in memory, in memory with a recording, or in a shared store."""

from __future__ import annotations

import asyncio
import os
import shlex
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from ratelab.errors import ConfigurationWarning, InputError, StoreError, format_reason
from ratelab.http.app import Service
from ratelab.http.identity import SECRET, Identity
from ratelab.stores.arguments import choose_fallback
from ratelab.stores.fallback import ON_STORE_ERROR
from ratelab.stores.memory import MemoryLimiter
from ratelab.stores.plans import Plans
from ratelab.stores.recording import RecordingLimiter
from ratelab.stores.resilient import ResilientLimiter
from ratelab.stores.valkey import AsyncValkeyLimiter
from ratelab.stores.valkey.connection import redact_url
from ratelab.stores.valkey.server import EmbeddedServer

if TYPE_CHECKING:
    from ratelab.http.file_policies import FilePolicies

MIN_PING_TIMEOUT_S = 1.0
"""Seconds in which a store must answer at the start, at least: its host may have to be looked up first."""

CONFIGURATION_ERRORS = ("refused", "misconfigured")
"""Kinds of errors of a store that are mistakes of its operator or user, and no outages."""

ServiceFactory = Callable[[Identity, str, "FilePolicies | None"], Service]
"""Creates a service, for an identity, a style of legacy headers and the file of the policies, if there is one."""


class Backend(NamedTuple):
    """Where a service keeps its quotas."""

    create_service: ServiceFactory
    """Creates the service in the process that runs it."""
    banner: dict[str, str]
    """Lines of the banner, by label."""
    warning: str | None = None
    """A problem to report at the start."""
    check: Callable[[], str | None] = lambda: None
    """Called every second; repairs the backend and returns a message if it was broken."""


def create_memory_backend(
    plans: Plans, changes: bool, max_keys: int, record: str | None, closing: ExitStack
) -> Backend:
    """Keep quotas in this process, and record decisions in the new file `record` if it is given.

    With `changes`, the policies are those of a file, which may change.
    """
    limiter: MemoryLimiter | RecordingLimiter
    banner = {}
    others: dict[str, Any] = {"plans": plans.plans, "overrides": plans.overrides} if changes else {}
    if record is None:
        limiter = MemoryLimiter(plans.policies, max_keys=max_keys, **others)
    else:
        limiter = RecordingLimiter(plans.policies, _create_file(record), max_keys=max_keys, **others)
        closing.callback(limiter.close)
        command = f"ratelab replay {shlex.quote(record)} --format recording"
        banner["record"] = f"every decision to {record}; {command} repeats them"
    return Backend(lambda identity, legacy, file: Service(limiter, identity, legacy, file=file), banner)


def _create_file(name: str) -> IO[str]:
    if name == "":
        raise InputError("--record must name a new file, got an empty name")
    try:
        return Path(name).open("x", encoding="utf-8")
    except FileExistsError:
        raise InputError(f"--record must name a new file, got {name}, which exists") from None
    except FileNotFoundError:
        raise InputError(f"cannot write {name}: there is no directory {Path(name).parent}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot write {name}: {format_reason(error)}") from None


def create_store_backend(backend: StoreBackend, identity: Identity, closing: ExitStack) -> Backend:
    """Keep quotas in the store at a URL, or in an `embedded` one, which is started here and stopped by `closing`.

    Raises `InputError` if the store rejects the connection or cannot hold the quota, or if other instances that use it
    have another secret.
    """
    embedded = backend.url == "embedded"
    shared = backend._replace(url="unix:///nowhere") if embedded else backend  # a placeholder
    shared.create_limiter().close()  # raises `InputError` before a server is started
    if not embedded:
        return Backend(shared.create_service, shared.describe(private=False), shared.ping(identity))
    server = closing.enter_context(EmbeddedServer())
    shared = shared._replace(url=server.url)
    return Backend(
        shared.create_service, shared.describe(private=True), shared.ping(identity), server.restart_supervisor
    )


class StoreBackend(NamedTuple):
    """A shared store, and the fallback for its failures."""

    url: str
    """URL of the store, or `embedded`."""
    name: str | None
    """Name of the limiter; None for that of its policies."""
    on_error: str
    deadline: float
    """Seconds that a decision may take."""
    max_keys: int
    plans: Plans
    changes: bool
    """Whether the policies may change, so that keys in the store do not depend on their quotas."""

    def create_limiter(self, min_deadline: float = 0) -> AsyncValkeyLimiter:
        """Create a limiter for one event loop; raise `InputError` if the store cannot hold the quota."""
        deadline = max(min_deadline, self.deadline)
        return AsyncValkeyLimiter(
            self.url,
            self.plans.policies,
            deadline=deadline,
            name=self.name,
            plans=self.plans.plans if self.changes else None,
            overrides=self.plans.overrides if self.changes else None,
        )

    def create_service(self, identity: Identity, legacy: str, file: FilePolicies | None) -> Service:
        """Create the service for one event loop."""
        limiter = self.create_limiter()
        resilient = ResilientLimiter(limiter, self.on_error, max_keys=self.max_keys)
        with warnings.catch_warnings(action="ignore", category=ConfigurationWarning):  # the banner asks for a secret
            return Service(resilient, identity, legacy, limiter.close, file)

    def describe(self, private: bool) -> dict[str, str]:
        """Return lines for the banner; other instances cannot use a `private` store, so it needs no shared secret."""
        lines = {"store": f"shared quotas at {redact_url(self.url)}; while it is down, {self._meanwhile}"}
        if not private and SECRET not in os.environ:
            lines["secret"] = f"set the same {SECRET} for all instances to share quotas"
        return lines

    def ping(self, identity: Identity) -> str | None:
        """Have every server of the store write a key of no client; return a warning if one cannot decide.

        Raises `InputError` for an error that time does not resolve, such as a missing permission, or if other instances
        have another secret.
        """
        try:
            asyncio.run(self._probe(identity))
        except StoreError as error:
            if error.kind in CONFIGURATION_ERRORS:
                raise InputError(f"the store at {redact_url(self.url)} cannot be used: {error}") from None
            return f"the store does not answer ({error.kind}: {error}); until it does, {self._meanwhile}"
        return None

    @property
    def _meanwhile(self) -> str:
        """The meaning of the fallback."""
        return ON_STORE_ERROR[choose_fallback(self.on_error, self.plans.policies)]

    async def _probe(self, identity: Identity) -> None:
        limiter = self.create_limiter(MIN_PING_TIMEOUT_S)
        try:
            await limiter.probe()  # of a cluster, this finds the nodes
            for node in limiter.nodes:
                await limiter.probe(node)
            await limiter.check_secret(identity.fingerprint, identity.secret_generated)
        finally:
            limiter.close()
