"""Warnings about a peer that is not the client: an undeclared proxy, or an address that the server replaced."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from ratelab.http.addresses import UNIX, is_local
from ratelab.http.asgi import Field

MIN_FORWARDED_CLIENTS = 5
"""Clients named by the requests of a local peer that make it count as a proxy."""

MAX_WATCHED_REQUESTS = 256
"""Requests of a local peer that are checked."""

MAX_WATCHED_PEERS = 256
"""Local peers that are watched at a time."""

MAX_CLAIM_BYTES = 64

_FORWARDING = (b"x-forwarded-for", b"x-real-ip", b"forwarded")

_log = logging.getLogger("ratelab.http")


class ProxyWatch:
    """Check the first requests of each peer, and log one warning for each of two problems.

    * The server has replaced the peer's address by one of `X-Forwarded-For`, as uvicorn does by default for peers on
      the loopback interface. Such a peer has port 0, or the address and port of an entry.
    * A local peer names different clients, so it is a proxy. All of its clients share one quota.
    """

    def __init__(self) -> None:
        self._peers: dict[str, tuple[int, set[bytes]]] = {}  # requests, and claims, of each peer that is watched
        self._warned_of_server = False
        self._warned_of_proxy = False

    def check(self, host: str, port: object, fields: Iterable[Field]) -> bool:
        """Check a request of a peer that is not trusted; return whether to check its next request, too."""
        claims = [(name, value) for name, value in fields if name in _FORWARDING]
        if host != UNIX and (port == 0 or _is_claimed(host, port, claims)):
            self._warn_of_server()
            return False
        if self._warned_of_proxy or not is_local(host):
            return False
        if host not in self._peers and len(self._peers) >= MAX_WATCHED_PEERS:
            return False
        requests, clients = self._peers.get(host, (0, set()))
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
                "run uvicorn with --no-proxy-headers, gunicorn with --forwarded-allow-ips '', others without their "
                "proxy middleware, and name your proxies with trusted_proxies"
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
