"""Columns of times, parsed by the columns of their parts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ratelab.lab.spill import Integers
from ratelab.lab.traces import arrow
from ratelab.lab.traces.arrow import StringArray
from ratelab.lab.traces.batches import LineError
from ratelab.lab.traces.timestamps import RE2_ISO_TIME, RE2_LOG_TIME, RE2_NUMBER, TimeRule
from ratelab.quota import LARGEST, NS_PER_S

Booleans = NDArray[np.bool_]

_MIN_SHARED_TIMES = 4
"""Requests of one distinct time, on average, from which on each distinct time is parsed in Python."""
_ZONED_TIME = (
    "^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-5][0-9](?:\\.[0-9]{1,9})?(?:Z|[+-][01][0-9]:?[0-5][0-9])$"
)
_DIGITS = {NS_PER_S: 9, NS_PER_S // 10**3: 6, NS_PER_S // 10**6: 3, 1: 0}
"""By the nanoseconds of a unit, its decimal digits."""


def parse_times(texts: StringArray, rule: TimeRule) -> tuple[Integers, Booleans]:
    """Parse times as `rule.parse` does, and return which of them are valid."""
    indices, distinct = arrow.encode(texts)
    if rule.is_plain and len(distinct) * _MIN_SHARED_TIMES > len(texts):
        times, valid = _split_times(distinct, rule)
    else:
        times, valid = np.zeros(len(distinct), np.int64), np.zeros(len(distinct), np.bool_)
    for place in np.flatnonzero(~valid).tolist():
        try:
            times[place] = rule.parse(distinct[place].as_py().strip())
        except LineError:
            continue
        valid[place] = True
    return times[indices], valid[indices]


def _split_times(texts: StringArray, rule: TimeRule) -> tuple[Integers, Booleans]:
    """Parse common times by the columns of their parts, and return which of them are valid."""
    whole = _cast_times(texts, rule)
    if whole is not None:
        return whole
    times, is_valid = np.zeros(len(texts), np.int64), np.zeros(len(texts), np.bool_)
    for pattern in (RE2_NUMBER, RE2_ISO_TIME, RE2_LOG_TIME):
        left = np.flatnonzero(~is_valid)
        if not len(left):
            break
        places, groups = arrow.extract_groups(arrow.select(texts, left), f"^(?:{pattern})$")
        if len(places):
            parsed, valid = (
                _convert_numbers(groups, rule.unit_ns) if "whole" in groups else _convert_calendar(groups, rule)
            )
            times[left[places]], is_valid[left[places]] = parsed, valid
    return times, is_valid


def _cast_times(texts: StringArray, rule: TimeRule) -> tuple[Integers, Booleans] | None:
    """Parse times that are all numbers, or all ISO 8601 with a zone; None for others."""
    if len(arrow.find_matches(texts, _ZONED_TIME)) == len(texts):
        times = arrow.cast_to_nanoseconds(texts)
        return None if times is None else (times, np.abs(times) <= LARGEST)
    if rule.unit_ns in _DIGITS and len(arrow.find_matches(texts, f"^(?:{RE2_NUMBER})$")) == len(texts):
        numbers = arrow.cast_to_integers(texts, _DIGITS[rule.unit_ns])
        return None if numbers is None else (numbers[0], numbers[1] & (numbers[0] <= LARGEST))
    return None


def _convert_numbers(groups: dict[str, StringArray], unit: int) -> tuple[Integers, Booleans]:
    """Convert times that count `unit` nanoseconds, and return which of them are in range."""
    whole = arrow.parse_integers(groups["whole"])
    valid = whole < LARGEST // unit
    return np.where(valid, whole, 0) * unit + arrow.parse_integers(groups["fraction"], 9) * unit // NS_PER_S, valid


def _convert_calendar(groups: dict[str, StringArray], rule: TimeRule) -> tuple[Integers, Booleans]:
    """Convert ISO 8601 and log times, and return which of them are valid; each distinct minute is parsed once."""
    minutes, texts = arrow.number_texts(arrow.join(groups["minute"], ":00", groups["zone"]))
    starts = [rule.parse_minute(text) for text in texts]
    valid = np.array([start is not None for start in starts], np.bool_)[minutes]
    times = np.array([start or 0 for start in starts], np.int64)[minutes]
    times += arrow.parse_integers(arrow.remove_substring(groups["second"], "."), digits=11)
    return times, valid & (times <= LARGEST)
