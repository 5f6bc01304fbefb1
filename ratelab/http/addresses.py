"""IP addresses of clients and proxies: parsing, trusted networks, and the part that identifies a client.

Nothing here depends on ASGI: peers are text, and header fields are pairs of bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from ratelab.errors import InputError, short_repr

IPAddress = IPv4Address | IPv6Address

UNIX = "unix"
"""Stands for the address of every peer on a Unix socket."""

MAX_ADDRESS_CHARS = 64
"""Longest address that is parsed, with brackets, zone and port."""

MAX_HOPS = 16
"""How many addresses of `X-Forwarded-For` are read, from the right."""

DEFAULT_IPV6_PREFIX_BITS = 64
MIN_IPV6_PREFIX_BITS, MAX_IPV6_PREFIX_BITS = 48, 64
"""Networks that sites are given; a machine may use any address of its /64."""

_BRACKETS = re.compile(r"\[([^\[\]]+)\](?::[0-9]{1,5})?")
_WITH_PORT = re.compile(r"([0-9.]+):[0-9]{1,5}")
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: the last four bytes are an IPv4 address
_MAPPED = IPv6Network("::ffff:0:0/96")
_LOCAL = [
    ip_network(text)
    for text in (
        *("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10"),
        *("::1/128", "fc00::/7", "fe80::/10"),
    )
]
_ADDRESS_HEADER = re.compile(  # X-Real-IP, CF-Connecting-IPv6, X-Azure-ClientIP, X-AppEngine-Remote-Addr, ...
    r"(.*[-_])?((client|real|remote|socket|source|src|user|true|peer)?ip(v[46])?"
    r"|(client|real|remote|source|src|peer|external|viewer|connecting|origin|originating|ip)[-_]?addr(ess)?"
    r"|forwarded|forwarded[-_]?for)",
    re.IGNORECASE,
)


@lru_cache(maxsize=4096)
def parse_address(text: str) -> IPAddress | None:
    """Parse `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:80`.

    Return None for any other text. An IPv4 address mapped into IPv6 becomes the IPv4 address. A zone (`%eth0`) is
    removed.
    """
    if len(text) > MAX_ADDRESS_CHARS:
        return None
    match = _BRACKETS.fullmatch(text) or _WITH_PORT.fullmatch(text)
    try:
        address = ip_address(match[1] if match else text)
    except ValueError:
        return None
    if isinstance(address, IPv4Address):
        return None if match and text.startswith("[") else address
    return address.ipv4_mapped or IPv6Address(int(address))


def client_bytes(address: IPAddress, ipv6_prefix: int = DEFAULT_IPV6_PREFIX_BITS) -> bytes:
    """Return the bytes that identify a client: an IPv4 address, or the first bits of an IPv6 address.

    The smallest network that a site is given is a /64, and a machine may use any address in it. A NAT64 address counts
    as the IPv4 address in it.
    """
    if isinstance(address, IPv4Address):
        return address.packed
    if address in _NAT64:
        return address.packed[12:]
    host_bits = 128 - ipv6_prefix
    return (int(address) >> host_bits << host_bits).to_bytes(16, "big")[:8]


def check_ipv6_prefix(bits: int) -> int:
    """Return the length of the prefix that identifies an IPv6 client; raise `InputError` unless it is 48 to 64."""
    if type(bits) is not int or not MIN_IPV6_PREFIX_BITS <= bits <= MAX_IPV6_PREFIX_BITS:
        rule = f"a whole number from {MIN_IPV6_PREFIX_BITS} to {MAX_IPV6_PREFIX_BITS}"
        raise InputError(f"ipv6_prefix must be {rule}, got {short_repr(bits)}: a machine can use all of its /64")
    return bits


def is_local(peer: str) -> bool:
    """Return whether a peer has a private, shared (RFC 6598), link-local or loopback address, or a Unix socket."""
    address = parse_address(peer)
    return peer == UNIX if address is None else any(address in network for network in _LOCAL)


def is_address_header(name: str) -> bool:
    """Return whether proxies give the address of a client in the header of this name, such as `CF-Connecting-IP`."""
    return _ADDRESS_HEADER.fullmatch(name) is not None


def read_forwarded(lines: Iterable[bytes]) -> Iterator[IPAddress | None]:
    """Yield the entries of the lines of `X-Forwarded-For` from the right; None for one that is not an address."""
    entries = b",".join(lines).rsplit(b",", MAX_HOPS)[-MAX_HOPS:]
    for entry in reversed(entries):
        text = entry.strip(b" \t")
        if text:  # recipients ignore empty list elements (RFC 9110, section 5.6.1)
            yield parse_address(text[: MAX_ADDRESS_CHARS + 1].decode("latin-1"))


class Proxies:
    """The proxies whose `X-Forwarded-For` is trusted: addresses, CIDRs, and `unix` for every Unix socket.

    Raises `InputError` for any other text, and for a network that covers all addresses.
    """

    def __init__(self, trusted: Iterable[str]) -> None:
        if isinstance(trusted, str | bytes) or not isinstance(trusted, Iterable):
            raise InputError(f"trusted_proxies must be a list, got {short_repr(trusted)}: put it in brackets")
        texts = [str(text).strip() for text in trusted]
        self._unix = UNIX in texts
        self._networks = [_parse_network(text) for text in texts if text != UNIX]

    def __bool__(self) -> bool:
        return self._unix or bool(self._networks)

    def __contains__(self, peer: IPAddress | str) -> bool:
        if peer == UNIX:
            return self._unix
        address = parse_address(peer) if isinstance(peer, str) else peer
        return address is not None and any(address in network for network in self._networks)

    def first_untrusted(self, hops: Iterable[IPAddress | None]) -> IPAddress | None:
        """Return the first hop that is not trusted; if all are, return the last one read."""
        address = None
        for address in hops:
            if address is None or address not in self:
                break
        return address


def _parse_network(text: str) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(text)
    except ValueError as error:
        example = "10.0.0.0/8"
        with suppress(ValueError):
            example = str(ip_network(text, strict=False))  # 10.0.0.1/8 probably means 10.0.0.0/8
        raise InputError(
            f"a trusted proxy must be an address or a CIDR such as {example}, got {short_repr(text)} ({error})"
        ) from None
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        mapped = network.network_address.ipv4_mapped
        network = IPv4Network((int(mapped or 0), network.prefixlen - 96))
    if network.prefixlen == 0:
        raise InputError(f"a trusted proxy must not cover all addresses, got {text}: name the network of your proxies")
    return network
