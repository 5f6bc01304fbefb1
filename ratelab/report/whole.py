"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO

from ratelab.errors import InputError


def check_writable(path: str) -> None:
    """Raise `InputError` unless a file could be written at `path`; nothing is left there."""
    target = Path(path)
    with _telling(path):
        with suppress(FileNotFoundError, NotADirectoryError):
            target.stat()  # since Python 3.14, `is_dir` does not raise for a name that is too long
        if target.is_dir():
            raise InputError(f"cannot write {path}: it is a directory; name a file in it")
        if not target.parent.is_dir():
            raise InputError(f"cannot write {path}: there is no directory {target.parent}")
        if target.exists() and not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, "permission denied")
        if _replaceable(target):
            NamedTemporaryFile(dir=target.parent).close()


def write_text(path: str, write: Callable[[IO[str]], None]) -> None:
    """Do as `write_whole` with a file of text."""

    def encoded(file: IO[bytes]) -> None:
        text = TextIOWrapper(file, encoding="utf-8", newline="")
        write(text)
        text.detach()

    write_whole(path, encoded)


def write_whole(path: str, write: Callable[[IO[bytes]], object]) -> None:
    """Write beside `path` and move into place, so that nobody ever sees half a file."""
    target = Path(path)
    with _telling(path), ExitStack() as cleanup:
        if not _replaceable(target):
            write(cleanup.enter_context(target.open("wb")))
            return
        target = Path(os.path.realpath(target))  # what a link leads to, not the link
        file = cleanup.enter_context(NamedTemporaryFile(dir=target.parent, prefix=".ratelab-", delete=False))
        cleanup.callback(Path(file.name).unlink, missing_ok=True)
        write(file)
        file.close()
        Path(file.name).chmod(0o666 & ~_umask())
        Path(file.name).replace(target)


def _replaceable(target: Path) -> bool:
    """Say whether `target` is or would be a plain file; /dev/stdout and the like are written to as they are."""
    return target.is_file() or not target.exists()


@contextmanager
def _telling(path: str) -> Iterator[None]:
    """Tell what the system refuses as what it is to the user: a path that cannot be written.

    A reader who has gone, of /dev/stdout and the like, has had enough: that is let through.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
