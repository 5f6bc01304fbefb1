"""Charts and pages: the files and directories that `--plot` and `--html` name."""

from __future__ import annotations

import logging
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
from ratelab.lab import CHARTS, LOOP_CHARTS, POLICY_CHARTS
from ratelab.lab.decisions import Progress
from ratelab.report.charts import IMAGE_FORMATS, LAYOUTS, THEME_NAMES, draw, render_figure
from ratelab.report.files import check_writable, write_bytes, write_text
from ratelab.report.runs import BaseRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ratelab.lab.tune import Analysis

PAGE_SUFFIXES = (".html", ".htm")

logging.getLogger("matplotlib").setLevel(logging.ERROR)  # before its import: no notices about its cache on stderr


_CHART_SUBJECTS = (
    (CHARTS, "one quota"),
    (POLICY_CHARTS, "several policies"),
    (LOOP_CHARTS, "clients that react to answers"),
)
"""Kinds of charts, and the subject of each kind."""


@dataclass(frozen=True)
class Plots:
    """The charts that `--plot`, `--chart` and `--theme` ask for; checked before any work is done."""

    targets: tuple[str, ...]
    charts: tuple[str, ...]
    theme: str | None
    layout: str | None
    runs: int
    """The number of runs that are to be drawn."""

    def __post_init__(self) -> None:
        if self.charts and not self.targets:
            raise InputError("--chart needs a file for the chart: add --plot FILE.png")
        check_image_targets(self.targets, self.theme, self.layout)
        if self.files and (len(self.charts) > 1 or self.runs > 1):
            contents = f"{len(self.charts)} charts" if len(self.charts) > 1 else f"{self.runs} scenarios"
            raise InputError(f"{self.files[0]} cannot hold {contents}: give --plot a directory, such as charts/")

    @property
    def files(self) -> tuple[str, ...]:
        """The targets that are files."""
        return tuple(target for target in self.targets if not is_directory(target))

    def check(self, runs: Sequence[BaseRun]) -> None:
        """Raise `InputError` for a chart that cannot be drawn of a run."""
        for run in runs:
            for chart in self.charts:
                if chart not in run.charts:
                    shown = next(subject for charts, subject in _CHART_SUBJECTS if chart in charts)
                    raise InputError(
                        f"--chart {chart} shows {shown}, unlike {run.name}: choose one of {', '.join(run.charts)}"
                    )

    def count(self, runs: Sequence[BaseRun]) -> int:
        """Return the number of images that `write` writes for these runs."""
        return sum(1 for _ in self._list_images(runs))

    def write(self, runs: Sequence[BaseRun], progress: Progress) -> None:
        """Draw and write the charts of each run."""
        for path, run, chart in self._list_images(runs):
            theme, layout = self.theme or THEME_NAMES[0], self.layout or LAYOUTS[0]
            write_image(path, draw(run.comparison, chart, theme, run.title, layout))
            progress(1)

    def _list_images(self, runs: Sequence[BaseRun]) -> Iterator[tuple[str, BaseRun, str]]:
        """Yield the path of each image, its run and its chart."""
        prefixes = [f"{stem}-" for stem in make_stems([run.name for run in runs])] if self.runs > 1 else [""]
        for target in self.targets:
            if not is_directory(target):
                yield target, runs[0], (self.charts or runs[0].charts)[0]
                continue
            for run, prefix in zip(runs, prefixes, strict=True):
                for chart in self.charts or run.charts:
                    yield join_image_path(target, f"{prefix}{chart}"), run, chart


def resolve_images(targets: Sequence[str], theme: str | None, layout: str | None, stem: str) -> tuple[str, ...]:
    """Return the path of a single chart for each target of `--plot`: the file itself, or `stem` in a directory.

    Raises `InputError` for a target that cannot be written, and for a theme or a layout without targets.
    """
    check_image_targets(targets, theme, layout)
    return tuple(join_image_path(target, stem) if is_directory(target) else target for target in targets)


def check_image_targets(targets: Sequence[str], theme: str | None, layout: str | None) -> None:
    """Raise `InputError` unless images can be written at all targets, and for a theme or a layout without targets."""
    if layout and not targets:
        raise InputError("--layout needs a chart: add --plot FILE.png (a page of --html has both layouts)")
    if theme and not targets:
        raise InputError("--theme needs a chart: add --plot FILE.png (a page of --html has both themes)")
    for target in targets:
        if is_directory(target):
            check_directory(target)
        elif _get_image_format(target) in IMAGE_FORMATS:
            check_writable(target)
        else:
            raise InputError(f"--plot must be a .png, .svg or .pdf file or a directory, got {target!r}")


def write_image(path: str, figure: Figure) -> None:
    """Write a figure in the format of the name's suffix; create the directory if necessary."""
    data = render_figure(figure, _get_image_format(path))
    Path(path).parent.mkdir(exist_ok=True)
    write_bytes(path, lambda file: file.write(data))


def join_image_path(directory: str, stem: str) -> str:
    """Return the path of an image in a directory."""
    return str(Path(directory) / f"{stem}.{IMAGE_FORMATS[0]}")


def _get_image_format(path: str) -> str:
    return Path(path).suffix.lower().removeprefix(".")


@dataclass(frozen=True)
class Pages:
    """The pages that `--html` asks for; checked before any work is done."""

    target: str
    runs: int
    """The number of runs that are to be shown."""

    def __post_init__(self) -> None:
        if is_directory(self.target):
            check_directory(self.target)
            return
        if Path(self.target).suffix.lower() not in PAGE_SUFFIXES:
            raise InputError(f"--html must be an .html file or a directory, got {self.target!r}")
        if self.runs > 1:
            raise InputError(
                f"{self.target} cannot hold {self.runs} scenarios: give --html a directory, such as gallery/"
            )
        check_writable(self.target)

    @property
    def files(self) -> tuple[str, ...]:
        """The target, if it is a file."""
        return () if is_directory(self.target) else (self.target,)

    def write(self, runs: Sequence[BaseRun], progress: Progress) -> None:
        """Write one page, or a directory with a page for each run and an index."""
        from ratelab.report.html import RESERVED_STEMS, Provenance, draw_pictures, render_gallery, render_page  # slow

        provenance = Provenance(format_command(click.get_current_context()), ratelab.__version__)
        if not is_directory(self.target):
            _write_page(self.target, render_page(runs[0], list(draw_pictures(runs[0])), provenance))
            return
        Path(self.target).mkdir(exist_ok=True)
        stems = make_stems([run.name for run in runs], reserved=RESERVED_STEMS)
        for name, text in render_gallery(runs, stems, provenance):
            _write_page(str(Path(self.target) / name), text)
            progress(1)


def check_page(path: str) -> None:
    """Raise `InputError` unless a single page can be written at `path`."""
    if is_directory(path) or Path(path).suffix.lower() not in PAGE_SUFFIXES:
        raise InputError(f"--html must be an .html file, got {path!r}")
    check_writable(path)


def write_tuning_page(
    path: str, analysis: Analysis, title: str, notes: Sequence[str], warnings: Sequence[str], progress: Progress
) -> None:
    """Write the page of a tuning, with the command that is running; `progress` counts its replays."""
    from ratelab.report.html import Provenance  # slow
    from ratelab.report.html.tune import render_tuning

    provenance = Provenance(format_command(click.get_current_context()), ratelab.__version__)
    _write_page(path, render_tuning(analysis, title, notes, warnings, provenance, progress))


def _write_page(path: str, text: str) -> None:
    write_text(path, lambda file: print(text, file=file, end=""))


def is_directory(target: str) -> bool:
    """Return whether the target is an existing directory, or ends with a slash."""
    return target.endswith(("/", "\\")) or bool(target and Path(target).is_dir())


def check_directory(target: str) -> None:
    """Raise `InputError` unless files can be written into the directory `target`, which may have to be created."""
    path = Path(target)
    if os.path.lexists(path) and not path.is_dir():
        raise InputError(f"cannot write into {target}: {path} is not a directory; for a file, leave out the slash")
    check_writable(str(path / "any" if path.is_dir() else path))


def make_stems(names: Sequence[str], reserved: Sequence[str] = ()) -> list[str]:
    """Return a file stem for each run: not `reserved`, and unique even on case-insensitive file systems."""
    taken, stems = {*map(str.casefold, reserved)}, []
    for name in names:
        base = re.sub(r"[^\w.-]+", "-", name)[:60].strip("-.") or "run"
        candidates = (base, *(f"{base}~{number}" for number in range(2, len(names) + len(reserved) + 2)))
        stem = next(candidate for candidate in candidates if candidate.casefold() not in taken)
        taken.add(stem.casefold())
        stems.append(stem)
    return stems


def format_command(context: click.Context) -> str:
    """Return the command line of `context`, with long names of options, for a shell."""
    return shlex.join(["ratelab", str(context.info_name), *_list_words(context)])


def format_next(context: click.Context, command: str, names: Sequence[str], *more: str) -> str:
    """Return the command line of another command with the named arguments and options of `context`."""
    return shlex.join(["ratelab", command, *_list_words(context, names), *more])


def _list_words(context: click.Context, names: Sequence[str] = ()) -> Iterator[str]:
    """Yield the arguments, then the options; with `names`, only those parameters."""
    parameters = sorted(context.command.params, key=lambda parameter: isinstance(parameter, click.Option))
    for parameter in parameters:
        name = str(parameter.name)
        if names and name not in names:
            continue
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            value: Any = context.params[name]
            values = value if isinstance(value, tuple) else (value,)
            if not isinstance(parameter, click.Option):
                yield from map(str, values)
            elif parameter.is_flag:
                yield parameter.opts[0]
            else:
                yield from (word for value in values for word in (parameter.opts[0], str(value)))
