"""Second look at traces: the paths, statuses and agents of some clients, and the requests that were already denied."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from ipaddress import IPv6Network
from threading import Lock
from typing import NamedTuple

import numpy as np

from ratelab.errors import InputError
from ratelab.lab.traces.choices import Plan
from ratelab.lab.traces.clients import ClientNames
from ratelab.lab.traces.files import BLOCK_BYTES, Block, is_arrow_installed, make_printable
from ratelab.lab.traces.formats import Format, TraceOptions
from ratelab.lab.traces.reader import BatchReader, open_source, remove_repeated
from ratelab.lab.traces.requests import Field

DENIALS = ("429", "503")
"""Statuses of requests that were limited."""

MAX_INSPECTED_LINES = 10_000
"""Lines of a client from which on further ones are skipped, in every file."""

EMPTY_AGENTS = ("", "-")

_LITERAL = re.compile(r"[0-9A-Za-z._@-]+")
_WORD_END = r'[^ ,;\t"]*[ ,;\t"]?'
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


def inspect_traces(
    paths: Sequence[str],
    options: TraceOptions,
    clients: Collection[str],
    progress: Callable[[int], None] | None = None,
    columnar: bool | None = None,
) -> Inspection:
    """Read traces again, as `read_traces` does, and collect the signals of the named clients.

    Files that cannot be read again, as standard input, are left out. Lines that name neither one of the clients nor a
    status of `DENIALS` are skipped unread where that is safe, and so are those of a client after
    `MAX_INSPECTED_LINES` in one file.
    """
    found = Inspection({name: Signals() for name in clients}, dict.fromkeys(DENIALS, 0))
    for path in remove_repeated(paths)[0]:
        if path != "-":
            try:
                _inspect_file(path, options, progress, columnar, found)
            except InputError:
                continue  # the first reading has reported it
    return found


def _inspect_file(
    path: str, options: TraceOptions, progress: Callable[[int], None] | None, columnar: bool | None, found: Inspection
) -> None:
    namer = _Namer(found.clients)
    source = open_source(path, options, progress, columnar, namer.extend_plan, _create_selector(found.clients))
    reader = BatchReader(strict=False)
    counts = np.zeros(0, np.int64)
    with closing(source.batches) as batches:
        for batch in batches:
            columns = reader.read(batch, source.parse_line)
            more = np.bincount(columns.clients, minlength=len(reader.clients))
            more[: len(counts)] += counts
            counts = more
    present = [any(values[place] for values in namer.combinations) for place in range(1, len(_COUNTED_FIELDS) + 1)]
    for number, count in zip(map(int, reader.clients), counts.tolist(), strict=True):
        name, status, path_, agent = namer.combinations[number]
        if status in DENIALS:
            found.denied[status] += count
        if name:
            signals = found.clients[name]
            signals.requests += count
            columns_ = (signals.statuses, signals.paths, signals.agents)
            for values, value, is_present in zip(columns_, (status, path_, agent), present, strict=True):
                if is_present:
                    values[value] += count


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


def _create_selector(clients: Collection[str]) -> Callable[[Iterable[Block]], Iterator[Block]] | None:
    """Return a function that keeps the lines with one of the names or statuses; None if a name has no pattern.

    After `MAX_INSPECTED_LINES` lines with a name, further ones are not kept. The kept lines of several blocks are
    yielded as one block, since parsing a block has a fixed cost: RE2 compiles the patterns for each.
    """
    patterns = [_create_pattern(client) for client in clients]
    if not all(patterns):
        return None
    keep, wanted = _choose_filter(), dict.fromkeys(patterns, MAX_INSPECTED_LINES)

    def select(block: Block) -> bytes:
        if not block.text.isascii():
            return block.text
        names = [pattern for pattern, rest in wanted.items() if rest > 0]
        text, words = keep(block, "|".join([*names, rf"\b(?:{'|'.join(DENIALS)})\b"]), "|".join(names))
        for pattern in names:
            wanted[pattern] -= len(re.findall(pattern.encode(), words))
        return text

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


def _choose_filter() -> Callable[[Block, str, str], tuple[bytes, bytes]]:
    """Return a function that returns the lines of a block in which a pattern matches, and words of these lines.

    The words are the first in each line that another pattern matches: from there on, with the character after it.
    """
    if not is_arrow_installed():
        return _keep_lines
    from ratelab.lab.traces import arrow

    def keep_lines(block: Block, pattern: str, word_pattern: str) -> tuple[bytes, bytes]:
        lines = arrow.split_lines(block.text, block.newlines)
        lines = arrow.select(lines, np.flatnonzero(arrow.match(lines, pattern)))
        words, _ = arrow.extract_group(lines, rf"(?P<word>(?:{word_pattern}){_WORD_END})")
        return arrow.get_bytes(lines).tobytes(), arrow.get_bytes(words).tobytes()

    return keep_lines


def _keep_lines(block: Block, pattern: str, word_pattern: str) -> tuple[bytes, bytes]:
    search = re.compile(pattern.encode()).search
    search_word = re.compile(rf"(?:{word_pattern}){_WORD_END}".encode()).search
    lines = [line + b"\n" for line in block.text.split(b"\n") if search(line)]
    return b"".join(lines), b"".join(word[0] for word in map(search_word, lines) if word)
