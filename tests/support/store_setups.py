"""Store servers that work together or have an unusual clock: clusters, Sentinels, and clocks that tests set."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from serve_process import wait_until
from valkey.exceptions import ResponseError
from valkey_servers import find_server, free_port, is_free, run_valkey, send_command

from ratelab.judge.store_server import NoStore, write_wrapper
from ratelab.stores.valkey.server import ValkeyServer
from ratelab.stores.valkey.session import SLOT_COUNT

BUS_OFFSET = 10_000
"""Distance from a node's port to the port for other nodes; the option for another came with version 7."""

MASTER_NAME = "limits"


# --- clusters


@dataclass(frozen=True)
class Cluster:
    """Nodes that divide the slots among themselves, at first equally and in order."""

    nodes: tuple[ValkeyServer, ...]

    @property
    def url(self) -> str:
        """The URL of the first node, which knows the others."""
        return f"{self.nodes[0].url}?cluster=true"

    def first_owner(self, slot: int) -> ValkeyServer:
        """Return the node that had a slot at first."""
        return self.nodes[slot * len(self.nodes) // SLOT_COUNT]

    def move(self, slots: Iterable[int], to: ValkeyServer) -> None:
        """Assign slots to a node, on all nodes; all keys are lost."""
        name = send_command(to.url, "CLUSTER", "MYID").decode()
        for node in (to, *(node for node in self.nodes if node is not to)):
            send_command(node.url, "FLUSHALL")
            for slot in slots:
                send_command(node.url, "CLUSTER", "SETSLOT", slot, "NODE", name)

    @contextmanager
    def migrating(self, slot: int, to: ValkeyServer) -> Iterator[None]:
        """Migrate a slot from its first owner during the block: a key that is not there is redirected with ASK."""
        owner = self.first_owner(slot)
        names = {node: send_command(node.url, "CLUSTER", "MYID").decode() for node in (owner, to)}
        send_command(to.url, "CLUSTER", "SETSLOT", slot, "IMPORTING", names[owner])
        send_command(owner.url, "CLUSTER", "SETSLOT", slot, "MIGRATING", names[to])
        try:
            yield
        finally:
            for node in (owner, to):
                send_command(node.url, "CLUSTER", "SETSLOT", slot, "STABLE")


@contextmanager
def run_cluster(size: int, server: str = "valkey") -> Iterator[Cluster]:
    """Run a cluster without replicas; nodes keep deciding when another is down."""
    options = ("--cluster-enabled", "yes", "--cluster-require-full-coverage", "no")
    program = find_server(server)
    with ExitStack() as stack:
        ports = [_free_port_of_node() for _ in range(size)]
        nodes = tuple(stack.enter_context(run_valkey(*options, port=port, program=program)) for port in ports)
        cluster = Cluster(nodes)
        for number, (node, port) in enumerate(zip(nodes, ports, strict=True), start=1):
            slots = [slot for slot in range(SLOT_COUNT) if cluster.first_owner(slot) is node]
            send_command(node.url, "CLUSTER", "ADDSLOTS", *slots)
            send_command(node.url, "CLUSTER", "SET-CONFIG-EPOCH", number)
            send_command(nodes[0].url, "CLUSTER", "MEET", "127.0.0.1", port)
        wait_until(lambda: all(_is_ready(node, size) for node in nodes))
        yield cluster


def _is_ready(node: ValkeyServer, size: int) -> bool:
    info = send_command(node.url, "CLUSTER", "INFO").decode()
    facts = ("cluster_state:ok", f"cluster_slots_assigned:{SLOT_COUNT}", f"cluster_known_nodes:{size}")
    return all(f"{fact}\r" in info for fact in facts)


def _free_port_of_node() -> int:
    """Return a free port whose port for other nodes is free too."""
    while not is_free((port := free_port()) + BUS_OFFSET):
        pass
    return port


# --- Sentinels


@dataclass(frozen=True)
class SentinelSetup:
    """A master named `MASTER_NAME` and its replica, watched by three Sentinels."""

    master: ValkeyServer
    replica: ValkeyServer
    sentinels: tuple[ValkeyServer, ...]

    def fail_over(self) -> None:
        """Promote the replica, and wait until the Sentinels name it as master and it accepts writes.

        The former master becomes its replica and closes its connections, which the Sentinels would cause 8 s later.
        """
        address = self.replica.url.rpartition("/")[2].encode().split(b":")

        def is_named() -> bool:
            with suppress(ResponseError):  # one is in progress, or has ended without success on a busy machine
                if _named_master(self.sentinels[0].url) != address:
                    send_command(self.sentinels[0].url, "SENTINEL", "FAILOVER", MASTER_NAME)
            return all(_named_master(sentinel.url) == address for sentinel in self.sentinels)

        wait_until(is_named)
        wait_until(lambda: send_command(self.replica.url, "ROLE")[0] == b"master")
        send_command(self.master.url, "REPLICAOF", *address)
        send_command(self.master.url, "CLIENT", "KILL", "TYPE", "normal")


def _named_master(url: str) -> Any:
    return send_command(url, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME)


@contextmanager
def run_sentinels(server: str = "valkey") -> Iterator[SentinelSetup]:
    """Run three Sentinels, which notice after half a second that the master is down."""
    program = find_server(server)
    with ExitStack() as stack:
        ports = [free_port(), free_port()]
        options = ("--repl-diskless-sync-delay", "0")
        master, replica = (stack.enter_context(run_valkey(*options, port=port, program=program)) for port in ports)
        send_command(replica.url, "REPLICAOF", "127.0.0.1", ports[0])
        wait_until(lambda: send_command(replica.url, "ROLE")[3] == b"connected")
        sentinels = tuple(stack.enter_context(_run_sentinel(program, ports[0])) for _ in range(3))
        setup = SentinelSetup(master, replica, sentinels)
        _set_periods(sentinels, publish_ms=100)
        wait_until(lambda: all(_sees_all(sentinel) for sentinel in sentinels))
        _set_periods(sentinels, publish_ms=1000)  # one that has heard nothing for four periods undoes a failover
        yield setup


def _set_periods(sentinels: Iterable[ValkeyServer], publish_ms: int) -> None:
    """Let Sentinels speak to each other, and look at the servers, more often than every 2 and 10 s."""
    for sentinel in sentinels:
        with suppress(ResponseError):  # Redis 6.2 has no such command
            send_command(sentinel.url, "SENTINEL", "DEBUG", "PUBLISH-PERIOD", publish_ms, "INFO-PERIOD", 100)


@contextmanager
def _run_sentinel(program: str, master_port: int) -> Iterator[ValkeyServer]:
    port = free_port()
    settings = f"""
        port {port}
        bind 127.0.0.1
        sentinel monitor {MASTER_NAME} 127.0.0.1 {master_port} 2
        sentinel down-after-milliseconds {MASTER_NAME} 500
        sentinel failover-timeout {MASTER_NAME} 2000
    """
    with TemporaryDirectory(prefix="rl-") as directory:
        configuration = Path(directory, "sentinel.conf")
        configuration.write_text(settings)
        command = shlex.join([program, str(configuration), "--sentinel", "--dir", directory, "--loglevel", "warning"])
        with run_valkey(port=port, program=_write_script(directory, f"exec {command}")) as sentinel:
            yield sentinel


def _sees_all(sentinel: ValkeyServer) -> bool:
    """Return whether a Sentinel sees the replica and both other Sentinels."""
    reply = send_command(sentinel.url, "SENTINEL", "MASTER", MASTER_NAME)
    facts = reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=True))
    return (facts[b"num-slaves"], facts[b"num-other-sentinels"]) == (b"1", b"2")


# --- clocks


@dataclass(frozen=True)
class SteppingServer:
    """A server whose clock a test sets."""

    server: ValkeyServer
    _offset: Path

    def set_offset(self, seconds: int) -> None:
        """Set the server's clock to the time of this machine and `seconds`, which may be negative."""
        written = self._offset.with_suffix(".new")
        written.write_text(f"{seconds:+d}\n")
        written.replace(self._offset)  # the server never reads half a file
        wait_until(lambda: abs(self._read_clock() - time.time() - seconds) < 5)

    def _read_clock(self) -> int:
        """Return the server's time in seconds since 1970."""
        return int(send_command(self.server.url, "EVAL", "return redis.call('TIME')[1]", 0))


@contextmanager
def run_stepping_server(server: str = "valkey") -> Iterator[SteppingServer]:
    """Run a server under libfaketime; skip the test if that is not installed."""
    with TemporaryDirectory(prefix="rl-") as directory:
        offset = Path(directory, "offset")
        offset.write_text("+0\n")
        try:
            program = write_wrapper(find_server(server), Path(directory), offset, FAKETIME_DONT_FAKE_MONOTONIC=1)
        except NoStore:
            pytest.skip("libfaketime is not installed: see .github/CONTRIBUTING.md")
        with run_valkey(program=str(program)) as started:
            yield SteppingServer(started, offset)


def _write_script(directory: str, commands: str) -> str:
    """Write a shell script that ends with a server, and return its path."""
    path = Path(directory, "program")
    path.write_text(f"#!/bin/sh\n{commands}\n")
    path.chmod(0o700)
    return str(path)
