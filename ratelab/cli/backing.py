"""Where `ratelab serve` keeps what clients have used: in this process, or in a store that others share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

from ratelab.errors import InputError

if TYPE_CHECKING:
    from ratelab.http.identity import Identity
    from ratelab.http.service import Service
    from ratelab.limiter import Algorithm
    from ratelab.quota import Quota


class Backing(NamedTuple):
    """What a service stands on, ready to be used."""

    service: Callable[[Identity, str], Service]
    """Makes the service, in the process that is to run it, of an identity and a style of legacy headers."""
    described: dict[str, str]
    """What there is to know of it, by label."""
    warning: str | None = None
    """What is not as it should be from the start."""
    look: Callable[[], str | None] = lambda: None
    """Sees every second that it is as it should be, and returns what there is to say if it was not."""


def in_memory(algorithm: Algorithm, quota: Quota, max_keys: int, record: str | None, closing: ExitStack) -> Backing:
    """Keep everything in this process, and write it to the new file `record` if there is to be one."""
    from ratelab.http.service import Service
    from ratelab.stores.memory import MemoryLimiter
    from ratelab.stores.recording import RecordingLimiter

    if record is None:
        limiter = MemoryLimiter(algorithm, max_keys=max_keys)
        return Backing(lambda identity, legacy: Service(limiter, identity, legacy), {})
    recording = RecordingLimiter(algorithm, quota, _new_file(record), max_keys=max_keys)
    closing.callback(recording.close)
    return Backing(lambda identity, legacy: Service(recording, identity, legacy), {})


def in_store(
    store: str, on_error: str, deadline: float, algorithm: str, quota: Quota, max_keys: int, closing: ExitStack
) -> Backing:
    """Keep everything in a store: that of a URL, or an `embedded` one that is started here and ended by `closing`.

    `deadline` is in seconds.
    """
    from ratelab.cli.serve.backend import Shared
    from ratelab.stores.embedded import Keeper

    url = "unix:///nowhere" if store == "embedded" else store  # until all else is known to be right
    shared = Shared(url, on_error, deadline, max_keys, algorithm, quota)
    shared.limiter()
    if store != "embedded":
        return Backing(shared.service, shared.described(private=False), shared.silence())
    keeper = closing.enter_context(Keeper())
    shared = shared._replace(url=keeper.url)
    return Backing(shared.service, shared.described(private=True), shared.silence(), keeper.look)


def _new_file(name: str) -> IO[str]:
    if name == "":
        raise InputError("the name of the file to record to is empty: name a new file, or leave out --record")
    try:
        return Path(name).open("x", encoding="utf-8")
    except FileExistsError:
        raise InputError(f"{name} exists, and a recording is not written over: name a new file") from None
    except (OSError, ValueError) as error:
        reason = isinstance(error, OSError) and error.strerror
        raise InputError(f"cannot write {name}: {reason or error}") from None
