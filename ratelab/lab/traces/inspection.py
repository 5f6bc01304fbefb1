"""Second look at traces: the paths, statuses and agents of some clients, and the requests that were already denied."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from ipaddress import IPv6Network
from threading import Lock
from typing import Any, NamedTuple

import numpy as np

from ratelab.errors import InputError
from ratelab.lab.spill import Integers
from ratelab.lab.traces.choices import Plan
from ratelab.lab.traces.clients import ClientNames
from ratelab.lab.traces.files import BLOCK_BYTES, Block, is_arrow_installed, make_printable
from ratelab.lab.traces.formats import Format, TraceOptions
from ratelab.lab.traces.reader import BatchReader, open_source, remove_repeated
from ratelab.lab.traces.requests import Field
from ratelab.lab.traffic import Booleans

DENIALS = ("429", "503")
"""Statuses of requests that were limited."""

MAX_INSPECTED_REQUESTS = 10_000
"""Requests of a client in a file that give its signals: the first ones."""

EMPTY_AGENTS = ("", "-")

_LITERAL = re.compile(r"[0-9A-Za-z._@-]+")
_COUNTED_FIELDS = ("status", "path", "agent")


@dataclass
class Signals:
    """The statuses, paths and agents of a client's requests; a field that the log lacks has no values."""

    requests: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    paths: Counter[str] = field(default_factory=Counter)
    agents: Counter[str] = field(default_factory=Counter)

    @property
    def client_errors_ratio(self) -> float | None:
        """The share of requests with a status of 400 to 499."""
        errors = sum(count for status, count in self.statuses.items() if re.fullmatch("4[0-9][0-9]", status))
        return self._divide(errors, self.statuses)

    @property
    def paths_ratio(self) -> float | None:
        """The number of different paths divided by the number of requests."""
        return self._divide(len(self.paths), self.paths)

    @property
    def agent_count(self) -> int | None:
        """The number of different agents."""
        return sum(agent not in EMPTY_AGENTS for agent in self.agents) if self.agents else None

    @property
    def empty_agent_ratio(self) -> float | None:
        """The share of requests without an agent."""
        return self._divide(sum(self.agents[agent] for agent in EMPTY_AGENTS), self.agents)

    def _divide(self, part: int, values: Counter[str]) -> float | None:
        return part / self.requests if values else None


class Inspection(NamedTuple):
    """The result of a second look at traces."""

    clients: dict[str, Signals]
    """The signals of each named client."""
    denied: dict[str, int]
    """The number of requests with each status of `DENIALS`, of all clients."""


class Findings(NamedTuple):
    """The result of a second look at a file, or at a section of it."""

    rows: list[Sequence[Any]]
    """A client, a status, a path, an agent, and the number of requests with them, of those that give signals."""
    denied: dict[str, int]


def inspect_traces(
    paths: Sequence[str],
    options: TraceOptions,
    clients: Collection[str],
    progress: Callable[[int], None] | None = None,
    columnar: bool | None = None,
) -> Inspection:
    """Read traces again, as `read_traces` does, and collect the signals of the named clients.

    Files that cannot be read again, as standard input, are left out. Lines that name neither one of the clients nor a
    status of `DENIALS` are skipped unread where that is safe. The first `MAX_INSPECTED_REQUESTS` of a client in each
    file give its signals.
    """
    files = []
    for path in remove_repeated(paths)[0]:
        if path != "-":
            limits = dict.fromkeys(clients, MAX_INSPECTED_REQUESTS)
            with suppress(InputError):  # the first reading has reported it
                files.append([inspect_file(path, options, limits, progress, columnar)])
    return join_findings(clients, files)


def inspect_file(
    path: str,
    options: TraceOptions,
    limits: Mapping[str, int],
    progress: Callable[[int], None] | None = None,
    columnar: bool | None = None,
    section: tuple[int, int] | None = None,
) -> Findings:
    """Read a file again, or the lines that start at the bytes of a section.

    `limits` names the clients, and how many requests of each give its signals. Raises `InputError` if the file cannot
    be read.
    """
    rest, namer = dict(limits), _Namer(limits)
    source = open_source(path, options, progress, columnar, namer.extend_plan, _create_selector(rest), section)
    reader = BatchReader(strict=False)
    counts, all_counts = np.zeros(0, np.int64), np.zeros(0, np.int64)
    with closing(source.batches) as batches:
        for batch in batches:
            numbers = reader.read(batch, source.parse_line).clients
            owners = [namer.combinations[int(number)][0] for number in reader.clients]
            kept = numbers[_select_first(numbers, owners, rest)]
            counts, all_counts = (
                np.bincount(part, minlength=len(owners)) + np.pad(before, (0, len(owners) - len(before)))
                for part, before in ((kept, counts), (numbers, all_counts))
            )
    combinations = [namer.combinations[int(number)] for number in reader.clients]
    denied = dict.fromkeys(DENIALS, 0)
    for (_, status, *_), count in zip(combinations, all_counts.tolist(), strict=True):
        if status in DENIALS:
            denied[status] += count
    pairs = zip(combinations, counts.tolist(), strict=True)
    return Findings([(*values, count) for values, count in pairs if values[0] and count], denied)


def _select_first(numbers: Integers, owners: Sequence[str], rest: dict[str, int]) -> Booleans:
    """Return which requests give signals, and subtract them from the `rest` of their clients."""
    selected = np.ones(len(numbers), np.bool_)
    places = {name: place for place, name in enumerate(dict.fromkeys(owners))}
    clients = np.array([places[name] for name in owners], np.int64)[numbers]
    for name, count in zip(places, np.bincount(clients, minlength=len(places)).tolist(), strict=True):
        if name and count > rest[name]:
            selected[np.flatnonzero(clients == places[name])[rest[name] :]] = False
        if name:
            rest[name] = max(0, rest[name] - count)
    return selected


def join_findings(clients: Collection[str], files: Iterable[Sequence[Findings]]) -> Inspection:
    """Return the signals of clients, given the findings of the sections of each file."""
    found = Inspection({name: Signals() for name in clients}, dict.fromkeys(DENIALS, 0))
    for sections in files:
        rows = [row for section in sections for row in section.rows]
        present = [any(row[place] for row in rows) for place in range(1, len(_COUNTED_FIELDS) + 1)]
        for name, *texts, count in rows:
            signals = found.clients[name]
            signals.requests += count
            columns = (signals.statuses, signals.paths, signals.agents)
            for values, text, is_present in zip(columns, texts, present, strict=True):
                if is_present:
                    values[text] += count
        for section in sections:
            for status, count in section.denied.items():
                found.denied[status] += count
    return found


class _Namer(ClientNames):
    """Names each different combination of a client, a status, a path and an agent by a number; "" for others."""

    def __init__(self, clients: Collection[str]) -> None:
        super().__init__(self.__getitem__)
        self._clients = clients
        self._lock = Lock()  # blocks are parsed in several threads
        self._numbers: dict[tuple[str, ...], str] = {}
        self.combinations: list[tuple[str, str, str, str]] = []

    def extend_plan(self, format_: Format, lines: Sequence[str], plan: Plan) -> Plan:
        """Return the plan with the fields of the signals after those of the client."""
        rule = plan.rule
        self._names, self._count = rule.names, rule.clients
        more = [Field("key", format_.resolve(name), optional=True) for name in _COUNTED_FIELDS]
        fields = (*rule.fields[: rule.clients], *more, *rule.fields[rule.clients :])
        rule = replace(rule, fields=fields, clients=rule.clients + len(more), names=self)
        return replace(plan, rule=rule, reader=format_.bind(fields, lines))

    def __getitem__(self, texts: tuple[str, ...]) -> str:
        name = make_printable(self._names[texts[: self._count]])
        status, path, agent = (text.strip() for text in texts[self._count :])
        if name not in self._clients:
            if status not in DENIALS:
                return ""
            name = path = agent = ""
        values = (name, status, path, agent)
        with self._lock:
            number = self._numbers.get(values)
            if number is None:
                number = self._numbers[values] = str(len(self.combinations))
                self.combinations.append(values)
        return number


def _create_selector(rest: Mapping[str, int]) -> Callable[[Iterable[Block]], Iterator[Block]] | None:
    """Return a function that keeps the lines with one of the names or statuses; None if a name has no pattern.

    `rest` has the number of requests of each name that are still needed. The kept lines of several blocks are yielded
    as one block, since parsing a block has a fixed cost: RE2 compiles the patterns for each.
    """
    patterns = {client: _create_pattern(client) for client in rest}
    if not all(patterns.values()):
        return None
    keep, statuses = _choose_filter(), rf"\b(?:{'|'.join(DENIALS)})\b"

    def select(block: Block) -> bytes:
        if not block.text.isascii():
            return block.text
        return keep(block, "|".join([*(pattern for client, pattern in patterns.items() if rest[client]), statuses]))

    def select_lines(blocks: Iterable[Block]) -> Iterator[Block]:
        text = bytearray()
        for block in blocks:
            if kept := select(block):
                text += kept.removesuffix(b"\n") + b"\n"
            if len(text) >= BLOCK_BYTES:
                yield Block(1, bytes(text))
                text.clear()
        yield Block(1, bytes(text))

    return select_lines


def _create_pattern(client: str) -> str:
    """Return a pattern that matches in every line of a client, for RE2 and Python; "" if its text may vary too much.

    The text of an IPv6 address begins with the hextets of its network. `::` may stand for some of those that are zero,
    and each may have leading zeros. A network whose first hextet is zero has no pattern.
    """
    if _LITERAL.fullmatch(client):
        return re.escape(client)
    try:
        network = IPv6Network(client)
    except ValueError:
        return ""
    hextets = network.network_address.exploded.split(":")[: network.prefixlen // 16]
    beginning = "".join(f"{hextet.lstrip('0')}:" for hextet in hextets)
    if not beginning or beginning.startswith(":"):
        return ""
    pattern = re.sub("::+", ":[0:]*:", beginning)
    return f"(?i:{re.sub(':(?=[1-9a-f])', ':0*', pattern)})"


def _choose_filter() -> Callable[[Block, str], bytes]:
    """Return a function that returns the lines of a block in which a pattern matches."""
    if not is_arrow_installed():
        return _keep_lines
    from ratelab.lab.traces import arrow

    def keep_lines(block: Block, pattern: str) -> bytes:
        lines = arrow.split_lines(block.text, block.newlines)
        return arrow.get_bytes(arrow.select(lines, np.flatnonzero(arrow.match(lines, pattern)))).tobytes()

    return keep_lines


def _keep_lines(block: Block, pattern: str) -> bytes:
    search = re.compile(pattern.encode()).search
    return b"".join(line + b"\n" for line in block.text.split(b"\n") if search(line))
