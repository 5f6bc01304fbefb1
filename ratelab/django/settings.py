"""The setting `RATELAB` of a Django project: its names and values, and the gates that are created from it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from inspect import signature
from typing import Any, NamedTuple, TypeVar

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from ratelab.algorithms import Policy
from ratelab.django.responses import REQUEST, keep_response
from ratelab.errors import InputError, short_repr
from ratelab.http.doors import DEFAULT_ALGORITHM, AwaitingGate, BlockingGate, choose_store
from ratelab.http.gate import create_from_file
from ratelab.http.identity import SECRET, Identity
from ratelab.http.policy_rules import check_account
from ratelab.http.scope_functions import by_route, check_function

AnyGate = TypeVar("AnyGate", bound=BlockingGate | AwaitingGate)

Options = Mapping[str, Any]
"""Values of the setting by name."""

STORE_OPTIONS = ("STORE", "ON_STORE_ERROR", "DEADLINE", "MAX_KEYS")
"""The names of options of stores."""

LIMITS = ("RATE", "POLICIES", "FILE", "LIMITER")
"""The names of limits, of which a door has one."""

SHARED = (
    *("KEY", "TRUSTED_PROXIES", "TRUSTED_HOPS", "IPV6_PREFIX", "SECRET", "ACCOUNT"),
    *(*STORE_OPTIONS, "MAX_DELAY", "LEGACY", "ON_DENIED"),
)
"""The names of options that decorators and throttles take from the setting, unless they have others."""

NAMES = (
    *LIMITS,
    *("BURST", "ALGORITHM", "NAME", "PLANS", "OVERRIDES", "PLAN", "DEFAULT_PLAN", "ON_PLAN_ERROR", "PLAN_TIMEOUT"),
    *("COST", "COSTS", "EXEMPT", "CHARGE", "POLICY"),
    *SHARED,
)
"""The names of all options."""

_FUNCTIONS = ("ACCOUNT", "CHARGE", "COST", "EXEMPT", "KEY", "ON_DENIED", "PLAN")
_PASSED_ON = (
    *("DEFAULT_PLAN", "ON_PLAN_ERROR", "PLAN_TIMEOUT", "LEGACY", "POLICY"),
    *("ON_DENIED", "CHARGE", "PLAN", "MAX_DELAY"),
)
USER = ("user", "user_or_ip")
"""Keys that name the user of a request, or its address without a user."""

_POLICY_FIELDS = tuple(signature(Policy.create).parameters)


class InvalidSettingError(InputError, ImproperlyConfigured):  # type: ignore[misc]
    """An invalid value of the setting, of a decorator or of a throttle."""


def read_options() -> dict[str, Any]:
    """Return the setting `RATELAB`, empty if it is missing; raise `InputError` for an unknown name."""
    options = getattr(settings, "RATELAB", {})
    if not isinstance(options, Mapping):
        raise InputError(f"the setting must be a dictionary, got {short_repr(options)}: write {{'RATE': '5/minute'}}")
    check_names(options, NAMES, "name")
    return dict(options)


def share_options(own: Options) -> dict[str, Any]:
    """Return the options of a decorator or a throttle, and those of the setting that all share.

    Another key keeps the proxies of an `Identity` in the setting.
    """
    shared = {name: value for name, value in read_options().items() if name in SHARED}
    identity, key = shared.get("KEY"), own.get("KEY")
    options: dict[str, Any] = {**shared, **own}
    if isinstance(identity, Identity) and key is not None and not isinstance(key, Identity):
        options["KEY"] = identity.with_key(_read_key(load_function(key)))
    return options


def check_names(given: Iterable[object], known: Sequence[str], kind: str) -> None:
    """Raise `InputError` for a name that is not known, with the nearest one."""
    for name in given:
        if name not in known:
            raise InputError(f"unknown {kind} {short_repr(name)}: {_suggest(name, known)}")


def _suggest(name: object, known: Sequence[str]) -> str:
    from difflib import get_close_matches  # slow to import

    text = str(name)
    near = get_close_matches(text.upper() if known[0].isupper() else text.lower(), known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(known)}"


# --- gates


class Place(NamedTuple):
    """The place of a limit in a project."""

    name: str
    """It separates the quota in a store from those of other places."""
    label: str | None = None
    """It precedes the names of policies that are named after their rates."""
    what: str = "RATELAB"
    """The subject of the error for an invalid option."""


def create_gate(options: Options, kind: type[AnyGate], place: Place) -> AnyGate:
    """Create the gate of a door; raise `InputError` for an invalid option."""
    options = {option: _load(option, value) for option, value in options.items() if value is not None}
    check_function("on_denied", options.get("ON_DENIED"))  # which the gate does not see as it is
    if options.get("ACCOUNT") not in USER:
        check_account(options.get("ACCOUNT"))
    identity = create_identity(options)
    limiter, file = _create_limiter(options, identity, kind.blocking, place)
    arguments = {option.lower(): options[option] for option in _PASSED_ON if option in options}
    if "ON_DENIED" in options:
        arguments["on_denied"] = keep_response(options["ON_DENIED"])
    cost, exempt, account = options.get("COST", 1), options.get("EXEMPT"), options.get("ACCOUNT")
    arguments["cost"] = by_route(cost, 1) if isinstance(cost, Mapping) else cost
    if isinstance(exempt, list | tuple):
        exempt = by_route(dict.fromkeys(exempt, True), default=False)
    elif exempt is not None and not callable(exempt):
        remedy = f"write [{exempt!r}]" if isinstance(exempt, str) else "write ['/healthz']"
        raise InputError(f"EXEMPT must be a list of routes or a function, got {short_repr(exempt)}: {remedy}")
    counts_accounts = file is None and any(policy.key == "account" for policy in getattr(limiter, "policies", ()))
    if counts_accounts or (account is not None and file is not None):
        arguments["account"] = find_user if account is None or account in USER else account
    if "COSTS" in options:
        costs = options["COSTS"]
        is_mapping = isinstance(costs, Mapping)
        arguments["costs"] = {one: load_function(value) for one, value in costs.items()} if is_mapping else costs
    return kind(limiter, subject=REQUEST, key=identity, exempt=exempt, file=file, **arguments)


def create_identity(options: Options) -> Identity:
    """Create the identity of clients; without another secret, the key of the hash is derived from `SECRET_KEY`."""
    key = options.get("KEY", "ip")
    secret = options.get("SECRET", os.environ.get(SECRET))
    if secret is None:
        secret = settings.SECRET_KEY if isinstance(settings.SECRET_KEY, str) else settings.SECRET_KEY.decode("latin-1")
    given = {name.lower(): options[name] for name in ("TRUSTED_HOPS", "IPV6_PREFIX") if name in options}
    proxies = options.get("TRUSTED_PROXIES", ())
    proxies = tuple(proxies) if isinstance(proxies, list | set) else proxies
    try:
        shared = _share_identity(trusted_proxies=proxies, secret=secret, **given)
    except TypeError:  # a value that cannot be hashed, which is invalid
        shared = Identity("ip", proxies, secret=secret, **given)
    return key if isinstance(key, Identity) else shared.with_key(_read_key(key))


@lru_cache(maxsize=16, typed=True)
def _share_identity(**arguments: Any) -> Identity:
    """Return an identity that is the same for all doors of a project, so that it warns once."""
    return Identity("ip", **arguments)


def _read_key(key: Any) -> Any:
    if key in USER:
        key = find_user
    if callable(key):
        return key
    if key != "ip" and not str(key).startswith("header:"):
        rule = "KEY must be ip, user, header:NAME or a function of the request"
        raise InputError(f"{rule}, got {short_repr(key)}: {_suggest(key, ('ip', 'user', 'header:X-API-Key'))}")
    return key


def find_user(request: Any) -> str | None:
    """Return the primary key of the user of a request; None if the user is not authenticated."""
    try:
        user = request.user
    except AttributeError:
        remedy = "put RateLimitMiddleware after AuthenticationMiddleware"
        raise InputError(f"the key user needs a request with a user: {remedy}") from None
    return str(user.pk) if user is not None and user.is_authenticated else None


# --- limiters


def _create_limiter(options: Options, identity: Identity, blocking: bool, place: Place) -> tuple[Any, Any]:
    """Return the limiter of a door, and its policy file if there is one."""
    check_limit(options)
    given: Any = {name.lower(): options[name] for name in STORE_OPTIONS if name in options}
    create = choose_store(blocking, options.get("NAME", place.name if "STORE" in options else None), **given)
    if "LIMITER" in options:
        return options["LIMITER"], None
    if "FILE" in options:
        limiter, _, file = create_from_file(options["FILE"], create, identity)
        return limiter, file
    changes = {option.lower(): options[option] for option in ("PLANS", "OVERRIDES") if option in options}
    if isinstance(changes.get("overrides"), Mapping):
        changes["overrides"] = {identity.key_of(client): one for client, one in changes["overrides"].items()}
    return create(create_policies(options, place.label), **changes), None


def check_limit(options: Options) -> None:
    """Raise `InputError` unless there is one limit, with the options that it takes."""
    given = [option for option in LIMITS if option in options]
    if len(given) != 1:
        raise InputError(f"expected one of {', '.join(LIMITS)}, got {', '.join(given) or 'none'}")
    if "LIMITER" in options or "FILE" in options:
        extra = options.keys() & {"PLANS", "OVERRIDES"}
        if extra:
            remedy = "write them into the file" if "FILE" in options else "give them to the limiter"
            raise InputError(f"{min(extra)} needs RATE or POLICIES, got {given[0]}: {remedy}")
    if "RATE" not in options and (extra := options.keys() & {"BURST", "ALGORITHM"}):
        raise InputError(f"{min(extra)} needs RATE, got {given[0]}: give each policy its own")


def create_policies(options: Options, label: str | None = None) -> list[Policy]:
    """Return the policies of `RATE` or `POLICIES`; raise `InputError` for an invalid one."""
    if "RATE" in options:
        rate = options["RATE"]
        given: Any = [{"rate": rate, "burst": options.get("BURST"), "algorithm": options.get("ALGORITHM")}]
    else:
        given = options["POLICIES"]
        if not isinstance(given, list | tuple) or not given:
            raise InputError(f"POLICIES must be a list of policies, got {short_repr(given)}: write ['5/s', '100/hour']")
    return [_create_policy(each, label) for each in given]


def _create_policy(given: Any, label: str | None) -> Policy:
    if isinstance(given, Policy):
        return given
    given = {"rate": given} if isinstance(given, str) else given
    if not isinstance(given, Mapping):
        raise InputError(f"a policy must be a rate, a dictionary or a Policy, got {short_repr(given)}")
    check_names(given, _POLICY_FIELDS, "field of a policy")
    fields: dict[str, Any] = {"algorithm": None, "name": None, **given}
    if not isinstance(fields.get("rate"), str):
        raise InputError(f"rate must be text such as '5/minute', got {short_repr(fields.get('rate'))}")
    fields["algorithm"] = fields["algorithm"] or DEFAULT_ALGORITHM
    fields["name"] = fields["name"] or (fields["rate"] if label is None else f"{label} {fields['rate']}")
    if fields["rate"].endswith("/m"):  # a minute, as in Django REST framework
        fields["rate"] += "in"
    return Policy.create(**fields)


# --- functions


def _load(option: str, value: Any) -> Any:
    """Return the value of an option; if it is the path of an object, that object."""
    if option == "LIMITER" or (option in _FUNCTIONS and isinstance(value, str)):
        return load_function(value)
    return value


def load_function(value: Any) -> Any:
    """Return the object at a dotted path; other values as they are."""
    if not _is_path(value):
        return value
    try:
        return import_string(value)
    except ImportError as error:
        raise InputError(f"cannot import {value!r} ({error}): write the path as package.module.name") from None


def _is_path(value: object) -> bool:
    """Return whether a value is the dotted path of an object."""
    return isinstance(value, str) and "." in value and not value.startswith("header:")


def _values_of(costs: Any) -> Iterable[Any]:
    return costs.values() if isinstance(costs, Mapping) else ()


def may_read_user(options: Options) -> bool:
    """Return whether a key, or a function of the request, may read its user."""
    values = [*(options.get(option) for option in (*_FUNCTIONS, "LIMITER")), *_values_of(options.get("COSTS"))]
    if any(callable(value) or value in USER or _is_path(value) for value in values):
        return True
    policies = getattr(options.get("LIMITER"), "policies", None) or options.get("POLICIES") or ()
    keys = [each.get("key") if isinstance(each, Mapping) else getattr(each, "key", None) for each in policies]
    return "account" in keys
