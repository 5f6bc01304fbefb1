"""Scenario files that cannot be read, and what a person is told: on one line, with the place and the remedy."""

from __future__ import annotations

from typing import NamedTuple

GOOD = """\
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
"""A file that can be read."""


class BadScenario(NamedTuple):
    """What the file holds, how the message goes on after `Error: FILE`, and what else is in it."""

    content: bytes
    says: str
    and_says: str = ""


def file(old: str, new: str, says: str, and_says: str = "") -> BadScenario:
    """Write `new` where the good file says `old`."""
    assert GOOD.count(old) == 1, old
    return BadScenario(GOOD.replace(old, new).encode(), says, and_says)


def traffic(pattern: str, says: str, and_says: str = "") -> BadScenario:
    """Give the one client of the good file, on line 9, another pattern."""
    return file("{pattern: steady, rate: 1/s}", pattern, f":9: clients[0].traffic[0]{says}", and_says)


def client(lines: str, says: str, and_says: str = "") -> BadScenario:
    """Give the one client of the good file other lines than its cost, from line 10 on."""
    return file("    cost: 1\n", lines, f":10: clients[0]{says}", and_says)


_BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join(10 * [f'*a{n - 1}'])}]\n" for n in range(1, 12)
)
_WHOLE = "expected a whole number from 1 to 1000000000, got "
_RATE = "rate must look like 2/s, 100/min or 5/2.5s, got "
_DURATION = "a duration must look like 10s, 0.5s or 2min, got "
_PATTERNS = "choose one of steady, burst, poisson, ramp, wave, on-off, at, trace"

NOT_YAML = {
    "empty": BadScenario(b"", ": the file is empty; see `ratelab simulate --help`"),
    "only comments": BadScenario(b"# nothing\n\n# at all\n", ": the file is empty"),
    "a list": BadScenario(b"- name: x\n", ":1: expected keys and values, got [{'name': 'x'}]"),
    "a word": BadScenario(b"hello\n", ":1: expected keys and values, got 'hello'"),
    "null": BadScenario(b"~\n", ":1: expected keys and values, got '~'"),
    "binary": BadScenario(bytes(range(256)), ": not text in UTF-8: byte 0x80 at 128"),
    "zeros": BadScenario(bytes(1000), ": not YAML: unacceptable character #x0000"),
    "Latin-1": file("alice", "Ren\xe9e", ": not text in UTF-8: byte 0xe9 at")._replace(
        content=GOOD.replace("alice", "Ren\xe9e").encode("latin-1")
    ),
    "UTF-16": BadScenario(GOOD.encode("utf-16"), ": not text in UTF-8: byte 0xff at 0"),
    "over a megabyte": BadScenario(b"# x\n" * 300_000, ": a scenario is at most ", "put traffic in a trace file"),
    "50 megabytes of one line": BadScenario(b"x" * 50_000_000, ": a scenario is at most "),
    "a tab": file("  - name", "\t- name", ":7: not YAML: found character '\\t' that cannot start any token"),
    "an open bracket": file("gcra]", "gcra", ":6: not YAML: "),
    "two documents": BadScenario(f"{GOOD}---\n{GOOD}".encode(), ":11: not YAML: but found another document"),
    "an unknown anchor": file("2/s, burst: 5", "*rate", ":4: not YAML: found undefined alias 'rate'"),
    "a bomb of anchors": BadScenario(_BOMB.encode(), ":1: a", "more than 100,000 values"),
    "an anchor within itself": file("[token-bucket, gcra]", "&a [*a]", ":5: algorithms", "nested more than 20 deep"),
    "a thousand brackets": BadScenario(b"[" * 1000, ": nested too deep to be a scenario"),
    "fifty brackets": BadScenario(b"name: " + b"[" * 50 + b"]" * 50, ":1: name[0][0]", "nested more than 20 deep"),
    "a key twice": file("seed: 1", "name: better", ":3: name: ", "twice"),
    "a pattern's key twice": traffic("{pattern: steady, rate: 1/s, rate: 2/s}", ".rate: ", "twice"),
    "a key that is a list": file("seed: 1", "[a]: 1", ":3: a key must be plain text"),
}

NOT_A_SCENARIO = {
    # Keys
    "nothing said": BadScenario(b"{}\n", ":1: the key 'name' is missing"),
    "no clients": BadScenario(GOOD.partition("clients")[0].encode(), ":1: the key 'clients' is missing"),
    "an unknown key": file("seed:", "sede:", ":3: sede: unknown key; did you mean 'seed'?"),
    "an unknown key of the quota": file("burst: 5", "brust: 5", ":4: quota.brust: unknown key; did you mean 'burst'?"),
    "an unknown key of a client": client("    cots: 1\n", ".cots: unknown key; did you mean 'cost'?"),
    "a pattern's name for a client's key": client(
        "    burst: 5\n", ".burst: unknown key; choose one of name, count, key, traffic, cost"
    ),
    "an unknown key of a pattern": traffic(
        "{pattern: burst, at: 1s, size: 2, spacign: 1s}", ".spacign: unknown key; did you mean 'spacing'?"
    ),
    "a pattern's own name for a key": traffic(
        "{pattern: burst, at: 1s, size: 2, burst: 1}",
        ".burst: unknown key; choose one of from, to, pattern, at, size, spacing",
    ),
    "one time given to at": traffic("{pattern: at, times: [1s], at: 3s}", ".at: unknown key; choose one of from, to"),
    "a merge key": client("    <<: {cost: 1}\n", ".<<: unknown key; choose one of name, count"),
    # Patterns
    "an unknown pattern": traffic("{pattern: brust}", ".pattern: unknown pattern 'brust'; did you mean 'burst'?"),
    "a pattern far from all": traffic("{pattern: 7}", f".pattern: unknown pattern '7'; {_PATTERNS}"),
    "a pattern that is a list": traffic("{pattern: [steady]}", ".pattern: unknown pattern", "did you mean 'steady'?"),
    "no pattern": traffic("{rate: 1/s}", f": the key 'pattern' is missing; {_PATTERNS}"),
    "a pattern in words": traffic("steady 1/s", ": expected keys and values, got 'steady 1/s'"),
    "a burst without a size": traffic("{pattern: burst, at: 1s}", ": the key 'size' is missing"),
    "a wave without a cycle": traffic("{pattern: wave, mean: 1/s, amplitude: 1/s}", ": the key 'cycle' is missing"),
    "on without off": traffic("{pattern: on-off, rate: 1/s, on: 1s}", ": the key 'off' is missing"),
    # Types
    "a list for a name": file("name: good", "name: [good]", ":1: name: expected some plain text, got ['good']"),
    "a name of nothing": file("name: alice", "name: ''", ":7: clients[0].name: expected some plain text, got ''"),
    "a name with an escape": file("alice", r'"\e[2J"', r":7: clients[0].name: expected some plain text, got '\x1b[2J'"),
    "text for a list": file("[token-bucket, gcra]", "gcra", ":5: algorithms: expected a list, got 'gcra'"),
    "a mapping for a list": traffic("{pattern: at, times: {a: 1s}}", ".times: expected a list, got {'a': '1s'}"),
    "a mapping for a number": file("seed: 1", "seed: {a: 1}", ":3: seed: expected a whole number", "got {'a': '1'}"),
    "text for a mapping": file("{rate: 2/s, burst: 5}", "2/s", ":4: quota: expected keys and values, got '2/s'"),
    "no algorithms": file("[token-bucket, gcra]", "[]", ":5: algorithms: expected at least one, got an empty list"),
    "no times": traffic("{pattern: at, times: []}", ".times: expected at least one"),
    "no value": file("seed: 1", "seed:", ":3: seed: expected a whole number", "got ''"),
    # Numbers
    "a negative size": traffic("{pattern: burst, at: 1s, size: -3}", f".size: {_WHOLE}-3"),
    "size 0": traffic("{pattern: burst, at: 1s, size: 0}", f".size: {_WHOLE}0"),
    "a huge size": traffic(f"{{pattern: burst, at: 1s, size: {10**30}}}", f".size: {_WHOLE}{10**30}"),
    "half a request": traffic("{pattern: burst, at: 1s, size: 1.5}", f".size: {_WHOLE}'1.5'"),
    "a size of 1e400": traffic("{pattern: burst, at: 1s, size: 1e400}", f".size: {_WHOLE}'1e400'"),
    "a burst that is not a number": file("burst: 5", "burst: .nan", f":4: quota.burst: {_WHOLE}'.nan'"),
    "an endless burst": file("burst: 5", "burst: .inf", f":4: quota.burst: {_WHOLE}'.inf'"),
    "a true burst": file("burst: 5", "burst: true", f":4: quota.burst: {_WHOLE}'true'"),
    "a seed below 0": file("seed: 1", "seed: -1", ":3: seed: expected a whole number from 0 to 9223372036854775807"),
    "a count of too many": client(
        "    count: 100001\n", ".count: expected a whole number from 1 to 100000, got 100001"
    ),
    # Durations and rates
    "a duration without a unit": file("10s", "10", ":2: duration: no unit in '10', a duration takes one of ns, us, ms"),
    "a duration in fortnights": file("10s", "1fortnight", ":2: duration: unknown unit 'fortnight'"),
    "a duration in words": file("10s", "long", f":2: duration: {_DURATION}'long'"),
    "a duration below 0": file("10s", "-10s", f":2: duration: {_DURATION}'-10s'"),
    "a duration of 0": file("10s", "0s", ":2: duration: expected a duration above 0s, got 0s"),
    "a duration of ages": file("10s", "999999999day", ":2: duration: a duration must be at most 146 years"),
    "a duration in a list": file("10s", "[10s]", f":2: duration: {_DURATION}['10s']"),
    "a rate without a unit": traffic("{pattern: steady, rate: 5}", f".rate: {_RATE}'5'"),
    "a rate of 0": traffic("{pattern: steady, rate: 0/s}", ".rate: rate must be above 0, got '0/s'"),
    "a rate of 1e400": traffic("{pattern: steady, rate: 1e400/s}", f".rate: {_RATE}'1e400/s'"),
    "a quota of 0": file("rate: 2/s", "rate: 0/s", ":4: quota.rate: rate must be above 0"),
    "a quota too long to keep": file("{rate: 2/s, burst: 5}", "{rate: 1/day, burst: 60000}", ":4: quota: burst / rate"),
    # Costs
    "a cost of 0": client("    cost: 0\n", f".cost: {_WHOLE}0"),
    "a cost in words": client("    cost: much\n", f".cost: {_WHOLE}'much'"),
    "a weight below 0": client("    cost: {1: 1, 10: -0.1}\n", ".cost: expected a weight such as 0.9, got '-0.1'"),
    "a weight in words": client("    cost: {1: often}\n", ".cost: expected a weight such as 0.9, got 'often'"),
    "a weight that is a list": client("    cost: {1: [1]}\n", ".cost: expected a weight such as 0.9, got ['1']"),
    "weights of nothing": client("    cost: {1: 0, 2: 0}\n", ".cost: the weights of the costs must add up to more"),
    "no costs": client("    cost: {}\n", ".cost: the weights of the costs must add up to more than 0, got {}"),
    "one cost twice": client("    cost: {1: 0.5, 01: 0.5}\n", ".cost: ", "twice"),
    # Times
    "to before from": traffic(
        "{pattern: steady, rate: 1/s, from: 3s, to: 2s}", ": expected from < to <= duration, got from 3s, to 2s"
    ),
    "to after the end": traffic("{pattern: steady, rate: 1/s, to: 11s}", ": expected from < to <= duration", "to 11s"),
    "from at the end": traffic("{pattern: steady, rate: 1/s, from: 10s}", ": expected from < to <= duration"),
    "a time after the end": traffic("{pattern: at, times: [1s, 10s]}", ": a time must lie in 0s to 10s", "got 10s"),
    "a time before from": traffic("{pattern: at, times: [1s], from: 2s}", ": a time must lie in 2s to 10s", "got 1s"),
    "a time before the start": traffic("{pattern: at, times: [1s, -1s]}", f".times[1]: {_DURATION}'-1s'"),
    "a burst beyond the end": traffic(
        "{pattern: burst, at: 9s, size: 20, spacing: 0.1s}", ": a burst must lie in 0s to 10s", "got 9s to 10.9s"
    ),
    "a cycle of 0": traffic("{pattern: wave, mean: 1/s, amplitude: 1/s, cycle: 0s}", ": cycle must be longer"),
    "on for 0s": traffic("{pattern: on-off, rate: 1/s, on: 0s, off: 1s}", ": on must be longer than 0s, got 0s"),
    "an amplitude above the mean": traffic(
        "{pattern: wave, mean: 1/s, amplitude: 2/s, cycle: 5s}", ": amplitude must be at most the mean of 1/s, got 2/s"
    ),
    "too many requests": traffic("{pattern: poisson, rate: 3000000/s}", ": a pattern may make at most 20,000,000"),
    # Clients and algorithms
    "a client twice": client("  - {name: alice, traffic: [{pattern: steady, rate: 1/s}]}\n", "")._replace(
        says=":10: clients[1].name: there is another client called 'alice'"
    ),
    "a client and one of a crowd": client(
        "  - {name: x, count: 2, traffic: [{pattern: steady, rate: 1/s}]}\n"
        "  - {name: x-2, traffic: [{pattern: steady, rate: 1/s}]}\n",
        "",
    )._replace(says=":11: clients[2].name: there is another client called 'x-2'"),
    "an unknown algorithm": file(
        "gcra]", "tokenbucket]", ":5: algorithms[1]: unknown algorithm 'tokenbucket': did you mean token-bucket?"
    ),
    "a long unknown algorithm": file(
        "gcra]", "x" * 100_000 + "]", ":5: algorithms[1]: a value has at most 2000 characters, got 100,000"
    ),
    "an algorithm that is a list": file("gcra]", "[gcra]]", ":5: algorithms[1]: expected the name of an algorithm"),
    "a file as an algorithm": file(
        "gcra]", "mine.py:Mine]", ":5: algorithms[1]: expected the name of an algorithm", "give a file with --algo"
    ),
    # Traces
    "a trace that is missing": traffic("{pattern: trace, file: no.log}", ": ", "no.log: it cannot be opened"),
    "a trace that is a directory": traffic("{pattern: trace, file: .}", ": ", "it cannot be "),
    "a trace that is no trace": traffic("{pattern: trace, file: bad.yaml}", ": ", "its first line must be a log line"),
    "a trace from standard input": traffic("{pattern: trace, file: '-'}", ": ", "-: it cannot be opened"),
    # The first fault in the file is the one told
    "two faults": file("10s", "x", ":2: duration")._replace(
        content=GOOD.replace("10s", "x").replace("burst: 5", "burst: x").encode()
    ),
}

BAD_SCENARIOS = NOT_YAML | NOT_A_SCENARIO
