"""How fast traces are read: line by line and as columns, beside reading the same bytes and counting their lines."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from timing import Figure, in_turn

from ratelab.lab.traces import arrow_installed, read_traces
from ratelab.lab.traces.sample import sample_lines
from ratelab.quota import Quota

LINES, CLIENTS, RATE = 300_000, 10_000, Quota.parse("100/s")
ROUNDS = 3
BLOCK = 1 << 21


def read() -> Iterator[Figure]:
    """Time both readers in each form of the same requests; megabytes are of unpacked text, of Parquet as stored."""
    with TemporaryDirectory() as folder:
        for form, path in _written(Path(folder)):
            for reader, columnar in (("plain", False), ("Arrow", True)):
                if (form != "Parquet" or columnar) and (arrow_installed() or not columnar):
                    yield _timed(f"{form}, {reader}", path, columnar)


def _timed(what: str, path: Path, columnar: bool) -> Figure:
    """Time a reader against reading the same bytes, unpacking them and counting newlines."""
    size = sum(map(len, _blocks(path)))
    work = partial(read_traces, [str(path)], columnar=columnar)
    seconds, floors = in_turn(work, partial(_count, path), ROUNDS)
    speed, most = (size / median(some) / 1e6 for some in (seconds, floors))
    ratio = median(other / one for one, other in zip(seconds, floors, strict=True))
    return Figure(f"{what}: {LINES / median(seconds) / 1e6:.2f}M lines/s", speed, "MB/s", most, ratio, "")


def _count(path: Path) -> int:
    return sum(block.count(b"\n") for block in _blocks(path))


def _blocks(path: Path) -> Iterator[bytes]:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        while block := file.read(BLOCK):
            yield block


def _written(folder: Path) -> Iterator[tuple[str, Path]]:
    """Write the same requests in several forms; yield each with its file."""
    log = "".join(sample_lines(LINES, CLIENTS, RATE, 1)).encode()
    (folder / "trace.log").write_bytes(log)
    traffic = read_traces([str(folder / "trace.log")]).traffic.whole()
    times = [f"{time / 1e9:.3f}" for time in traffic.clock_times.tolist()]
    names = [traffic.names[client] for client in traffic.clients.tolist()]
    pairs = list(zip(times, names, strict=True))
    csv = "".join(f"{time},{name},GET,/products,200\n" for time, name in pairs)
    objects = "".join(f'{{"time": {time}, "ip": "{name}", "method": "GET", "status": 200}}\n' for time, name in pairs)
    texts = {
        "log": log,
        "gzip log": gzip.compress(log),
        "CSV": f"time,ip,method,path,status\n{csv}".encode(),
        "JSON lines": objects.encode(),
    }
    for form, text in texts.items():
        path = folder / f"{form}.{'gz' if form == 'gzip log' else 'txt'}"
        path.write_bytes(text)
        yield form, path
    if arrow_installed():
        from ratelab.lab.traces.arrow import write_parquet

        write_parquet(str(folder / "parquet"), {"time": times, "ip": names})
        yield "Parquet", folder / "parquet"
