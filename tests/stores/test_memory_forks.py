"""Limiters in memory work in a forked process, whenever it was forked, and refuse to be copied to another."""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread, get_ident

import pytest

from ratelab import Clock, MemoryLimiter, Policy, create
from ratelab.stores.recording import RecordingLimiter
from ratelab.stores.valkey import AsyncValkeyLimiter, ValkeyLimiter

Limiter = MemoryLimiter | RecordingLimiter


def record(policy: Policy, clock: Clock) -> RecordingLimiter:
    return RecordingLimiter(policy, io.StringIO(), clock)


class Pause:
    """A clock that stops in the thread `busy`."""

    def __init__(self) -> None:
        self.busy: Thread | None = None
        self.stopped, self.resume = Event(), Event()

    def __call__(self) -> int:
        if self.busy is not None and self.busy.ident == get_ident():
            self.stopped.set()
            self.resume.wait()
        return 0


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("key", ["known", "new"])
@pytest.mark.parametrize("make", [MemoryLimiter, record], ids=["memory", "recording"])
def test_a_child_forked_during_a_hit_can_hit_at_once(make: Callable[..., Limiter], key: str) -> None:
    clock = Pause()
    limiter = make(create("token-bucket", "2/day"), clock=clock)
    limiter.hit("known")
    clock.busy = Thread(target=limiter.hit, args=(key,))
    clock.busy.start()
    clock.stopped.wait()
    child = os.fork()
    if child == 0:
        signal.alarm(30)  # ends the child if a hit waits
        allowed = [limiter.hit(name).allowed for name in ("known", "known", "new", "new", "new")]
        os._exit(0 if allowed == [True, False, True, True, False] else 1)
    clock.resume.set()
    clock.busy.join()
    assert os.waitpid(child, 0)[1] == 0
    assert limiter.hit(key).allowed == (key == "new")


LIMITERS: list[Callable[[], object]] = [
    lambda: MemoryLimiter(create("token-bucket", "2/s")),
    lambda: record(create("token-bucket", "2/s"), lambda: 0),
    lambda: ValkeyLimiter("valkey://127.0.0.1:1", "token-bucket", "2/s"),
    lambda: AsyncValkeyLimiter("valkey://127.0.0.1:1", "token-bucket", "2/s"),
]


@pytest.mark.parametrize("make", LIMITERS)
@pytest.mark.parametrize("transfer", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_limiter_cannot_be_pickled_or_copied(
    make: Callable[[], object], transfer: Callable[[object], object]
) -> None:
    limiter = make()
    with pytest.raises(TypeError, match=rf"a {type(limiter).__name__} cannot be pickled or copied: create one in each"):
        transfer(limiter)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_leaves_the_recording_to_its_parent(tmp_path: Path) -> None:
    path = tmp_path / "live.jsonl"
    with path.open("x") as file:
        limiter = RecordingLimiter(create("token-bucket", "2/day"), file)
        limiter.hit("parent")
        child = os.fork()
        if child == 0:
            limiter.hit("child")
            file.flush()  # as at the end of a process
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        limiter.hit("parent")
    lines = path.read_text().splitlines()
    assert ["child" in line for line in lines] == [False] * 3
    assert [*map(json.loads, lines)][2]["remaining"] == 0


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_keeps_a_standard_output_that_is_recorded_to() -> None:
    with open(1, "w", closefd=False) as file:
        limiter = RecordingLimiter(create("token-bucket", "2/day"), file)
        file.flush()
        before = os.fstat(1)
        child = os.fork()
        if child == 0:
            limiter.hit("child")
            os._exit(0 if os.path.samestat(os.fstat(1), before) else 1)
        assert os.waitpid(child, 0)[1] == 0
