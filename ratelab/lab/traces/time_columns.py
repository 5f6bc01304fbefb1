"""Columns of times, parsed by the columns of their parts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ratelab.lab.spill import Integers
from ratelab.lab.traces import arrow
from ratelab.lab.traces.arrow import ArrowArray, StringArray
from ratelab.lab.traces.batches import LineError
from ratelab.lab.traces.timestamps import RE2_ISO_TIME, RE2_LOG_TIME, RE2_NUMBER, TimeRule
from ratelab.quota import LARGEST, NS_PER_S

Booleans = NDArray[np.bool_]

_MIN_SHARED_TIMES = 4
"""Requests of one distinct time, on average, from which on each distinct time is parsed in Python."""
_ZONED_TIME = (
    "^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-5][0-9](?:\\.[0-9]{1,9})?(?:Z|[+-][01][0-9]:?[0-5][0-9])$"
)
_MIN_UTC_CHARS = len("2026-11-02T10:00:00Z")
_COMPARED_TEXTS = 256

_DIGITS = {NS_PER_S: 9, NS_PER_S // 10**3: 6, NS_PER_S // 10**6: 3, 1: 0}
"""By the nanoseconds of a unit, its decimal digits."""


def parse_times(column: ArrowArray, rule: TimeRule) -> tuple[Integers, Booleans]:
    """Parse times, which are text or decimal numbers, as `rule.parse` does, and return which of them are valid."""
    if rule.is_plain and (arrow.is_decimal(column) or _mostly_differ(column)):
        whole = _cast_times(column, rule)
        if whole is not None and whole[1].all():
            return whole
    indices, distinct = arrow.encode(arrow.cast_to_text(column))
    if rule.is_plain and len(distinct) * _MIN_SHARED_TIMES > len(column):
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


def _cast_times(column: ArrowArray, rule: TimeRule) -> tuple[Integers, Booleans] | None:
    """Parse times that are all numbers, or all ISO 8601 with a zone; None for others."""
    digits = _DIGITS.get(rule.unit_ns)
    if arrow.is_decimal(column):
        numbers = None if digits is None else arrow.cast_to_integers(column, digits)
        return None if numbers is None else (numbers[0], numbers[1] & (numbers[0] <= LARGEST))
    if _are_utc(column) or arrow.match(column, _ZONED_TIME).all():
        times = arrow.cast_to_nanoseconds(column)
        return None if times is None else (times, np.abs(times) <= LARGEST)
    if digits is not None and _are_numbers(column):
        numbers = arrow.cast_to_integers(column, digits)
        return None if numbers is None else (numbers[0], numbers[1] & (numbers[0] <= LARGEST))
    return None


def _mostly_differ(texts: StringArray) -> bool:
    """Return whether most of the first texts differ from each other."""
    first = texts[:_COMPARED_TEXTS]
    return 2 * len(arrow.encode(first)[1]) > len(first)


def _are_utc(texts: StringArray) -> bool:
    """Return whether all texts end with Z and are so long that Arrow parses only those with seconds."""
    return bool((arrow.count_bytes(texts) >= _MIN_UTC_CHARS).all() and arrow.end_with(texts, "Z").all())


def _are_numbers(texts: StringArray) -> bool:
    """Return whether all texts consist of digits, and points that are not in front."""
    data, lengths = arrow.get_bytes(texts), arrow.count_bytes(texts)
    if not lengths.min(initial=1) or not (((data >= ord("0")) & (data <= ord("9"))) | (data == ord("."))).all():
        return False
    return not (data[np.cumsum(lengths) - lengths] == ord(".")).any()


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
    times += arrow.parse_integers(arrow.replace(groups["second"], "[.]", ""), digits=11)
    return times, valid & (times <= LARGEST)
