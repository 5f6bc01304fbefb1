"""Arrow: the few things that are done to whole columns of text by the library `pyarrow`."""

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

Column: TypeAlias = Any
"""An Arrow array."""
Texts: TypeAlias = Any
"""An Arrow array of strings."""
Tree = dict[str, Any]
"""What to read of objects: for each name `text`, `number`, `integer`, `nothing`, or the tree of the object there."""


def unzstd(blocks: Iterator[bytes], size: int) -> Iterator[bytes]:
    """Unpack zstd, of one frame or several, into blocks of at most `size` bytes; raise `OSError` if it is broken."""
    source = pa.CompressedInputStream(pa.PythonFile(_Source(blocks), mode="r"), "zstd")
    while block := source.read(size):
        yield block


class _Source(io.RawIOBase):
    """Blocks of bytes as a file; a reader gets what it asks for, or less."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if not self._left:
            self._left = memoryview(next(self._blocks, b""))
        given, self._left = self._left[:size], self._left[size:]
        return bytes(given)


# --- columns of text


def lines_of(text: bytes) -> Texts:
    """Return the lines of UTF-8, each but the last with its newline."""
    ends = np.append(np.flatnonzero(np.frombuffer(text, np.uint8) == ord("\n")) + 1, len(text))
    offsets = np.concatenate([[0], ends]).astype(np.int32)
    return pa.StringArray.from_buffers(len(ends), pa.py_buffer(offsets), pa.py_buffer(text))


def sizes(texts: Texts) -> Integers:
    """Return how many bytes each text has."""
    lengths: Integers = pc.binary_length(texts).to_numpy().astype(np.int64)
    return lengths


def matches(texts: Texts, pattern: str) -> Integers:
    """Return the places of the texts that a pattern matches somewhere."""
    return np.flatnonzero(pc.match_substring_regex(texts, pattern).to_numpy(zero_copy_only=False))


def groups_of(texts: Texts, pattern: str) -> tuple[Integers, dict[str, Texts]]:
    """Return the places of the texts that a pattern matches, and what its groups hold there."""
    found = pc.extract_regex(texts, pattern)
    places = np.flatnonzero(found.is_valid().to_numpy(zero_copy_only=False))
    found = found.drop_null()
    return places, {field.name: column for field, column in zip(found.type, found.flatten(), strict=True)}


def taken(texts: Texts, places: Integers) -> Texts:
    """Return the texts at some places, which rise."""
    return texts if len(places) == len(texts) else texts.take(pa.array(places))


def without(part: str, texts: Texts) -> Texts:
    """Leave out a part wherever it comes."""
    return pc.replace_substring(texts, part, "")


def joined(*parts: Texts | str) -> Texts:
    """Put the parts of each text together."""
    return pc.binary_join_element_wise(*parts, "")


def whole_numbers(texts: Texts, digits: int = 0) -> Integers:
    """Read digits, at most 18 of them, filled up with zeros behind to so many."""
    filled = pc.utf8_rpad(texts, digits, padding="0") if digits else texts
    numbers: Integers = filled.cast(pa.int64()).to_numpy()
    return numbers


def numbered(texts: Texts) -> tuple[Integers, list[str]]:
    """Return the different texts in the order in which they come, and for each text which of these it is."""
    encoded = texts.dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary.to_pylist()


def arranged(columns: list[Texts], order: Integers) -> Texts:
    """Put columns one behind the other, then their texts in this order."""
    return pa.concat_arrays(columns).take(pa.array(order))


# --- columns with a type


def are_objects(lines: Texts) -> Integers:
    """Return the places of the lines that look like one JSON object each, of no great depth and without `-NaN`."""
    whole = pc.and_(pc.match_substring_regex(lines, r"^[ \t]*\{"), pc.match_substring_regex(lines, r"\}[ \t\r]*\n?$"))
    depth = pc.add(pc.count_substring(lines, "{"), pc.count_substring(lines, "["))
    odd = pc.match_substring_regex(lines, r"[^\"A-Za-z](?:NaN|Inf)")
    plain = pc.and_not(pc.and_(whole, pc.less(depth, 100)), odd)
    return np.flatnonzero(plain.to_numpy(zero_copy_only=False))


def read_objects(lines: Texts, tree: Tree) -> Column | None:
    """Read JSON objects, numbers to nine digits behind the point; None if a value is not of the kind said."""
    kinds = {"text": pa.string(), "number": pa.decimal128(38, 9), "integer": pa.int64(), "nothing": pa.null()}

    def fields(tree: Tree) -> list[tuple[str, Any]]:
        return [
            (name, kinds[kind] if isinstance(kind, str) else pa.struct(fields(kind))) for name, kind in tree.items()
        ]

    _, offsets, data = lines.buffers()
    text = data.slice(0, np.frombuffer(offsets, np.int32)[len(lines)])
    how = pj.ParseOptions(pa.schema(fields(tree)), newlines_in_values=False, unexpected_field_behavior="ignore")
    try:
        table = pj.read_json(pa.BufferReader(text), pj.ReadOptions(use_threads=False, block_size=text.size + 1), how)
    except pa.ArrowInvalid:
        return None
    return pa.concat_arrays(table.to_struct_array().chunks)


def member(objects: Column, path: Sequence[str]) -> Texts:
    """Write what stands at a path in each object."""
    return as_text(pc.struct_field(objects, list(path)))


def as_text(column: Column) -> Texts:
    """Write every value; raise `InputError` for values that are not single."""
    try:
        return column.cast(pa.string())
    except pa.ArrowException:
        raise InputError(f"a column must hold text, numbers or times, got {column.type}: name another one") from None


def parquet_names(path: str) -> list[str]:
    """Return the names of a Parquet file's columns; raise `InputError` if it is broken."""
    with _telling():
        return list(pq.read_schema(path).names)


def parquet_columns(path: str, names: list[str]) -> Iterator[tuple[float, dict[str, Texts]]]:
    """Yield some columns of a Parquet file, some rows at a time, and which share of the file these are."""
    with _telling(), pq.ParquetFile(path) as file:
        for batch in file.iter_batches(65_536, columns=names):
            yield batch.num_rows / file.metadata.num_rows, {name: as_text(batch.column(name)) for name in names}


def write_parquet(path: str, columns: dict[str, list[str]]) -> None:
    """Write columns of text as a Parquet file."""
    pq.write_table(pa.table(columns), path)


@contextmanager
def _telling() -> Iterator[None]:
    """Tell what is wrong with a Parquet file."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"it cannot be read as Parquet ({str(error).partition(chr(10))[0]}): write it anew") from None
