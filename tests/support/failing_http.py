"""A forwarder to a server of HTTP whose requests fail when a test wants them to."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Thread

ERROR = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_RESET_ON_CLOSE = socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)


@dataclass
class FailingServer:
    """The port of a forwarder, and how it answers requests."""

    port: int = 0
    fault: str = ""
    """`error` for status 500, `reset` to reset connections; empty to forward."""

    def serve(self, listener: socket.socket, target: int) -> None:
        """Forward connections until the listener is closed."""
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                Thread(target=self._forward, args=(client, target), daemon=True).start()

    def _forward(self, client: socket.socket, target: int) -> None:
        with suppress(OSError), client, socket.create_connection(("127.0.0.1", target)) as server:
            answers = Thread(target=_copy, args=(server, client), daemon=True)
            answers.start()
            while data := client.recv(2**16):
                if self.fault == "error":
                    client.sendall(ERROR)
                    client.shutdown(socket.SHUT_RDWR)
                if self.fault:
                    client.setsockopt(*_RESET_ON_CLOSE)
                    return
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)
            answers.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(2**16):
            target.sendall(data)


@contextmanager
def run_failing_server(target: int) -> Iterator[FailingServer]:
    """Forward a new port to another port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = FailingServer(listener.getsockname()[1])
        Thread(target=server.serve, args=(listener, target), daemon=True).start()
        yield server
