"""A quota that several processes share through a store."""

from __future__ import annotations

import asyncio
import os
from typing import NamedTuple

from ratelab.errors import InputError, StoreError
from ratelab.http.identity import SECRET, Identity
from ratelab.http.service import Service
from ratelab.quota import Quota
from ratelab.stores.resilient import ON_STORE_ERROR, ResilientLimiter
from ratelab.stores.valkey import AsyncValkeyLimiter
from ratelab.stores.valkey.connection import hidden

PATIENCE = 1.0
"""Seconds in which a store answers at the start, when it may have to be found first."""

_NO_CLUSTER = "cluster support disabled"


class Shared(NamedTuple):
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
        limiter = self.limiter(PATIENCE)
        try:
            await limiter.hit("", 0)
        finally:
            limiter.close()
