"""Who the client is: an address or a header's value, known to the limiter only as a keyed hash."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from hashlib import blake2b
from itertools import islice

from ratelab.errors import InputError, short_repr
from ratelab.http.addresses import MAX_ADDRESS_CHARS, UNIX, IPAddress, Proxies, client_bytes, parse_address
from ratelab.http.asgi import Scope

MAX_HEADER_VALUE_BYTES = 256
"""Bytes that a header's value may have to count as a key."""

MOST_HOPS = 16
"""Proxies that a request may have passed; more are not looked at."""

SECRET = "RATELAB_KEY_SECRET"  # noqa: S105  (the name of a variable)
"""The environment variable that holds the secret of all instances that share keys."""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_FORWARDING = (b"x-forwarded-for", b"forwarded", b"x-real-ip")


class AmbiguousClientError(Exception):
    """The request names its client more than once."""


class Identity:
    """Find a request's key: 32 hexadecimal digits that are the same for the same client, and tell nobody which it is.

    `key` is `ip`, `header:NAME`, or a function of the ASGI scope that returns text or None. Where the header or the
    function has nothing to say (missing, empty, over `MAX_HEADER_VALUE_BYTES`), the client is its address.
    An IPv6 client is its /64.

    The address is the peer that the server names, which must be the socket's: uvicorn by itself believes
    `X-Forwarded-For` of local peers, so run it with `--no-proxy-headers`. Behind proxies, give either `trusted_proxies`
    (addresses, CIDRs, `unix`): from a trusted peer, `X-Forwarded-For` is walked from the right to the first address
    that is not trusted; or `trusted_hops`, the number of proxies in front: as many steps from the right. A
    list that is too short or holds something else where an address is needed leaves the peer. `Forwarded` is not read.

    `secret` keys the hash; by default the environment's `RATELAB_KEY_SECRET`, or a random one for this process.
    Raises `InputError` for a key, proxy or secret that cannot be used. Calling it raises `AmbiguousClientError` for a
    request with two lines of the header.
    """

    def __init__(
        self,
        key: str | Callable[[Scope], str | None] = "ip",
        trusted_proxies: Iterable[str] = (),
        trusted_hops: int = 0,
        secret: str | None = None,
    ) -> None:
        self._proxies = Proxies(trusted_proxies)
        self._hops = _checked_hops(trusted_hops, self._proxies)
        self._base = blake2b(digest_size=16, key=_secret_key(secret))
        self._hash_address = lru_cache(maxsize=16384)(self._hash_address_anew)
        self._kind, self._value = _named(key)
        self.find = self._by_value if self._kind else self._by_address if self._proxies or self._hops else self._by_peer
        """The same as calling the object, a step shorter."""

    def __call__(self, scope: Scope) -> str:
        """Return the key of an HTTP request."""
        return self.find(scope)

    def _by_peer(self, scope: Scope) -> str:
        peer = scope.get("client")
        return self._hash_address(peer[0] if peer else UNIX)

    def _by_address(self, scope: Scope) -> str:
        peer = scope.get("client")
        host: str = peer[0] if peer else UNIX
        address: IPAddress | None = None
        if self._hops:
            address = next(islice(_forwarded(scope), self._hops - 1, None), None)
        elif host in self._proxies:
            address = self._first_untrusted(_forwarded(scope))
        return self._hash_address(host) if address is None else self._hash(b"ip|" + client_bytes(address))

    def _first_untrusted(self, hops: Iterator[IPAddress | None]) -> IPAddress | None:
        """Walk back through the hops; if all are trusted, the first of them is the client."""
        address = None
        for address in hops:
            if address is None or address not in self._proxies:
                break
        return address

    def _by_value(self, scope: Scope) -> str:
        value = self._value(scope)
        if not 0 < len(value) <= MAX_HEADER_VALUE_BYTES:
            return self._by_address(scope)
        return self._hash(b"%s:%s" % (self._kind, value))  # no name of a header has a colon

    def _hash_address_anew(self, host: str) -> str:
        """Hash a peer as the server names it; one that is no address stands for itself."""
        address = parse_address(host)
        if address is None:
            return self._hash(b"peer|" + host.encode(errors="surrogatepass"))
        return self._hash(b"ip|" + client_bytes(address))

    def _hash(self, name: bytes) -> str:
        state = self._base.copy()
        state.update(name)
        return state.hexdigest()


def _forwarded(scope: Scope) -> Iterator[IPAddress | None]:
    """Yield the addresses of `X-Forwarded-For` from the right, all its lines joined; None for what is no address."""
    lines = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
    entries = b",".join(lines).rsplit(b",", MOST_HOPS)[-MOST_HOPS:]
    for entry in reversed(entries):
        text = entry.strip(b" \t")
        if text:  # empty elements of a list are ignored (RFC 9110, section 5.6.1)
            yield parse_address(text[: MAX_ADDRESS_CHARS + 1].decode("latin-1"))


def _named(key: str | Callable[[Scope], str | None]) -> tuple[bytes, Callable[[Scope], bytes]]:
    """Return what kind of name `key` asks for, empty for the address, and what reads it from a request."""
    if callable(key):
        return b"function", lambda scope: _text(key(scope))
    if key == "ip":
        return b"", lambda _: b""
    kind, _, name = key.partition(":") if isinstance(key, str) else ("", "", "")
    if kind != "header" or not _TOKEN.fullmatch(name):
        raise InputError(f"key must be ip or header:NAME, such as header:X-API-Key, got {short_repr(key)}")
    field = name.lower().encode()
    if field in _FORWARDING:
        raise InputError(f"{name} is what any client may claim: use ip, and name the proxies that you trust")
    return b"header|" + field, lambda scope: _only_value(scope, field)


def _text(value: object) -> bytes:
    """Return what a key function says, as bytes; nothing for None."""
    if value is not None and not isinstance(value, str):
        raise InputError(f"a key function must return text or None, got {short_repr(value)}: write str(...) round it")
    return (value or "").encode(errors="surrogatepass")


def _only_value(scope: Scope, field: bytes) -> bytes:
    """Return a header's value without blanks around it, which not every server strips; empty if it is missing."""
    values: list[bytes] = [value for name, value in scope["headers"] if name == field]
    if len(values) > 1:
        raise AmbiguousClientError(f"{field.decode()} must be sent once, not {len(values)} times")
    return values[0].strip(b" \t") if values else b""


def _checked_hops(hops: int, proxies: Proxies) -> int:
    if type(hops) is not int or not 0 <= hops <= MOST_HOPS:
        raise InputError(f"trusted_hops must be a whole number from 0 to {MOST_HOPS}, got {short_repr(hops)}")
    if hops and proxies:
        raise InputError(f"trusted proxies and {hops} trusted hops are two ways to say the same: give one of them")
    return hops


def _secret_key(secret: str | None) -> bytes:
    """Make a key of the length that BLAKE2b takes of any secret."""
    secret = os.environ.get(SECRET) if secret is None else secret
    if secret is not None and not isinstance(secret, str):
        raise InputError(f"the secret of the keys must be text, got {type(secret).__name__}: decode it")
    if secret == "":
        raise InputError(f"the secret of the keys is empty: set {SECRET} to a long random text, or unset it")
    return os.urandom(64) if secret is None else blake2b(secret.encode(errors="surrogatepass")).digest()
