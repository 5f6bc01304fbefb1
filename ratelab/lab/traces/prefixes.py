"""Lines wrapped by other programs: text that they put in front, and JSON objects that hold a line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from ratelab.lab.traces.text_formats import ADDRESS

_STAMP = r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:[.,][0-9]+)?(?:Z|[+-][0-9]{2}:?[0-9]{2})?"
_SYSLOG_STAMP = r"(?:[A-Z][a-z]{2} [ 0-9][0-9] [0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?)"
_LINE_START = rf"{ADDRESS} |\{{|\[|\""


@dataclass(frozen=True)
class Wrapping:
    """The text that a program adds to the lines of another one."""

    name: str
    """The program, for the report."""
    pattern: str = ""
    """The text in front of the line, in the syntax that RE2 and Python share."""
    field: str = ""
    """Instead: the field of a JSON object that holds the line."""

    @property
    def description(self) -> str:
        """The note for the report."""
        where = f"in the JSON field {self.field}" if self.field else f"after text that {self.name} adds"
        return f"each log line is {where}, which is removed"

    def unwrap(self, line: str) -> str:
        """Return the line inside; a line that is not wrapped is returned as it is."""
        if self.field:
            return _get_text(line, self.field)
        match = self._prefix.match(line)
        return line if match is None else line[match.end() :]

    def wraps(self, lines: Sequence[str]) -> bool:
        """Return whether lines are wrapped in this way; the numbers of `grep -n` must rise."""
        unwrapped = [line for line in lines if self.unwrap(line) != line]
        if "<number>" in self.pattern:
            numbers = [int(match["number"]) for line in unwrapped if (match := self._prefix.match(line))]
            if any(number <= previous for previous, number in pairwise(numbers)):
                return False
        return 2 * len(unwrapped) > len(lines)

    @cached_property
    def _prefix(self) -> re.Pattern[str]:
        return re.compile(self.pattern, re.ASCII)


def _get_text(line: str, field: str) -> str:
    """Return the text in a field of a JSON object, without the newline at its end; the line itself if there is none."""
    try:
        text = json.loads(line).get(field)
    except (ValueError, RecursionError, AttributeError):
        return line
    return text.rstrip("\r\n") if isinstance(text, str) else line


WRAPPINGS = (
    Wrapping("grep -n", rf"(?:[^ :\t]+:)?(?P<number>[0-9]+):(?={_LINE_START})"),
    Wrapping("grep", rf"[^ :\t]+:(?={_LINE_START})"),
    Wrapping("grep", r"[^ :\t]*(?:log|\.gz|\.json|\.txt|\.csv|\.tsv)[^ :\t]*:(?:[0-9]+:)?"),
    Wrapping("CRI", rf"{_STAMP} (?:stdout|stderr) [FP] "),
    Wrapping("syslog", rf"(?:<[0-9]{{1,3}}>)?{_SYSLOG_STAMP} (?:[^ ]+ )?[^ :\[]+(?:\[[0-9]+\])?: ?"),
    Wrapping(
        "syslog", rf"(?:<[0-9]{{1,3}}>|[A-Z][a-z]{{2}} )?{_STAMP}(?: [A-Z]{{3,4}})? [^ ]+ [^ :\[]+(?:\[[0-9]+\])?: ?"
    ),
    Wrapping("syslog", rf"<[0-9]{{1,3}}>1 {_STAMP} [^ ]+ [^ ]+ [^ ]+ [^ ]+ (?:-|\[[^\]]*\]) ?"),
    Wrapping("docker compose", rf"(?:[0-9:]{{8}} )?[A-Za-z0-9_./@-]+ *\| +(?:{_STAMP} )?"),
    Wrapping("pm2", r"[0-9]+\|[^ |]+ *\| +"),
    Wrapping("kubectl", rf"\[[a-z]+/[^\]]+\] (?:{_STAMP} )?"),
    Wrapping("Heroku", rf"{_STAMP} app\[[^\]]+\]: "),
    Wrapping("the logging module of Python", r"(?:DEBUG|INFO|WARNING|ERROR|CRITICAL):[A-Za-z0-9_.-]+:"),
    Wrapping("the logging module of Python", rf"{_STAMP} - [A-Za-z0-9_.-]+ - [A-Z]+ - "),
    Wrapping("another program", rf"\[?{_STAMP}\]? (?:(?!{ADDRESS} )[A-Za-z0-9_.-]+ )?"),
    Wrapping("docker", field="log"),
    Wrapping("journald", field="MESSAGE"),
    *(
        Wrapping("another program", field=field)
        for field in ("message", "textPayload", "msg", "line", "@message", "_raw", "short_message")
    ),
)
"""The wrappings, in the order in which they are tried on lines that no format matches."""


def create_unwrapper(wrappings: Sequence[Wrapping]) -> Callable[[str], str]:
    """Return a function that removes wrappings one after the other."""

    def unwrap(line: str) -> str:
        for wrapping in wrappings:
            line = wrapping.unwrap(line)
        return line

    return unwrap
