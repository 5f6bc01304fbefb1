"""Distributed run: the client's side of reading and deciding by an engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from time import monotonic
from typing import Any, Protocol, TypeVar

from ratelab.errors import InputError, ResourceError
from ratelab.lab.cluster.files import gather_file, join_pieces
from ratelab.lab.cluster.pieces import PIECE_BYTES, Piece, Pieces, Summary, cut_pieces, group_by_file
from ratelab.lab.cluster.reading import ReadTask
from ratelab.lab.engines.engine import Item, TaskEngine
from ratelab.lab.exchange import Exchange
from ratelab.lab.filesystems import make_absolute
from ratelab.lab.traces import Trace, TraceOptions, format_paths
from ratelab.lab.traces.merge import FileRequests, build_trace
from ratelab.lab.traces.reader import remove_repeated, skip_unreadable

Advance = Callable[[int], object]
"""Called with the amount of further work done."""

MAX_PARTITIONS = 4096

_Input = TypeVar("_Input", contravariant=True)


@dataclass(frozen=True)
class Stage:
    """A finished stage of a run."""

    name: str
    tasks: int
    resumed: int
    """Tasks that an earlier run had finished."""
    bytes: int
    """The bytes read from files, or in the exchange at the end."""
    seconds: float

    def join(self, other: Stage) -> Stage:
        """Return both as one stage."""
        return Stage(
            self.name,
            self.tasks + other.tasks,
            self.resumed + other.resumed,
            max(self.bytes, other.bytes),
            self.seconds + other.seconds,
        )


class ResumableTask(Protocol[_Input]):
    """A task whose summary marks it as finished in the exchange."""

    @property
    def exchange(self) -> Exchange:
        """The exchange."""

    @property
    def label(self) -> str:
        """The name of the stage."""

    def name(self, item: _Input, /) -> str:
        """Return the name of the file that has the summary for an item."""

    def __call__(self, item: _Input, /) -> Summary:
        """Return the summary for an item, and write it."""


@dataclass
class DistributedRun:
    """The engine and the exchange of a run, and the stages that it has finished."""

    engine: TaskEngine
    folder: str
    """The path or URI below which the exchange has a folder of its own."""
    partitions: int | None = None
    """The number of partitions; by default by the size of the files."""
    piece_bytes: int = PIECE_BYTES
    stages: list[Stage] = field(default_factory=list)
    exchange: Exchange | None = None
    """The folder of the run, once the files are known."""

    def read(self, paths: Sequence[str], options: TraceOptions, progress: Advance) -> ReadFiles:
        """Read all pieces of the files; those that an earlier run has read are not read again.

        `progress` is called with the number of further bytes read. Raises `InputError` as `read_traces` does.
        """
        paths, notes = remove_repeated(paths)
        pieces = cut_pieces(paths, options, self.piece_bytes)
        partitions = self.partitions or min(MAX_PARTITIONS, max(pieces.partitions, self.engine.workers))
        self.exchange = exchange = Exchange(f"{make_absolute(self.folder)}/ratelab-{pieces.digest}-{partitions}")
        exchange.create()
        summaries = self._read_pieces(pieces, ReadTask(exchange, options, partitions), progress)
        files, skipped = skip_unreadable(
            lambda file: (join_pieces(*file, options, exchange), file[1]),
            group_by_file(pieces, summaries),
            options.strict,
        )
        notes += skipped
        return ReadFiles(self, pieces, summaries, options, partitions, exchange, files, notes)

    def _read_pieces(self, pieces: Pieces, task: ReadTask, progress: Advance) -> list[Summary]:
        sizes = pieces.bytes
        return self.complete(task, pieces.pieces, lambda place: progress(sizes[place]), lambda: sum(sizes))

    def complete(
        self,
        task: ResumableTask[Item],
        items: Sequence[Item],
        progress: Advance = lambda _: None,
        measure: Callable[[], int] = lambda: 0,
    ) -> list[Summary]:
        """Return the summaries of a task for all items; those that an earlier run has finished are not repeated.

        `progress` is called with the place of each item that is done, and `measure` for the bytes of the stage.
        """
        started, exchange = monotonic(), task.exchange
        names = [task.name(item) for item in items]
        written = exchange.list_names()
        summaries = [exchange.read_summary(name) if name in written else None for name in names]
        rest = [place for place, summary in enumerate(summaries) if summary is None]
        for place in {*range(len(items))}.difference(rest):
            progress(place)
        for number, summary in self.engine.map(task, [items[place] for place in rest]):
            summaries[rest[number]] = summary
            progress(rest[number])
        self.add_stage(Stage(task.label, len(items), len(items) - len(rest), measure(), monotonic() - started))
        return [summary for summary in summaries if summary is not None]

    def add_stage(self, stage: Stage) -> None:
        """Note a finished stage, or a further part of one."""
        for place, before in enumerate(self.stages):
            if before.name == stage.name:
                self.stages[place] = before.join(stage)
                return
        self.stages.append(stage)

    def remove(self) -> None:
        """Remove the folder of the run."""
        if self.exchange is not None:
            self.exchange.remove()

    def leave(self) -> str | None:
        """Leave finished tasks to the next run, and return their folder; without any, remove it."""
        if self.exchange is None:
            return None
        try:
            has_files = bool(self.exchange.list_names())
        except ResourceError:
            has_files = True
        if not has_files:
            self.exchange.remove()
        return self.exchange.folder if has_files else None


@dataclass(frozen=True, eq=False)
class ReadFiles:
    """Files whose requests are in the exchange."""

    run: DistributedRun
    pieces: Pieces
    summaries: list[Summary]
    """Those of all pieces, also of files that could not be read."""
    options: TraceOptions
    partitions: int
    exchange: Exchange
    files: list[tuple[FileRequests, list[tuple[Piece, Summary]]]]
    """Each file, with its pieces and their summaries."""
    notes: list[str]

    @property
    def paths(self) -> tuple[str, ...]:
        """The files, as the user names them."""
        return self.pieces.paths

    @cached_property
    def trace(self) -> Trace:
        """All requests, gathered here; the same as `read_traces` returns."""
        started = monotonic()
        gathered = [gather_file(file, group, self.exchange, self.partitions) for file, group in self.files]
        try:
            trace = build_trace(gathered, self.notes, self.options)
        except InputError as error:
            raise InputError(f"{format_paths(self.paths)}: {error}") from None
        self.run.add_stage(Stage("gather", len(self.files), 0, self.exchange.sum_bytes(), monotonic() - started))
        return trace


def describe_stages(stages: Sequence[Stage]) -> list[str]:
    """Return a line on each stage: its tasks, bytes and time."""
    return [_describe_stage(stage) for stage in stages]


def _describe_stage(stage: Stage) -> str:
    resumed = f", {stage.resumed:,} of them by an earlier run" if stage.resumed else ""
    size: Any = f", {stage.bytes / 1e6:,.1f} MB" if stage.bytes else ""
    return f"{stage.name}: {stage.tasks:,} task{'s' * (stage.tasks != 1)}{resumed}{size}, {stage.seconds:.1f} s"
