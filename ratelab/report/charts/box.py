"""A place on the sheet."""

from __future__ import annotations

from typing import NamedTuple, Self


class Box(NamedTuple):
    """A place on the sheet, in inches from its upper left corner."""

    left: float
    top: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """The end of its width."""
        return self.left + self.width

    @property
    def bottom(self) -> float:
        """The end of its height."""
        return self.top + self.height

    def inset(self, left: float = 0, top: float = 0, right: float = 0, bottom: float = 0) -> Self:
        """Return what is left of it without margins."""
        return self._replace(
            left=self.left + left,
            top=self.top + top,
            width=self.width - left - right,
            height=self.height - top - bottom,
        )

    def rows(self, count: int, gap: float = 0) -> list[Self]:
        """Cut it into rows of one height."""
        height = (self.height - gap * (count - 1)) / count
        return [self._replace(top=self.top + row * (height + gap), height=height) for row in range(count)]

    def columns(self, count: int, gap: float = 0) -> list[Self]:
        """Cut it into columns of one width."""
        width = (self.width - gap * (count - 1)) / count
        return [self._replace(left=self.left + column * (width + gap), width=width) for column in range(count)]
