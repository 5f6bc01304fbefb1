"""Which pages go to which files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

import ratelab
from ratelab.cli.command_line import command_line
from ratelab.cli.folders import check_folder, is_folder, stems
from ratelab.cli.progress import LateProgress
from ratelab.errors import InputError
from ratelab.report.whole import check_writable, write_text

if TYPE_CHECKING:
    from ratelab.report.run import Run

ENDINGS = (".html", ".htm")


@dataclass(frozen=True)
class Pages:
    """What `--html` asks for, for so many runs; checked before any work is done."""

    target: str
    runs: int

    def __post_init__(self) -> None:
        if is_folder(self.target):
            check_folder(self.target)
            return
        if Path(self.target).suffix.lower() not in ENDINGS:
            raise InputError(
                f"a page is written to a name that ends in .html, and pages into a directory, got {self.target!r}"
            )
        if self.runs > 1:
            raise InputError(f"{self.target} is one page for {self.runs} scenarios: give a directory, such as gallery/")
        check_writable(self.target)

    @property
    def files(self) -> tuple[str, ...]:
        """The file named, if it is not a folder."""
        return () if is_folder(self.target) else (self.target,)

    def write(self, runs: Sequence[Run]) -> None:
        """Write a page for the one run, or a folder that holds one for each and one that leads to them."""
        from ratelab.report.html import RESERVED, Made, gallery, page, pictures

        made = Made(command_line(click.get_current_context()), ratelab.__version__)
        with LateProgress("drawing", len(runs)) as progress:
            if not is_folder(self.target):
                _write(self.target, page(runs[0], list(pictures(runs[0])), made))
                return
            Path(self.target).mkdir(exist_ok=True)
            for name, text in gallery(runs, stems([run.name for run in runs], RESERVED), made):
                _write(str(Path(self.target) / name), text)
                progress(1)


def _write(path: str, text: str) -> None:
    write_text(path, lambda file: print(text, file=file, end=""))
