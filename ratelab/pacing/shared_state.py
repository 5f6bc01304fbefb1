"""State of a pace in Valkey or Redis, for processes that share the limit of a service."""

from __future__ import annotations

import logging
import random
import time
from threading import Lock, Thread
from typing import Any, ClassVar, Protocol
from uuid import uuid4

from ratelab.clock import Clock
from ratelab.errors import InputError, StoreError
from ratelab.pacing.pace import LearnedPace
from ratelab.pacing.state import Action, Result
from ratelab.quota import NS_PER_S
from ratelab.stores.arguments import check_limits
from ratelab.stores.fork import reset_in_children
from ratelab.stores.sleepers import in_event_loop
from ratelab.stores.valkey.connection_pool import ConnectionPools
from ratelab.stores.valkey.error_kinds import classify_error
from ratelab.stores.valkey.resp import encode_command
from ratelab.stores.valkey.script import escape_name, hash_client
from ratelab.stores.valkey.sync_limiter import ValkeyLimiter

RESERVE_AHEAD_NS = NS_PER_S // 10
"""How early a process takes the time of a request from a store, so that processes do not compete for each."""

SHARED_STATE_DEADLINE_S = 0.5
"""The longest time of an exchange with a store: a busy machine may need a good part of it."""

STORE_RETRY_NS = NS_PER_S
"""How long a process paces alone after an error of its store."""

MAX_CONFLICTS = 1000
"""How often other processes may change a state before a change of this one."""

MAX_MISSED = 1000
"""How many lessons are kept for a store that is down."""

STATE_TTL_MS = 86_400_000
"""How long a state is kept after its last change."""

EXCHANGE = """
local stored = redis.call('GET', KEYS[1]) or ''
if stored ~= ARGV[1] then return stored end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return ARGV[2]
"""


_log = logging.getLogger("ratelab")


class PaceStore(Protocol):
    """A store of texts by key."""

    def exchange(self, key: str, expected: str, new: str) -> str:
        """Replace the text of `key` by `new` if it is `expected`, and return the text that it has then.

        A key without a text has an empty one. Raises `StoreError` if the store does not answer.
        """
        ...

    def close(self) -> None:
        """Close the connections that nothing else uses."""
        ...


class SharedState:
    """A pace in a store; while that is down, a copy of this process."""

    ahead: ClassVar[int] = RESERVE_AHEAD_NS
    blocking: ClassVar[bool] = True

    def __init__(self, clock: Clock, store: PaceStore, key: str) -> None:
        self.clock = clock
        self.pace = LearnedPace()
        self._store, self._key = store, key
        self._text = ""
        self._retry_at = 0
        self.reset_after_fork()
        reset_in_children(self)

    def reset_after_fork(self) -> None:
        """Forget the changes that the parent process has yet to make."""
        self._lock, self._later_lock = Lock(), Lock()
        self._later: list[Action[None]] = []
        self._missed: list[Action[None]] = []  # which only `pace` has, as the store was down
        self._worker: Thread | None = None

    def change(self, action: Action[Result]) -> Result:
        """Apply an action to the newest state, and return its result."""
        with self._lock:
            return self._change(self._take_later(), action)

    def learn(self, action: Action[None]) -> None:
        """Apply an action; in an event loop, in another thread, together with others that come meanwhile."""
        in_loop = in_event_loop()
        with self._later_lock:
            self._later.append(action)
            if in_loop and (self._worker is None or not self._worker.is_alive()):  # an exception may have ended it
                self._worker = Thread(target=self._work, name="ratelab-pacing")
                self._worker.start()
        if not in_loop:
            self._learn()

    def _work(self) -> None:
        while True:
            self._learn()
            with self._later_lock:
                if not self._later:
                    self._worker = None
                    return

    def _learn(self) -> None:
        with self._lock:
            actions = self._take_later()
            if actions:
                self._change(actions, lambda *_: None)

    def _take_later(self) -> list[Action[None]]:
        with self._later_lock:
            actions, self._later = self._later, []
        return actions

    def _change(self, learned: list[Action[None]], action: Action[Result]) -> Result:
        """Apply actions, and return the result of the last; without the store, the others are kept for it."""
        if self.clock() >= self._retry_at:
            try:
                result = self._change_stored([*self._missed, *learned], action)
            except StoreError:
                self._retry_at = self.clock() + STORE_RETRY_NS
            else:
                self._missed = []
                return result
        now = self.clock()
        for each in learned:
            each(self.pace, now)
        self._missed = [*self._missed, *learned][:MAX_MISSED]
        return action(self.pace, now)

    def _change_stored(self, learned: list[Action[None]], action: Action[Result]) -> Result:
        for conflicts in range(MAX_CONFLICTS):
            pace, now = _load(self._text or self.pace.dump()), self.clock()  # a store that was emptied learns from us
            for each in learned:
                each(pace, now)
            result, pace.stamp = action(pace, now), uuid4().hex
            text = pace.dump()
            stored = self._store.exchange(self._key, self._text, text)
            self._text = stored
            if stored == text:
                self.pace = pace
                return result
            time.sleep(random.uniform(0, min(conflicts, 10) / 1000))
        raise StoreError("overload", f"other processes change the pace of {self._key} all the time")


def _load(text: str) -> LearnedPace:
    try:
        return LearnedPace.load(text)
    except ValueError:  # of another version
        return LearnedPace()


class ValkeyPaceStore:
    """Texts by key, each replaced only if it has not changed. Keys are hashed before they are sent.

    `store` is a URL, or a `ValkeyLimiter` whose connections are used. An exchange takes at most `deadline` seconds.
    The log reports when the server goes down, and when it is back. Raises `InputError` for an invalid URL, and for a
    cluster.
    """

    def __init__(
        self, store: str | ValkeyLimiter, name: str, deadline: float = SHARED_STATE_DEADLINE_S, connections: int = 4
    ) -> None:
        check_limits(deadline, connections)
        pools = store.pools if isinstance(store, ValkeyLimiter) else ConnectionPools(store, connections)
        if pools.slots.cluster:
            raise InputError("a pacer cannot keep its state in a cluster: use the URL of one server")
        self._pools = pools.add_user(self)
        self._suffix = f":{escape_name(name)}:pace"
        self._deadline = deadline
        self._is_down = False

    def exchange(self, key: str, expected: str, new: str) -> str:
        """Replace the text of `key` as `PaceStore.exchange` does; raise `StoreError` if the store does not answer."""
        command = encode_command(
            "EVAL", EXCHANGE, 1, hash_client(key).decode() + self._suffix, expected, new, STATE_TTL_MS
        )
        try:
            reply = self._pools.find(None).exchange(
                command, time.monotonic() + self._deadline, self._deadline / 4, False, False
            )
        except Exception as error:
            failure = classify_error(error)
            if isinstance(failure, StoreError) and failure.kind != "overload" and not self._is_down:
                self._is_down = True
                reason, meanwhile = " ".join(str(failure).split()), "each process has a pace of its own"
                _log.warning("the store of a pacer is down (%s: %s); meanwhile, %s", failure.kind, reason, meanwhile)
            raise failure from error
        if self._is_down:
            self._is_down = False
            _log.warning("the store of a pacer is back; its processes share a pace")
        return bytes(reply).decode()

    def close(self) -> None:
        """Close every connection that is not in use, unless a limiter may use them."""
        self._pools.remove_user(self)


def open_store(store: Any, name: str) -> PaceStore:
    """Return a store of the user, or that of a URL or a `ValkeyLimiter`."""
    return store if hasattr(store, "exchange") else ValkeyPaceStore(store, name)
