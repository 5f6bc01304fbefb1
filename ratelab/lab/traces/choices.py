"""Choices made for a file by its first lines: how its lines become requests, each with the option to change it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import lru_cache

from ratelab.errors import InputError, short_repr
from ratelab.lab.traces.batches import ANONYMOUS, LineError, OmittedError, ParsedRequest
from ratelab.lab.traces.clients import ClientNames, is_private
from ratelab.lab.traces.delimited import JOINED, DelimitedFormat
from ratelab.lab.traces.formats import MAX_SAMPLE_LINES, Detection, Format, TraceOptions
from ratelab.lab.traces.patterns import SIZE, TextFormat
from ratelab.lab.traces.requests import Field, FieldReader, Filter
from ratelab.lab.traces.text_formats import ADDRESS
from ratelab.lab.traces.timestamps import (
    TimeRule,
    find_zone,
    guess_unit,
    is_excel_serial,
    is_plausible,
    lacks_zone,
    parse_decimal,
)
from ratelab.quota import LARGEST

_UNIT_NAMES = {"ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}


@dataclass(frozen=True)
class RequestRule:
    """How the values of a line's fields become a request."""

    fields: tuple[Field, ...]
    """The fields of the client, then those of the time, the cost if there is one, and the filters."""
    clients: int
    """The number of fields of the client."""
    names: ClientNames
    """The name of the client for the values of its fields, "" if it is missing."""
    time: TimeRule
    has_cost: bool
    filters: tuple[Filter, ...]

    def parse(self, values: Sequence[str]) -> ParsedRequest:
        """Parse the values of `fields`; raise `LineError` for an invalid one, and `OmittedError`."""
        first = self.clients + 1 + self.has_cost
        for number, (filter_, value) in enumerate(zip(self.filters, values[first:], strict=True)):
            if not filter_.accepts(value):
                raise OmittedError(number)
        name = self.names[tuple(values[: self.clients])]
        if not name:
            raise OmittedError(ANONYMOUS)
        cost = parse_cost(values[self.clients + 1].strip()) if self.has_cost else 1
        return name, self.time.parse(values[self.clients].strip()), cost


@lru_cache(maxsize=256)
def parse_cost(text: str) -> int:
    """Parse a cost. Cached, since few costs are different."""
    number = parse_decimal(text)
    if number is None or not 1 <= number <= LARGEST or number % 1:
        raise LineError(f"cost must be a whole number from 1 to 2**62 - 1, got {short_repr(text)}")
    return int(number)


@dataclass(frozen=True)
class Plan:
    """How the requests of a file are read."""

    rule: RequestRule
    reader: FieldReader
    notes: tuple[str, ...]
    """The choices that were made, each with the option that changes it."""
    anonymous_reason: str
    """Why a line has no client, and the option that names another field."""
    late_notes: AbstractSet[str]
    """Notes on lines after the first, filled while they are read."""


def plan_reading(detection: Detection, options: TraceOptions) -> Plan:
    """Choose the fields of the client and the time; raise `InputError` if no choice is safe or a field is missing."""
    format_, lines = detection.format, detection.lines
    notes = [wrapping.description for wrapping in detection.wrappings]
    time, rule = _choose_time(format_, lines, options, notes)
    client_notes: list[str] = []
    clients, is_forwarded = _choose_client(format_, lines, options, client_notes)
    cost = [Field("cost", format_.resolve(options.cost))] if options.cost else []
    if options.cost == SIZE and isinstance(format_, TextFormat) and not format_.is_re2:
        notes.append("the cost is the size of the response, at least 1; the log has no sizes of requests (--cost)")
    filters = [Field(filter_.option, format_.resolve(filter_.field), optional=True) for filter_ in options.filters]
    format_.bind([field._replace(optional=False) for field in filters], lines)  # reports a missing field
    fields = (*clients, time, *cost, *filters)
    request_rule = RequestRule(
        fields,
        len(clients),
        options.clients.create_names(is_forwarded),
        rule,
        bool(cost),
        options.filters,
    )
    reason = _explain_anonymous(format_, lines, clients[-1])
    reader = format_.bind(fields, lines)
    late_notes = reader.notes if options.key is None and not client_notes else frozenset[str]()
    return Plan(request_rule, reader, (*notes, *client_notes), reason, late_notes)


def _explain_anonymous(format_: Format, lines: Sequence[str], client: Field) -> str:
    """Return the reason why lines have no client."""
    try:
        format_.bind([client._replace(optional=False)], lines).read(lines[-1])
    except (LineError, InputError) as error:
        return str(error)
    except OmittedError:
        pass
    return f"it has no {client.names[0]}: name another field with --key"


def _read_values(format_: Format, lines: Sequence[str], names: tuple[str, ...], option: str) -> list[str]:
    """Return the values of a field in the first lines, of those that have one."""
    try:
        read = format_.bind([Field(option, names)], lines).read
    except InputError:
        return []
    values = []
    for line in lines:
        try:
            values.append(read(line)[0].strip())
        except (LineError, OmittedError):
            continue
    return [value for value in values if value not in ("", "-")]


# --- the client


def _choose_client(
    format_: Format, lines: Sequence[str], options: TraceOptions, notes: list[str]
) -> tuple[list[Field], bool]:
    """Return the fields of the client, and whether they are the peer and its list of forwarded addresses."""
    key, rule = options.key, options.clients
    wants_forwarded = key == "forwarded" or (rule.reads_forwarded and key in (None, "ip"))
    peer = Field("key", format_.resolve("ip"), optional=True)
    forwarded = Field("key", format_.resolve("forwarded"), optional=True)
    if rule.reads_forwarded and not wants_forwarded:
        raise InputError(f"trusted proxies forward addresses, not {key}: leave out --key or the proxies")
    if wants_forwarded:
        format_.bind([forwarded._replace(optional=False)], lines)  # reports a missing field
        if not _read_values(format_, lines, forwarded.names, "key"):
            if len(lines) < MAX_SAMPLE_LINES:
                raise InputError(
                    "its lines have no forwarded addresses: leave out --key forwarded and the trusted proxies"
                )
            notes.append("the first lines have no forwarded addresses: their clients are the peers (--key ip)")
        return [peer, forwarded], True
    if key is not None:
        client = Field("key", format_.resolve(key))
        format_.bind([client], lines)  # reports a missing field
        return [client._replace(optional=key != "ip")], False
    peers = _read_values(format_, lines, peer.names, "key")
    addresses = _read_values(format_, lines, forwarded.names, "key")
    if format_.default_key == "forwarded":
        notes.append("clients are the last public forwarded addresses (--trusted-proxy, --trusted-hops)")
        return [peer, forwarded], True
    if addresses and not peers:
        notes.append("lines have only forwarded addresses: clients are the last public ones (--trusted-proxy)")
        return [peer, forwarded], True
    if addresses and (choice := _choose_of_two(lines, notes)) is not None:
        return ([peer, forwarded], True) if choice == "forwarded" else ([peer._replace(optional=False)], False)
    if addresses:
        where = "end with" if isinstance(format_, TextFormat) else "also have"
        notes.append(f"lines {where} the address of a forwarded client: --key forwarded reads it instead of the peer")
    return [peer._replace(optional=False)], False


_TWO_ADDRESSES = re.compile(rf'"?(?P<first>{ADDRESS}(?:, ?{ADDRESS})*)"? (?P<second>{ADDRESS}) ', re.ASCII)


def _choose_of_two(lines: Sequence[str], notes: list[str]) -> str | None:
    """Return the field of the client, `forwarded` or `ip`, of lines that begin with two addresses; None for others.

    Raises `InputError` if either may be the client.
    """
    matches = [match for line in lines if (match := _TWO_ADDRESSES.match(line))]
    firsts, seconds = ([match[group] for match in matches] for group in ("first", "second"))
    if not matches:
        return None
    are_private = [all(map(is_private, column)) for column in (firsts, seconds)]
    if are_private[0] == are_private[1]:
        are_private = [len(matches) > 1 and len(set(column)) == 1 for column in (firsts, seconds)]
    if are_private == [False, True]:
        notes.append("each line begins with two addresses: the first is the client, forwarded by the second (--key ip)")
        return "forwarded"
    if are_private == [True, False]:
        notes.append("each line begins with two addresses: the second is the client (--key forwarded: the first)")
        return "ip"
    raise InputError(
        "each line begins with two addresses: choose the client "
        "with --key forwarded (the first) or --key ip (the second)"
    )


# --- the time


def _choose_time(
    format_: Format, lines: Sequence[str], options: TraceOptions, notes: list[str]
) -> tuple[Field, TimeRule]:
    """Return the field of the time, and how it is written."""
    rule = TimeRule(options.unit, options.time_format, find_zone(options.time_zone))
    names = format_.resolve("time") if options.time is None else (options.time,)
    format_.bind([Field("time", names)], lines)  # reports a missing field
    values = {name: found for name in names if (found := _read_values(format_, lines, (name,), "time"))}
    chosen = next((name for name in values if _are_times(values[name], rule)), next(iter(values), names[0]))
    skipped = [name for name in values if name == "at_ns" or _precedes(name, chosen, values)]
    if options.time is None and skipped and skipped != ["at_ns"] and JOINED not in chosen:
        notes.append(f"times are those of {chosen}, since {skipped[0]} holds no times (--time)")
    texts = values.get(chosen, [])
    if chosen == "at_ns":
        rule = replace(rule, unit="ns")
    elif options.unit == "auto":
        rule = replace(rule, unit=guess_unit(texts))
        if rule.unit in _UNIT_NAMES:
            notes.append(f"times are {_UNIT_NAMES[rule.unit]} since 1970 (--time-unit)")
        elif texts and all(map(is_excel_serial, texts)):
            notes.append("times may be dates of a spreadsheet, in days: --time-unit excel reads them as such")
    is_utc = isinstance(format_, DelimitedFormat) and bool(format_.marker)  # by definition
    if any(map(lacks_zone, texts)) and not is_utc and options.time_zone == "UTC":
        notes.append("times name no zone and are read as UTC (--time-zone)")
    others = [name for name in names if name != chosen and name not in skipped and JOINED not in name]
    return Field("time", (chosen, *others)), rule


def _are_times(texts: Sequence[str], rule: TimeRule) -> bool:
    """Return whether most of these texts are times from 1980 on."""
    return 2 * sum(is_plausible(text, rule) for text in texts) > len(texts)


def _precedes(name: str, chosen: str, values: dict[str, list[str]]) -> bool:
    """Return whether a name comes before the chosen one."""
    return name != chosen and list(values).index(name) < list(values).index(chosen)
