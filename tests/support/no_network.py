"""Audit hook that denies network access: importing this module restricts the process to its own machine."""

from __future__ import annotations

import sys

LOCAL_HOSTS = ("127.0.0.1", "::1", "localhost")


def check_local(event: str, arguments: tuple[object, ...]) -> None:
    """Raise `OSError` for a connection to another machine, or for the lookup of its address."""
    if event == "socket.connect":
        address = arguments[1]
        remote = isinstance(address, tuple) and address[0] not in LOCAL_HOSTS
    else:
        remote = event == "socket.getaddrinfo" and arguments[0] not in (*LOCAL_HOSTS, None, "")
    if remote:
        raise OSError(f"network access is denied: {arguments[1:]!r}")


sys.addaudithook(check_local)
