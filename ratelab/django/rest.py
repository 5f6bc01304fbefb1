"""Throttles of Django REST framework that enforce the decisions of a limiter."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, ClassVar

from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from rest_framework.exceptions import APIException, ParseError
from rest_framework.settings import api_settings

from ratelab.django.door import Door
from ratelab.django.responses import create_scope, join_fields, note_denial
from ratelab.django.settings import LIMITS, NAMES, Place, find_user, share_options
from ratelab.http.asgi import Scope
from ratelab.http.doors import BlockingGate
from ratelab.http.responses import Ruling
from ratelab.limiter import Decision

TOO_MANY = 429

_doors: dict[tuple[type, str | None], Door | None] = {}


class UndecidedRequest(APIException):  # type: ignore[misc]
    """A request that cannot be decided, because the store made no decision."""

    status_code = 503
    default_code = "unavailable"

    def __init__(self, detail: str, wait: int) -> None:
        super().__init__(detail)
        self.wait = wait


class RateThrottle:
    """Limit the requests of each user, and of each address without a user: `rate = "5/minute"`.

    Without a `rate`, that of the `scope` in `DEFAULT_THROTTLE_RATES` is enforced; None limits nothing. All views share
    the quota of a class and a scope. Other attributes of the class are options of the setting `RATELAB` in lower case,
    such as `key`, `burst`, `cost` or `policies`; the store and some others are by default those of the setting.

    A request that one throttle of a view denies is refunded by the others of this module. The header fields of all are
    added to the response. Raise `ImproperlyConfigured` for invalid attributes.

    It has the interface of `rest_framework.throttling.BaseThrottle`, which needs settings when it is imported.
    """

    rate: ClassVar[str | None] = None
    scope: str | None = None
    key: ClassVar[Any] = "user"
    _wait: int | None = None

    def allow_request(self, request: Any, view: Any) -> bool:
        """Return whether a request is admitted, after its delay.

        Raise `UndecidedRequest` if the store makes no decision, and `ParseError` for a request that no wait can admit.
        """
        door = self._find_door()
        if door is None:
            return True
        gate, plain = door.find_blocking(), getattr(request, "_request", request)
        peer = plain.META.get("REMOTE_ADDR", "")
        decision, fields, denial, ruled = gate.admit_from(request, create_scope, peer, plain.method)
        attributes = request.__dict__
        if decision is not None or not hasattr(request, "ratelimit"):
            attributes["ratelimit"] = decision
        if denial is None and decision is None:
            return True
        taken = attributes.get("ratelimit_taken")
        if taken is None:
            taken = attributes["ratelimit_taken"] = _Taken()
        if denial is None:
            taken.add(view, fields, partial(_refund, gate, request, decision, ruled))
            return True
        status, fields, body = denial
        note_denial(request)
        taken.deny(view, fields)
        if status != TOO_MANY:
            raise _create_error(status, fields, body)
        self._wait = next((int(value) for name, value in fields if name == "retry-after"), None)
        return False

    def wait(self) -> int | None:
        """Return the seconds until the request would be admitted, rounded up."""
        return self._wait

    def _find_door(self) -> Door | None:
        """Return the door of the class and the scope; None if it limits nothing."""
        kind, scope = type(self), self.scope
        try:
            return _doors[kind, scope]
        except KeyError:
            pass
        name = f"{kind.__module__}.{kind.__qualname__}" if scope is None else f"throttle {scope}"
        place = Place(name, kind.__name__ if scope is None else scope, kind.__name__)
        door = None if self._find_limit() is None else Door(self.collect, place)
        return _doors.setdefault((kind, scope), door)

    def _find_limit(self) -> Any:
        """Return the limit of the class, or the rate of its scope."""
        given = [value for name in LIMITS if (value := getattr(type(self), name.lower(), None)) is not None]
        if given:
            return given[0]
        if self.scope is None:
            raise ImproperlyConfigured(f"{type(self).__name__} needs a rate or a scope: set rate = '5/minute'")
        rates = api_settings.DEFAULT_THROTTLE_RATES
        if self.scope not in rates:
            raise ImproperlyConfigured(f"no rate of the scope {self.scope!r}: add it to DEFAULT_THROTTLE_RATES")
        return rates[self.scope]

    def collect(self) -> dict[str, Any]:
        """Return the options of the class, and those that the setting shares, for a gate."""
        given = {name: getattr(type(self), name.lower(), None) for name in NAMES}
        own = {name: value for name, value in given.items() if value is not None}
        if not own.keys() & {*LIMITS}:
            own["RATE"] = self._find_limit()
        options = share_options({"ON_DENIED": None, **own})
        hops = api_settings.NUM_PROXIES
        if hops is not None and not {"TRUSTED_PROXIES", "TRUSTED_HOPS"} & options.keys():
            options["TRUSTED_HOPS"] = hops
        return options


class AnonRateThrottle(RateThrottle):
    """Limit requests without a user, by address, to the rate `anon` of `DEFAULT_THROTTLE_RATES`."""

    scope = "anon"
    key: ClassVar[Any] = "ip"
    exempt: ClassVar[Any] = staticmethod(lambda request: find_user(request) is not None)


class UserRateThrottle(RateThrottle):
    """Limit requests by user, or by address without a user, to the rate `user` of `DEFAULT_THROTTLE_RATES`."""

    scope = "user"


class ScopedRateThrottle(RateThrottle):
    """Limit requests to the rate of `throttle_scope` of the view; a view without one is not limited."""

    def allow_request(self, request: Any, view: Any) -> bool:
        """Return whether a request is admitted, as `RateThrottle` does."""
        self.scope = getattr(view, "throttle_scope", None)
        return self.scope is None or super().allow_request(request, view)


# --- several throttles of a request


class _Taken:
    """The charges of a request by the throttles of a view, which are refunded if one of them denies it."""

    def __init__(self) -> None:
        self._refunds: list[Callable[[], None]] = []
        self._denied = False

    def add(self, view: Any, fields: Sequence[tuple[str, str]], refund: Callable[[], None]) -> None:
        """Add the charge of a throttle that admits the request."""
        if self._denied:
            refund()
        else:
            self._refunds.append(refund)
            join_fields(view.headers, fields)

    def deny(self, view: Any, fields: Sequence[tuple[str, str]]) -> None:
        """Refund the charges of other throttles; from now on, only those that deny the request report a state."""
        if not self._denied:
            self._denied = True
            view.headers.pop("RateLimit", None)
            view.headers["Cache-Control"] = "no-store"
        while self._refunds:
            self._refunds.pop()()
        join_fields(view.headers, [field for field in fields if "ratelimit" in field[0]])


def _refund(gate: BlockingGate, request: Any, decision: Decision | None, ruled: tuple[Scope, Ruling] | None) -> None:
    """Refund a request that was admitted."""
    scope, ruling = (create_scope(request), Ruling(decision=decision)) if ruled is None else ruled
    gate.refund_now(scope, ruling)


def _forget_rates(*, setting: str, **_: object) -> None:
    """Read the rates again after a change of the settings of the framework, as in a test."""
    if setting == "REST_FRAMEWORK":
        _doors.clear()


setting_changed.connect(_forget_rates)


def _create_error(status: int, fields: Iterable[tuple[str, str]], body: bytes) -> APIException:
    """Return the exception for a request that cannot be decided, or that no wait can admit."""
    detail = json.loads(body)["detail"]
    if status != UndecidedRequest.status_code:
        return ParseError(detail)
    return UndecidedRequest(detail, int(dict(fields)["retry-after"]))
