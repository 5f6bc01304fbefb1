"""Speed of the trace readers, next to reading the same bytes and counting their lines."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from timing import Figure, rate_figure, time_in_turn

from ratelab.lab.traces import is_arrow_installed, read_traces
from ratelab.lab.traces.synthetic import sample_lines
from ratelab.quota import Quota

LINES, CLIENTS, RATE = 300_000, 10_000, Quota.parse("100/s")
ROUNDS = 3
BLOCK_BYTES = 1 << 21


def read() -> Iterator[Figure]:
    """Time both readers on the same requests in each format.

    Megabytes are those of the decompressed text, or of the Parquet file.
    """
    with TemporaryDirectory() as folder:
        for name, path in _write_traces(Path(folder)):
            if name != "Parquet":
                yield _measure(f"{name}, plain", path, columnar=False)
            if is_arrow_installed():
                yield _measure(f"{name}, Arrow", path, columnar=True)


def _measure(label: str, path: Path, columnar: bool) -> Figure:
    """Time a reader against reading and decompressing the same bytes and counting newlines."""
    megabytes = sum(map(len, _blocks(path))) / 1e6
    work = partial(read_traces, [str(path)], columnar=columnar)
    seconds, floors = time_in_turn(work, partial(_count_lines, path), ROUNDS)
    label = f"{label}: {LINES / median(seconds) / 1e6:.2f}M lines/s"
    return rate_figure(label, seconds, floors, megabytes, "MB/s", bar=None)


def _count_lines(path: Path) -> int:
    return sum(block.count(b"\n") for block in _blocks(path))


def _blocks(path: Path) -> Iterator[bytes]:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            yield block


def _write_traces(folder: Path) -> Iterator[tuple[str, Path]]:
    """Write the same requests in each format; yield the format's name and the file."""
    log = "".join(sample_lines(LINES, CLIENTS, RATE, 1)).encode()
    (folder / "trace.log").write_bytes(log)
    traffic = read_traces([str(folder / "trace.log")]).traffic
    times = [f"{time / 1e9:.3f}" for time in traffic.clock_times.tolist()]
    names = [traffic.names[client] for client in traffic.clients.tolist()]
    pairs = list(zip(times, names, strict=True))
    rows = "".join(f"{time},{name},GET,/products,200\n" for time, name in pairs)
    objects = "".join(f'{{"time": {time}, "ip": "{name}", "method": "GET", "status": 200}}\n' for time, name in pairs)
    texts = {
        "log": log,
        "gzip log": gzip.compress(log),
        "CSV": f"time,ip,method,path,status\n{rows}".encode(),
        "JSON lines": objects.encode(),
    }
    for name, text in texts.items():
        path = folder / f"{name}.{'gz' if name == 'gzip log' else 'txt'}"
        path.write_bytes(text)
        yield name, path
    if is_arrow_installed():
        import pyarrow as pa
        from pyarrow.parquet import write_table

        write_table(pa.table({"time": times, "ip": names}), folder / "parquet")
        yield "Parquet", folder / "parquet"
