"""Importing this keeps a process from the network: it may talk to itself and to its own machine, and to nobody else."""

from __future__ import annotations

import sys

HERE = ("127.0.0.1", "::1", "localhost")


def refuse(event: str, arguments: tuple[object, ...]) -> None:
    """Raise `OSError` for a connection or a question that would leave the machine."""
    if event == "socket.connect":
        address = arguments[1]
        leaving = isinstance(address, tuple) and address[0] not in HERE
    else:
        leaving = event == "socket.getaddrinfo" and arguments[0] not in (*HERE, None, "")
    if leaving:
        raise OSError(f"there is no network here: {arguments[1:]!r}")


sys.addaudithook(refuse)
