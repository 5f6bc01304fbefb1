"""Identification of clients by address, proxy headers or a header; secrets, and privacy of keys."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from hashlib import blake2b, sha256
from ipaddress import IPv4Address, IPv6Address
from multiprocessing import get_all_start_methods
from pathlib import Path

import pytest
from asgi import request, scope_of
from hypothesis import given
from hypothesis import strategies as st
from identity_table import ALICE, BEHIND, KEYED, PROXY, STRANGER, TABLE, Options, Row, hops
from limited_apps import Handler, Watched
from slow_parameters import mark_slow

from ratelab import InputError
from ratelab.http.identity import AmbiguousClientError, Identity
from ratelab.http.middleware import RateLimitMiddleware

SECRET, OTHER_SECRET = "a secret for tests", "another"
VARIABLE = "RATELAB_KEY_SECRET"


def key_of(options: Options, peer: str | None, headers: str = "") -> str:
    return Identity(**options, secret=SECRET)(scope_of(peer, headers))


def key_of_client(client: str) -> str:
    """Return the key of a client given as `192.0.2.7`, `header x-api-key: alice` or `function alice`."""
    kind, _, name = client.partition(" ")
    if kind == "header":
        return key_of({"key": f"header:{name.partition(':')[0]}"}, STRANGER, name)
    if kind == "function":
        return key_of({"key": lambda _: name}, STRANGER)
    return key_of({}, None if client == "unix" else client.removesuffix("/64"))


def check_rows(options: Options, rows: list[Row]) -> None:
    for row in rows:
        assert key_of(options, row.peer, row.headers) == key_of_client(row.client), (row.peer, row.headers[:100])


@pytest.mark.parametrize(("options", "rows"), TABLE.values(), ids=TABLE.keys())
def test_each_request_has_the_key_of_its_client(options: Options, rows: list[Row]) -> None:
    check_rows(options, rows)


def test_different_clients_have_different_keys() -> None:
    clients = {row.client for _, rows in TABLE.values() for row in rows} | {"alice", "10.0.0.0", "ip"}
    assert len({key_of_client(client) for client in clients}) == len(clients) > 30


def test_a_scope_without_a_peer_counts_as_a_unix_socket() -> None:
    scope = scope_of(None)
    del scope["client"]
    assert Identity(secret=SECRET)(scope) == key_of_client("unix")


@pytest.mark.parametrize("peer", [None, (), [], ("", 0), ["", 0]])
def test_requests_with_an_empty_peer_share_a_quota(peer: object) -> None:
    app = RateLimitMiddleware(Handler(), Watched(burst=2))
    scope = {**scope_of(), "client": peer}
    assert [asyncio.run(request(app, dict(scope))).status for _ in range(3)] == [200, 200, 429]


# --- arbitrary headers


NAMES = ("x-forwarded-for", "forwarded", "x-real-ip", "x-client-ip", "cf-connecting-ip", "host", "x-api-key")
lists = st.lists(st.sampled_from(["192.0.2.7", "10.0.0.2", "evil", "", "::1", " "]) | st.text(max_size=9)).map(
    ", ".join
)
values = st.binary(max_size=40) | lists.map(lambda text: text.encode(errors="replace"))
headers = st.lists(st.tuples(st.sampled_from(NAMES).map(str.encode), values), max_size=6)


@pytest.mark.parametrize("options", [{}, BEHIND], ids=["without proxies", "behind proxies"])
@given(sent=headers, peer=st.sampled_from([STRANGER, "2001:db8:1:2::7", "testclient", None]))
def test_an_untrusted_peer_is_one_client_whatever_it_sends(
    options: Options, sent: list[tuple[bytes, bytes]], peer: str | None
) -> None:
    scope = scope_of(peer)
    assert Identity(**options, secret=SECRET)({**scope, "headers": sent}) == Identity(secret=SECRET)(scope)


@pytest.mark.parametrize("options", [BEHIND, hops(1)], ids=["trusted proxies", "trusted hops"])
@given(sent=headers, same_line=st.booleans())
def test_only_the_entry_that_the_proxy_adds_names_the_client(
    options: Options, sent: list[tuple[bytes, bytes]], same_line: bool
) -> None:
    added = (b"x-forwarded-for", b"evil, 6.6.6.6, 192.0.2.7" if same_line else b"192.0.2.7")
    scope = scope_of(PROXY)
    assert Identity(**options, secret=SECRET)({**scope, "headers": [*sent, added]}) == key_of_client(ALICE)


@given(site=st.integers(2**61, 2**64 - 1), machines=st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=2))
def test_an_ipv6_client_is_its_first_64_bits(site: int, machines: list[int]) -> None:
    first, second = (str(IPv6Address(site << 64 | machine)) for machine in machines)
    next_door = str(IPv6Address((site ^ 1) << 64 | machines[0]))
    assert key_of({}, first) == key_of({}, second) != key_of({}, next_door)


@given(number=st.integers(0, 2**32 - 1))
def test_an_ipv4_client_is_the_same_when_mapped_into_ipv6(number: int) -> None:
    address, neighbour = IPv4Address(number), IPv4Address(number ^ 1)
    wrapped = [f"::ffff:{address}", str(IPv6Address(0xFFFF << 32 | number)), f"64:ff9b::{address}"]
    assert {key_of({}, peer) for peer in wrapped} == {key_of({}, str(address))} != {key_of({}, str(neighbour))}


@given(number=st.integers(2**125, 2**126 - 1), host=st.integers(0, 2**80 - 1))
def check_prefix(prefix: int, number: int, host: int) -> None:
    host_bits = 128 - prefix
    network = number >> host_bits << host_bits
    same, neighbor = network | host % 2**host_bits, network ^ 1 << host_bits
    keys = [key_of({"ipv6_prefix": prefix}, str(IPv6Address(each))) for each in (network, same, neighbor)]
    assert keys[0] == keys[1] != keys[2]
    assert key_of({"ipv6_prefix": prefix}, ALICE) == key_of_client(ALICE)


@pytest.mark.parametrize("prefix", mark_slow(range(48, 65), fast=[48, 56, 63]))  # 64 has a test of its own
def test_an_ipv6_client_is_its_first_bits(prefix: int) -> None:
    check_prefix(prefix)


ADDRESS_HEADERS = """
CF-Connecting-IP CF-Connecting-IPv6 CF-Pseudo-IPv4 True-Client-IP X-Client-IP Fastly-Client-IP X-Real-IP Client-IP
X-Cluster-Client-IP X-Original-Forwarded-For X-Envoy-External-Address Fly-Client-IP X-Azure-ClientIP X-Azure-SocketIP
X-ProxyUser-Ip DO-Connecting-IP WL-Proxy-Client-IP X-Remote-IP X-Remote-Addr X-AppEngine-User-IP X-Originating-IP
X-Vercel-Forwarded-For X-NF-Client-Connection-IP Ali-CDN-Real-IP Cdn-Src-Ip X-Forwarded X_Real_IP
CloudFront-Viewer-Address Incap-Client-IP X-Sucuri-ClientIP X-Forwarded-Client-Ip
"""
OTHER_HEADERS = "X-API-Key Authorization X-Forwarded-User X-Membership X-Tenant X-Email-Address X-Zip X-Client Cookie"


@pytest.mark.parametrize("name", [*ADDRESS_HEADERS.split(), *ADDRESS_HEADERS.lower().split()])
def test_no_client_can_choose_itself_by_a_header_with_an_address(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} can be forged by clients"):
        Identity(f"header:{name}")
    options = {**BEHIND, "key": f"header:{name}"}
    forged = {key_of(options, STRANGER, f"{name}: 198.51.100.{number}") for number in range(9)}
    assert forged == {key_of_client(STRANGER)}
    assert {key_of(options, PROXY, f"{name}: 2001:db8:1:2::{n}") for n in range(9)} == {
        key_of_client("2001:db8:1:2::/64")
    }


@pytest.mark.parametrize("name", OTHER_HEADERS.split())
def test_other_headers_name_clients_by_their_text(name: str) -> None:
    assert len({key_of({"key": f"header:{name}"}, STRANGER, f"{name}: 192.0.2.{number}") for number in range(9)}) == 9


# --- two clients in one request


@pytest.mark.parametrize(
    "lines", ["X-API-Key: a\nX-API-Key: b", "X-API-Key: a\nx-api-key: a", "X-API-Key: \nX-API-Key: "]
)
def test_a_repeated_key_header_is_ambiguous(lines: str) -> None:
    with pytest.raises(AmbiguousClientError, match="x-api-key must be sent once, not 2 times"):
        key_of(KEYED, STRANGER, lines)


# --- keys and secrets


def check_keys_depend_on_the_secret() -> None:
    scope = scope_of(STRANGER)
    first, second, other = (Identity(secret=secret)(scope) for secret in (SECRET, SECRET, OTHER_SECRET))
    assert first == second != other
    assert re.fullmatch("[0-9a-f]{32}", first)


def test_a_key_is_32_hexadecimal_digits_that_depend_on_the_secret() -> None:
    check_keys_depend_on_the_secret()


@pytest.mark.parametrize("secret", ["\udcff not utf-8", "long " * 1000, "\0"])
def test_any_text_can_be_a_secret(secret: str) -> None:
    assert re.fullmatch("[0-9a-f]{32}", Identity(secret=secret)(scope_of()))


def test_instances_share_keys_through_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    scope = scope_of()
    monkeypatch.setenv(VARIABLE, SECRET)
    assert Identity()(scope) == Identity()(scope) == Identity(secret=SECRET)(scope)
    assert Identity(secret=OTHER_SECRET)(scope) == Identity(secret=OTHER_SECRET)(scope) != Identity()(scope)


PRINT_KEYS = """
import os, sys
from multiprocessing import get_context
from ratelab.http.identity import Identity

def print_key():
    scope = {"client": ("192.0.2.1", 1), "headers": []}
    os.write(1, Identity()(scope).encode() + b"\\n")

if __name__ == "__main__":
    print_key()
    for method in sys.argv[1:]:
        child = get_context(method).Process(target=print_key)
        child.start()
        child.join()
    if hasattr(os, "fork"):
        child = os.fork()
        if not child:
            print_key()
            os._exit(0)
        os.waitpid(child, 0)
"""


@pytest.mark.slow
def test_without_a_secret_a_process_shares_its_keys_with_its_children_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    program = tmp_path / "print_keys.py"
    program.write_text(PRINT_KEYS)
    command = [sys.executable, str(program), *get_all_start_methods()]
    runs = [subprocess.run(command, check=True, capture_output=True, text=True).stdout.split() for _ in range(2)]
    assert [len({*run}) for run in runs] == [1, 1]
    assert runs[0][0] != runs[1][0]
    assert len(runs[0]) == 1 + len(get_all_start_methods()) + hasattr(os, "fork")


def test_a_secret_is_generated_only_if_none_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert (Identity().secret_generated, Identity(secret=SECRET).secret_generated) == (True, False)
    assert Identity().fingerprint == Identity().fingerprint != Identity(secret=SECRET).fingerprint
    monkeypatch.setenv(VARIABLE, SECRET)
    assert not Identity().secret_generated
    assert Identity("header:X-API-Key").fingerprint == Identity(secret=SECRET).fingerprint


def check_key_hides_the_value() -> None:
    canary = "canary-5f1d7c"
    key = key_of(KEYED, STRANGER, f"X-API-Key: {canary}")
    assert canary not in key
    names = [canary, f"header|x-api-key|{canary}", f"header|x-api-key:{canary}", f"x-api-key: {canary}"]
    unkeyed = [algorithm(name.encode()).hexdigest() for name in names for algorithm in (sha256, blake2b)]
    unkeyed += [blake2b(name.encode(), digest_size=16).hexdigest() for name in names]
    assert [digest for digest in unkeyed if digest.startswith(key)] == []


def test_a_key_is_neither_the_value_nor_an_unkeyed_hash_of_it() -> None:
    check_key_hides_the_value()


# --- invalid options


BAD_KEY = "key must be ip, header:NAME such as header:X-API-Key, or in code a function, got "
BAD_PROXY = "a trusted proxy must be an address or a CIDR such as 10.0.0.0/8, got "
FORGED = " can be forged by clients: use ip with trusted_proxies"
UNNAMED = " can be forged by clients: name the proxies that set it with trusted_proxies"
BAD_PREFIX = "ipv6_prefix must be a whole number from 48 to 64, got "
ALL_ADDRESSES = "a trusted proxy must not cover all addresses, got "
BAD_HOPS = "trusted_hops must be a whole number from 0 to 16, got "
INVALID_OPTIONS: list[tuple[Options, str]] = [
    ({"key": "cookie"}, f"{BAD_KEY}'cookie'"),
    ({"key": ""}, f"{BAD_KEY}''"),
    ({"key": "IP"}, f"{BAD_KEY}'IP'"),
    ({"key": "header:"}, f"{BAD_KEY}'header:'"),
    ({"key": "header:X Key"}, f"{BAD_KEY}'header:X Key'"),
    ({"key": "header:X-Key\n"}, f"{BAD_KEY}'header:X-Key\\n'"),
    ({"key": "header:Schl\xfcssel"}, f"{BAD_KEY}'header:Schl\xfcssel'"),
    ({"key": None}, f"{BAD_KEY}None"),
    ({"key": "header:X-Forwarded-For"}, f"X-Forwarded-For{FORGED}"),
    ({"key": "header:forwarded"}, f"forwarded{FORGED}"),
    ({"key": "header:X-Real-IP"}, f"X-Real-IP{UNNAMED}"),
    ({"key": "header:CF-Connecting-IP"}, f"CF-Connecting-IP{UNNAMED}"),
    ({"key": "header:True-Client-IP", **hops(1)}, f"True-Client-IP{UNNAMED}"),
    ({"key": "header:X-Forwarded-For", **BEHIND}, f"X-Forwarded-For{FORGED}"),
    ({"ipv6_prefix": 47}, f"{BAD_PREFIX}47: a machine can use all of its /64"),
    ({"ipv6_prefix": 65}, f"{BAD_PREFIX}65"),
    ({"ipv6_prefix": 128}, f"{BAD_PREFIX}128"),
    ({"ipv6_prefix": True}, f"{BAD_PREFIX}True"),
    ({"ipv6_prefix": "56"}, f"{BAD_PREFIX}'56'"),
    ({"trusted_proxies": ["0.0.0.0/0"]}, f"{ALL_ADDRESSES}0.0.0.0/0: name the network of your proxies"),
    ({"trusted_proxies": ["10.0.0.0/8", "::/0"]}, f"{ALL_ADDRESSES}::/0"),
    ({"trusted_proxies": ["::ffff:0:0/96"]}, f"{ALL_ADDRESSES}::ffff:0:0/96"),
    ({"trusted_proxies": ["10.0.0.1/8"]}, f"{BAD_PROXY}'10.0.0.1/8' (10.0.0.1/8 has host bits set)"),
    ({"trusted_proxies": ["proxy.example"]}, f"{BAD_PROXY}'proxy.example' ("),
    ({"trusted_proxies": [""]}, f"{BAD_PROXY}'' ("),
    ({"trusted_proxies": ["*"]}, f"{BAD_PROXY}'*' ("),
    ({"trusted_proxies": "10.0.0.0/8"}, "trusted_proxies must be a list, got '10.0.0.0/8': put it in brackets"),
    ({"trusted_proxies": ""}, "trusted_proxies must be a list, got '': put it in brackets"),
    ({"trusted_proxies": b"10.0.0.1"}, "trusted_proxies must be a list, got b'10.0.0.1': put it in brackets"),
    ({"trusted_proxies": None}, "trusted_proxies must be a list, got None"),
    ({"trusted_proxies": [None]}, f"{BAD_PROXY}'None' ("),
    ({"trusted_proxies": [10]}, f"{BAD_PROXY}'10' ("),
    ({"trusted_proxies": [b"\n\0\0\1"]}, BAD_PROXY),
    ({"trusted_hops": -1}, f"{BAD_HOPS}-1"),
    ({"trusted_hops": 17}, f"{BAD_HOPS}17"),
    ({"trusted_hops": True}, f"{BAD_HOPS}True"),
    ({"trusted_hops": 1.0}, f"{BAD_HOPS}1.0"),
    ({**BEHIND, **hops(1)}, "trusted_hops must be 0 with trusted proxies, got 1: give one of them"),
    ({"secret": ""}, "the secret must not be empty: set RATELAB_KEY_SECRET to a long random text, or unset it"),
]


@pytest.mark.parametrize(("options", "message"), INVALID_OPTIONS, ids=[str(options) for options, _ in INVALID_OPTIONS])
def test_invalid_options_are_rejected_with_a_remedy(options: Options, message: str) -> None:
    with pytest.raises(InputError) as caught:
        Identity(**options)
    assert str(caught.value).startswith(message)


def test_an_empty_secret_in_the_environment_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")
    with pytest.raises(InputError, match="RATELAB_KEY_SECRET"):
        Identity()
