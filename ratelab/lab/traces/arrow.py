"""Operations on columns of text, and Parquet and zstd files, by the library `pyarrow`."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj
import pyarrow.parquet as pq

from ratelab.errors import InputError
from ratelab.lab.spill import Integers

ArrowArray: TypeAlias = Any
"""An Arrow array; pyarrow has no type annotations."""

StringArray: TypeAlias = Any
"""An Arrow array of strings."""

FieldTree = dict[str, Any]
"""The fields to read from objects: each name has the kind `text`, `number`, `integer` or `nothing`, or a subtree."""


# --- columns of text


def split_lines(text: bytes) -> StringArray:
    """Return the lines of UTF-8 text, each with its newline, except the last."""
    ends = np.append(np.flatnonzero(np.frombuffer(text, np.uint8) == ord("\n")) + 1, len(text))
    offsets = np.concatenate([[0], ends]).astype(np.int32)
    return pa.StringArray.from_buffers(len(ends), pa.py_buffer(offsets), pa.py_buffer(text))


def count_bytes(texts: StringArray) -> Integers:
    """Return the length of each text in bytes."""
    lengths: Integers = pc.binary_length(texts).to_numpy().astype(np.int64)
    return lengths


def find_matches(texts: StringArray, pattern: str) -> Integers:
    """Return the places of the texts in which a pattern matches somewhere."""
    return np.flatnonzero(pc.match_substring_regex(texts, pattern).to_numpy(zero_copy_only=False))


def extract_groups(texts: StringArray, pattern: str) -> tuple[Integers, dict[str, StringArray]]:
    """Return the places of the texts that a pattern matches, and the named groups of these matches."""
    matches = pc.extract_regex(texts, pattern)
    places = np.flatnonzero(matches.is_valid().to_numpy(zero_copy_only=False))
    matches = matches.drop_null()
    return places, {field.name: column for field, column in zip(matches.type, matches.flatten(), strict=True)}


def select(texts: StringArray, places: Integers) -> StringArray:
    """Return the texts at these places, which must rise."""
    return texts if len(places) == len(texts) else texts.take(pa.array(places))


def remove_substring(texts: StringArray, substring: str) -> StringArray:
    """Remove every occurrence of a substring."""
    return pc.replace_substring(texts, substring, "")


def join(*parts: StringArray | str) -> StringArray:
    """Join the parts of each text."""
    return pc.binary_join_element_wise(*parts, "")


def concatenate(arrays: list[StringArray], order: Integers) -> StringArray:
    """Concatenate arrays, then reorder their texts."""
    return pa.concat_arrays(arrays).take(pa.array(order))


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
        return column.cast(pa.string())
    except pa.ArrowException:
        raise InputError(f"a column must hold text, numbers or times, got {column.type}: name another one") from None


# --- JSON objects


def find_objects(lines: StringArray) -> Integers:
    """Return the places of lines that look like one JSON object, not nested deeply and without `-NaN`."""
    braced = pc.and_(pc.match_substring_regex(lines, r"^[ \t]*\{"), pc.match_substring_regex(lines, r"\}[ \t\r]*\n?$"))
    depth = pc.add(pc.count_substring(lines, "{"), pc.count_substring(lines, "["))
    signed_nan = pc.match_substring_regex(lines, r"[^\"A-Za-z](?:NaN|Inf)")
    common = pc.and_not(pc.and_(braced, pc.less(depth, 100)), signed_nan)
    return np.flatnonzero(common.to_numpy(zero_copy_only=False))


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


def get_member(objects: ArrowArray, path: Sequence[str]) -> StringArray:
    """Return the value at a path in each object, as text."""
    return cast_to_text(pc.struct_field(objects, list(path)))


# --- Parquet


def read_parquet_names(path: str) -> list[str]:
    """Return the names of a Parquet file's columns; raise `InputError` if the file is invalid."""
    with _translate_errors():
        return list(pq.read_schema(path).names)


def read_parquet_columns(path: str, names: list[str]) -> Iterator[tuple[float, dict[str, StringArray]]]:
    """Yield batches of these columns, each with its share of the file's rows."""
    with _translate_errors(), pq.ParquetFile(path) as file:
        for batch in file.iter_batches(65_536, columns=names):
            columns = {name: cast_to_text(batch.column(name)) for name in names}
            yield batch.num_rows / file.metadata.num_rows, columns


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
