"""The process in which an answer is examined: its descriptors lead nowhere, and its memory and time have bounds."""

from __future__ import annotations

import json
import os
import sys
import traceback
from contextlib import suppress

from ratelab.learn.grader import examine
from ratelab.learn.submission import line_of
from ratelab.learn.verdict import Verdict, written

MEMORY = 2**30
"""Bytes of address space that it may have."""


def main() -> None:
    """Examine the answer of standard input, and write the verdict to standard output."""
    asked = json.load(sys.stdin)
    way_out = os.fdopen(os.dup(1), "w")
    _shut()
    way_out.write(_told(asked["algorithm"], asked["source"]))
    way_out.flush()
    os._exit(0)  # whatever threads the answer has begun


def _told(name: str, source: str) -> str:
    try:
        return written(examine(name, source))
    except BaseException as error:
        line = line_of(sys.exc_info()[2])
        if line:
            words = f"line {line}: {type(error).__name__}, in the midst of the examination"
            return written(Verdict(name, False, words))
        return f"!{traceback.format_exc()}"  # a mistake of ours, which nobody is to think theirs


def _shut() -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    with suppress(ImportError):  # there is none on Windows
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
