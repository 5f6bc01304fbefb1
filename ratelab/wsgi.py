"""WSGI middleware that enforces the decisions of a limiter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from http import HTTPStatus
from itertools import chain
from typing import TYPE_CHECKING, Any, Self, Unpack

from ratelab.algorithms import Policy
from ratelab.http.asgi import Scope
from ratelab.http.doors import BlockingGate, merge_fields
from ratelab.http.environ import ENVIRON, EnvironScope
from ratelab.http.gate import PolicyArguments, create_from_file
from ratelab.http.headers import decode_fields
from ratelab.http.identity import Identity
from ratelab.http.policy_rules import AnyLimiter
from ratelab.http.responses import DENIED, Ruling, TextDenial, was_denied
from ratelab.http.scope_functions import check_app, check_function, invalid_result
from ratelab.limiter import Decision
from ratelab.stores.blocking_resilient import run_now
from ratelab.stores.memory import MemoryLimiter

if TYPE_CHECKING:
    from types import TracebackType
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    ErrorInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]

DECISION = "ratelab.decision"
"""The entry of the environment that holds the fields of the decision on a request."""

DenialHook = Callable[[dict[str, Any], Decision], tuple[int, Iterable[tuple[str, str]], bytes] | None]
"""A function of the environment and the decision that returns status, header fields and body of the response to a
denied request, or None for the usual response."""


class RateLimitMiddleware(BlockingGate):
    """Limit the requests of each client: `app = RateLimitMiddleware(app, MemoryLimiter(policy))`.

    The arguments are those of `ratelab.http.RateLimitMiddleware`, with three differences. Functions take the WSGI
    environment; those that `by_route` makes choose by route as there. `on_denied` returns header fields as text. The
    limiter blocks, such as `ValkeyLimiter`: one that is awaited is rejected.

    A request with a delay holds its thread meanwhile, for at most `max_delay` seconds, by default 10. A request with a
    longer delay is refunded and answered 429. `charge` is asked before the response starts, with the status 500 if
    `app` fails first. The iterable of `app` is returned as it is, unless `charge` is given.

    A server joins repeated header fields with commas. A header that identifies the client and has a comma therefore
    counts as repeated, and is answered 400, unless commas are usual in it, as in `User-Agent`.

    Raise `InputError` for invalid arguments. A request raises it if a function returns an invalid value, such as a
    coroutine.
    """

    def __init__(
        self,
        app: WSGIApplication,
        limiter: AnyLimiter | Policy | list[Policy] | tuple[Policy, ...] | Callable[[dict[str, Any]], AnyLimiter],
        key: str | Identity | Callable[[dict[str, Any]], str | None] = "ip",
        cost: int | Callable[[dict[str, Any]], int] = 1,
        exempt: Callable[[dict[str, Any]], bool] | None = None,
        legacy: str = "off",
        policy: str | None = None,
        on_denied: DenialHook | None = None,
        **policy_arguments: Unpack[PolicyArguments],
    ) -> None:
        check_app(app, 2, "app must be a WSGI application", "use ratelab.http.RateLimitMiddleware for ASGI")
        self.app = app
        check_function("on_denied", on_denied)
        super().__init__(
            limiter,
            ENVIRON,
            key=key,
            cost=cost,
            exempt=exempt,
            legacy=legacy,
            policy=policy,
            on_denied=partial(_encode_answer, on_denied) if callable(on_denied) else on_denied,
            **policy_arguments,
        )

    @classmethod
    def from_file(
        cls,
        app: WSGIApplication,
        path: str,
        limiter: Callable[..., AnyLimiter] = MemoryLimiter,
        key: str | Identity | Callable[[dict[str, Any]], str | None] = "ip",
        **arguments: Any,
    ) -> Self:
        """Limit requests by the policy file at `path`, as `from_file` of `ratelab.http.RateLimitMiddleware` does."""
        created, identity, file = create_from_file(path, limiter, key)
        return cls(app, created, identity, file=file, **arguments)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        peer, method = environ.get("REMOTE_ADDR", ""), environ.get("REQUEST_METHOD")
        decision, fields, denial, ruled = self.admit_from(environ, EnvironScope, peer, method)
        if decision is not None:
            environ[DECISION] = decision
        if denial is not None:
            environ[DENIED] = denial[0]
            return _answer(denial, start_response)
        if ruled is not None:
            return self._pass_on(*ruled, start_response)

        # default arguments take less time than a closure
        def start(
            status: str,
            headers: list[tuple[str, str]],
            exc_info: ErrorInfo | None = None,
            start_response: StartResponse = start_response,
            fields: Sequence[tuple[str, str]] = fields,
            environ: WSGIEnvironment = environ,
        ) -> Callable[[bytes], object]:
            if DENIED in environ and was_denied(environ, int(status[:3])):
                fields = self.withdraw_now(EnvironScope(environ))
            return start_response(status, [*headers, *fields], exc_info)

        return self.app(environ, start)

    def _pass_on(self, scope: Scope, ruling: Ruling, start_response: StartResponse) -> Iterable[bytes]:
        """Pass a request on to the application as ruled."""
        environ = scope[ENVIRON]
        if ruling.decision is None:
            return self.app(environ, start_response)
        start = partial(self._start_with_fields, scope, ruling, start_response)
        if self._charge is None:
            return self.app(environ, start)
        return _ChargedResponse(start, partial(self._settle, scope, ruling)).respond(self.app, environ)

    def _settle(self, scope: Scope, ruling: Ruling, status: int) -> None:
        if not was_denied(scope[ENVIRON], status):
            self.settle_now(scope, ruling, status)

    def _start_with_fields(
        self,
        scope: Scope,
        ruling: Ruling,
        start_response: StartResponse,
        status: str,
        headers: list[tuple[str, str]],
        exc_info: ErrorInfo | None = None,
    ) -> Callable[[bytes], object]:
        """Start a response with the fields of an admitted request; refund the request if an inner limit denies it.

        The fields are in a new list: an application may pass the same list again.
        """
        added = ruling.fields
        if was_denied(scope[ENVIRON], int(status[:3])):
            added = run_now(self.withdraw(scope, ruling))
        fields = merge_fields(headers, added) if self.writes_legacy else [*headers, *decode_fields(added)]
        return start_response(status, fields, exc_info)


def decision_of(environ: dict[str, Any]) -> Decision | None:
    """Return the decision on a request, or None if it was not limited; with several limiters, that of the innermost.

    An application may ask for it, for example to show the remaining quota. The request has already been delayed.
    """
    decided = environ.get(DECISION)
    return None if decided is None else Decision(*decided)


def _answer(denial: TextDenial, start_response: StartResponse) -> Iterable[bytes]:
    """Respond instead of the application."""
    status, fields, body = denial
    start_response(_STATUS_LINES.get(status) or f"{status} Unknown", [*fields])
    return [body]


_STATUS_LINES = {int(status): f"{int(status)} {status.phrase}" for status in HTTPStatus}


def _encode_answer(on_denied: DenialHook, environ: dict[str, Any], decision: Decision) -> Any:
    """Call a function that returns header fields as text or bytes; return them as bytes."""
    answer = on_denied(environ, decision)
    if answer is None:
        return None
    try:
        status, fields, body = answer
        encoded = [(_encode(name), _encode(value)) for name, value in fields]
        valid = all(isinstance(part, bytes) for part in (body, *chain.from_iterable(encoded)))
    except (TypeError, ValueError):
        valid = False
    if not valid:
        rule = "on_denied must return None, or a status, header fields of text, and a body of bytes"
        raise invalid_result(rule, answer, "such as (429, [], b'')")
    return status, encoded, body


def _encode(text: Any) -> Any:
    return text.encode("latin-1") if isinstance(text, str) else text


class _ChargedResponse:
    """The response to a request that is refunded by its status.

    The status is known when the first part of the body is: until then, an application may replace it, and a server
    answers 500 if the application fails. A server that sends files itself is given the whole body at once.
    """

    def __init__(self, start: Callable[..., Callable[[bytes], object]], settle: Callable[[int], None]) -> None:
        self._start = start
        self._settle = settle
        self._status = 500
        self._settled = False

    def respond(self, app: WSGIApplication, environ: WSGIEnvironment) -> Iterable[bytes]:
        """Return the body that an application returns, or one that settles the request before its first part."""
        try:
            body = app(environ, self._start_response)
        except Exception:
            self._fail()
            raise
        wrapper = environ.get("wsgi.file_wrapper")
        if isinstance(body, list | tuple) or (isinstance(wrapper, type) and isinstance(body, wrapper)):
            self._settle_once()
            return body
        self._body = body
        self._parts: Iterator[bytes] | None = None
        return self

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            if self._parts is None:
                self._parts = iter(self._body)
            part = next(self._parts)
        except StopIteration:
            self._settle_once()
            raise
        except Exception:
            self._fail()
            raise
        if part:  # an empty one does not start the response (PEP 3333)
            self._settle_once()
        return part

    def close(self) -> None:
        """Close the body, which a server does at the end in any case."""
        try:
            if hasattr(self._body, "close"):
                self._body.close()
        finally:
            self._settle_once()

    def _start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: ErrorInfo | None = None
    ) -> Callable[[bytes], object]:
        write = self._start(status, headers, exc_info)
        self._status = int(status[:3])

        def write_settled(data: bytes) -> object:
            self._settle_once()
            return write(data)

        return write_settled

    def _fail(self) -> None:
        self._status = 500
        self._settle_once()

    def _settle_once(self) -> None:
        if not self._settled:
            self._settled = True
            self._settle(self._status)
