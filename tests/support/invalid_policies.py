"""Invalid policy files, with the error message that each must cause."""

from __future__ import annotations

from typing import NamedTuple

VALID_POLICIES = """\
version: 1
policies:
  - {name: second, algorithm: token-bucket, rate: 10/s, burst: 20}
  - {name: day, algorithm: fixed-window, rate: 1000/day}
  - {name: global, key: all, algorithm: gcra, rate: 5000/s, shadow: true}
account: {header: X-Account}
plan: {header: X-Plan, default: free}
plans:
  free: {}
  premium: {second: {rate: 50/s, burst: 100}, day: {rate: 20000/day}}
overrides:
  alice: {second: {burst: 40}}
"""
"""A valid policy file."""


class InvalidPolicyFile(NamedTuple):
    """A file, the text after `Error: FILE` in the message, and another part of the message."""

    content: bytes
    message: str
    other_part: str = ""


def edit(old: str, new: str, message: str, other_part: str = "") -> InvalidPolicyFile:
    """Replace `old` by `new` in the valid file."""
    assert VALID_POLICIES.count(old) == 1, old
    return InvalidPolicyFile(VALID_POLICIES.replace(old, new).encode(), message, other_part)


def second(fields: str, message: str, other_part: str = "") -> InvalidPolicyFile:
    """Replace the first policy, on line 3."""
    return edit("{name: second, algorithm: token-bucket, rate: 10/s, burst: 20}", fields, f":3: {message}", other_part)


_WHOLE = "expected a whole number from 1 to 1000000000, got "
_COST = "expected requests, bytes or a name, a letter first and not a word such as true"
_FORGED = "can be forged by clients: use the key ip, and name the trusted proxies"
_BUCKET = "name: second, algorithm: token-bucket, rate: 10/s"

INVALID_POLICY_FILES = {
    # The document
    "empty": InvalidPolicyFile(b"", ": the file is empty: see `ratelab docs policies`"),
    "no YAML": InvalidPolicyFile(b"version: [1\n", ":2: invalid YAML: "),
    "two documents": InvalidPolicyFile(
        f"{VALID_POLICIES}---\n".encode(),
        ":13: invalid YAML: expected a single document in the stream, but",
    ),
    "not UTF-8": InvalidPolicyFile(
        b"version: \xff\n", ": invalid UTF-8: byte 0xff at offset 9: save the file as UTF-8"
    ),
    "a list": InvalidPolicyFile(b"- 1\n", ":1: expected keys and values, got ['1']"),
    "a scenario": InvalidPolicyFile(b"name: burst\nduration: 10s\n", ":1: missing key 'version': add version: 1"),
    "too large": InvalidPolicyFile(b"#" * 300_000, ": a policy file may have at most 250 kB: put the plans of many"),
    "no version": edit("version: 1\n", "", ":1: missing key 'version': add version: 1"),
    "another version": edit("version: 1", "version: 2", ":1: version: expected 1, the version of this format, got '2'"),
    "an unknown key": edit("plan: {", "plna: {", ":7: plna: unknown key; did you mean 'plan'?"),
    "a key twice": edit("plans:\n", "version: 1\nplans:\n", ":8: version: duplicate key"),
    # Policies
    "no policies": InvalidPolicyFile(b"version: 1\npolicies: []\n", ":2: policies: expected at least one"),
    "policies without a list": InvalidPolicyFile(
        b"version: 1\npolicies: x\n", ":2: policies: expected a list, got 'x'"
    ),
    "a policy of text": second("second", "policies[0]: expected keys and values, got 'second'"),
    "an unknown key of a policy": second(
        "{name: second, algorithm: token-bucket, rat: 10/s}", "policies[0].rat: unknown key; did you mean 'rate'?"
    )._replace(message=":3: policies[0]: missing key 'rate': add rate: 10/s"),
    "a misspelt key": second(f"{{{_BUCKET}, shadw: true}}", "policies[0].shadw: unknown key; did you mean 'shadow'?"),
    "no algorithm": second("{name: second, rate: 10/s}", "policies[0]: missing key 'algorithm': add algorithm: "),
    "an unknown algorithm": second(
        "{name: second, algorithm: tokenbucket, rate: 10/s}",
        "policies[0].algorithm: unknown algorithm 'tokenbucket': did you mean token-bucket?",
    ),
    "no name of an algorithm": second(
        "{name: second, algorithm: null, rate: 10/s}",
        "policies[0].algorithm: unknown algorithm 'null': choose one of token-bucket",
        "gcra\n",  # and no file, which must not run
    ),
    "an algorithm in a file": second(
        "{name: second, algorithm: 'mine.py:Mine', rate: 10/s}", "policies[0].algorithm: expected the name of an algo"
    ),
    "no rate": second("{name: second, algorithm: gcra}", "policies[0]: missing key 'rate': add rate: 10/s"),
    "a rate without a period": second(
        "{name: second, algorithm: gcra, rate: 10}", "policies[0].rate: rate must look like 2/s, 100/min", "got '10'"
    ),
    "a rate of 0": second("{name: second, algorithm: gcra, rate: 0/s}", "policies[0].rate: rate must be above 0"),
    "a burst of 0": second(f"{{{_BUCKET}, burst: 0}}", f"policies[0].burst: {_WHOLE}0"),
    "a burst in words": second(f"{{{_BUCKET}, burst: many}}", f"policies[0].burst: {_WHOLE}'many'"),
    "a burst too large for the log": second(
        "{name: second, algorithm: sliding-log, rate: 10/s, burst: 2000000}",
        "policies[0].burst: sliding-log keeps the time of every admission",
        "lower the burst",
    ),
    "a name twice": edit(
        "name: day", "name: second", ":4: policies[1]: duplicate policy name 'second'", "another name"
    ),
    "the default name twice": InvalidPolicyFile(
        b"version: 1\npolicies:\n- {algorithm: gcra, rate: 1/s}\n- {algorithm: gcra, rate: 2/s}\n",
        ":4: policies[1]: duplicate policy name 'gcra'",
    ),
    "a name with a quote": second(
        "{name: 'a\"b', algorithm: gcra, rate: 1/s}", "policies[0].name: expected a name of at most 100 letters", 'a"b'
    ),
    "a name of 101 characters": second(
        f"{{name: {'a' * 101}, algorithm: gcra, rate: 1/s}}", "policies[0].name: expected a name of at most 100 letters"
    ),
    "an unknown kind of key": second(
        f"{{{_BUCKET}, key: cookie}}", "policies[0].key: expected one of ip, header:NAME, account, all, got 'cookie'"
    ),
    "a key without a header": second(f"{{{_BUCKET}, key: 'header:'}}", "policies[0].key: expected one of ip, header:"),
    "a key of an account without a source": InvalidPolicyFile(
        b"version: 1\npolicies:\n- {algorithm: gcra, rate: 1/s, key: account}\n",
        ":3: policies[0].key: account needs a source: add account: {header: NAME}",
    ),
    "a cost that is a number": second(f"{{{_BUCKET}, cost: [5]}}", "policies[0].cost: expected a name of at most 100"),
    "a cost of three": second(f"{{{_BUCKET}, cost: 3}}", f"policies[0].cost: {_COST}, got '3': a number is the cost="),
    "a cost of a decimal": second(f"{{{_BUCKET}, cost: 1.5}}", f"policies[0].cost: {_COST}, got '1.5'"),
    "a cost in hexadecimal": second(f"{{{_BUCKET}, cost: 0x10}}", f"policies[0].cost: {_COST}, got '0x10'"),
    "a cost below 0": second(f"{{{_BUCKET}, cost: -1}}", "policies[0].cost: expected a name of at most 100", "'-1'"),
    "a cost with its number": second(f"{{{_BUCKET}, cost: 3 tokens}}", f"policies[0].cost: {_COST}, got '3 tokens'"),
    "a cost of nothing": second(f"{{{_BUCKET}, cost: null}}", f"policies[0].cost: {_COST}, got 'null'"),
    "a cost that is true": second(f"{{{_BUCKET}, cost: True}}", f"policies[0].cost: {_COST}, got 'True'"),
    "an infinite cost": second(f"{{{_BUCKET}, cost: inf}}", f"policies[0].cost: {_COST}, got 'inf'"),
    "a cost in capitals": second(
        f"{{{_BUCKET}, cost: Requests}}", "policies[0].cost: unknown cost 'Requests'; did you mean 'requests'?"
    ),
    "a cost of one byte": second(
        f"{{{_BUCKET}, cost: byte}}", "policies[0].cost: unknown cost 'byte'; did you mean 'bytes'?"
    ),
    "a key that clients can forge": second(
        f"{{{_BUCKET}, key: 'header:X-Forwarded-For'}}", f"policies[0].key: X-Forwarded-For {_FORGED}"
    ),
    "another key that clients can forge": second(
        f"{{{_BUCKET}, key: 'header:forwarded'}}", f"policies[0].key: forwarded {_FORGED}"
    ),
    "an account that clients can forge": edit(
        "X-Account", "X-FORWARDED-FOR", f":6: account.header: X-FORWARDED-FOR {_FORGED}"
    ),
    "a match without a slash": second(
        f"{{{_BUCKET}, match: login}}", "policies[0].match: a route must be a path, such as /search", "got 'login'"
    ),
    "a match of another syntax": second(
        f"{{{_BUCKET}, match: '/items/<id>'}}", "policies[0].match: a parameter of a route must be {name}"
    ),
    "shadow in words": second(f"{{{_BUCKET}, shadow: yes}}", "policies[0].shadow: expected true or false, got 'yes'"),
    "a penalty without a length": second(
        f"{{{_BUCKET}, penalty: {{after: 3, within: 1min}}}}", "policies[0].penalty: missing key 'for'"
    ),
    "a penalty of an unknown key": second(
        f"{{{_BUCKET}, penalty: {{after: 3, within: 1min, for: 5min, atmost: 1h}}}}",
        "policies[0].penalty.atmost: unknown key; did you mean 'at_most'?",
    ),
    "a penalty that shrinks": second(
        f"{{{_BUCKET}, penalty: {{after: 3, within: 1min, for: 5min, at_most: 1min}}}}",
        "policies[0].penalty.at_most: penalty.at_most must be at least that of `for`, 5min, got '1min'",
    ),
    "a penalty for a while": second(
        f"{{{_BUCKET}, penalty: {{after: 3, within: 1min, for: a while}}}}",
        "policies[0].penalty.for: a duration must look like 10s, 0.5s or 2min",
    ),
    "a penalty after too many denials": second(
        f"{{{_BUCKET}, penalty: {{after: 101, within: 1min, for: 5min}}}}",
        "policies[0].penalty.after: penalty.after must be a whole number from 1 to 100, got 101",
    ),
    "a growth in words": second(
        f"{{{_BUCKET}, penalty: {{after: 3, within: 1min, for: 5min, growth: twice}}}}",
        "policies[0].penalty.growth: expected a number such as 2 or 1.5, got 'twice'",
    ),
    "a growth below 1": second(
        f"{{{_BUCKET}, penalty: {{after: 3, within: 1min, for: 5min, growth: 0.5}}}}",
        "policies[0].penalty.growth: penalty.growth must be a number from 1 to 1000",
    ),
    "a month of a bucket": second(
        "{name: second, algorithm: gcra, rate: 10/month}", "policies[0].rate: gcra needs a period of fixed length"
    ),
    "a time zone of a second": second(
        f"{{{_BUCKET}, timezone: UTC}}", "policies[0].timezone: a timezone needs a window of a day"
    ),
    "an unknown time zone": second(
        "{name: second, algorithm: fixed-window, rate: 1/day, timezone: Europe/Berln}",
        "policies[0].timezone: unknown timezone 'Europe/Berln': did you mean Europe/Berlin?",
    ),
    # Plans
    "a month of a bucket in a plan": edit(
        "{rate: 50/s, burst: 100}", "{rate: 50/month}", ":10: plans.premium.second.rate: token-bucket needs a period"
    ),
    "two sources of the plan": edit(
        "header: X-Plan", "header: X-Plan, file: plans.csv", ":7: plan: expected header or file, got both: remove one"
    ),
    "a plan from a header of two words": edit(
        "X-Plan", "X Plan", ":7: plan.header: expected the name of a header, such as X-Plan, got 'X Plan'"
    ),
    "an unknown default plan": edit(
        "default: free", "default: fee", ":7: plan.default: unknown plan 'fee'; did you mean 'free'?"
    ),
    "a source without plans": InvalidPolicyFile(
        b"version: 1\npolicies:\n- {algorithm: gcra, rate: 1/s}\nplan: {header: X-Plan}\n",
        ":4: plan: expected the plans that it chooses from, got none: add plans",
    ),
    "a file of plans that is missing": edit(
        "header: X-Plan", "file: no.csv", ":7: plan.file: ", "no.csv: No such file or directory: name a CSV file"
    ),
    "a folder of plans": edit(
        "header: X-Plan", "file: /", ":7: plan.file: /: Is a directory: name a CSV file in UTF-8 with lines alice,"
    ),
    "a plan that changes an unknown policy": edit(
        "day: {rate: 20000/day}",
        "dya: {rate: 1/s}",
        ":10: plans.premium.dya: unknown policy 'dya'; did you",
    ),
    "a plan with another algorithm": edit(
        "{rate: 20000/day}", "{algorithm: gcra}", ":10: plans.premium.day.algorithm: unknown key; choose one of rate"
    ),
    "a plan that changes nothing of a policy": edit(
        "{rate: 20000/day}", "{}", ":10: plans.premium.day: expected a rate or a burst, got neither"
    ),
    "a rate of a plan": edit("20000/day", "20000/dy", ":10: plans.premium.day.rate: rate must look like", "20000/dy"),
    "a plan of text": edit("free: {}", "free: all", ":9: plans.free: expected keys and values, got 'all'"),
    "a plan with a name of a quote": edit("free: {}", "'f\"': {}", ':9: plans.f": expected a name of at most 100'),
    # Overrides
    "an override of an unknown policy": edit(
        "{second: {burst: 40}}",
        "{hour: {burst: 40}}",
        ":12: overrides.alice.hour: unknown policy 'hour'; choose",
    ),
    "an override of no client": edit("alice: {", "'': {", ":12: overrides.: expected a header value or an address"),
    "an override of 0": edit("burst: 40", "burst: 0", f":12: overrides.alice.second.burst: {_WHOLE}0"),
    # The first error in the file is reported
    "two errors": edit("10/s", "x", "")._replace(
        content=VALID_POLICIES.replace("burst: 20", "burst: x").replace("40", "x").encode(),
        message=f":3: policies[0].burst: {_WHOLE}'x'",
    ),
}
