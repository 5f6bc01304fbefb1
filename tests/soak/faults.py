"""Services of a soak, and the faults that are injected: stopped processes, lost data, readers that do not read."""

from __future__ import annotations

import os
import pty
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple

from loads import BURST, RATE
from store_setups import Cluster
from valkey_servers import send_command

from ratelab.stores.valkey.server import ValkeyServer
from ratelab.stores.valkey.session import SLOT_COUNT

HEALTH_INTERVAL_S = 0.1
MAX_SHUTDOWN_S = 10


class Reader(threading.Thread):
    """Reads the output of a service until it ends; it can stall, as a pager or a log collector does."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(daemon=True)
        self._descriptor = descriptor
        self.reads = threading.Event()
        self.reads.set()
        self.text = b""
        self.start()

    def run(self) -> None:
        with suppress(OSError):  # of a terminal whose other end is closed
            while self.reads.wait() and (data := os.read(self._descriptor, 65536)):
                self.text = (self.text + data)[-10_000:]


class HealthMonitor(threading.Thread):
    """Requests `/healthz` again and again, and measures the longest time without a response."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._port, self._ended = port, threading.Event()
        self.longest_s, self.answers = 0.0, 0
        self.start()

    def run(self) -> None:
        since = time.monotonic()
        while not self._ended.is_set():
            with suppress(OSError):
                connection = HTTPConnection("127.0.0.1", self._port, timeout=5)
                connection.request("GET", "/healthz")
                if connection.getresponse().status == 200:
                    self.answers += 1
                    self.longest_s = max(self.longest_s, time.monotonic() - since)
                    self._ended.wait(HEALTH_INTERVAL_S)
                    since = time.monotonic()
                connection.close()

    def stop(self) -> float:
        """Stop, and return the longest time without a response, in seconds."""
        self._ended.set()
        self.join(10)
        return self.longest_s


class Service:
    """A `ratelab serve` process whose output goes to a terminal or a pipe, with its reader and its monitor."""

    def __init__(self, *options: str, terminal: bool) -> None:
        self._master, slave = pty.openpty() if terminal else os.pipe()
        command = [sys.executable, "-m", "ratelab", "serve", "--port", "0", "--rate", RATE, "--burst", str(BURST)]
        self.process = subprocess.Popen(
            [*command, "--key", "header:X-API-Key", *options],
            stdin=slave if terminal else subprocess.DEVNULL,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self.reader = Reader(self._master)
        while not (found := re.search(rb":(\d+)/ping", self.reader.text)) or b"stop " not in self.reader.text:
            if self.process.poll() is not None:
                raise AssertionError(f"the service exited: {self.reader.text.decode()}")
            time.sleep(0.05)
        self.port = int(found[1])
        self.monitor = HealthMonitor(self.port)

    def type_key(self, key: bytes) -> None:
        """Press a key in the terminal."""
        os.write(self._master, key)

    def children(self) -> list[int]:
        """Return the process IDs of its children."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [*map(int, children.split())]

    def stop(self) -> float:
        """Send SIGTERM; return the seconds until it has exited, or infinity."""
        start = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(2 * MAX_SHUTDOWN_S)
            return time.monotonic() - start
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return float("inf")
        finally:
            self.reader.reads.set()
            self.reader.join(5)
            os.close(self._master)


class Services(NamedTuple):
    """The services of a soak, by load: in a terminal, with a recording and a log, and with workers and a log."""

    terminal: Service
    logging: Service
    workers: Service


# --- faults


@dataclass
class Faults:
    """Faults of the store, the cluster, the workers and the readers, in random order; `losses` counts lost quotas."""

    store: ValkeyServer
    cluster: Cluster
    services: Services
    draw: random.Random
    counts: Counter[str] = field(default_factory=Counter)
    losses: int = 0
    cluster_losses: int = 0

    def inject(self, seconds: float, stopped: Callable[[], bool]) -> None:
        """Inject every fault, and go on until `seconds` have passed or the loads have ended."""
        end = time.monotonic() + seconds
        faults: dict[str, Callable[[], object]] = {
            "SIGSTOP of the store": lambda: self._pause(self.store),
            "SIGSTOP of a cluster node": lambda: self._pause(self.draw.choice(self.cluster.nodes)),
            "kill -9 of the store": self._kill_store,
            "FLUSHALL": self._flush,
            "kill -9 of a worker": self._kill_worker,
            "Ctrl-S in the terminal": self._suspend_terminal,
            "stalled readers of logs": self._stall_readers,
            "migrating slot": self._migrate,
            "moved slots": self._move,
        }
        while time.monotonic() < end and not stopped():
            names = [*faults]
            self.draw.shuffle(names)
            for name in names:
                faults[name]()
                self.counts[name] += 1
                time.sleep(self.draw.uniform(0.1, 0.5))
                if time.monotonic() >= end and len(self.counts) == len(faults):
                    break

    def _pause(self, server: ValkeyServer) -> None:
        os.kill(server.pid, signal.SIGSTOP)
        time.sleep(self.draw.uniform(0.3, 1.5))
        os.kill(server.pid, signal.SIGCONT)

    def _kill_store(self) -> None:
        self.losses += 1
        self.store.stop()
        time.sleep(self.draw.uniform(0, 1))
        self.store.start()

    def _flush(self) -> None:
        self.losses += 1
        send_command(self.store.url, "FLUSHALL")

    def _kill_worker(self) -> None:
        os.kill(self.draw.choice(self.services.workers.children()), signal.SIGKILL)

    def _suspend_terminal(self) -> None:
        self.services.terminal.type_key(b"\x13")
        time.sleep(self.draw.uniform(1, 3))
        self.services.terminal.type_key(b"\x11")

    def _stall_readers(self) -> None:
        readers = [service.reader.reads for service in (self.services.logging, self.services.workers)]
        for reads in readers:
            reads.clear()
        time.sleep(self.draw.uniform(1, 3))
        for reads in readers:
            reads.set()

    def _migrate(self) -> None:
        """Migrate the slot of a key, whose count is lost when the migration is given up."""
        owner = self.draw.choice(self.cluster.nodes)
        keys = send_command(owner.url, "KEYS", "*") or [b"any"]
        slot = send_command(owner.url, "CLUSTER", "KEYSLOT", self.draw.choice(keys))
        owner = self.cluster.first_owner(slot)
        with self.cluster.migrating(slot, to=next(node for node in self.cluster.nodes if node is not owner)):
            time.sleep(0.5)
        self.cluster_losses += 1

    def _move(self) -> None:
        """Move half of the slots of a node to another and back; all keys of the cluster are lost, both times."""
        owner, other = self.draw.sample(self.cluster.nodes, 2)
        slots = [slot for slot in range(SLOT_COUNT) if self.cluster.first_owner(slot) is owner][::64]
        for node in (other, owner):
            self.cluster_losses += 1
            self.cluster.move(slots, to=node)
            time.sleep(0.5)
