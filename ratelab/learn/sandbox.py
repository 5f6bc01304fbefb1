"""Grader process: its standard streams lead nowhere, and its memory is limited."""

from __future__ import annotations

import json
import os
import sys
import traceback
from contextlib import suppress

from ratelab.learn.grader import evaluate
from ratelab.learn.submission import submission_line
from ratelab.learn.verdict import FAILURE_MARK, Verdict, serialize_verdict

MAX_MEMORY_BYTES = 2**30
"""Limit of the address space."""


def main() -> None:
    """Read an algorithm's name and a submission as JSON from stdin; write the verdict to stdout."""
    task = json.load(sys.stdin)
    output = os.fdopen(os.dup(1), "w")
    _restrict()
    output.write(_grade(task["algorithm"], task["source"]))
    output.flush()
    os._exit(0)  # even if the submission has started threads


def _grade(name: str, source: str) -> str:
    """Return the verdict as JSON, or the traceback of an error that is not the submission's."""
    try:
        return serialize_verdict(evaluate(name, source))
    except MemoryError:
        return serialize_verdict(Verdict(name, False, "the submission keeps more memory than the grader allows, 1 GB"))
    except BaseException as error:
        line = submission_line(sys.exc_info()[2])
        if line:  # code of the submission that runs outside `step`, such as a comparison of its values
            return serialize_verdict(Verdict(name, False, f"line {line}: {type(error).__name__} during grading"))
        return f"{FAILURE_MARK}{traceback.format_exc()}"


def _restrict() -> None:
    """Redirect the standard streams to the null device; limit memory and core dumps where the system can."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    with suppress(ImportError):  # not on Windows
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
