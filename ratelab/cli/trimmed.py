"""The standard output, without the blanks that fill up a table's lines."""

from __future__ import annotations

import re
import sys
from typing import Any


class Trimmed:
    """Whatever standard output is at the time, for whole lines of text."""

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stdout, name)

    def write(self, text: str) -> int:
        """Write `text` without the blanks at the end of its lines."""
        return sys.stdout.write(re.sub(" +(?=\n)", "", text))
