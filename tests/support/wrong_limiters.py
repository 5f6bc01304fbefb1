"""Limiters with one mistake each: the judge must find it, under the promise that it breaks."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator
from time import monotonic
from typing import Any

from right_limiters import Answer, Hit, TokenBuckets, Turns, Windows


def make(kind: type[TokenBuckets]) -> Callable[[int, float, int], Hit]:
    def factory(limit: int, period: float, burst: int) -> Hit:
        return kind(limit, period, burst).hit

    return factory


# --- bound


def window_of_one_more(limit: int, period: float, burst: int) -> Hit:
    return Windows(limit + 1, period, is_aligned=True).hit


class Uncapped(TokenBuckets):
    def refill(self, tokens: float, elapsed: float) -> float:
        return tokens + max(0.0, elapsed) * self.rate


uncapped_bucket = make(Uncapped)


class TooFast(TokenBuckets):
    def refill(self, tokens: float, elapsed: float) -> float:
        return super().refill(tokens, 3 * elapsed)


fast_bucket = make(TooFast)


# --- due


class WholeTokens(TokenBuckets):
    """Refills whole tokens, and forgets the rest of the time."""

    def refill(self, tokens: float, elapsed: float) -> float:
        return super().refill(tokens, int(elapsed * self.rate) / self.rate)


whole_token_bucket = make(WholeTokens)


class SlowRefill(TokenBuckets):
    def refill(self, tokens: float, elapsed: float) -> float:
        return super().refill(tokens, elapsed / 2)


slow_bucket = make(SlowRefill)


class NoFirstToken(TokenBuckets):
    def __init__(self, limit: int, period: float, burst: int) -> None:
        super().__init__(limit, period, burst - 1)


small_bucket = make(NoFirstToken)


class OneForAll(TokenBuckets):
    """Ignores the key."""

    def hit(self, key: str, cost: int = 1) -> Answer:
        return super().hit("all")


class Colliding(TokenBuckets):
    """Counts keys with equal hashes together."""

    def hit(self, key: str, cost: int = 1) -> Answer:
        return super().hit(str(hash(key) % 64))


shared_bucket = make(OneForAll)
colliding_bucket = make(Colliding)


# --- wait


class EarlyWait(TokenBuckets):
    def wait(self, tokens: float) -> float:
        return max(0.0, (1 - tokens) / self.rate - 0.001)


early_wait = make(EarlyWait)


class TruncatedWait(TokenBuckets):
    def wait(self, tokens: float) -> float:
        return int((1 - tokens) / self.rate)


truncated_wait = make(TruncatedWait)


class DoubleWait(TokenBuckets):
    def wait(self, tokens: float) -> float:
        return 2 * (1 - tokens) / self.rate


double_wait = make(DoubleWait)


class WaitUntilFull(TokenBuckets):
    def wait(self, tokens: float) -> float:
        return (self.burst - tokens) / self.rate


wait_until_full = make(WaitUntilFull)


# --- retrying


def log_of_denied(limit: int, period: float, burst: int) -> Hit:
    """Log denied requests, too."""
    logs: dict[str, deque[float]] = {}
    lock = threading.Lock()

    def hit(key: str, cost: int = 1) -> Answer:
        with lock:
            now = monotonic()
            for idle in (
                [name for name, log in logs.items() if log[-1] <= now - period] if len(logs) % 5000 == 0 else []
            ):
                del logs[idle]
            log = logs.setdefault(key, deque())
            while log and log[0] <= now - period:
                log.popleft()
            log.append(now)
            return len(log) <= limit, None

    return hit


class ChargesDenied(TokenBuckets):
    def hit(self, key: str, cost: int = 1) -> Answer:
        answer = super().hit(key)
        if not answer[0]:
            tokens, last = self.states[key]
            self.states[key] = tokens - 1, last
        return answer[0], None


charging_bucket = make(ChargesDenied)


# --- flood


class Forgetful(TokenBuckets):
    """Keeps the 1,000 latest keys."""

    def sweep(self, now: float) -> None:
        while len(self.states) > 1000:
            del self.states[next(iter(self.states))]


lru_bucket = make(Forgetful)


class Unbounded(TokenBuckets):
    def sweep(self, now: float) -> None:
        pass


unbounded_bucket = make(Unbounded)


# --- clock


class Locked(TokenBuckets):
    """Takes tokens for time that goes back."""

    clock = staticmethod(time.time)

    def refill(self, tokens: float, elapsed: float) -> float:
        return min(self.burst, tokens + elapsed * self.rate)


locked_bucket = make(Locked)


class Granting(TokenBuckets):
    clock = staticmethod(time.time)

    def refill(self, tokens: float, elapsed: float) -> float:
        return min(self.burst, tokens + abs(elapsed) * self.rate)


granting_bucket = make(Granting)


def wall_window(limit: int, period: float, burst: int) -> Hit:
    """Count a window that begins earlier as a new one."""
    counts: dict[str, tuple[float, int]] = {}
    lock = threading.Lock()

    def hit(key: str, cost: int = 1) -> Answer:
        with lock:
            now = time.time()
            index = now // period
            for idle in [name for name, state in counts.items() if state[0] < index] if len(counts) % 5000 == 0 else []:
                del counts[idle]
            latest, used = counts.get(key, (index, 0))
            used = used if latest == index else 0
            counts[key] = index, used + (used < limit)
            return used < limit, (index + 1) * period - now

    return hit


# --- threads


class NoLock:
    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


class Racing(TokenBuckets):
    def __init__(self, limit: int, period: float, burst: int) -> None:
        super().__init__(limit, period, burst)
        self.lock: Any = NoLock()


racing_bucket = make(Racing)


class SharedSemaphore(TokenBuckets):
    """Lets two threads in at once."""

    def __init__(self, limit: int, period: float, burst: int) -> None:
        super().__init__(limit, period, burst)
        self.lock: Any = threading.Semaphore(2)


shared_semaphore = make(SharedSemaphore)


class Silent(Turns):
    """Wakes no waiter."""

    def __exit__(self, *_: object) -> None:
        self.is_taken = False


class LostNotification(TokenBuckets):
    def __init__(self, limit: int, period: float, burst: int) -> None:
        super().__init__(limit, period, burst)
        self.lock: Any = Silent()


lost_notification = make(LostNotification)


def racing_tasks(limit: int, period: float, burst: int) -> Callable[[str], Awaitable[Answer]]:
    buckets = TokenBuckets(limit, period, burst)

    async def hit(key: str, cost: int = 1) -> Answer:
        now = monotonic()
        tokens, last = buckets.states.get(key, (float(burst), now))
        await asyncio.sleep(0)
        tokens = buckets.refill(tokens, now - last)
        buckets.states[key] = tokens - (tokens >= 1), now
        buckets.sweep(now)
        return tokens >= 1, None

    return hit


# --- several


class OneAfterTheOther:
    def __call__(self, limit: int, period: float, burst: int) -> Hit:
        return TokenBuckets(limit, period, burst).hit

    def several(self, limits: list[tuple[int, float, int]]) -> Hit:
        buckets = [TokenBuckets(*each) for each in limits]
        return lambda key: (all([each.hit(key)[0] for each in buckets]), None)  # noqa: C419  (charges all)


one_after_the_other: Any = OneAfterTheOther()


class StopsAtTheFirst(OneAfterTheOther):
    def several(self, limits: list[tuple[int, float, int]]) -> Hit:
        buckets = [TokenBuckets(*each) for each in limits]
        return lambda key: (all(each.hit(key)[0] for each in buckets), None)


stops_at_the_first: Any = StopsAtTheFirst()


# --- no time


def denying(limit: int, period: float, burst: int) -> Hit:
    return lambda key: (False, 1.0)


def never_again(limit: int, period: float, burst: int) -> Hit:
    """Grant the quota once."""
    used: Counter[str] = Counter()

    def hit(key: str, cost: int = 1) -> Answer:
        used[key] += 1
        return used[key] <= limit, 1.0

    return hit


# --- faults of adapters


def raising(limit: int, period: float, burst: int) -> Hit:
    def hit(key: str) -> Answer:
        raise ZeroDivisionError("no limit")

    return hit


def hanging(limit: int, period: float, burst: int) -> Hit:
    def hit(key: str) -> Answer:
        while True:
            pass

    return hit


def deadlocked(limit: int, period: float, burst: int) -> Hit:
    lock = threading.Lock()

    def hit(key: str) -> Answer:
        lock.acquire()
        return True, None

    return hit


def sleeping(limit: int, period: float, burst: int) -> Hit:
    import select

    def hit(key: str) -> Answer:
        select.select([], [], [], 0.5)
        return True, None

    return hit


def with_timer(limit: int, period: float, burst: int) -> Hit:
    buckets = TokenBuckets(limit, period, burst)
    timer = threading.Timer(period, buckets.states.clear)
    timer.daemon = True
    timer.start()
    return buckets.hit


def with_thread(limit: int, period: float, burst: int) -> Hit:
    def refill() -> None:
        while True:
            time.sleep(1)

    threading.Thread(target=refill, daemon=True).start()
    return TokenBuckets(limit, period, burst).hit


def generator(limit: int, period: float, burst: int) -> Iterator[Answer]:
    yield True, None


class WrongBound:
    def __call__(self, limit: int, period: float, burst: int) -> Hit:
        return TokenBuckets(limit, period, burst).hit

    def bound(self, limit: int, period: float, burst: int, window: float) -> None:
        return None


wrong_bound = WrongBound()


def wrong_answer(limit: int, period: float, burst: int) -> Callable[[str], bool]:
    return lambda key: True


def exiting(limit: int, period: float, burst: int) -> Hit:
    import os

    def hit(key: str) -> Answer:
        os._exit(7)

    return hit
