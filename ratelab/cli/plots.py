"""Which charts go to which files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ratelab.cli.folders import check_folder, is_folder, stems
from ratelab.cli.progress import LateProgress
from ratelab.errors import InputError
from ratelab.report.charts import CHARTS, FORMATS, THEMES, draw, rendered
from ratelab.report.whole import check_writable, write_whole

if TYPE_CHECKING:
    from ratelab.lab.comparison import Comparison

IN_FOLDERS = ".png"


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
        if self.theme and not self.targets:
            raise InputError("--theme says how --plot draws (a page is light and dark): give --plot FILE.png, too")
        for target in self.targets:
            if is_folder(target):
                check_folder(target)
            else:
                self._check_file(target)

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
                data = rendered(draw(comparison, chart, self.theme or THEMES[0], caption), _format(path))
                Path(path).parent.mkdir(exist_ok=True)
                write_whole(path, lambda file, data=data: file.write(data))  # type: ignore[misc]
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
                    yield str(Path(target) / f"{prefix}{chart}{IN_FOLDERS}"), run, chart

    def _check_file(self, path: str) -> None:
        if _format(path) not in FORMATS:
            raise InputError(
                f"charts are written to a name that ends in .png, .svg or .pdf, or into a directory, got {path!r}"
            )
        several = f"{len(self.charts)} charts" if len(self.charts) > 1 else f"{self.runs} scenarios"
        if len(self.charts) > 1 or self.runs > 1:
            raise InputError(f"{path} is one file for {several}: give --plot a directory, such as charts/")
        check_writable(path)


def _format(path: str) -> str:
    return Path(path).suffix.lower().removeprefix(".")
