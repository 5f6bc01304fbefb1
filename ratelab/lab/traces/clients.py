"""Clients of traces: the same identity as in the live service, from logged addresses and forwarded addresses."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from itertools import islice

from ratelab.errors import InputError
from ratelab.http.addresses import (
    DEFAULT_IPV6_PREFIX_BITS,
    MAX_HOPS,
    IPAddress,
    Proxies,
    check_ipv6_prefix,
    client_bytes,
    is_local,
    parse_address,
    read_forwarded,
)

MAX_CACHED_NAMES = 1 << 18
"""Names that are kept, so that each is computed once."""

_IPV4_BYTES = 4

MISSING = ("", "-")
"""Values that stand for a missing client."""

_BYTE = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
IPV4 = rf"{_BYTE}\.{_BYTE}\.{_BYTE}\.{_BYTE}"
"""An IPv4 address, in the syntax that RE2 and Python share."""

IPV4_AND_PORT = rf"{IPV4}(?::[0-9]{{1,5}})?"
"""An IPv4 address with or without a port."""

_COMMON_ADDRESS = re.compile(IPV4_AND_PORT)


class ClientNames(dict[tuple[str, ...], str]):
    """Texts of a client's fields mapped to its name, which is computed at the first lookup."""

    def __init__(self, name: Callable[[tuple[str, ...]], str], keeps_ipv4: bool = False) -> None:
        self._name = name
        self.keeps_ipv4 = keeps_ipv4
        """Whether an IPv4 address in the last field, without its port, is the name, whatever the other fields are."""

    def __missing__(self, texts: tuple[str, ...]) -> str:
        if len(self) >= MAX_CACHED_NAMES:
            self.clear()
        self[texts] = name = self._name(texts)
        return name


@dataclass(frozen=True)
class ClientRule:
    """How the client is named: from an address as the live service does, otherwise by the text itself.

    Raises `InputError` for an invalid proxy, number of hops or prefix.
    """

    trusted_proxies: tuple[str, ...] = ()
    """The addresses and CIDRs of the proxies whose forwarded addresses count."""
    trusted_hops: int = 0
    """Instead: the number of proxies. The client is the forwarded address at this position from the right."""
    ipv6_prefix: int = DEFAULT_IPV6_PREFIX_BITS
    """The bits of an IPv6 address that identify a client."""

    def __post_init__(self) -> None:
        if not 0 <= self.trusted_hops <= MAX_HOPS:
            raise InputError(f"trusted_hops must be from 0 to {MAX_HOPS}, got {self.trusted_hops}: count your proxies")
        if self.trusted_hops and self.trusted_proxies:
            raise InputError(f"trusted_hops must be 0 with trusted proxies, got {self.trusted_hops}: give one of them")
        if self.ipv6_prefix != DEFAULT_IPV6_PREFIX_BITS:
            check_ipv6_prefix(self.ipv6_prefix)
        if self.trusted_proxies:
            Proxies(self.trusted_proxies)

    @property
    def reads_forwarded(self) -> bool:
        """Whether forwarded addresses count."""
        return bool(self.trusted_proxies or self.trusted_hops)

    def create_names(self, forwarded: bool) -> ClientNames:
        """Create the mapping of the text of a client's field to its name, "" for a missing client.

        If `forwarded`, it maps pairs: the text of the peer and the list of forwarded addresses.
        """
        if not forwarded:
            return ClientNames(lambda texts: self._name_text(texts[0]), keeps_ipv4=True)
        is_any_peer_trusted = not self.trusted_proxies and self.trusted_hops <= 1
        return ClientNames(self._create_forwarded_namer(is_any_peer_trusted), keeps_ipv4=is_any_peer_trusted)

    def _name_text(self, text: str) -> str:
        text = text.strip()
        if _COMMON_ADDRESS.fullmatch(text):
            return text.partition(":")[0]
        if text in MISSING:
            return ""
        address = parse_address(text)
        return text if address is None else self._name_address(address)

    def _name_address(self, address: IPAddress) -> str:
        """Return the name of the clients that share an address: an IPv4 address or an IPv6 network."""
        identity = client_bytes(address, self.ipv6_prefix)
        if isinstance(address, IPv4Address) or len(identity) == _IPV4_BYTES:
            return str(IPv4Address(identity))
        return f"{IPv6Address(identity.ljust(16, bytes(1)))}/{self.ipv6_prefix}"

    def _create_forwarded_namer(self, is_any_peer_trusted: bool) -> Callable[[tuple[str, ...]], str]:
        """Walk the addresses as the live service does; without proxies to trust, leave out private addresses."""
        proxies = Proxies(self.trusted_proxies)

        def name_forwarded(texts: tuple[str, ...]) -> str:
            peer, forwarded = texts
            if is_any_peer_trusted and _COMMON_ADDRESS.fullmatch(forwarded):
                return forwarded.partition(":")[0]
            hops = read_forwarded([forwarded.encode("latin-1", "replace")])
            address: IPAddress | None = None
            if self.trusted_hops:
                address = next(islice(hops, self.trusted_hops - 1, None), None)
            elif not proxies:
                address = _first_public(hops)
            elif peer.strip() in MISSING or peer.strip() in proxies:
                address = proxies.first_untrusted(hops)
            return self._name_text(peer) if address is None else self._name_address(address)

        return name_forwarded


def _first_public(hops: Iterable[IPAddress | None]) -> IPAddress | None:
    """Return the first hop that is not a private address; if all are private, return the last one."""
    address = None
    for address in hops:
        if address is None or not is_local(str(address)):
            break
    return address


def is_address(text: str) -> bool:
    """Return whether a text is an IP address, with or without a port."""
    return parse_address(text) is not None


def is_private(text: str) -> bool:
    """Return whether a text is the address of a private network."""
    return is_address(text) and is_local(text)
