"""Operations on columns of text, and Parquet and zstd files, by the library `pyarrow`."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ratelab.errors import InputError
from ratelab.lab.spill import Integers

ArrowArray: TypeAlias = Any
"""An Arrow array; pyarrow has no type annotations."""

StringArray: TypeAlias = Any
"""An Arrow array of strings."""

FieldTree = dict[str, Any]
"""The fields to read from objects: each name has the kind `text`, `number`, `integer` or `nothing`, or a subtree."""


# --- columns of text


def split_lines(text: bytes, newlines: Integers) -> StringArray:
    """Return the lines of UTF-8 text, each with its newline, except the last, given the places of the newlines."""
    offsets = np.empty(len(newlines) + 2, np.int32)
    offsets[0], offsets[-1] = 0, len(text)
    np.add(newlines, 1, out=offsets[1:-1], casting="same_kind")
    return pa.StringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(text))


def get_bytes(lines: StringArray) -> NDArray[np.uint8]:
    """Return the bytes of all lines."""
    _, offsets, data = lines.buffers()
    bounds = np.frombuffer(offsets, np.int32)[lines.offset : lines.offset + len(lines) + 1]
    return np.frombuffer(data, np.uint8)[bounds[0] : bounds[-1]] if data is not None else np.empty(0, np.uint8)


def count_bytes(texts: StringArray) -> Integers:
    """Return the length of each text in bytes."""
    lengths: Integers = pc.binary_length(texts).to_numpy().astype(np.int64)
    return lengths


def match(texts: StringArray, pattern: str) -> NDArray[np.bool_]:
    """Return in which texts a pattern matches somewhere."""
    is_match: NDArray[np.bool_] = pc.match_substring_regex(texts, pattern).to_numpy(zero_copy_only=False)
    return is_match


def contains(texts: StringArray, word: str) -> bool:
    """Return whether the texts, joined, contain a word. RE2 searches one text for its first letter."""
    data = pa.py_buffer(get_bytes(texts))
    joined = pa.StringArray.from_buffers(1, pa.py_buffer(np.array([0, data.size], np.int32)), data)
    return bool(pc.match_substring_regex(joined, word)[0].as_py())


def check_pattern(pattern: str) -> None:
    """Raise `InputError` for a pattern that RE2 rejects."""
    try:
        pc.extract_regex(pa.array([], pa.string()), pattern)
    except pa.ArrowException as error:
        raise InputError(
            f"invalid pattern ({str(error).removeprefix('Invalid regular expression: ')}): see RE2's syntax"
        ) from None


def match_line(line: str, pattern: str) -> dict[str, str | None] | None:
    """Return the named groups of the first match of a pattern in a line; None if there is none."""
    groups: dict[str, str | None] | None = pc.extract_regex(pa.array([line], pa.string()), pattern)[0].as_py()
    return groups


def extract_group(texts: StringArray, pattern: str) -> tuple[StringArray, NDArray[np.bool_]]:
    """Return the only group of a pattern in each text, empty without a match, and which texts match."""
    matches = pc.extract_regex(texts, pattern)
    is_match: NDArray[np.bool_] = matches.is_valid().to_numpy(zero_copy_only=False)
    return fill_missing(pc.struct_field(matches, [0])), is_match


def cast_to_nanoseconds(texts: StringArray) -> Integers | None:
    """Convert ISO 8601 times with a zone to nanoseconds since 1970; None if one is not valid."""
    try:
        times: Integers = texts.cast(pa.timestamp("ns", "UTC")).cast(pa.int64()).to_numpy()
    except pa.ArrowException:
        return None
    return times


def cast_to_integers(column: ArrowArray, digits: int) -> tuple[Integers, NDArray[np.bool_]] | None:
    """Convert decimal numbers, times 10 to the power of `digits`, and return which fit; None if a text has more digits.

    Further digits of numbers that are not text are cut.
    """
    options = pc.CastOptions(pa.decimal128(38, digits), allow_decimal_truncate=is_decimal(column))
    try:
        column = column.cast(options=options)
    except pa.ArrowException:
        return None
    words = np.frombuffer(column.buffers()[1], np.int64)[2 * column.offset : 2 * (column.offset + len(column))]
    numbers, high = words[::2].copy(), words[1::2]
    return numbers, (high == 0) & (numbers >= 0)


def is_decimal(column: ArrowArray) -> bool:
    """Return whether a column has decimal numbers instead of text."""
    return bool(pa.types.is_decimal(column.type))


def extract_groups(texts: StringArray, pattern: str) -> tuple[Integers, dict[str, StringArray]]:
    """Return the places of the texts that a pattern matches, and the named groups of these matches."""
    matches = pc.extract_regex(texts, pattern)
    places = np.flatnonzero(matches.is_valid().to_numpy(zero_copy_only=False))
    matches = matches.drop_null()
    return places, {field.name: column for field, column in zip(matches.type, matches.flatten(), strict=True)}


def select(texts: StringArray, places: Integers) -> StringArray:
    """Return the texts at these places, which must rise."""
    return texts if len(places) == len(texts) else texts.take(pa.array(places))


def replace(texts: StringArray, pattern: str, replacement: str) -> StringArray:
    """Replace every match of a pattern."""
    return pc.replace_substring_regex(texts, pattern, replacement)


def count_substring(texts: StringArray, substring: str) -> Integers:
    """Return how often each text contains a substring."""
    counts: Integers = pc.count_substring(texts, substring).to_numpy()
    return counts


def join(*parts: StringArray | str) -> StringArray:
    """Join the parts of each text."""
    return pc.binary_join_element_wise(*parts, "")


def repeat(text: str, count: int) -> StringArray:
    """Return the same text several times."""
    return pa.repeat(text, count)


def strip_quotes(texts: StringArray) -> StringArray:
    """Remove the quotes at both ends of each text."""
    return pc.utf8_trim(texts, '"') if pc.any(pc.starts_with(texts, '"')).as_py() else texts


def map_texts(texts: StringArray, convert: Callable[[str], str]) -> StringArray:
    """Convert each distinct text once."""
    encoded = texts.dictionary_encode()
    converted = pa.array([convert(text) for text in encoded.dictionary.to_pylist()], pa.string())
    return converted.take(encoded.indices)


def fill_missing(texts: StringArray) -> StringArray:
    """Replace missing values by empty texts."""
    return texts.fill_null("") if texts.null_count else texts


def have_values(columns: Sequence[StringArray]) -> NDArray[np.bool_]:
    """Return the rows in which no column is missing."""
    is_complete = np.ones(len(columns[0]), np.bool_)
    for column in columns:
        if column.null_count:
            is_complete &= column.is_valid().to_numpy(zero_copy_only=False)
    return is_complete


def start_with(texts: StringArray, prefix: str) -> NDArray[np.bool_]:
    """Return which texts begin with a prefix."""
    does_start: NDArray[np.bool_] = pc.starts_with(texts, prefix).to_numpy(zero_copy_only=False)
    return does_start


def end_with(texts: StringArray, suffix: str) -> NDArray[np.bool_]:
    """Return which texts end with a suffix."""
    does_end: NDArray[np.bool_] = pc.ends_with(texts, suffix).to_numpy(zero_copy_only=False)
    return does_end


def are_in(texts: StringArray, values: Sequence[str]) -> NDArray[np.bool_]:
    """Return which texts are one of these values."""
    is_in: NDArray[np.bool_] = pc.is_in(texts, pa.array(values)).to_numpy(zero_copy_only=False)
    return is_in


def have_no_zero(columns: Sequence[ArrowArray]) -> NDArray[np.bool_]:
    """Return the rows in which no column of integers has a zero."""
    has_none = np.ones(len(columns[0]), np.bool_)
    for column in columns:
        if pa.types.is_integer(column.type):
            has_none &= pc.not_equal(column, 0).fill_null(True).to_numpy(zero_copy_only=False)
    return has_none


def encode(texts: StringArray) -> tuple[Integers, StringArray]:
    """Return each text's index in an array of the distinct texts, and this array."""
    encoded = texts.dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary


def parse_integers(texts: StringArray, digits: int = 0) -> Integers:
    """Parse at most 18 digits, after padding them with zeros on the right to `digits`."""
    padded = pc.utf8_rpad(texts, digits, padding="0") if digits else texts
    numbers: Integers = padded.cast(pa.int64()).to_numpy()
    return numbers


def number_texts(texts: StringArray) -> tuple[Integers, list[str]]:
    """Return each text's index in a list of the distinct texts, and this list, in the order of first occurrence."""
    encoded = texts.dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary.to_pylist()


def cast_to_text(column: ArrowArray) -> StringArray:
    """Convert every value to text; raise `InputError` for lists and other nested values."""
    try:
        return column if pa.types.is_string(column.type) else column.cast(pa.string())
    except pa.ArrowException:
        raise InputError(f"a column must hold text, numbers or times, got {column.type}: name another one") from None


# --- JSON objects


def parse_objects(lines: StringArray, tree: FieldTree) -> ArrowArray | None:
    """Parse JSON objects, with numbers to nine decimals; return None if a value is not of the kind in the tree."""
    kinds = {"text": pa.string(), "number": pa.decimal128(38, 9), "integer": pa.int64(), "nothing": pa.null()}

    def to_arrow_fields(tree: FieldTree) -> list[tuple[str, Any]]:
        return [
            (name, kinds[kind] if isinstance(kind, str) else pa.struct(to_arrow_fields(kind)))
            for name, kind in tree.items()
        ]

    _, offsets, data = lines.buffers()
    text = data.slice(0, np.frombuffer(offsets, np.int32)[len(lines)])
    schema = pa.schema(to_arrow_fields(tree))
    parse_options = pj.ParseOptions(schema, newlines_in_values=False, unexpected_field_behavior="ignore")
    read_options = pj.ReadOptions(use_threads=False, block_size=text.size + 1)
    try:
        table = pj.read_json(pa.BufferReader(text), read_options, parse_options)
    except pa.ArrowInvalid:
        return None
    return pa.concat_arrays(table.to_struct_array().chunks)


def get_member(objects: ArrowArray, path: Sequence[str]) -> ArrowArray:
    """Return the value at a path in each object."""
    return pc.struct_field(objects, list(path))


# --- Parquet


def read_parquet_names(source: Any) -> list[str]:
    """Return the paths of a Parquet file's columns, such as `http.remoteIp`; raise `InputError` if it is invalid."""
    with _translate_errors():
        return list(_list_columns(pq.read_schema(source), ""))


def _list_columns(fields: Any, prefix: str) -> Iterator[str]:
    for field in fields:
        if pa.types.is_struct(field.type):
            yield from _list_columns(field.type, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}"


def read_parquet_columns(source: Any, names: list[str]) -> Iterator[tuple[float, dict[str, StringArray]]]:
    """Yield batches of these columns as text, each with its share of the file's rows."""
    with _translate_errors(), pq.ParquetFile(source) as file:
        for batch in file.iter_batches(65_536, columns=names):
            columns = {name: cast_to_text(_get_column(batch, name)) for name in names}
            yield batch.num_rows / file.metadata.num_rows, columns


def read_parquet_rows(source: Any, count: int) -> list[dict[str, str]]:
    """Return the first rows, as the text of each column that has one."""
    with _translate_errors(), pq.ParquetFile(source) as file:
        batch = next(file.iter_batches(count), None)
    columns = {}
    for name in [] if batch is None else _list_columns(batch.schema, ""):
        with suppress(InputError):
            columns[name] = cast_to_text(_get_column(batch, name)).to_pylist()
    return [
        {name: value for name, value in zip(columns, row, strict=True) if value is not None}
        for row in zip(*columns.values(), strict=True)
    ]


def _get_column(batch: Any, name: str) -> ArrowArray:
    """Return the column at a path, of a list its first item."""
    if name in batch.schema.names:
        column = batch.column(name)
    else:
        top, *path = name.split(".")
        column = pc.struct_field(batch.column(top), path)
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        lengths = pc.list_value_length(column).fill_null(0)
        column = pc.list_element(pc.if_else(pc.greater(lengths, 0), column, pa.scalar([None], column.type)), 0)
    return column


@contextmanager
def _translate_errors() -> Iterator[None]:
    """Raise `InputError` for the errors of an invalid Parquet file."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise InputError(f"it cannot be read as Parquet ({reason}): write the file again") from None


# --- zstd


def decompress_zstd(blocks: Iterator[bytes], size: int) -> Iterator[bytes]:
    """Decompress zstd, of one or several frames, into blocks of at most `size` bytes; raise `OSError` if invalid."""
    source = pa.CompressedInputStream(pa.PythonFile(_BlockFile(blocks), mode="r"), "zstd")
    while block := source.read(size):
        yield block


class _BlockFile(io.RawIOBase):
    """Blocks of bytes as a file. A read returns at most the requested size, and possibly less."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if not self._rest:
            self._rest = memoryview(next(self._blocks, b""))
        chunk, self._rest = self._rest[:size], self._rest[size:]
        return bytes(chunk)
