"""Traffic: who asks for how much, and when."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Traffic:
    """Requests in the order of their arrival, as columns of one length.

    A client is who asks; a key is whose quota is charged. They differ only where clients share a quota.
    """

    times: Integers
    """Nanoseconds since the traffic began, never falling."""
    clients: Integers
    """Each request's client, as an index into `names`."""
    costs: Integers
    """Each request's cost, at least 1."""
    names: tuple[str, ...]
    """The clients' names."""
    keys: Integers
    """Each client's key, from 0 up: as long as `names`."""
    duration: int
    """Nanoseconds that the traffic lasts, the quiet at its end included."""
    origin: int = 0
    """What the clock read when the traffic began: windows are aligned to the clock."""

    def __len__(self) -> int:
        return len(self.times)

    @property
    def clock_times(self) -> Integers:
        """What the clock read at each request."""
        return self.times + self.origin

    @cached_property
    def request_keys(self) -> Integers:
        """Each request's key."""
        return self.keys[self.clients]

    @cached_property
    def narrow_keys(self) -> NDArray[np.uint32]:
        """`request_keys` in half the room."""
        return self.request_keys.astype(np.uint32)

    @cached_property
    def dearest(self) -> int:
        """The largest cost."""
        return int(self.costs.max(initial=0))

    @cached_property
    def is_priced(self) -> bool:
        """Whether some request costs something else than 1."""
        return bool((self.costs != 1).any())
