"""Files on local paths and in object stores, through the file systems of pyarrow and, for HTTP, fsspec."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from pyarrow import ArrowException, PythonFile
from pyarrow import fs as arrow_fs

from ratelab.errors import InputError, ResourceError, format_reason, install_hint

FileSystem: TypeAlias = Any
"""A file system of pyarrow, which has no type annotations."""

BUCKET_SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss")
"""Schemes of URIs of object stores, to which files can be written."""

GOOGLE_RETRY_S = 30
"""The time for which requests to Google Cloud Storage are repeated, also without credentials; by default 15 minutes."""


def locate(path: str) -> tuple[FileSystem, str]:
    """Return the file system of a path or URI, and the name of the file in it."""
    scheme, separator, rest = path.partition("://")
    if not separator:
        return arrow_fs.LocalFileSystem(), str(Path(path).absolute())
    if scheme in ("http", "https"):
        return _create_http(scheme), path
    root, _, name = rest.partition("/")
    if scheme == "s3":
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    else:
        endpoint, region = os.environ.get("STORAGE_EMULATOR_HOST"), None
    system, base = _create_system(scheme, root, endpoint, region)
    return system, f"{base.rstrip('/')}/{name}"


def make_absolute(path: str) -> str:
    """Return the path or URI of a folder that is the same in other processes, without a slash at its end.

    Raises `InputError` for an empty path, and for a URI that is not that of a bucket.
    """
    scheme, separator, rest = path.partition("://")
    if path and not separator:
        return str(Path(path).absolute())
    if scheme not in BUCKET_SCHEMES or not rest.strip("/"):
        raise InputError(
            f"the exchange must be a folder or a bucket such as s3://bucket/folder, got {path or repr(path)}: name one"
        )
    return path.rstrip("/")


@lru_cache(maxsize=16)
def _create_system(scheme: str, root: str, endpoint: str | None, region: str | None) -> tuple[FileSystem, str]:
    """Create the file system of a bucket or container; credentials are those of the environment."""
    if scheme == "s3" and (endpoint or region):
        return arrow_fs.S3FileSystem(endpoint_override=endpoint, region=region), root
    if scheme in ("gs", "gcs"):
        emulator: dict[str, Any] = {}
        if endpoint:
            emulator = {"anonymous": True, "scheme": "http", "endpoint_override": endpoint.removeprefix("http://")}
        return arrow_fs.GcsFileSystem(retry_time_limit=timedelta(seconds=GOOGLE_RETRY_S), **emulator), root
    system, base = arrow_fs.FileSystem.from_uri(f"{scheme}://{root}")
    return system, base


@lru_cache(maxsize=2)
def _create_http(scheme: str) -> FileSystem:
    if find_spec("fsspec") is None or find_spec("aiohttp") is None:
        raise InputError(f"reading {scheme}:// needs fsspec and aiohttp: {install_hint('dask')}")
    import fsspec

    return arrow_fs.PyFileSystem(arrow_fs.FSSpecHandler(fsspec.filesystem(scheme)))


def open_file(path: str) -> BinaryIO:
    """Open a remote file to read.

    Raises `FileNotFoundError`; this and reading raise `ResourceError` if the store does not answer or denies access.
    """
    with _report_failures(path):
        system, name = locate(path)
        return _RemoteFile(path, system.open_input_file(name))  # type: ignore[return-value]


class _RemoteFile:
    """A remote file whose errors state the remedy."""

    def __init__(self, path: str, source: Any) -> None:
        self._path, self._source = path, source

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def __enter__(self) -> _RemoteFile:
        return self

    def __exit__(self, *_error: object) -> None:
        self._source.close()

    def read(self, size: int | None = None) -> bytes:
        """Read at most `size` bytes."""
        with _report_failures(self._path):
            data: bytes = self._source.read(size)
        return data


def open_for_arrow(path: str) -> PythonFile:
    """Open a remote file for readers of pyarrow, as `open_file` does."""
    return PythonFile(open_file(path), mode="r")


def get_status(path: str) -> tuple[int, int]:
    """Return the bytes of a file and the nanoseconds since 1970 when it was changed, 0 if unknown.

    Raises `FileNotFoundError`, and `ResourceError` as `open_file` does.
    """
    with _report_failures(path):
        system, name = locate(path)
        (info,) = system.get_file_info([name])
        if info.type == arrow_fs.FileType.NotFound:
            raise FileNotFoundError
    return int(info.size or 0), int(info.mtime_ns or 0)


@contextmanager
def _report_failures(path: str) -> Iterator[None]:
    """Raise `ResourceError` unless a remote file does not exist: of several logs, none may be left out then."""
    try:
        with translate_errors():
            yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ResourceError(
            f"{path} cannot be read ({format_reason(error)}): check address and credentials, then run the command again"
        ) from None


@contextmanager
def translate_errors() -> Iterator[None]:
    """Raise `OSError` with a short reason for the errors of pyarrow and fsspec."""
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(2, "No such file or directory") from None
    except OSError as error:
        if error.errno is not None:
            raise OSError(error.errno, os.strerror(error.errno)) from None
        raise OSError(None, _shorten(error)) from None
    except Exception as error:
        if not isinstance(error, ArrowException) and not type(error).__module__.startswith("aiohttp."):
            raise
        raise OSError(None, _shorten(error)) from None


def _shorten(error: BaseException) -> str:
    """Return the reason of an error without the names that the message has elsewhere."""
    text = str(error).partition("\n")[0].partition("; Details: ")[0]
    return re.sub(r"^.*?(?=AWS Error )|: No response body\.$", "", text)[:200]


def match_paths(pattern: str) -> list[str]:
    """Return the remote files that match a pattern, sorted; `*` and `?` match within a folder, `**` across folders."""
    scheme, _, rest = pattern.partition("://")
    if scheme in ("http", "https"):
        raise InputError(f"patterns do not work with {scheme}://, got {pattern}: name each file")
    folder = re.split(r"[*?\[]", rest, maxsplit=1)[0].rpartition("/")[0]
    system, base = locate(f"{scheme}://{folder}" if "/" in folder else f"{scheme}://{folder}/")
    _, top = locate(f"{scheme}://{rest.partition('/')[0]}/")
    matches = re.compile(_translate_pattern(rest.partition("/")[2])).fullmatch
    selector = arrow_fs.FileSelector(base.rstrip("/"), allow_not_found=True, recursive=True)
    with translate_errors():
        names = [info.path for info in system.get_file_info(selector) if info.type == arrow_fs.FileType.File]
    root = rest.partition("/")[0]
    found = (name.removeprefix(top) for name in names)
    return sorted(f"{scheme}://{root}/{name}" for name in found if matches(name))


def _translate_pattern(pattern: str) -> str:
    """Return the regular expression of a pattern of paths."""
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    pieces = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]+\])", pattern)
    return "".join(parts.get(piece) or (piece if piece.startswith("[") else re.escape(piece)) for piece in pieces)
