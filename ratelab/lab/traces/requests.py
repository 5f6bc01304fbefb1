"""Fields to read from each line of a trace, and filters of requests."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from fnmatch import translate
from functools import cached_property, lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, NamedTuple

from ratelab.errors import InputError, format_reason, short_repr
from ratelab.http.addresses import parse_address


class Field(NamedTuple):
    """A field to read from each line."""

    option: str
    """The option that names the field."""
    names: tuple[str, ...]
    """Its possible names: a line's value is that of the first name that it has."""
    optional: bool = False
    """Whether it may be missing from a line; its value is then empty."""


class FieldReader(NamedTuple):
    """Reads the same fields from each line of a file."""

    read: Callable[[str], Sequence[str]]
    """Return the text of each field, or raise `LineError` or `OmittedError`."""
    columns: Any
    """How Arrow reads them from many lines: a `PatternSpec` or an `ObjectSpec`; None if it cannot."""
    notes: AbstractSet[str] = frozenset()
    """Notes on addresses that are not read and may be the client; filled while lines are read."""


# --- filters


@dataclass(frozen=True)
class Filter:
    """Keeps the requests whose field has one of some values, or leaves them out."""

    option: str
    """`only` or `exclude`."""
    field: str
    texts: tuple[str, ...]
    """The values: text, in which `*` and `?` match any characters, or CIDRs."""

    def __str__(self) -> str:
        more = f" and {len(self.texts) - 1:,} more" if len(self.texts) > 1 else ""
        return f"--{self.option} {self.field}={self.texts[0]}{more}"

    @cached_property
    def accepts(self) -> Callable[[str], bool]:
        """Whether a request with this value is kept."""
        match, wanted = create_matcher(self.texts), self.option == "only"
        return lambda value: match(value) is wanted


@lru_cache(maxsize=16)
def create_matcher(texts: tuple[str, ...]) -> Callable[[str], bool]:
    """Create a function that returns whether a value is one of these; each value is compared once.

    In `texts`, `*` and `?` match any characters, and a CIDR matches its addresses.
    """
    plain = frozenset(text for text in texts if not re.search("[*?]", text))
    globs = [translate(text.replace("[", "[[]")) for text in texts if text not in plain]
    pattern = re.compile("|".join(globs)) if globs else None
    networks = [network for text in texts if (network := _parse_network(text))]

    @lru_cache(maxsize=1 << 16)
    def match(value: str) -> bool:
        if value in plain or (pattern and pattern.fullmatch(value)):
            return True
        address = parse_address(value) if networks else None
        return address is not None and any(address in network for network in networks)

    return match


def _parse_network(text: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None


def parse_filters(only: Sequence[str], exclude: Sequence[str]) -> tuple[Filter, ...]:
    """Parse the values of `--only` and `--exclude`, FIELD=VALUE or FIELD=@FILE; those of one field are alternatives.

    Raises `InputError` for other text, and for a file that cannot be read or has no lines.
    """
    texts: dict[tuple[str, str], list[str]] = {}
    for option, values in (("only", only), ("exclude", exclude)):
        for text in values:
            field, equals, value = text.partition("=")
            if not (field and equals and value):
                raise InputError(f"--{option} must look like FIELD=VALUE, such as path=/health, got {short_repr(text)}")
            texts.setdefault((option, field), []).extend(read_values(value[1:]) if value[0] == "@" else [value])
    return tuple(Filter(option, field, tuple(values)) for (option, field), values in texts.items())


def read_values(path: str) -> list[str]:
    """Return the lines of a file, without blank lines and comments."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read ({format_reason(error)}): name a file with a value in each line"
        ) from None
    values = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not values:
        raise InputError(f"{path} has no values: write one in each line")
    return values
