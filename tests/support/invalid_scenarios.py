"""Invalid scenario files, with the error message that each must cause."""

from __future__ import annotations

from typing import NamedTuple

VALID = """\
name: good
duration: 10s
seed: 1
quota: {rate: 2/s, burst: 5}
algorithms: [token-bucket, gcra]
clients:
  - name: alice
    traffic:
      - {pattern: steady, rate: 1/s}
    cost: 1
"""
"""A valid scenario file."""


class InvalidScenario(NamedTuple):
    """A file, the text after `Error: FILE` in the message, and another part of the message."""

    content: bytes
    message: str
    other_part: str = ""


def edit(old: str, new: str, message: str, other_part: str = "") -> InvalidScenario:
    """Replace `old` by `new` in the valid file."""
    assert VALID.count(old) == 1, old
    return InvalidScenario(VALID.replace(old, new).encode(), message, other_part)


def send(pattern: str, message: str, other_part: str = "") -> InvalidScenario:
    """Let the client of the valid file send another pattern, on line 9."""
    return edit("{pattern: steady, rate: 1/s}", pattern, f":9: clients[0].traffic[0]{message}", other_part)


def append(lines: str, message: str, other_part: str = "") -> InvalidScenario:
    """Append lines to the client of the valid file instead of its cost, from line 10 on."""
    return edit("    cost: 1\n", lines, f":10: clients[0]{message}", other_part)


_ANCHOR_BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join(10 * [f'*a{n - 1}'])}]\n" for n in range(1, 12)
)
_WHOLE = "expected a whole number from 1 to 1000000000, got "
_RATE = "rate must look like 2/s, 100/min or 5/2.5s, got "
_DURATION = "a duration must look like 10s, 0.5s or 2min, got "
_PATTERNS = "choose one of steady, burst, poisson, ramp, wave, on-off, at, trace"

NOT_YAML = {
    "empty file": InvalidScenario(b"", ": the file is empty: see `ratelab simulate --help`"),
    "only comments": InvalidScenario(b"# nothing\n\n# at all\n", ": the file is empty"),
    "a list": InvalidScenario(b"- name: x\n", ":1: expected keys and values, got [{'name': 'x'}]"),
    "a word": InvalidScenario(b"hello\n", ":1: expected keys and values, got 'hello'"),
    "null": InvalidScenario(b"~\n", ":1: expected keys and values, got '~'"),
    "binary": InvalidScenario(bytes(range(256)), ": invalid UTF-8: byte 0x80 at offset 128"),
    "zeros": InvalidScenario(bytes(1000), ": invalid YAML: unacceptable character #x0000", "remove it"),
    "Latin-1": edit("alice", "Ren\xe9e", ": invalid UTF-8: byte 0xe9 at offset")._replace(
        content=VALID.replace("alice", "Ren\xe9e").encode("latin-1")
    ),
    "UTF-16": InvalidScenario(VALID.encode("utf-16"), ": invalid UTF-8: byte 0xff at offset 0: save the file as UTF-8"),
    "over a megabyte": InvalidScenario(
        b"# x\n" * 300_000, ": a scenario file may have at most 250 kB", "put traffic into a trace file"
    ),
    "50 megabytes of one line": InvalidScenario(b"x" * 50_000_000, ": a scenario file may have at most 250 kB"),
    "a tab": edit("  - name", "\t- name", ":7: invalid YAML: found character '\\t' that cannot start any token"),
    "an open bracket": edit("gcra]", "gcra", ":6: invalid YAML: "),
    "two documents": InvalidScenario(f"{VALID}---\n{VALID}".encode(), ":11: invalid YAML: expected a single document"),
    "an unknown anchor": edit("2/s, burst: 5", "*rate", ":4: invalid YAML: found undefined alias 'rate'"),
    "a bomb of anchors": InvalidScenario(_ANCHOR_BOMB.encode(), ":1: a", "more than 100,000 values"),
    "an anchor within itself": edit("[token-bucket, gcra]", "&a [*a]", ":5: algorithms", "more than 20 levels"),
    "a thousand brackets": InvalidScenario(b"[" * 1000, ": invalid scenario file: it is nested too deeply"),
    "fifty brackets": InvalidScenario(b"name: " + b"[" * 50 + b"]" * 50, ":1: name[0][0]", "more than 20 levels"),
    "a key twice": edit("seed: 1", "name: better", ":3: name: duplicate key"),
    "a pattern's key twice": send("{pattern: steady, rate: 1/s, rate: 2/s}", ".rate: duplicate key"),
    "a key that is a list": edit("seed: 1", "[a]: 1", ":3: a key must be plain text"),
}

NOT_A_SCENARIO = {
    # Keys
    "no keys": InvalidScenario(b"{}\n", ":1: missing key 'name': add name: "),
    "no clients": InvalidScenario(VALID.partition("clients")[0].encode(), ":1: missing key 'clients'"),
    "an unknown key": edit("seed:", "sede:", ":3: sede: unknown key; did you mean 'seed'?"),
    "an unknown key of the quota": edit("burst: 5", "brust: 5", ":4: quota.brust: unknown key; did you mean 'burst'?"),
    "an unknown key of a client": append("    cots: 1\n", ".cots: unknown key; did you mean 'cost'?"),
    "a pattern as a key of a client": append(
        "    burst: 5\n", ".burst: unknown key; choose one of name, count, key, traffic, cost"
    ),
    "an unknown key of a pattern": send(
        "{pattern: burst, at: 1s, size: 2, spacign: 1s}", ".spacign: unknown key; did you mean 'spacing'?"
    ),
    "the name of a pattern as its key": send(
        "{pattern: burst, at: 1s, size: 2, burst: 1}",
        ".burst: unknown key; choose one of from, to, pattern, at, size, spacing",
    ),
    "a single time in at": send("{pattern: at, times: [1s], at: 3s}", ".at: unknown key; choose one of from, to"),
    "a merge key": append("    <<: {cost: 1}\n", ".<<: unknown key; choose one of name, count"),
    # Patterns
    "an unknown pattern": send("{pattern: brust}", ".pattern: unknown pattern 'brust'; did you mean 'burst'?"),
    "a pattern far from all": send("{pattern: 7}", f".pattern: unknown pattern '7'; {_PATTERNS}"),
    "a pattern that is a list": send("{pattern: [steady]}", ".pattern: unknown pattern", "did you mean 'steady'?"),
    "no pattern": send("{rate: 1/s}", f": missing key 'pattern'; {_PATTERNS}"),
    "a pattern in words": send("steady 1/s", ": expected keys and values, got 'steady 1/s'"),
    "a burst without a size": send("{pattern: burst, at: 1s}", ": missing key 'size': add size: 5"),
    "a wave without a cycle": send("{pattern: wave, mean: 1/s, amplitude: 1/s}", ": missing key 'cycle'"),
    "on without off": send("{pattern: on-off, rate: 1/s, on: 1s}", ": missing key 'off'"),
    # Types
    "a list for a name": edit("name: good", "name: [good]", ":1: name: expected printable text, got ['good']"),
    "an empty name": edit("name: alice", "name: ''", ":7: clients[0].name: expected printable text, got ''"),
    "a name with an escape": edit("alice", r'"\e[2J"', r":7: clients[0].name: expected printable text, got '\x1b[2J'"),
    "text for a list": edit("[token-bucket, gcra]", "gcra", ":5: algorithms: expected a list, got 'gcra'"),
    "a mapping for a list": send("{pattern: at, times: {a: 1s}}", ".times: expected a list, got {'a': '1s'}"),
    "a mapping for a number": edit("seed: 1", "seed: {a: 1}", ":3: seed: expected a whole number", "got {'a': '1'}"),
    "text for a mapping": edit("{rate: 2/s, burst: 5}", "2/s", ":4: quota: expected keys and values, got '2/s'"),
    "no algorithms": edit("[token-bucket, gcra]", "[]", ":5: algorithms: expected at least one, got an empty list"),
    "no times": send("{pattern: at, times: []}", ".times: expected at least one"),
    "no value": edit("seed: 1", "seed:", ":3: seed: expected a whole number", "got ''"),
    # Numbers
    "a negative size": send("{pattern: burst, at: 1s, size: -3}", f".size: {_WHOLE}-3"),
    "size 0": send("{pattern: burst, at: 1s, size: 0}", f".size: {_WHOLE}0"),
    "a huge size": send(f"{{pattern: burst, at: 1s, size: {10**30}}}", f".size: {_WHOLE}{10**30}"),
    "half a request": send("{pattern: burst, at: 1s, size: 1.5}", f".size: {_WHOLE}'1.5'"),
    "a size of 1e400": send("{pattern: burst, at: 1s, size: 1e400}", f".size: {_WHOLE}'1e400'"),
    "a burst that is not a number": edit("burst: 5", "burst: .nan", f":4: quota.burst: {_WHOLE}'.nan'"),
    "an endless burst": edit("burst: 5", "burst: .inf", f":4: quota.burst: {_WHOLE}'.inf'"),
    "a true burst": edit("burst: 5", "burst: true", f":4: quota.burst: {_WHOLE}'true'"),
    "a seed below 0": edit("seed: 1", "seed: -1", ":3: seed: expected a whole number from 0 to 9223372036854775807"),
    "a count of too many": append(
        "    count: 100001\n", ".count: expected a whole number from 1 to 100000, got 100001"
    ),
    # Durations and rates
    "a duration without a unit": edit("10s", "10", ":2: duration: no unit in '10', a duration takes one of ns, us, ms"),
    "a duration in fortnights": edit("10s", "1fortnight", ":2: duration: unknown unit 'fortnight'"),
    "a duration in words": edit("10s", "long", f":2: duration: {_DURATION}'long'"),
    "a duration below 0": edit("10s", "-10s", f":2: duration: {_DURATION}'-10s'"),
    "a duration of 0": edit("10s", "0s", ":2: duration: expected a duration above 0s, got 0s"),
    "a duration of ages": edit("10s", "999999999day", ":2: duration: a duration must be at most 146 years"),
    "a duration in a list": edit("10s", "[10s]", f":2: duration: {_DURATION}['10s']"),
    "a rate without a unit": send("{pattern: steady, rate: 5}", f".rate: {_RATE}'5'"),
    "a rate of 0": send("{pattern: steady, rate: 0/s}", ".rate: rate must be above 0, got '0/s'"),
    "a rate of 1e400": send("{pattern: steady, rate: 1e400/s}", f".rate: {_RATE}'1e400/s'"),
    "a quota of 0": edit("rate: 2/s", "rate: 0/s", ":4: quota.rate: rate must be above 0"),
    "a quota too long to keep": edit("{rate: 2/s, burst: 5}", "{rate: 1/day, burst: 60000}", ":4: quota: burst / rate"),
    # Costs
    "a cost of 0": append("    cost: 0\n", f".cost: {_WHOLE}0"),
    "a cost in words": append("    cost: much\n", f".cost: {_WHOLE}'much'"),
    "a weight below 0": append("    cost: {1: 1, 10: -0.1}\n", ".cost: expected a weight such as 0.9, got '-0.1'"),
    "a weight in words": append("    cost: {1: often}\n", ".cost: expected a weight such as 0.9, got 'often'"),
    "a weight that is a list": append("    cost: {1: [1]}\n", ".cost: expected a weight such as 0.9, got ['1']"),
    "weights of 0": append("    cost: {1: 0, 2: 0}\n", ".cost: the weights of the costs must add up to more"),
    "no costs": append("    cost: {}\n", ".cost: the weights of the costs must add up to more than 0, got {}"),
    "one cost twice": append("    cost: {1: 0.5, 01: 0.5}\n", ".cost: duplicate cost in"),
    # Times
    "to before from": send(
        "{pattern: steady, rate: 1/s, from: 3s, to: 2s}", ": expected from < to <= duration, got from 3s, to 2s"
    ),
    "to after the end": send("{pattern: steady, rate: 1/s, to: 11s}", ": expected from < to <= duration", "to 11s"),
    "from at the end": send("{pattern: steady, rate: 1/s, from: 10s}", ": expected from < to <= duration"),
    "a time after the end": send("{pattern: at, times: [1s, 10s]}", ": a time must be within 0s to 10s", "got 10s"),
    "a time before from": send("{pattern: at, times: [1s], from: 2s}", ": a time must be within 2s to 10s", "got 1s"),
    "a time before the start": send("{pattern: at, times: [1s, -1s]}", f".times[1]: {_DURATION}'-1s'"),
    "a burst beyond the end": send(
        "{pattern: burst, at: 9s, size: 20, spacing: 0.1s}", ": a burst must be within 0s to 10s", "got 9s to 10.9s"
    ),
    "a cycle of 0": send("{pattern: wave, mean: 1/s, amplitude: 1/s, cycle: 0s}", ": cycle must be longer"),
    "on for 0s": send("{pattern: on-off, rate: 1/s, on: 0s, off: 1s}", ": on must be longer than 0s, got 0s"),
    "an amplitude above the mean": send(
        "{pattern: wave, mean: 1/s, amplitude: 2/s, cycle: 5s}", ": amplitude must be at most the mean of 1/s, got 2/s"
    ),
    "too many requests": send("{pattern: poisson, rate: 3000000/s}", ": a pattern may have at most 20,000,000"),
    # Clients and algorithms
    "a client twice": append("  - {name: alice, traffic: [{pattern: steady, rate: 1/s}]}\n", "")._replace(
        message=":10: clients[1].name: duplicate client name 'alice'"
    ),
    "a client with the name of a numbered one": append(
        "  - {name: x, count: 2, traffic: [{pattern: steady, rate: 1/s}]}\n"
        "  - {name: x-2, traffic: [{pattern: steady, rate: 1/s}]}\n",
        "",
    )._replace(message=":11: clients[2].name: duplicate client name 'x-2'"),
    "an unknown algorithm": edit(
        "gcra]", "tokenbucket]", ":5: algorithms[1]: unknown algorithm 'tokenbucket': did you mean token-bucket?"
    ),
    "a long unknown algorithm": edit(
        "gcra]", "x" * 100_000 + "]", ":5: algorithms[1]: a value may have at most 2000 characters, got 100,000"
    ),
    "an algorithm that is a list": edit("gcra]", "[gcra]]", ":5: algorithms[1]: expected the name of an algorithm"),
    "a file as an algorithm": edit(
        "gcra]", "mine.py:Mine]", ":5: algorithms[1]: expected the name of an algorithm", "give a file with --algo"
    ),
    # Traces
    "a trace that is missing": send("{pattern: trace, file: no.log}", ": ", "no.log: it cannot be opened"),
    "a trace that is a directory": send("{pattern: trace, file: .}", ": ", "it cannot be "),
    "a file that is not a trace": send("{pattern: trace, file: bad.yaml}", ": ", "no known format matches its lines"),
    "a trace from standard input": send("{pattern: trace, file: '-'}", ": ", "-: it cannot be opened"),
    # The first error in the file is reported
    "two errors": edit("10s", "x", ":2: duration")._replace(
        content=VALID.replace("10s", "x").replace("burst: 5", "burst: x").encode()
    ),
}

INVALID_SCENARIOS = NOT_YAML | NOT_A_SCENARIO
