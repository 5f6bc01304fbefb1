"""Files of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ratelab.cli.folders import check_folder, is_folder
from ratelab.errors import InputError
from ratelab.report.charts import FORMATS, rendered
from ratelab.report.whole import check_writable, write_whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

IN_FOLDERS = ".png"


def check_target(target: str) -> None:
    """Raise `InputError` unless a picture, or a folder of them, could be written at `target`."""
    if is_folder(target):
        check_folder(target)
        return
    if _format(target) not in FORMATS:
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
    data = rendered(figure, _format(path))
    Path(path).parent.mkdir(exist_ok=True)
    write_whole(path, lambda file: file.write(data))


def in_folder(target: str, stem: str) -> str:
    """Return the path of a picture in a folder."""
    return str(Path(target) / f"{stem}{IN_FOLDERS}")


def _format(path: str) -> str:
    return Path(path).suffix.lower().removeprefix(".")
