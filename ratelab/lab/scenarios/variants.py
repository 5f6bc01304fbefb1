"""Variants of a scenario: named changes to a file, to compare their results."""

from __future__ import annotations

import copy

from ratelab.documents import Document, Place, Value, parse_text, suggest
from ratelab.errors import InputError, short_repr

MAX_VARIANTS = 100

KEY = "variants"


def without_variants(document: Document) -> Document:
    """Return a file without its variants."""
    plain = copy.copy(document)
    if isinstance(document.value, dict):
        plain.value = {key: value for key, value in document.value.items() if key != KEY}
    return plain


def list_variants(document: Document) -> dict[str, Document]:
    """Return the file with the changes of each variant, by name.

    Raises `InputError` for changes that are not keys and values, and for a client that the file does not have.
    """
    variants = document.value[KEY] if isinstance(document.value, dict) else None
    if not isinstance(variants, dict) or not 1 <= len(variants) <= MAX_VARIANTS:
        problem = f"expected 1 to {MAX_VARIANTS} names, each with changes to the file, got {short_repr(variants)}"
        raise document.error((KEY,), problem)
    plain = without_variants(document)
    return {_check_name(plain, name): _change_file(plain, (KEY, name), changes) for name, changes in variants.items()}


def _check_name(plain: Document, name: str) -> str:
    try:
        return parse_text(name)
    except InputError as error:
        raise plain.error((KEY, name), str(error)) from None


def _change_file(plain: Document, source: Place, changes: Value) -> Document:
    """Return the file with the changes at `source`, whose clients are named instead of listed."""
    file = plain.value
    if not isinstance(file, dict) or not isinstance(changes, dict):
        raise plain.error(source, f"expected keys and values, got {short_repr(changes)}")
    changed = copy.copy(plain)
    changed.lines = dict(plain.lines)
    clients = _change_clients(changed, file.get("clients"), (*source, "clients"), changes.get("clients", {}))
    others = {key: value for key, value in changes.items() if key != "clients"}
    changed.value = {**_merge(changed, file, others, (), source), "clients": clients}
    return changed


def _change_clients(changed: Document, clients: Value | None, source: Place, changes: Value) -> list[Value]:
    listed = clients if isinstance(clients, list) else []
    if not isinstance(changes, dict):
        raise changed.error(source, f"expected the names of clients with changes, got {short_repr(changes)}")
    names = [str(client.get("name")) if isinstance(client, dict) else "" for client in listed]
    for name in changes:
        if name not in names:
            raise changed.error((*source, name), f"unknown client {short_repr(name)}; {suggest(name, names)}")
    return [
        _change_value(changed, client, changes[name], ("clients", number), (*source, name))
        if name in changes
        else client
        for number, (name, client) in enumerate(zip(names, listed, strict=True))
    ]


def _change_value(changed: Document, value: Value | None, change: Value, place: Place, source: Place) -> Value:
    """Return a value with a change: that of an object is merged into it, any other replaces it."""
    if isinstance(value, dict) and isinstance(change, dict):
        return _merge(changed, value, change, place, source)
    for inner, line in [*changed.lines.items()]:
        if inner[: len(source)] == source:
            changed.lines[(*place, *inner[len(source) :])] = line
    return change


def _merge(
    changed: Document, value: dict[str, Value], change: dict[str, Value], place: Place, source: Place
) -> dict[str, Value]:
    merged = {
        key: _change_value(changed, value.get(key), each, (*place, key), (*source, key)) for key, each in change.items()
    }
    return {**value, **merged}
