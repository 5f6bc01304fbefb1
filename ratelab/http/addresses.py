"""IP addresses of clients and proxies: parsing, trusted networks, and the part that identifies a client."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from ratelab.errors import InputError, short_repr

IPAddress = IPv4Address | IPv6Address

UNIX = "unix"
"""Stands for the address of every peer on a Unix socket."""

MAX_ADDRESS_CHARS = 64
"""Longest address that is parsed, with brackets, zone and port."""

_BRACKETS = re.compile(r"\[([^\[\]]+)\](?::[0-9]{1,5})?")
_WITH_PORT = re.compile(r"([0-9.]+):[0-9]{1,5}")
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: the last four bytes are an IPv4 address
_MAPPED = IPv6Network("::ffff:0:0/96")


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


def client_bytes(address: IPAddress) -> bytes:
    """Return the bytes that identify a client: an IPv4 address, or the first 64 bits of an IPv6 address.

    The smallest network that a site is given is a /64, and a machine may use any address in it. A NAT64 address counts
    as the IPv4 address in it.
    """
    if isinstance(address, IPv4Address):
        return address.packed
    return address.packed[12:] if address in _NAT64 else address.packed[:8]


class Proxies:
    """The proxies whose `X-Forwarded-For` is trusted: addresses, CIDRs, and `unix` for every Unix socket.

    Raises `InputError` for any other text, and for a network that covers all addresses.
    """

    def __init__(self, trusted: Iterable[str]) -> None:
        texts = [text.strip() for text in trusted]
        self._unix = UNIX in texts
        self._networks = [_parse_network(text) for text in texts if text != UNIX]

    def __bool__(self) -> bool:
        return self._unix or bool(self._networks)

    def __contains__(self, peer: IPAddress | str) -> bool:
        if peer == UNIX:
            return self._unix
        address = parse_address(peer) if isinstance(peer, str) else peer
        return address is not None and any(address in network for network in self._networks)


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
