"""ASGI middleware that enforces the decisions of a limiter."""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

from ratelab.algorithms import Policy
from ratelab.errors import ConfigurationWarning, InputError, StoreError, short_repr
from ratelab.http.asgi import App, Field, Message, Receive, Scope, Send
from ratelab.http.counters import Counts
from ratelab.http.delayed_admission import create_trio_error, delay_and_count, running_trio
from ratelab.http.guard import Guard, GuardFinder, check_limiter, create_guard, follow_updates
from ratelab.http.headers import HeaderWriter
from ratelab.http.identity import SECRET, AmbiguousClientError, Identity
from ratelab.http.offenders import Offenders
from ratelab.http.plan_source import AnyPlanSource
from ratelab.http.policy_guard import ChargeHook, PolicyGuard, PolicyOptions, prepare
from ratelab.http.policy_rules import AnyLimiter, Cost, find_plans, needs_rules
from ratelab.http.responses import (
    DenialHook,
    join_on_send,
    read_denial,
    send_dropped,
    send_problem,
    send_unavailable,
)
from ratelab.http.scope_functions import check_bool, check_cost, check_function
from ratelab.limiter import Decision, Row
from ratelab.quota import NS_PER_S
from ratelab.stores.memory import MemoryLimiter
from ratelab.stores.plans import Plans

if TYPE_CHECKING:
    from ratelab.http.file_policies import FilePolicies

NS_PER_S_LESS_ONE = NS_PER_S - 1

_NO_SECRET = (
    f"{SECRET} is not set: a client counts as another one on other machines and after a restart, and is granted the "
    "whole quota again; set the same secret for all instances"
)


class RateLimitMiddleware:
    """Limit the requests of each client: `app = RateLimitMiddleware(app, MemoryLimiter(policy))`.

    `limiter` may be sync or async, or a function of the ASGI scope that returns one of a few long-lived limiters. A
    `Policy`, or a list of them, is enforced in memory.
    `key` identifies the client: `ip`, `header:NAME`, an `Identity`, or a function of the scope that returns text.
    `cost` is a whole number >= 0, or a function of the scope that returns one. Requests for which the function `exempt`
    of the scope returns True are neither limited nor counted; protocols other than HTTP are not limited either.
    `by_route` makes functions that choose by route.

    Responses carry `RateLimit-Policy` and `RateLimit`, with the name `policy` instead of that of the limiter's policy
    if given, and `X-RateLimit-*` as `legacy` says (see `HeaderWriter`). Requests that do not reach `app` are answered

    * 429 if they are denied,
    * 400 if they cost more than the burst, or if the header that identifies the client is repeated,
    * 503 if the limiter raises `StoreError`, because its store made no decision (see `ratelab.stores.resilient`).

    `on_denied` is called with the scope and the `Decision` of a denied request. It returns the status, the headers and
    the body of the response, to which the limit's header fields and `Content-Length` are added, or None for the usual
    response.

    An admitted request with a delay waits before it reaches `app`, unless it costs nothing. It stays charged if its
    client disconnects, and is then answered 503. `decision_of(scope)` returns the decision, for use in `app`.

    The other arguments are for limiters of several policies, which the page `policies` of the manual explains. `costs`
    are costs by name, in addition to `requests` and `bytes`. `account` identifies the account of a request as `key`
    does its client. `plan` and the next three arguments are those of `PlanSource`; without a plan, the quotas are those
    of the policies. `charge` is a function of the scope and the status of the response that returns whether the request
    stays charged. `from_file` creates the limiter from a policy file, which is then the argument `file`.

    None of the functions but `plan` is awaited. Raise `InputError` for invalid arguments. A request raises it if a
    function returns an invalid value, such as a coroutine.
    """

    def __init__(
        self,
        app: App,
        limiter: AnyLimiter | Policy | list[Policy] | tuple[Policy, ...] | Callable[[Scope], AnyLimiter],
        key: str | Identity | Callable[[Scope], str | None] = "ip",
        cost: int | Callable[[Scope], int] = 1,
        exempt: Callable[[Scope], bool] | None = None,
        legacy: str = "off",
        policy: str | None = None,
        on_denied: DenialHook | None = None,
        *,
        costs: Mapping[str, Cost] = MappingProxyType({}),
        account: str | Callable[[Scope], str | None] | None = None,
        plan: AnyPlanSource | None = None,
        default_plan: str | None = None,
        on_plan_error: str = "default",
        plan_timeout: float = 1.0,
        charge: ChargeHook | None = None,
        file: FilePolicies | None = None,
    ) -> None:
        limiter = MemoryLimiter(limiter) if isinstance(limiter, Policy | list | tuple) else limiter
        _check_functions(limiter, key, cost, account, {"exempt": exempt, "on_denied": on_denied, "charge": charge})
        self.app = app
        self.counts = Counts()
        self.offenders = Offenders()
        """The keys with the most denied requests."""
        self._on_denied = on_denied
        self._identity = key if isinstance(key, Identity) else Identity(key)
        self._options = options = PolicyOptions(
            cost=cost,
            costs=costs,
            account=account,
            plan=plan,
            default_plan=default_plan,
            on_plan_error=on_plan_error,
            plan_timeout=plan_timeout,
            legacy=legacy,
            exempt=exempt,
            charge=charge,
            on_denied=on_denied,
            file=file,
        )
        self.policy_guard: PolicyGuard | None = None
        """The guard of several policies; None for a limiter of one, and for a function that chooses one."""
        self._limiter: Any = limiter
        self._policy = policy
        if callable(limiter):
            if options.needs_policies():
                rule = "costs, account, plan and charge need one limiter, got a function"
                raise InputError(f"{rule}: use match in the policies of the limiter")
            self._use(None, GuardFinder(limiter, self._check_limiter, legacy, policy, self.counts).find)
        else:
            self._check_limiter(limiter)
            self._follow(find_plans(limiter))()
            follow_updates(limiter, self._follow)

    @classmethod
    def from_file(
        cls,
        app: App,
        path: str,
        limiter: Callable[..., AnyLimiter] = MemoryLimiter,
        key: str | Identity | Callable[[Scope], str | None] = "ip",
        **arguments: Any,
    ) -> Self:
        """Limit requests by the policy file at `path`, and follow changes of it.

        `limiter` creates the limiter, given the policies and the keyword arguments `plans` and `overrides`; by default,
        in memory. The other arguments are those of the class; `plan`, `default_plan` and `account` replace those of the
        file.

        A file that has changed is read again at the next request, at most once a second. If it is invalid, an error is
        logged, and the policies stay in force. Raise `InputError` for an invalid file or argument.
        """
        from ratelab.http.file_policies import FilePolicies  # needs the libraries that read YAML

        if not callable(limiter):
            rule = "limiter must be a function that creates the limiter of the policies of the file"
            raise InputError(f"{rule}, got {short_repr(limiter)}: see `ratelab docs policies`")
        file, identity = FilePolicies(path, watched=True), key if isinstance(key, Identity) else Identity(key)
        plans = file.find_plans(identity)
        created = limiter(plans.policies, plans=plans.plans, overrides=plans.overrides)
        return cls(app, created, identity, file=file, **arguments)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection: a request, a WebSocket or the lifespan."""
        app, exempt, keys_by_peer, find_key, cost, cost_of, guard, find_guard, legacy, counts = self._hot
        if scope["type"] != "http" or (
            exempt is not None and (exempted := exempt(scope)) and (exempted is True or check_bool("exempt", exempted))
        ):
            await app(scope, receive, send)
            return
        key: str | None = None
        if keys_by_peer is not None:
            try:  # noqa: SIM105  (faster than `suppress`)
                key = keys_by_peer[scope["client"][0]]
            except (LookupError, TypeError):  # a new peer, or a Unix socket, which has none
                pass
        if key is None:
            try:
                key = find_key(scope)
            except AmbiguousClientError as error:
                counts.ambiguous += 1
                await send_problem(scope, send, 400, str(error))
                return
        decide, awaited, cache, format_headers, deny, name = guard or find_guard(scope)
        if cost_of is not None:
            cost = check_cost(cost_of(scope))
        try:
            row: Row = (await decide(key, cost))[:5] if awaited else decide(key, cost)
        except StoreError as error:
            counts.unavailable += 1
            await send_unavailable(scope, send, error.retry_after_ns)
            return
        except RuntimeError as error:
            if not awaited or running_trio() is None:
                raise
            raise create_trio_error() from error
        allowed, remaining, retry_after_ns, reset_after_ns, delay_ns = row
        if not allowed:
            counts.denied += 1
            self.offenders.add(key)
            status, denial_headers, body = deny(remaining, retry_after_ns, reset_after_ns)
            if self._on_denied is not None:
                answer = self._on_denied(scope, Decision(*row, bound_by=name))
                if answer is not None:
                    status, denial_headers, body = read_denial(answer, denial_headers)
            await send({"type": "http.response.start", "status": status, "headers": [*denial_headers]})
            await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
            return
        if delay_ns and cost:
            delayed_receive = await delay_and_count(delay_ns, receive, counts)
            if delayed_receive is None:
                await send_dropped(scope, send)
                return
            receive, reset_after_ns = delayed_receive, reset_after_ns - delay_ns
        counts.admitted += 1
        scope["ratelab"] = row  # `decision_of` makes it a Decision, for applications that want one
        seconds = (reset_after_ns + NS_PER_S_LESS_ONE) // NS_PER_S  # rounded up
        try:
            headers = cache[remaining, seconds]
        except KeyError:
            headers = format_headers(remaining, seconds, False)

        if legacy:
            await app(scope, receive, join_on_send(send, headers))
            return

        # default arguments take less time than a closure
        def send_with_headers(message: Message, send: Send = send, headers: list[Field] = headers) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                message = dict(message)  # a copy, since an application may send the same message again
                fields = message.get("headers", ())
                message["headers"] = fields + headers if type(fields) is list else [*fields, *headers]
            return send(message)

        await app(scope, receive, send_with_headers)

    def _follow(self, plans: Plans) -> Callable[[], None]:
        """Return a function that limits requests by the policies that the limiter then has; it checks them first."""
        if self.policy_guard is None and not self._options.needs_policies() and not needs_rules(plans):
            HeaderWriter(plans.policies[0], name=self._policy)
            return self._use_guard
        if self._policy is not None:
            raise InputError(f"policy must be left out, got {short_repr(self._policy)}: name each Policy instead")
        prepare(plans, self._options, self._identity)
        return self._use_policy_guard

    def _use_guard(self) -> None:
        self._use(create_guard(self._limiter, self._options.legacy, self._policy))

    def _use_policy_guard(self) -> None:
        if self.policy_guard is None:
            options, counts, offenders = self._options, self.counts, self.offenders
            self.policy_guard = PolicyGuard(self.app, self._limiter, self._identity, options, counts, offenders)
        self._use(None)

    def _use(self, guard: Guard | None, find_guard: Any = None) -> None:
        """Decide the requests from now on by a guard, or that of several policies; a request reads all fields once."""
        cost, identity = self._options.cost, self._identity
        fixed_cost, cost_of = (0, cost) if callable(cost) else (cost, None)
        self._hot = (
            self.policy_guard or self.app,
            # the requests of a policy guard take its own path
            self._options.exempt if self.policy_guard is None else _exempt_all,
            identity.keys_by_peer,
            identity.find,
            fixed_cost,
            cost_of,
            guard,
            find_guard,
            self._options.legacy != "off",
            self.counts,
        )

    def _check_limiter(self, limiter: AnyLimiter) -> None:
        """Raise `InputError` unless requests can be limited; have a limiter in a store compare the secret of others."""
        check_limiter(limiter)
        use_secret = getattr(limiter, "use_secret", None)
        if use_secret is not None:
            if self._identity.secret_generated:
                warnings.warn(_NO_SECRET, ConfigurationWarning, stacklevel=3)
            use_secret(self._identity.fingerprint, self._identity.secret_generated)


def _check_functions(
    limiter: object, key: object, cost: object, account: object, hooks: Mapping[str, Callable[..., object] | None]
) -> None:
    """Raise `InputError` for an invalid cost, a hook that is not a function, or a function that would be awaited."""
    if not callable(cost) and (type(cost) is not int or cost < 0):
        raise InputError(f"cost must be a whole number >= 0 or a function of the scope, got {short_repr(cost)}")
    for name, hook in hooks.items():
        if hook is not None and not callable(hook):
            raise InputError(f"{name} must be a function of the scope, got {short_repr(hook)}")
    functions = {"limiter": limiter, "key": key, "cost": cost, "account": account, **hooks}
    for name, function in functions.items():
        check_function(name, function)


def _exempt_all(scope: Scope) -> bool:  # noqa: ARG001  (the signature of `exempt`)
    """Return True."""
    return True
