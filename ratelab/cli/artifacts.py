"""Which charts go to which files."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

import ratelab
from ratelab.errors import InputError
from ratelab.report.charts import CHARTS, IMAGE_FORMATS, THEMES, draw, render_figure
from ratelab.report.files import check_writable, write_text, write_whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from ratelab.lab.comparison import Comparison
    from ratelab.lab.decisions import Progress
    from ratelab.report.summary import Run


def is_folder(target: str) -> bool:
    """Say whether a folder is meant: one that is there, or a name that ends as one."""
    return target.endswith(("/", "\\")) or bool(target and Path(target).is_dir())


def check_folder(target: str) -> None:
    """Raise `InputError` unless files could be written into the folder `target`, there or to be made."""
    folder = Path(target)
    if os.path.lexists(folder) and not folder.is_dir():
        raise InputError(f"cannot write into {target}: {folder} is no directory; name one, or a file without the slash")
    check_writable(str(folder / "any" if folder.is_dir() else folder))


def stems(names: Sequence[str], reserved: Sequence[str] = ()) -> list[str]:
    """Return a name for the files of each run: none that is `reserved`, no two alike where letters have no case."""
    taken, found = {*map(str.casefold, reserved)}, []
    for name in names:
        plain = re.sub(r"[^\w.-]+", "-", name)[:60].strip("-.") or "run"
        ways = (plain, *(f"{plain}~{number}" for number in range(2, len(names) + len(reserved) + 2)))
        stem = next(way for way in ways if way.casefold() not in taken)
        taken.add(stem.casefold())
        found.append(stem)
    return found


def command_line(context: click.Context) -> str:
    """Return the command of `context` with the options that were given it, each written out."""
    return shlex.join(["ratelab", str(context.info_name), *_words(context)])


def _words(context: click.Context) -> Iterator[str]:
    """Yield the arguments, then the options."""
    parameters = sorted(context.command.params, key=lambda one: isinstance(one, click.Option))
    for parameter in parameters:
        name = str(parameter.name)
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            value: Any = context.params[name]
            values = value if isinstance(value, tuple) else (value,)
            if not isinstance(parameter, click.Option):
                yield from map(str, values)
            elif parameter.is_flag:
                yield parameter.opts[0]
            else:
                yield from (word for one in values for word in (parameter.opts[0], str(one)))


IN_FOLDERS = ".png"


def check_target(target: str) -> None:
    """Raise `InputError` unless a picture, or a folder of them, could be written at `target`."""
    if is_folder(target):
        check_folder(target)
        return
    if _format(target) not in IMAGE_FORMATS:
        raise InputError(
            f"charts are written to a name that ends in .png, .svg or .pdf, or into a directory, got {target!r}"
        )
    check_writable(target)


def check_theme(theme: str | None, targets: Sequence[str]) -> None:
    """Raise `InputError` if there is a theme, and nothing to be drawn in it."""
    if theme and not targets:
        raise InputError("--theme says how --plot draws (a page is light and dark): give --plot FILE.png, too")


def pictures_named(targets: Sequence[str], theme: str | None, stem: str) -> tuple[str, ...]:
    """Return the file to draw for each target, named `stem` in a folder; raise `InputError` for what cannot be one."""
    check_theme(theme, targets)
    for target in targets:
        check_target(target)
    return tuple(in_folder(target, stem) if is_folder(target) else target for target in targets)


def write_picture(path: str, figure: Figure) -> None:
    """Write a picture in the format that its name says, its folder made if it is not there."""
    data = render_figure(figure, _format(path))
    Path(path).parent.mkdir(exist_ok=True)
    write_whole(path, lambda file: file.write(data))


def in_folder(target: str, stem: str) -> str:
    """Return the path of a picture in a folder."""
    return str(Path(target) / f"{stem}{IN_FOLDERS}")


def _format(path: str) -> str:
    return Path(path).suffix.lower().removeprefix(".")


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

    def write(self, runs: Sequence[Run], progress: Progress) -> None:
        """Write one page, or a folder with a page for each run and an index."""
        from ratelab.report.html import RESERVED, Made, pictures, render_gallery, render_page

        made = Made(command_line(click.get_current_context()), ratelab.__version__)
        if not is_folder(self.target):
            _write(self.target, render_page(runs[0], list(pictures(runs[0])), made))
            return
        Path(self.target).mkdir(exist_ok=True)
        for name, text in render_gallery(runs, stems([run.name for run in runs], RESERVED), made):
            _write(str(Path(self.target) / name), text)
            progress(1)


def _write(path: str, text: str) -> None:
    write_text(path, lambda file: print(text, file=file, end=""))


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

    def count(self, runs: int) -> int:
        """Return the number of files that `write` writes for so many runs."""
        return sum(1 for _ in self._jobs([""] * runs))

    def write(self, runs: Sequence[tuple[str, str, Comparison]], progress: Progress) -> None:
        """Draw the charts of each run, given as its name, its caption and its comparison."""
        for path, run, chart in self._jobs([name for name, _, _ in runs]):
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
