"""The keys in a store that a hit on several policies needs, and which policy has its state where."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from ratelab.algorithms import Policy
from ratelab.errors import InputError
from ratelab.limiter import Keys
from ratelab.stores.arguments import name_keys
from ratelab.stores.policy_groups import ALL
from ratelab.stores.valkey.resp import encode_bulk
from ratelab.stores.valkey.script import hash_client, probe_tag

_NONE = "0"


class StateKeys(NamedTuple):
    """The keys that hold the state of a policy, without the part that stands for a client."""

    slots: bytes | None
    """The key that has a slot for each policy."""
    own: bytes | None = None
    """The policy's own."""


class KeyLayout:
    """Choose the keys of hits: bytes that hold the layout, as `composite.lua` describes it, and then the keys.

    All keys of a limiter have one length. Raises `InputError` if a hit would need keys in different slots of a
    `cluster`.
    """

    def __init__(self, policies: Sequence[Policy], keys: Sequence[StateKeys], cluster: bool) -> None:
        self.policies, self._keys, self._cluster = tuple(policies), tuple(keys), cluster
        self._shared = [policy.key == ALL for policy in policies]
        if cluster and len({*self._shared}) > 1:
            raise _reject_slots("policies with and without the key `all`")
        if cluster and len({policy.key for policy in policies}) > 1:
            raise _reject_slots("policies that count different clients")
        self.slots = keys[0].slots or b""
        """The end of the keys that have a slot for each policy; with plans, all policies have one."""
        self._width = len(encode_bulk("00" * len(keys)))
        self._key_bytes = len(_encode_key(hash_client(""), keys[0].slots or keys[0].own or b""))
        self._place_text = lru_cache(maxsize=4096)(self._place_one)
        self._place_clients = lru_cache(maxsize=4096)(self._place_each)

    def place(self, key: Keys) -> bytes:
        """Return the layout and keys of a hit; raise `InputError` for an invalid key."""
        return self._place_text(key) if type(key) is str else self._place_mapping(key)

    def place_reset(self, key: Keys) -> bytes:
        """Return the layout and keys of a client to reset: not those that count all clients, unless a mapping does."""
        if not isinstance(key, str):
            return self._place_mapping(key)
        clients = tuple(None if shared else key for shared in self._shared)
        return self._place_clients(clients) if not all(self._shared) else self._place_text(key)

    def place_probe(self, number: int) -> bytes:
        """Return the layout and one of the keys that belong to no client."""
        return self.place_tags((b"rl:{" + probe_tag(number) + b"}",) * len(self._keys))

    def split(self, place: bytes) -> tuple[bytes, bytes, int]:
        """Return the encoded layout of a hit, its encoded keys, and their number."""
        keys = place[self._width :]
        return place[: self._width], keys, len(keys) // self._key_bytes

    def _place_mapping(self, key: Keys) -> bytes:
        named = name_keys(self.policies, key)
        clients = [
            ALL if shared and policy.name in named else named.get(policy.name)
            for policy, shared in zip(self.policies, self._shared, strict=True)
        ]
        if self._cluster and len({*clients} - {None}) > 1:
            raise _reject_slots("policies with different keys")
        return self._place_clients(tuple(clients))

    def _place_one(self, client: str) -> bytes:
        return self._place_clients(tuple(ALL if shared else client for shared in self._shared))

    def _place_each(self, clients: tuple[str | None, ...]) -> bytes:
        return self.place_tags([None if client is None else hash_client(client) for client in clients])

    def find_tags(self, key: Keys) -> list[bytes | None]:
        """Return the part of the keys of each policy that stands for its client; None for one that is not asked."""
        named = name_keys(self.policies, key)
        clients = [
            ALL if shared else named.get(one.name) for one, shared in zip(self.policies, self._shared, strict=True)
        ]
        asked = [policy.name in named for policy in self.policies]
        return [hash_client(one) if one and ask else None for one, ask in zip(clients, asked, strict=True)]

    def place_tags(self, tags: Sequence[bytes | None]) -> bytes:
        """Return the layout of a hit by the parts of its keys that stand for clients, and then the keys."""
        keys: dict[bytes, int] = {}
        layout = ""
        for tag, suffixes in zip(tags, self._keys, strict=True):
            for suffix in suffixes:
                absent = tag is None or suffix is None
                number = 0 if absent else keys.setdefault(_encode_key(tag, suffix), len(keys) + 1)
                layout += chr(number + ord(_NONE))
        return encode_bulk(layout) + b"".join(keys)


def _encode_key(tag: bytes | None, suffix: bytes | None) -> bytes:
    return encode_bulk(((tag or b"") + (suffix or b"")).decode())


def _reject_slots(what: str) -> InputError:
    return InputError(
        f"on a cluster, one script cannot decide {what}, whose keys are in different slots: "
        "give them separate limiters, and refund the first if the second denies, or use a single server"
    )
