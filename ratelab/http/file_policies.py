"""The policies of a file in the middleware: plans by the keys of clients, and changes while requests are served."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic

from ratelab.errors import InputError
from ratelab.http.identity import Identity
from ratelab.policies.policy_file import PolicyFile, read_policies
from ratelab.stores.plans import Plans

CHECK_INTERVAL_S = 1.0
"""Seconds between two checks for a change of the file, at least."""

Stamp = tuple[int, int, int] | None
"""The number, size and time of change of a file; None if there is none."""

_log = logging.getLogger("ratelab.http")


class WatchedPolicyFile:
    """A policy file, and the file of plans that it names, which are read again after a change.

    It may be written in place or replaced. Raise `InputError` for an invalid file.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._files: tuple[str, ...] = (path,)
        self._stamps = _stamp(self._files)
        self.content = self._read(self._stamps)
        """The content of the last valid file."""

    def read_changed(self, force: bool = False) -> PolicyFile | None:
        """Return the new content if a file has changed, else None; with `force`, read it in any case.

        Raises `InputError`, once for each change, if the new file is invalid.
        """
        stamps = _stamp(self._files)
        if stamps == self._stamps and not force:
            return None
        self.content = self._read(stamps)
        return self.content

    def _read(self, stamps: list[Stamp]) -> PolicyFile:
        """Read the files, of which `stamps` were taken before, so that no later change is missed."""
        self._stamps = stamps
        content = read_policies(self.path)
        if content.files != self._files:
            self._files, self._stamps = content.files, [stamps[0], *_stamp(content.files[1:])]
        return content


def _stamp(paths: Sequence[str]) -> list[Stamp]:
    stamps: list[Stamp] = []
    for path in paths:
        try:
            status = Path(path).stat()
        except OSError:
            stamps.append(None)
        else:
            stamps.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return stamps


class FilePolicies:
    """The policies of a file, which may change while they are in force.

    If the file is `watched`, requests check it, at most every `CHECK_INTERVAL_S`. Raise `InputError` for an invalid
    file.
    """

    def __init__(self, path: str, watched: bool = False) -> None:
        self._file = WatchedPolicyFile(path)
        self._watched = watched
        self._next_check = monotonic() + CHECK_INTERVAL_S

    @property
    def content(self) -> PolicyFile:
        """The content of the last valid file."""
        return self._file.content

    @property
    def account(self) -> str | None:
        """The `account` of the middleware: the header that names the account of a request."""
        return None if self.content.account_header is None else f"header:{self.content.account_header}"

    @property
    def plan(self) -> str | Mapping[str, str] | None:
        """The `plan` of the middleware: the header that names the plan of a request, or the plans of clients."""
        return self.content.plan_of if self.content.plan_header is None else f"header:{self.content.plan_header}"

    def find_plans(self, identity: Identity) -> Plans:
        """Return the policies, plans and overrides; the latter by the keys of clients."""
        content = self.content
        overrides = {identity.key_of(client): changed for client, changed in content.overrides.items()}
        return Plans.of(content.policies, content.plans, overrides)

    def poll(self) -> bool:
        """Return whether a watched file is due for a check."""
        now = monotonic()
        if not self._watched or now < self._next_check:
            return False
        self._next_check = now + CHECK_INTERVAL_S
        return True

    def reload(self, update: Callable[[], None], force: bool = False) -> bool:
        """Read the file again if it has changed, and call `update`; return whether that succeeded.

        With `force`, read it in any case. An invalid file is logged, and the policies stay in force.
        """
        try:
            if self._file.read_changed(force) is None:
                return False
            update()
        except InputError as error:
            _log.warning("%s; the previous policies stay in force", error)
            return False
        return True
