"""Judge of rate limiters: nine promises of any limiter, checked on a fake clock in a process of its own.

A candidate is a factory: `FACTORY(limit, period, burst)` returns `hit(key)`, which returns `(allowed, retry_after)`.
The page `judge` of the manual describes it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from platform import python_version
from queue import Empty, Queue
from threading import Thread
from typing import Any, NamedTuple

import ratelab
from ratelab.algorithms import ALGORITHMS
from ratelab.errors import InputError, short_repr

PROMISES = {
    "bound": "never admits more than its bound in any window",
    "due": "grants the quota that is due",
    "wait": "announces a wait that suffices and is tight",
    "retrying": "lets a client in again that keeps retrying",
    "flood": "keeps exhausted keys and bounded memory in a flood of names",
    "clock": "neither locks out nor grants extra when the clock is set back",
    "threads": "decides hits of threads and tasks exactly",
    "several": "charges two limits both or neither",
    "store": "neither fails open nor charges twice when its store fails",
}
"""The promises by name, in the order of a report."""

BUILT_IN_TARGETS = tuple(ALGORITHMS)
"""Targets that are built-in algorithms."""

HANG_S = 5.0
"""Real seconds after which a call of the candidate counts as hung."""

HANG_AGAIN_S = 1.0
"""The same for a candidate that has hung before."""

SILENCE_S = 120.0
"""Real seconds after which a process that reports nothing is ended."""


class Promise(NamedTuple):
    """A promise and whether the candidate keeps it."""

    name: str
    kept: bool | None
    """None if the promise does not apply to the candidate, or cannot be measured; `reason` states why."""
    figures: dict[str, Any]
    timeline: list[dict[str, Any]]
    """The shortest failing timeline that was found, as rows; empty unless the promise is broken."""
    reason: str | None


class Judgement(NamedTuple):
    """The promises of a candidate."""

    target: str
    promises: tuple[Promise, ...]
    versions: dict[str, str]

    @property
    def is_broken(self) -> bool:
        """Whether any promise is broken."""
        return any(promise.kept is False for promise in self.promises)

    def as_object(self) -> dict[str, Any]:
        """Return the object that `ratelab judge --json` prints."""
        return {**self._asdict(), "promises": [promise._asdict() for promise in self.promises]}


def judge(
    target: str,
    promises: Sequence[str] | None = None,
    *,
    on_store: bool = False,
    progress: Callable[[str], object] = lambda _: None,
) -> Judgement:
    """Judge the candidate `MODULE:FACTORY`, `path/to/file.py:FACTORY`, or the name of a built-in algorithm.

    `promises` are those to check, all by default. With `on_store`, all of them are checked on the limiters that
    `FACTORY.store` returns. `progress` is called with the name of each promise when its check begins. Raises
    `InputError` for an invalid target or promise. A candidate that raises, hangs or sleeps is reported in the result.
    """
    names = check_promises(promises)
    factory = find_factory(target)
    results: dict[str, Promise] = {}
    hang_s = HANG_S
    while rest := [name for name in names if name not in results]:
        current = None
        request = {"factory": factory, "promises": rest, "on_store": on_store, "hang_s": hang_s}
        for message in _run_worker(request):
            if "started" in message:
                current = message["started"]
                progress(current)
            elif "name" in message:
                results[message["name"]] = _make_promise(message)
            elif "hung" in message and current is not None:
                reason = f"{message['hung']} hangs: it has not returned within {hang_s:g} s"
                hang_s = HANG_AGAIN_S
                results[current] = Promise(current, False, {}, [], reason)
            elif "ended" in message and current is not None and current not in results:
                results[current] = Promise(current, False, {}, [], f"ended its process with status {message['ended']}")
            elif "crash" in message:
                raise RuntimeError(message["crash"])
            elif message.keys() & {"bad_target", "hung", "ended"} and current is None:
                raise InputError(_describe_bad_target(target, message))
    versions = {"python": python_version(), "ratelab": ratelab.__version__}
    return Judgement(target, tuple(results[name] for name in names), versions)


def check_promises(promises: Sequence[str] | None) -> list[str]:
    """Return the names of promises in the order of a report, all by default; raise `InputError` for another name."""
    for name in promises or ():
        if name not in PROMISES:
            near = get_close_matches(name, PROMISES, 1)
            hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(PROMISES)}"
            raise InputError(f"unknown promise {short_repr(name)}: {hint}")
    return [name for name in PROMISES if not promises or name in promises]


def find_factory(target: str) -> str:
    """Return the factory of a target as `MODULE:FACTORY` or `FILE.py:FACTORY`; raise `InputError` for other text."""
    if target in BUILT_IN_TARGETS:
        return f"ratelab.judge.built_in:{target.replace('-', '_')}"
    place, _, name = target.rpartition(":")
    if not place or not all(part.isidentifier() for part in name.split(".")):
        near = get_close_matches(target, BUILT_IN_TARGETS, 1)
        hint = f"did you mean {near[0]}?" if near else f"name a function, or one of {', '.join(BUILT_IN_TARGETS)}"
        raise InputError(f"a target must be MODULE:FACTORY or FILE.py:FACTORY, got {short_repr(target)}: {hint}")
    if not place.endswith(".py") and not all(part.isidentifier() for part in place.split(".")):
        raise InputError(f"no module can have the name {short_repr(place)}: give MODULE:FACTORY or FILE.py:FACTORY")
    return target


def _make_promise(message: dict[str, Any]) -> Promise:
    kept = message["kept"]
    timeline = message["timeline"] if kept is False else []
    return Promise(message["name"], kept, message["figures"], timeline, message["reason"])


def _describe_bad_target(target: str, message: dict[str, Any]) -> str:
    if "bad_target" in message:
        return str(message["bad_target"])
    if "hung" in message:
        return f"the import of {target} has not ended within {HANG_S:g} s: move its work into the factory"
    return f"the import of {target} ended its process with status {message['ended']}: run it alone to see why"


def _run_worker(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the messages of a process that checks promises; the last one is `ended` if it ended too early."""
    with _start_worker() as process:
        assert process.stdin is not None  # noqa: S101  (a pipe)
        process.stdin.write(json.dumps(request).encode())
        process.stdin.close()
        lines: Queue[bytes] = Queue()
        reader = Thread(target=_read_lines, args=(process, lines), daemon=True)
        reader.start()
        done = 0
        while True:
            try:
                line = lines.get(timeout=SILENCE_S)
            except Empty:
                yield {"hung": "a hit"}
                return
            if not line:
                break
            message: dict[str, Any] = json.loads(line)
            yield message
            if message.keys() & {"bad_target", "hung", "crash"}:
                return
            done += "name" in message
        if done < len(request["promises"]):
            yield {"ended": process.wait()}


def _read_lines(process: subprocess.Popen[bytes], lines: Queue[bytes]) -> None:
    assert process.stdout is not None  # noqa: S101  (a pipe)
    for line in process.stdout:
        lines.put(line)
    lines.put(b"")


@contextmanager
def _start_worker() -> Iterator[subprocess.Popen[bytes]]:
    """Start the process of a candidate, which has the search path of this one, and end it with the block."""
    path, folder = [entry for entry in sys.path if entry], os.getcwd()  # noqa: PTH109  (text, as in sys.path)
    code = f"import sys; sys.path[:] = {path!r}; from ratelab.judge.worker import main; main({folder!r})"
    variables = {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "TZ": "UTC"}
    process = subprocess.Popen(  # noqa: S603  (this package)
        [sys.executable, "-P", "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **variables},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
