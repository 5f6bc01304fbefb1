"""Which charts go to which files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ratelab.cli.folders import is_folder, stems
from ratelab.cli.pictures import check_target, check_theme, in_folder, write_picture
from ratelab.cli.progress import LateProgress
from ratelab.errors import InputError
from ratelab.report.charts import CHARTS, THEMES, draw

if TYPE_CHECKING:
    from ratelab.lab.comparison import Comparison


@dataclass(frozen=True)
class Plots:
    """What `--plot`, `--chart` and `--theme` ask for, for so many runs; checked before any work is done."""

    targets: tuple[str, ...]
    charts: tuple[str, ...]
    theme: str | None
    runs: int

    def __post_init__(self) -> None:
        if self.charts and not self.targets:
            raise InputError("--chart says what --plot draws: give --plot FILE.png, too")
        check_theme(self.theme, self.targets)
        for target in self.targets:
            check_target(target)
        for path in self.files:
            self._check_one(path)

    @property
    def files(self) -> tuple[str, ...]:
        """The files named one by one."""
        return tuple(target for target in self.targets if not is_folder(target))

    def write(self, runs: Sequence[tuple[str, str, Comparison]]) -> None:
        """Draw what was asked for of each run, given as its name, its caption and what it came to."""
        jobs = list(self._jobs([name for name, _, _ in runs]))
        with LateProgress("drawing", len(jobs)) as progress:
            for path, run, chart in jobs:
                _, caption, comparison = runs[run]
                write_picture(path, draw(comparison, chart, self.theme or THEMES[0], caption))
                progress(1)

    def _jobs(self, names: Sequence[str]) -> Iterator[tuple[str, int, str]]:
        """Yield each file's path, the run and the chart that belong there."""
        prefixes = [f"{stem}-" for stem in stems(names)] if self.runs > 1 else [""]
        for target in self.targets:
            if not is_folder(target):
                yield target, 0, (self.charts or CHARTS)[0]
                continue
            for run, prefix in enumerate(prefixes):
                for chart in self.charts or CHARTS:
                    yield in_folder(target, f"{prefix}{chart}"), run, chart

    def _check_one(self, path: str) -> None:
        several = f"{len(self.charts)} charts" if len(self.charts) > 1 else f"{self.runs} scenarios"
        if len(self.charts) > 1 or self.runs > 1:
            raise InputError(f"{path} is one file for {several}: give --plot a directory, such as charts/")
