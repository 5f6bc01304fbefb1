"""What a live endpoint has answered so far, for a play that ends before its time."""

from __future__ import annotations

import errno
import os
from collections import Counter

from ratelab.answer import Answer
from ratelab.errors import InputError

GONE = os.strerror(errno.ECONNREFUSED)


class Seen:
    """Count the answers to so many requests; called with each.

    Raises `InputError` when the endpoint takes no connections any more: what it would have answered is unknown.
    """

    def __init__(self, url: str, requests: int) -> None:
        self._url, self._requests = url, requests
        self._answered = Counter[int]()

    def __call__(self, answer: Answer) -> None:
        """Take note of an answer."""
        if answer.error == GONE:
            raise InputError(f"{self._url} has gone ({GONE}; {self}): start the service again, and play the whole")
        if answer.status:
            self._answered[answer.status] += 1

    def __str__(self) -> str:
        statuses = ", ".join(f"{count:,} with {status}" for status, count in sorted(self._answered.items()))
        return f"{self._answered.total():,} of {self._requests:,} answered{statuses and f': {statuses}'}"
