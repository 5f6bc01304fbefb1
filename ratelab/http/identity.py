"""Identification of clients by address, header or function; limiters see only a keyed hash."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from hashlib import blake2b
from itertools import islice
from multiprocessing import current_process

from ratelab.errors import InputError, short_repr
from ratelab.http.addresses import (
    DEFAULT_IPV6_PREFIX_BITS,
    MAX_HOPS,
    UNIX,
    IPAddress,
    Proxies,
    check_ipv6_prefix,
    client_bytes,
    is_address_header,
    is_local,
    parse_address,
    read_forwarded,
)
from ratelab.http.asgi import Field, Scope
from ratelab.http.environ import EnvironFields
from ratelab.http.scope_functions import RouteChoice, check_function, invalid_result

MAX_HEADER_VALUE_BYTES = 256
"""Length of the longest header value, or text of a function, that identifies a client."""

MAX_CACHED_ADDRESSES = 16_384
"""Addresses whose keys an `Identity` keeps."""

SECRET = "RATELAB_KEY_SECRET"  # noqa: S105  (the name of a variable)
"""The environment variable for the secret that instances share to compute the same keys."""

MIN_FORWARDED_CLIENTS = 5
"""Clients named by the requests of a local peer that make it count as a proxy."""

MAX_WATCHED_REQUESTS = 256
"""Requests of a local peer that are checked."""

MAX_WATCHED_PEERS = 256
"""Local peers that are watched at a time."""

MAX_CLAIM_BYTES = 64

_FORWARDING = (b"x-forwarded-for", b"x-real-ip", b"forwarded")

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_FORWARDED_FOR = b"x-forwarded-for"

_log = logging.getLogger("ratelab.http")


class AmbiguousClientError(Exception):
    """A request in which the header that identifies the client is repeated."""


class Identity:
    """Compute the key of a request's client: 32 hexadecimal digits that do not reveal the client.

    `key` is `ip`, `header:NAME`, or a function of the ASGI scope that returns text or None. If the header or text is
    missing, empty or longer than `MAX_HEADER_VALUE_BYTES`, the address identifies the client. An IPv6 client is its
    network with a prefix of `ipv6_prefix` bits, 48 to 64.

    The address is the peer in the scope, which must be that of the socket: run uvicorn with `--no-proxy-headers`, since
    by default it replaces local peers after `X-Forwarded-For`. Behind proxies, give one of two options.
    `trusted_proxies` are addresses, CIDRs or `unix`: if the peer is trusted, the client is the first address in
    `X-Forwarded-For`, from the right, that is not trusted. `trusted_hops` is the number of proxies: the client is the
    entry at that position, from the right. If that entry is missing or is not an address, the client is the peer.
    `Forwarded` is not read. A header in which a proxy gives the client's address, such as `header:CF-Connecting-IP`,
    needs `trusted_proxies` and is then read instead of `X-Forwarded-For`, in the same way.

    A warning is logged, once each, if the server replaces the peer, or if a peer that is not trusted is clearly a
    proxy (see `ProxyWatch`).

    `secret` is the key of the hash; by default the value of `RATELAB_KEY_SECRET`, or random bytes that this process
    shares with its parent and siblings alone. Raise `InputError` for an invalid key, proxy or secret. Calling the
    object raises `AmbiguousClientError` if the header is repeated.
    """

    def __init__(
        self,
        key: str | Callable[[Scope], str | None] = "ip",
        trusted_proxies: Iterable[str] = (),
        trusted_hops: int = 0,
        secret: str | None = None,
        ipv6_prefix: int = DEFAULT_IPV6_PREFIX_BITS,
    ) -> None:
        self._proxies = Proxies(trusted_proxies)
        self._hops = _check_hops(trusted_hops, self._proxies)
        secret = os.environ.get(SECRET) if secret is None else secret
        self.secret_generated = secret is None
        """Whether the secret is random, so that other instances do not have it."""
        self._base = blake2b(digest_size=16, key=_derive_hash_key(secret))
        self.fingerprint = self._hash(b"fingerprint|")
        """A hash by which two instances recognize that they have the same secret."""
        self._keys_by_host: dict[str, str] = {}
        self._watched_keys: dict[str, str] = {}  # of peers whose next request is checked, too
        self._ipv6_prefix = check_ipv6_prefix(ipv6_prefix)
        self._watch = ProxyWatch()
        self.choose_key(key)

    def choose_key(self, key: str | Callable[[Scope], str | None]) -> None:
        """Identify clients by `key` from now on."""
        self.key = key
        """The key by which clients are identified."""
        self._forwarded_field = _address_field(key, self._proxies)
        self._kind, self._read_name = _name_reader("ip" if self._forwarded_field != _FORWARDED_FOR else key)
        self.keys_by_peer: dict[str, str] | None = None
        """Keys of known peers by host, if the peer is always the client; other keys are found by `find`."""
        behind_proxies = bool(self._proxies or self._hops)
        self.find_address = self._find_by_address if behind_proxies else self._key_of_peer
        """Return the key of the address of an HTTP request."""
        self.keys_by_address: Mapping[str, str] = {} if behind_proxies else self._keys_by_host
        """Keys of known peers by host, if the address of a request is its peer."""
        if not (self._kind or behind_proxies):
            self.keys_by_peer = self._keys_by_host
        self.find = self._find_by_value if self._kind else self.find_address
        """Return the key of an HTTP request; faster than calling the object."""

    def __call__(self, scope: Scope) -> str:
        """Return the key of an HTTP request."""
        return self.find(scope)

    def with_key(self, key: str | Callable[[Scope], str | None]) -> Identity:
        """Return an identity with another `key`, and with the same proxies and secret."""
        other = copy(self)
        other.choose_key(key)
        return other

    def key_of(self, client: str) -> str:
        """Return the key of the client that has this header value, this address, or this text of a function."""
        if self._kind:
            return self._hash(b"%s:%s" % (self._kind, client.encode(errors="surrogatepass")))
        return self._key_of_host(client)

    def find_named(self, name: object) -> str | None:
        """Return the key of a client by the text that a function returned; None if its address identifies it."""
        value = _encode_text(name)
        return self._hash(b"%s:%s" % (self._kind, value)) if 0 < len(value) <= MAX_HEADER_VALUE_BYTES else None

    def _find_by_address(self, scope: Scope) -> str:
        address: IPAddress | None = None
        if self._hops:
            address = next(islice(self._read_forwarded(scope), self._hops - 1, None), None)
        elif _peer_host(scope) in self._proxies:
            address = self._proxies.first_untrusted(self._read_forwarded(scope))
        return self._key_of_peer(scope) if address is None else self._key_of_address(address)

    def _read_forwarded(self, scope: Scope) -> Iterator[IPAddress | None]:
        fields, wanted = scope["headers"], self._forwarded_field
        if type(fields) is EnvironFields:
            return read_forwarded(fields.list_values(wanted))
        return read_forwarded([value for name, value in fields if name == wanted])

    def _find_by_value(self, scope: Scope) -> str:
        value = self._read_name(scope)
        if not 0 < len(value) <= MAX_HEADER_VALUE_BYTES:
            return self.find_address(scope)
        return self._hash(b"%s:%s" % (self._kind, value))  # header names have no colon

    def _key_of_peer(self, scope: Scope) -> str:
        """Return the key of a peer, which is its own client if it is not an IP address."""
        host = _peer_host(scope)
        key = self._keys_by_host.get(host)
        if key is None:
            key = self._watched_keys.get(host) or self._key_of_host(host)
            if self._is_watched(host, scope):
                self._watched_keys[host] = key
                return key
            self._watched_keys.pop(host, None)
            if len(self._keys_by_host) >= MAX_CACHED_ADDRESSES:
                self._keys_by_host.clear()
            self._keys_by_host[host] = key
        return key

    def _is_watched(self, host: str, scope: Scope) -> bool:
        """Return whether the next request of a peer must be checked as well."""
        if host not in self._watched_keys and (self._hops or host in self._proxies):
            return False
        peer = scope.get("client")
        return self._watch.check(host, peer[1] if peer else None, scope.get("headers", ()))

    def _key_of_host(self, host: str) -> str:
        address = parse_address(host)
        if address is None:
            return self._hash(b"peer|" + host.encode(errors="surrogatepass"))
        return self._key_of_address(address)

    def _key_of_address(self, address: IPAddress) -> str:
        return self._hash(b"ip|" + client_bytes(address, self._ipv6_prefix))

    def _hash(self, name: bytes) -> str:
        state = self._base.copy()
        state.update(name)
        return state.hexdigest()


class ProxyWatch:
    """Check the first requests of each peer, and log one warning for each of two problems.

    * The server has replaced the peer's address by one of `X-Forwarded-For`, as uvicorn does by default for peers on
      the loopback interface. Such a peer has port 0, or the address and port of an entry. Port 0 without the header
      is that of a test client.
    * A local peer names different clients, so it is a proxy. All of its clients share one quota.
    """

    def __init__(self) -> None:
        self._peers: dict[str, tuple[int, set[bytes]]] = {}  # requests, and claims, of each peer that is watched
        self._warned_of_server = False
        self._warned_of_proxy = False

    def check(self, host: str, port: object, fields: Iterable[Field]) -> bool:
        """Check a request of a peer that is not trusted; return whether to check its next request, too."""
        claims = [(name, value) for name, value in fields if name in _FORWARDING]
        if host != UNIX and claims and (port == 0 or _is_claimed(host, port, claims)):
            self._warn_of_server()
            return False
        requests, clients = self._peers.get(host, (0, set()))
        if not requests and (self._warned_of_proxy or len(self._peers) >= MAX_WATCHED_PEERS or not is_local(host)):
            return False
        clients.update(value[-MAX_CLAIM_BYTES:].rpartition(b",")[2].strip() for _, value in claims[-1:])
        if len(clients) >= MIN_FORWARDED_CLIENTS:
            self._warn_of_proxy(host)
        elif requests + 1 < MAX_WATCHED_REQUESTS:
            self._peers[host] = requests + 1, clients
            return True
        self._peers.pop(host, None)
        return False

    def _warn_of_server(self) -> None:
        if not self._warned_of_server:
            self._warned_of_server = True
            _log.warning(
                "the server replaces the client's address by X-Forwarded-For, which local clients can forge: "
                "run uvicorn with --no-proxy-headers, gunicorn with --forwarded-allow-ips '', waitress without "
                "trusted_proxy, others without their proxy middleware such as ProxyFix, and name your proxies with "
                "trusted_proxies"
            )

    def _warn_of_proxy(self, host: str) -> None:
        self._warned_of_proxy = True
        self._peers.clear()
        _log.warning(
            f"the peer {host} forwards requests of several clients, which share one quota: if it is your proxy, "
            f"name it with trusted_proxies=[{host!r}] or --trusted-proxy {host}"
        )


def _is_claimed(host: str, port: object, claims: Iterable[Field]) -> bool:
    """Return whether an entry of `X-Forwarded-For` is this address with this port, as uvicorn would take it."""
    entries = {f"{host}:{port}".encode(), f"[{host}]:{port}".encode()}
    lines = [value for name, value in claims if name == b"x-forwarded-for"]
    return any(entry.strip() in entries for line in lines for entry in line.split(b","))


def _peer_host(scope: Scope) -> str:
    """Return the host of a peer; `unix` for a Unix socket, for which servers give no host or an empty one."""
    peer = scope.get("client")
    return (peer and peer[0]) or UNIX


def _address_field(key: object, proxies: Proxies) -> bytes:
    """Return the name of the header in which trusted proxies give the client's address.

    Raises `InputError` if `key` is a header with an address and no proxy is trusted, so that any client can forge it.
    """
    kind, _, name = key.partition(":") if isinstance(key, str) else ("", "", "")
    if kind != "header" or not is_address_header(name):
        return _FORWARDED_FOR
    if name.lower() in ("x-forwarded-for", "forwarded"):
        raise InputError(f"{name} can be forged by clients: use ip with trusted_proxies")
    if not proxies:
        raise InputError(f"{name} can be forged by clients: name the proxies that set it with trusted_proxies")
    return name.lower().encode()


def _name_reader(key: str | Callable[[Scope], str | None]) -> tuple[bytes, Callable[[Scope], bytes]]:
    """Return the prefix of the names that `key` selects, empty for `ip`, and a function that reads a request's name."""
    if callable(key):
        check_function("key", key)
        if isinstance(key, RouteChoice):
            raise InputError("key must not be by_route(...): give each policy a key of its own")
        return b"function", lambda scope: _encode_text(key(scope))
    if key == "ip":
        return b"", lambda _: b""
    field = header_field(key, "key must be ip, header:NAME such as header:X-API-Key, or in code a function")
    return b"header|" + field, lambda scope: read_header(scope, field)


def header_field(text: object, rule: str) -> bytes:
    """Return the name of the header in `header:NAME`, in lower case; raise `InputError` for other text."""
    kind, _, name = text.partition(":") if isinstance(text, str) else ("", "", "")
    if kind != "header" or not _TOKEN.fullmatch(name):
        raise InputError(f"{rule}, got {short_repr(text)}")
    return name.lower().encode()


def _encode_text(value: object) -> bytes:
    """Encode the text that a key function returned; empty for None."""
    if value is not None and not isinstance(value, str):
        raise invalid_result("a key function must return text or None", value, "convert it with str()")
    return (value or "").encode(errors="surrogatepass")


def read_header(scope: Scope, field: bytes) -> bytes:
    """Return the value of a header, empty if missing, without the whitespace that some servers leave around it."""
    fields = scope["headers"]
    if type(fields) is EnvironFields:
        values = fields.list_values(field)
    else:
        values = [value for name, value in fields if name == field]
    if len(values) > 1:
        raise AmbiguousClientError(f"{field.decode()} must be sent once, not {len(values)} times")
    return values[0].strip(b" \t") if values else b""


def _check_hops(hops: int, proxies: Proxies) -> int:
    if type(hops) is not int or not 0 <= hops <= MAX_HOPS:
        raise InputError(f"trusted_hops must be a whole number from 0 to {MAX_HOPS}, got {short_repr(hops)}")
    if hops and proxies:
        raise InputError(f"trusted_hops must be 0 with trusted proxies, got {hops}: give one of them")
    return hops


def _derive_hash_key(secret: str | None) -> bytes:
    """Derive a key for BLAKE2b, which limits its length, from a secret of any length, or from random bytes.

    `multiprocessing` shares these bytes between a process and its children, so that the workers of a server that forks
    or spawns them (such as uvicorn) have one key.
    """
    if secret is None:
        return blake2b(current_process().authkey, person=b"ratelab").digest()
    if not isinstance(secret, str):
        raise InputError(f"the secret must be text, got {type(secret).__name__}: decode it")
    if secret == "":
        raise InputError(f"the secret must not be empty: set {SECRET} to a long random text, or unset it")
    return blake2b(secret.encode(errors="surrogatepass")).digest()
