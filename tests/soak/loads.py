"""Loads of a soak: hits by threads, tasks and child processes, and requests; each load counts its outcomes."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import count

from ratelab import Limiter, MemoryLimiter, create
from ratelab.errors import StoreError
from ratelab.stores.valkey import AsyncValkeyLimiter, ValkeyLimiter

ALGORITHM, RATE, BURST = "token-bucket", "20/s", 20
RATE_PER_S = 20
KEYS = [f"client {number}" for number in range(12)]

THREADS = 32
GATHERED = 300
HTTP_CONNECTIONS = 12
FORK_INTERVAL_S = 0.25
HITS_OF_CHILD = 5
MAX_CHILD_LIFE_S = 20
STORE_DEADLINE_S = 1.0
RESPONSE_TIMEOUT_S = 20.0


@dataclass
class Counts:
    """Outcomes of a load; every started hit or request is counted once."""

    started: int = 0
    admitted: dict[str, int] = field(default_factory=dict)
    """By key."""
    denied: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    """`StoreError` by kind, 503, and requests whose connection was cut."""
    interrupted: int = 0
    """Hits from which the exception of a signal handler surfaced."""
    swallowed: int = 0
    """Exceptions of a signal handler that did not surface."""
    unexpected: list[str] = field(default_factory=list)
    """Any other outcome."""
    children: int = 0
    hanging: list[str] = field(default_factory=list)
    """Threads and child processes that did not end, or ended with an error."""
    slowest_s: float = 0
    seconds: float = 0

    def admit(self, key: str) -> None:
        self.admitted[key] = self.admitted.get(key, 0) + 1

    def fail(self, kind: str) -> None:
        self.errors[kind] = self.errors.get(kind, 0) + 1

    @property
    def answered(self) -> int:
        return sum(self.admitted.values()) + self.denied + sum(self.errors.values()) + self.interrupted


class TimeLimitError(Exception):
    """Raised by a signal handler, as the time limits of task queues are."""


Hit = Callable[[str], bool]


def hit_and_count(hit: Hit, key: str, counts: Counts) -> None:
    """Hit a key, and count the outcome."""
    counts.started += 1
    start = time.monotonic()
    try:
        allowed = hit(key)
    except StoreError as error:
        counts.fail(error.kind)
    except TimeLimitError:
        counts.interrupted += 1
        return
    except Exception as error:
        counts.unexpected.append(repr(error))
    else:
        if allowed:
            counts.admit(key)
        else:
            counts.denied += 1
    counts.slowest_s = max(counts.slowest_s, time.monotonic() - start)


def add(total: Counts, part: Counts) -> None:
    """Add the counts of a thread to those of a load."""
    total.started += part.started
    total.admitted = dict(Counter(total.admitted) + Counter(part.admitted))
    total.errors = dict(Counter(total.errors) + Counter(part.errors))
    total.denied += part.denied
    total.interrupted += part.interrupted
    total.unexpected += part.unexpected
    total.slowest_s = max(total.slowest_s, part.slowest_s)


# --- threads, forks and interrupts


def hit_in_threads(limiter: Limiter, seconds: float) -> Counts:
    """Hit from many threads, while the main thread forks and is interrupted in the middle of its hits."""
    end, start = time.monotonic() + seconds, time.monotonic()
    parts = [Counts() for _ in range(THREADS)]

    def hit(key: str) -> bool:
        return limiter.hit(key).allowed

    def run(part: Counts) -> None:
        draw = random.Random(id(part))
        while time.monotonic() < end:
            hit_and_count(hit, draw.choice(KEYS), part)
            time.sleep(0.01)

    threads = [threading.Thread(target=run, args=[part]) for part in parts]
    for thread in threads:
        thread.start()
    total = Counts()
    for number in count():
        if time.monotonic() >= end:
            break
        if number % 2:
            _hit_in_child(hit, total)
        else:
            _hit_under_time_limit(hit, total)
    for thread in threads:
        thread.join(MAX_CHILD_LIFE_S)
    total.hanging += [f"{thread.name} hangs" for thread in threads if thread.is_alive()]
    for part in parts:
        add(total, part)
    total.seconds = time.monotonic() - start
    return total


def _hit_in_child(hit: Hit, total: Counts) -> None:
    """Fork while the threads hit; the child exits with status 0 if each of its hits returned or raised `StoreError`."""
    total.children += 1
    child = os.fork()
    if child == 0:
        signal.alarm(MAX_CHILD_LIFE_S)
        counts = Counts()
        for key in KEYS[:HITS_OF_CHILD]:
            hit_and_count(hit, f"child of {key}", counts)
        os._exit(len(counts.unexpected))
    _, status = os.waitpid(child, 0)
    if status:
        total.hanging.append(f"a child ended with {os.waitstatus_to_exitcode(status)}")


def _hit_under_time_limit(hit: Hit, total: Counts) -> None:
    """Hit for a while, until a signal handler raises, mostly in the middle of a hit."""
    raised = 0

    def interrupt(*_: object) -> None:
        nonlocal raised
        raised += 1
        raise TimeLimitError

    def discount(ignored: sys.UnraisableHookArgs) -> None:
        """Do not count an exception in a finalizer, which Python itself ignores."""
        nonlocal raised
        raised -= ignored.exc_type is TimeLimitError

    sys.unraisablehook = discount

    signal.signal(signal.SIGALRM, interrupt)
    before = total.interrupted
    with suppress(TimeLimitError):  # it may also surface before or after a hit
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.01, FORK_INTERVAL_S), 1)
        while total.interrupted == before:
            hit_and_count(hit, random.choice(KEYS), total)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    total.interrupted += total.started - total.answered - len(total.unexpected)
    total.swallowed += raised - 1


# --- tasks


async def hit_in_tasks(url: str, seconds: float) -> Counts:
    """Hit from many tasks at once, again and again."""
    limiter = AsyncValkeyLimiter(url, ALGORITHM, RATE, BURST, STORE_DEADLINE_S, name="tasks")
    counts, start = Counts(), time.monotonic()

    async def hit(key: str) -> None:
        counts.started += 1
        began = time.monotonic()
        try:
            decision = await limiter.hit(key)
        except StoreError as error:
            counts.fail(error.kind)
        except Exception as error:
            counts.unexpected.append(repr(error))
        else:
            if decision.allowed:
                counts.admit(key)
            else:
                counts.denied += 1
        counts.slowest_s = max(counts.slowest_s, time.monotonic() - began)

    while time.monotonic() < start + seconds:
        await asyncio.gather(*(hit(random.choice(KEYS)) for _ in range(GATHERED)))
        await asyncio.sleep(0.2)
    limiter.close()
    counts.seconds = time.monotonic() - start
    return counts


# --- requests


async def send_requests(port: int, seconds: float) -> Counts:
    """Send requests on connections that are kept open, and opened again after they were cut."""
    counts, start = Counts(), time.monotonic()

    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str) -> None:
        writer.write(f"GET /ping HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        await reader.readexactly(length)
        status = head[9:12]
        if status == "200":
            counts.admit(key)
        elif status == "429":
            counts.denied += 1
        elif status == "503":
            counts.fail("503")
        else:
            counts.unexpected.append(f"status {status}")

    async def run_client(number: int) -> None:
        while time.monotonic() < start + seconds:
            with suppress(ConnectionError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                while time.monotonic() < start + seconds:
                    counts.started += 1
                    began = time.monotonic()
                    try:
                        async with asyncio.timeout(RESPONSE_TIMEOUT_S):
                            await send(reader, writer, KEYS[number])
                    except TimeoutError:
                        counts.unexpected.append(f"no response within {RESPONSE_TIMEOUT_S} s")
                        break
                    except (ConnectionError, asyncio.IncompleteReadError):
                        counts.fail("cut")
                        break
                    counts.slowest_s = max(counts.slowest_s, time.monotonic() - began)
                    await asyncio.sleep(0.03)
                writer.close()
            await asyncio.sleep(0.05)

    await asyncio.gather(*(run_client(number) for number in range(HTTP_CONNECTIONS)))
    counts.seconds = time.monotonic() - start
    return counts


LOADS: dict[str, Callable[[str, float], Counts]] = {
    "memory, threads": lambda _, seconds: hit_in_threads(MemoryLimiter(create(ALGORITHM, RATE, BURST)), seconds),
    "store, threads": lambda url, seconds: hit_in_threads(
        ValkeyLimiter(url, ALGORITHM, RATE, BURST, STORE_DEADLINE_S, name="threads"), seconds
    ),
    "store, tasks": lambda url, seconds: asyncio.run(hit_in_tasks(url, seconds)),
    "cluster, tasks": lambda url, seconds: asyncio.run(hit_in_tasks(url, seconds)),
    **dict.fromkeys(
        ("serve, terminal", "serve, logging", "serve, workers"),
        lambda port, seconds: asyncio.run(send_requests(int(port), seconds)),
    ),
}
"""The loads by name; each takes the URL of a store or the port of a service, and a number of seconds."""


if __name__ == "__main__":
    warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of forks while threads run: they are the test
    sys.stdout.write(json.dumps(asdict(LOADS[sys.argv[1]](sys.argv[2], float(sys.argv[3])))))
