"""Table of requests and the clients that they come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

Options = Mapping[str, Any]


class Row(NamedTuple):
    """A request: the peer of its socket, its headers, and the client that it comes from."""

    peer: str | None
    headers: str
    client: str


STRANGER = "203.0.113.9"
PROXY = "10.0.0.1"
ALICE = "192.0.2.7"
SITE = "2001:db8:1:2::/64"
KEY_256 = "k" * 256
GARBAGE = """
evil unknown _hidden for=192.0.2.7 "192.0.2.7" 192.0.2 192.0.2.07 192.0.2.7. 0xc0000207 3221225991 192.0.2.7;192.0.2.8
192.0.2.7: 192.0.2.7:123456 192.0.2.7:http 192.0.2.7/32 192.0.2.7%eth0 [192.0.2.7] [2001:db8:1:2::7 2001:db8:1:2::7]
[2001:db8:1:2::7]x [] : ::: 2001:db8:1:2::7% caf\xe9 \xb9.2.3.4
"""
SPELLINGS = {
    ALICE: """
        192.0.2.7 192.0.2.7:443 ::ffff:192.0.2.7 ::ffff:c000:207 ::FFFF:C000:0207 ::ffff:192.0.2.7%eth0
        0:0:0:0:0:ffff:192.0.2.7 [::ffff:192.0.2.7]:443 64:ff9b::192.0.2.7 64:ff9b::c000:207 [64:ff9b::c000:207]:443
    """,
    SITE: """
        2001:db8:1:2::7 [2001:db8:1:2::7] [2001:db8:1:2::7]:443 2001:DB8:1:2:0:0:0:9 2001:db8:1:2:ffff:ffff:ffff:ffff
        2001:db8:1:2::7%eth0 [2001:db8:1:2::7%25en1]:1
    """,
    "2001:db8:1:3::/64": "2001:db8:1:3::7",
    "2001:db8::/64": "2001:db8::192.0.2.7",
    "::/64": "::192.0.2.7 ::1",
    "64:ff9b:1::/64": "64:ff9b:1::192.0.2.7",
}
"""Clients, and the ways in which servers and proxies write their addresses."""

SPELLING_CLIENTS = [(text, client) for client, texts in SPELLINGS.items() for text in texts.split()]

ALONE: Options = {}
BEHIND: Options = {"trusted_proxies": ["10.0.0.0/8", " ::ffff:172.16.0.0/108 ", "2001:db8:ffff::/48", "198.51.100.4"]}
BEHIND_A_SOCKET: Options = {"trusted_proxies": ["unix"]}
BEHIND_A_CDN: Options = {**BEHIND, "key": "header:CF-Connecting-IP"}
KEYED: Options = {"key": "header:X-API-Key"}
KEYED_BEHIND: Options = {**KEYED, **BEHIND}


def hops(number: int) -> Options:
    return {"trusted_hops": number}


def function(text: str | None) -> Options:
    return {"key": lambda _: text}


TABLE: dict[str, tuple[Options, list[Row]]] = {
    "without trusted proxies, headers do not count": (
        ALONE,
        [
            Row(ALICE, "", ALICE),
            Row(STRANGER, "X-Forwarded-For: 192.0.2.7", STRANGER),
            Row("127.0.0.1", "X-Forwarded-For: 192.0.2.7", "127.0.0.1"),
            Row(STRANGER, "Forwarded: for=192.0.2.7\nX-Real-IP: 192.0.2.7\nX-API-Key: alice", STRANGER),
            Row(None, "X-Forwarded-For: 192.0.2.7", "unix"),
            Row("testclient", "X-Forwarded-For: 192.0.2.7", "testclient"),
        ],
    ),
    "a peer is the same client in every notation of its address": (
        ALONE,
        [Row(text, "", client) for text, client in SPELLING_CLIENTS],
    ),
    "headers from an untrusted peer do not count": (
        BEHIND,
        [
            Row(STRANGER, "", STRANGER),
            Row(STRANGER, "X-Forwarded-For: 192.0.2.7", STRANGER),
            Row(STRANGER, "X-Forwarded-For: 10.0.0.1", STRANGER),
            Row(STRANGER, "X-Forwarded-For: 192.0.2.7\nX-Forwarded-For: 192.0.2.8", STRANGER),
            Row(STRANGER, "X-Forwarded-For: ", STRANGER),
            Row(STRANGER, f"X-Forwarded-For: {'192.0.2.7, ' * 90_000}", STRANGER),
            Row(STRANGER, "Forwarded: for=192.0.2.7\nX-Real-IP: 192.0.2.7", STRANGER),
            Row("198.51.100.5", "X-Forwarded-For: 192.0.2.7", "198.51.100.5"),
            Row("2001:db8:1:2::9", "X-Forwarded-For: 192.0.2.7", SITE),
            Row(None, "X-Forwarded-For: 192.0.2.7", "unix"),
            Row("testclient", "X-Forwarded-For: 192.0.2.7", "testclient"),
        ],
    ),
    "the list of a trusted proxy is walked from the right": (
        BEHIND,
        [
            Row(PROXY, "X-Forwarded-For: 192.0.2.7", ALICE),
            Row(PROXY, "x-FORWARDED-for: 192.0.2.7", ALICE),
            Row(PROXY, "X-Forwarded-For: 6.6.6.6, 192.0.2.7", ALICE),
            Row(PROXY, "X-Forwarded-For: 6.6.6.6, 192.0.2.7, 10.1.2.3, 198.51.100.4", ALICE),
            Row(PROXY, "X-Forwarded-For: 6.6.6.6,\t 192.0.2.7\t ,10.1.2.3", ALICE),
            Row(PROXY, "X-Forwarded-For: 6.6.6.6\nX-Forwarded-For: 192.0.2.7\nX-Forwarded-For: 10.1.2.3", ALICE),
            Row(PROXY, "X-Forwarded-For: 192.0.2.7\nForwarded: for=6.6.6.6\nX-Real-IP: 6.6.6.6", ALICE),
            Row(PROXY, "Forwarded: for=192.0.2.7\nX-Real-IP: 192.0.2.7", PROXY),
            Row(PROXY, "X-Forwarded-For: , ,192.0.2.7,, \t,", ALICE),
            Row(PROXY, "X-Forwarded-For: evil, 192.0.2.7", ALICE),
            Row(PROXY, f"X-Forwarded-For: {'6.6.6.6, ' * 120_000}192.0.2.7", ALICE),
            Row(PROXY, f"X-Forwarded-For: {',' * 1_000_000}192.0.2.7", ALICE),
            Row("::ffff:10.0.0.1", "X-Forwarded-For: 192.0.2.7", ALICE),
            Row("::ffff:a00:1", "X-Forwarded-For: 192.0.2.7, ::ffff:a01:203", ALICE),
            Row("172.16.0.9", "X-Forwarded-For: 192.0.2.7", ALICE),
            Row("2001:db8:ffff::1%eth0", "X-Forwarded-For: 192.0.2.7", ALICE),
            Row("10.0.0.1", "X-Forwarded-For: 192.0.2.7, [2001:db8:ffff::9]:80", ALICE),
        ],
    ),
    "a list of trusted proxies alone names the first of them, at most sixteen back": (
        BEHIND,
        [
            Row(PROXY, "X-Forwarded-For: 10.9.9.9, 10.1.2.3", "10.9.9.9"),
            Row(PROXY, f"X-Forwarded-For: 192.0.2.7{', 10.0.0.2' * 15}", ALICE),
            Row(PROXY, f"X-Forwarded-For: 192.0.2.7{', 10.0.0.2' * 16}", "10.0.0.2"),
        ],
    ),
    "a client in a list is the same in every notation of its address": (
        BEHIND,
        [Row(PROXY, f"X-Forwarded-For: {text}", client) for text, client in SPELLING_CLIENTS],
    ),
    "a list with garbage where it matters names the peer": (
        BEHIND,
        [
            Row(PROXY, "", PROXY),
            Row(PROXY, "X-Forwarded-For: ", PROXY),
            Row(PROXY, "X-Forwarded-For: \t , ,", PROXY),
            Row(PROXY, "X-Forwarded-For: 192.0.2.7, evil, 10.1.2.3", PROXY),
            Row(PROXY, "X-Forwarded-For: 192.0.2.7\nX-Forwarded-For: evil", PROXY),
            Row(PROXY, "X-Forwarded-For: 192.0.2.7 192.0.2.8", PROXY),
            Row(PROXY, f"X-Forwarded-For: {'9' * 1_000_000}", PROXY),
            *(Row(PROXY, f"X-Forwarded-For: 6.6.6.6, {text}", PROXY) for text in GARBAGE.split()),
        ],
    ),
    "a trusted Unix socket does not make other peers trusted": (
        BEHIND_A_SOCKET,
        [
            Row(None, "X-Forwarded-For: 6.6.6.6, 192.0.2.7", ALICE),
            Row(None, "X-Forwarded-For: evil", "unix"),
            Row(None, "", "unix"),
            Row(STRANGER, "X-Forwarded-For: 192.0.2.7", STRANGER),
            Row("testclient", "X-Forwarded-For: 192.0.2.7", "testclient"),
        ],
    ),
    "one trusted hop takes the last entry": (
        hops(1),
        [
            Row(STRANGER, "X-Forwarded-For: 6.6.6.6, 192.0.2.7", ALICE),
            Row(STRANGER, "X-Forwarded-For: 6.6.6.6\nX-Forwarded-For: [2001:db8:1:2::7]:443,", SITE),
            Row(None, "X-Forwarded-For: 192.0.2.7", ALICE),
            Row("testclient", "X-Forwarded-For: 192.0.2.7", ALICE),
            Row(STRANGER, "", STRANGER),
            Row(STRANGER, "X-Forwarded-For: 6.6.6.6, evil", STRANGER),
        ],
    ),
    "two trusted hops take the last entry but one": (
        hops(2),
        [
            Row(STRANGER, "X-Forwarded-For: 6.6.6.6, 192.0.2.7, 10.1.2.3", ALICE),
            Row(STRANGER, "X-Forwarded-For: 192.0.2.7, evil", ALICE),
            Row(STRANGER, "X-Forwarded-For: 192.0.2.7", STRANGER),
            Row(STRANGER, "X-Forwarded-For: 6.6.6.6, evil, 10.1.2.3", STRANGER),
        ],
    ),
    "sixteen trusted hops take the sixteenth entry from the right": (
        hops(16),
        [
            Row(STRANGER, f"X-Forwarded-For: 6.6.6.6, 192.0.2.7{', 10.0.0.2' * 15}", ALICE),
            Row(STRANGER, f"X-Forwarded-For: {'10.0.0.2, ' * 14}10.0.0.2", STRANGER),
        ],
    ),
    "a header with an address counts from trusted proxies alone": (
        BEHIND_A_CDN,
        [
            Row(PROXY, "CF-Connecting-IP: 192.0.2.7", ALICE),
            Row(PROXY, "CF-Connecting-IP: 192.0.2.7\nX-Forwarded-For: 6.6.6.6", ALICE),
            Row(PROXY, "cf-connecting-ip:  2001:db8:1:2::7 ", SITE),
            Row(PROXY, "CF-Connecting-IP: 6.6.6.6\nCF-Connecting-IP: 192.0.2.7", ALICE),
            Row(PROXY, "CF-Connecting-IP: evil", PROXY),
            Row(PROXY, "X-Forwarded-For: 192.0.2.7", PROXY),
            Row(STRANGER, "CF-Connecting-IP: 192.0.2.7", STRANGER),
            Row("2001:db8:1:2::9", "CF-Connecting-IP: 192.0.2.7", SITE),
            Row(None, "CF-Connecting-IP: 192.0.2.7", "unix"),
        ],
    ),
    "an empty host is a Unix socket": (
        BEHIND_A_SOCKET,
        [Row("", "X-Forwarded-For: 192.0.2.7", ALICE), Row("", "", "unix")],
    ),
    "a header names the client": (
        KEYED,
        [
            Row(STRANGER, "X-API-Key: alice", "header x-api-key: alice"),
            Row(ALICE, "x-api-KEY: alice", "header x-api-key: alice"),
            Row(None, "X-API-Key:  \t alice \t", "header x-api-key: alice"),
            Row(STRANGER, "X-API-Key: Alice", "header x-api-key: Alice"),
            Row(STRANGER, "X-API-Key: alice,bob", "header x-api-key: alice,bob"),
            Row(STRANGER, "X-API-Key: alice  bob", "header x-api-key: alice  bob"),
            Row(STRANGER, "X-API-Key: caf\xe9", "header x-api-key: caf\xe9"),
            Row(STRANGER, f"X-API-Key: \t{KEY_256} ", f"header x-api-key: {KEY_256}"),
            Row(STRANGER, "X-API-Key: 192.0.2.7", "header x-api-key: 192.0.2.7"),
            Row(STRANGER, "X-API-Key: unix", "header x-api-key: unix"),
            Row(STRANGER, "X-Other: bob\nX-API-Key: alice", "header x-api-key: alice"),
        ],
    ),
    "the name of a header ignores case": (
        {"key": "header:x-aPI-keY"},
        [Row(STRANGER, "X-API-Key: alice", "header x-api-key: alice")],
    ),
    "the same value of another header is another client": (
        {"key": "header:X-User"},
        [Row(STRANGER, "X-User: alice\nX-API-Key: alice", "header x-user: alice")],
    ),
    "a separator in a name or value does not make two clients one": (
        {"key": "header:a|b"},
        [Row(STRANGER, "a|b: c", "header a|b: c"), Row(STRANGER, "a|b: b|c", "header a|b: b|c")],
    ),
    "a name that is a prefix of another makes another client": (
        {"key": "header:a"},
        [Row(STRANGER, "a: b|c", "header a: b|c"), Row(STRANGER, "a: b|b|c", "header a: b|b|c")],
    ),
    "a missing, empty or long header means the address": (
        KEYED,
        [
            Row(ALICE, "", ALICE),
            Row(ALICE, "X-API-Key: ", ALICE),
            Row(ALICE, "X-API-Key:  \t ", ALICE),
            Row(ALICE, f"X-API-Key: {KEY_256}k", ALICE),
            Row(ALICE, f"X-API-Key: {'k' * 1_000_000}", ALICE),
            Row("2001:db8:1:2::7", "X-Forwarded-For: 6.6.6.6", SITE),
            Row(None, "X-API-Key: ", "unix"),
        ],
    ),
    "without a header, the address is the one behind trusted proxies": (
        KEYED_BEHIND,
        [
            Row(PROXY, "X-API-Key: alice\nX-Forwarded-For: 192.0.2.7", "header x-api-key: alice"),
            Row(PROXY, "X-Forwarded-For: 6.6.6.6, 192.0.2.7", ALICE),
            Row(PROXY, f"X-API-Key: {KEY_256}k\nX-Forwarded-For: 192.0.2.7", ALICE),
            Row(STRANGER, "X-API-Key: \nX-Forwarded-For: 192.0.2.7", STRANGER),
        ],
    ),
    "the text of a function names a client": (function("alice"), [Row(STRANGER, "", "function alice")]),
    "the text of a function is not an address": (function(ALICE), [Row(STRANGER, "", f"function {ALICE}")]),
    "the text of a function may be any text": (function("\ud800\u1234"), [Row(STRANGER, "", "function \ud800\u1234")]),
    "a function that returns None means the address": (function(None), [Row(ALICE, "", ALICE)]),
    "a function that returns empty text means the address": (function(""), [Row(ALICE, "", ALICE)]),
    "a function that returns long text means the address": (function("\xe9" * 129), [Row(ALICE, "", ALICE)]),
}
"""By promise: the configuration, and the requests."""
