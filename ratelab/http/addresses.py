"""Internet addresses: how they are written in headers, and how many of them one client has."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from ratelab.errors import InputError, short_repr

Address = IPv4Address | IPv6Address

UNIX = "unix"
"""What stands for the address of any peer on a unix socket."""

MAX_ADDRESS_CHARS = 64
"""Characters that an address with its brackets, zone and port may have."""

_BRACKETS = re.compile(r"\[([^\[\]]+)\](?::[0-9]{1,5})?")
_WITH_PORT = re.compile(r"([0-9.]+):[0-9]{1,5}")
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: the last four bytes are an IPv4 address
_MAPPED = IPv6Network("::ffff:0:0/96")


@lru_cache(maxsize=4096)
def read_address(text: str) -> Address | None:
    """Read `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:80`; None for anything else.

    An IPv4 address mapped into IPv6 is the IPv4 address, however it is written. A zone (`%eth0`) is dropped.
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


def client_bytes(address: Address) -> bytes:
    """Return what one client cannot change: an IPv4 address, or the first 64 bits of an IPv6 address.

    A site is given a /64 at least, and each of its machines may take any address in it. An address of NAT64 is the
    IPv4 address that it stands for.
    """
    if isinstance(address, IPv4Address):
        return address.packed
    return address.packed[12:] if address in _NAT64 else address.packed[:8]


class Proxies:
    """The proxies whose word is taken for where a request came from: addresses, CIDRs and `unix`, any unix socket.

    Raises `InputError` for anything else, and for a network of everybody, since then any client could pick its key.
    """

    def __init__(self, trusted: Iterable[str]) -> None:
        texts = [text.strip() for text in trusted]
        self._unix = UNIX in texts
        self._networks = [_network(text) for text in texts if text != UNIX]

    def __bool__(self) -> bool:
        return self._unix or bool(self._networks)

    def __contains__(self, peer: Address | str) -> bool:
        if peer == UNIX:
            return self._unix
        address = read_address(peer) if isinstance(peer, str) else peer
        return address is not None and any(address in network for network in self._networks)


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(text)
    except ValueError as error:
        example = "10.0.0.0/8"
        with suppress(ValueError):
            example = str(ip_network(text, strict=False))  # what may be meant, if an address of a network was given
        raise InputError(
            f"a trusted proxy must be an address or a CIDR such as {example}, got {short_repr(text)} ({error})"
        ) from None
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        mapped = network.network_address.ipv4_mapped
        network = IPv4Network((int(mapped or 0), network.prefixlen - 96))
    if network.prefixlen == 0:
        raise InputError(f"{text} trusts everybody, so that any client could pick its key: name your proxies' network")
    return network
