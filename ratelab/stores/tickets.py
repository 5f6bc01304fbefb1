"""Tickets for costs that are known only after a request: reserve, then settle with the actual cost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from ratelab.clock import Clock
from ratelab.errors import InputError, short_repr
from ratelab.limiter import Costs, Decision
from ratelab.quota import NS_PER_S

if TYPE_CHECKING:
    from asyncio import Future

DEFAULT_DEADLINE_S = 300.0
"""Seconds after which a reserved cost is final."""

MAX_CHANGE = 2**52
"""The largest cost that is charged or refunded without a decision; a larger one counts as this."""

Changes = Mapping[str, int]
"""What to charge to each policy by its name; a negative number is a refund."""


class Reservation:
    """A reserved cost, which is charged already, until it is settled or its deadline has passed."""

    def __init__(
        self, decision: Decision, reserved: Changes, deadline: float, clock: Clock, now: int | None = None
    ) -> None:
        check_deadline(deadline)
        self.decision = decision
        """The decision on the reserved cost."""
        self.reserved = dict(reserved)
        """The charged cost of each policy, by its name."""
        self._clock = clock
        self._due = (clock() if now is None else now) + int(deadline * NS_PER_S)
        self._unsettled = [decision.allowed]  # an item can be taken once, whatever interrupts the call

    @property
    def allowed(self) -> bool:
        """Whether the request is admitted; if not, nothing can be settled."""
        return self.decision.allowed

    def take(self, actual: Costs) -> Changes | None:
        """Return what to charge in addition; None if the ticket was settled before, was denied, or is too late."""
        costs = actual if isinstance(actual, Mapping) else dict.fromkeys(self.reserved, actual)
        for name, cost in costs.items():
            if type(cost) is not int or cost < 0:
                raise InputError(f"cost must be a whole number >= 0, got {short_repr(cost)}")
            if name not in self.reserved:
                names = ", ".join(self.reserved) or "none, since the request was denied"
                raise InputError(f"unknown policy {short_repr(name)} in cost: choose from {names}")
        try:
            unsettled = self._unsettled.pop()
        except IndexError:
            return None
        if not unsettled or self._clock() > self._due:
            return None
        return {name: min(cost - self.reserved[name], MAX_CHANGE) for name, cost in costs.items()}

    @contextmanager
    def retrying(self) -> Iterator[None]:
        """Let the ticket be settled again if an exception ends the block, whose charge may have been done."""
        try:
            yield
        except BaseException:
            self._unsettled.append(True)
            raise


def check_deadline(deadline: float) -> None:
    """Raise `InputError` unless the deadline of a ticket is a number of seconds above 0."""
    if not isinstance(deadline, (int, float)) or not 0 < deadline <= 10**9:
        raise InputError(f"deadline must be a number of seconds above 0, got {short_repr(deadline)}")


class _BaseTicket:
    """The properties of a ticket."""

    def __init__(self, reservation: Reservation) -> None:
        self._reservation = reservation

    @property
    def decision(self) -> Decision:
        """The decision on the reserved cost."""
        return self._reservation.decision

    @property
    def reserved(self) -> Changes:
        """The charged cost of each policy, by its name."""
        return self._reservation.reserved

    @property
    def allowed(self) -> bool:
        """Whether the request is admitted; if not, nothing was charged, and nothing can be settled."""
        return self._reservation.allowed


class Ticket(_BaseTicket):
    """A reserved cost: settle it once the actual cost is known; without that, the reserved cost stays charged.

    As a context manager, it yields itself. A block that does not settle it keeps the reserved cost, also if it raises.
    """

    def __init__(self, reservation: Reservation, charge: Callable[[Changes], object]) -> None:
        super().__init__(reservation)
        self._charge = charge

    def settle(self, actual: Costs) -> bool:
        """Replace the reserved cost by the actual one, for all policies or by their names; return whether it was done.

        A higher cost is charged in full, even if less remains: further requests wait until the rate has earned it. A
        ticket is settled at most once; after its deadline, or if it was denied, nothing changes. Raises `InputError`,
        and changes nothing, unless each cost is a whole number >= 0.
        """
        changes = self._reservation.take(actual)
        if changes is None:
            return False
        return self._charge(changes) is not False

    def cancel(self) -> bool:
        """Return the whole reserved cost, as `settle(0)` does."""
        return self.settle(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


_settlements: set[Future[Any]] = set()  # which the loop alone would not keep


class AsyncTicket(_BaseTicket):
    """A `Ticket` of a limiter whose states are kept elsewhere; an asynchronous context manager."""

    def __init__(self, reservation: Reservation, charge: Callable[[Changes], Awaitable[Any]]) -> None:
        super().__init__(reservation)
        self._charge = charge

    async def settle(self, actual: Costs) -> bool:
        """Replace the reserved cost by the actual one, as `Ticket.settle` does.

        If the task is cancelled meanwhile, as by a client that disconnects, the settlement is completed without it.
        Raises `StoreError` if the store does not confirm it. It may then have been done, and may be repeated until the
        deadline: it is done once.
        """
        from asyncio import ensure_future, shield  # not needed in memory, and slow to import

        changes = self._reservation.take(actual)
        if changes is None:
            return False
        settlement = ensure_future(self._charge(changes))
        _settlements.add(settlement)
        settlement.add_done_callback(_settlements.discard)
        return await shield(settlement) is not False

    async def cancel(self) -> bool:
        """Return the whole reserved cost, as `settle(0)` does."""
        return await self.settle(0)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass
