"""Whatever an answer does, there is a clear verdict on it, soon, and nothing of it is left."""

from __future__ import annotations

import inspect
import os
import select
import sys
from pathlib import Path
from textwrap import dedent

import pytest

import ratelab
from ratelab import ALGORITHMS, Decision
from ratelab.learn import drill, submission
from ratelab.learn.drill import grade
from ratelab.learn.grader import examine


def body(statements: str, before: str = "") -> str:
    """Return a step of one line, the second of the answer or, after a class of one line, the third."""
    return f"{before}def step(self, state, now, cost):\n    {statements}\n"


STEP = dedent(inspect.getsource(ALGORITHMS["gcra"].step))
NUMBER = "must be a whole number from 0 to NEVER, and was"
FIELDS = f"a step returns five fields, {', '.join(Decision._fields)}, and returned"
WRONG = {
    "pass": f"{FIELDS} None",
    "return True, 1, 0.5, 0, 0": f"retry_after_ns {NUMBER} 0.5",
    "return True, True, 0, 0, 0": f"remaining {NUMBER} True, of type bool: int(...) makes it one",
    "return 1, 1, 0, 0, 0": "allowed must be True or False, and was 1, of type int: bool(...) makes it one",
    "import numpy; return True, numpy.int64(4), 0, 0, 0": f"remaining {NUMBER} {{}}4{{}}, of type "
    "numpy.int64: int(...) makes it one",
    "return True, 10**5000, 0, 0, 0": f"remaining {NUMBER} something of type int that cannot be written",
    "state[:] = [.5]; return True, 1, 0, 0, 0": "a state must stay 2 whole numbers, and was left as [0.5]",
    "object.__setattr__(self, 'limit', 7); return True, 4, 0, 5 * 10**8, 0": "the parameters in self were changed",
    "1 / 0": "line 2: ZeroDivisionError: division by zero",
    "return step(self, state, now, cost)": "line 2: RecursionError: maximum recursion depth exceeded",
    "raise SystemExit(0)": "line 2: SystemExit: 0",
    "raise KeyboardInterrupt": "line 2: KeyboardInterrupt",
    "raise ValueError('x' * 100_000)": f"line 2: ValueError: {'x' * 200}...",
    "while True: pass": "line 2: no end after 0.1 s",
    "import time; time.sleep(100)": "line 2: no end after 0.1 s",
}
HOSTILE = {
    "def __repr__(self): raise SystemExit": f"{FIELDS} something of type It that cannot be written",
    "def __repr__(self): return 7": f"{FIELDS} something of type It that cannot be written",
    "def __repr__(self):\n        while True: pass": f"{FIELDS} something of type It that cannot be written",
    "__eq__ = __len__ = __iter__ = __getitem__ = None": f"{FIELDS} ()",
}
WORSE = {
    "input()": "line 2: EOFError: EOF when reading a line",
    "[0] * 10**10": "line 2: MemoryError",
    "import os; os._exit(0)": "the answer ended its whole process",
    "import os; os.kill(os.getpid(), 11)": "the answer ended its whole process",
}


@pytest.mark.parametrize("statements", WRONG)
def test_what_no_step_may_do_is_told_with_one_request_that_shows_it(
    statements: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submission, "PATIENCE", 0.1)
    verdict = examine("token-bucket", body(statements))
    assert (verdict.right, [(row.at, row.cost) for row in verdict.rows]) == (False, [(0, 1)])
    assert verdict.words in (WRONG[statements].format("np.int64(", ")"), WRONG[statements].format("", ""))


@pytest.mark.parametrize("methods", HOSTILE)
def test_what_a_step_returns_cannot_harm_who_looks_at_it(methods: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission, "PATIENCE", 0.1)
    assert examine("gcra", body("return It()", f"class It(tuple):\n    {methods}\n")).words == HOSTILE[methods]


def test_what_an_error_says_is_told_as_far_as_it_can_be() -> None:
    error = "class It(Exception):\n    def __str__(self): raise self\n"
    assert examine("gcra", body("raise It", error)).words == "line 4: It: what it says cannot be written"
    assert examine("gcra", body(r"raise KeyError")).words == "line 2: KeyError"
    assert examine("gcra", body(r"raise OSError('\ud800\n\x1b[2J')")).words == r"line 2: OSError: \ud800\n\x1b[2J"


@pytest.mark.parametrize("statements", WORSE)
def test_what_would_harm_a_process_harms_only_its_own(statements: str) -> None:
    verdict = grade("token-bucket", body(statements))
    assert (verdict.right, verdict.words) == (False, WORSE[statements])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def step(:", "line 1: SyntaxError: invalid syntax"),
        ("a\0", "SyntaxError: source code string cannot contain null bytes"),
        ("def stop(self, state, now, cost): ...", "there is no function step(self, state, now, cost)"),
        ("import no_such_module", "line 1: ModuleNotFoundError: No module named 'no_such_module'"),
        (
            "def start(self, now): ...\nstep = 0 .__add__",
            "start must return a list of whole numbers, and returned None",
        ),
    ],
)
def test_what_is_no_answer_is_told(text: str, words: str) -> None:
    assert examine("gcra", text).words == words


def test_what_breaks_in_the_examiners_hands_is_told_as_the_answers_own() -> None:
    odd = "class It(int):\n    def __eq__(self, other): raise self\n    __hash__ = None\n"
    changing = body("object.__setattr__(self, 'limit', It(7)); return True, 4, 0, 5 * 10**8, 0", odd)
    assert grade("token-bucket", changing).words == "line 2: TypeError, in the midst of the examination"


def test_what_cannot_be_interrupted_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drill, "PATIENCE", 0.5)
    stubborn = body("import signal; signal.pthread_sigmask(0, {signal.SIGALRM}); signal.pause()")
    assert grade("gcra", stubborn).words == "no verdict after 0.5 s: it is too slow, or cannot be interrupted"


@pytest.mark.skipif(sys.platform == "win32", reason="there are no process groups")
def test_no_process_that_an_answer_has_started_outlives_the_verdict(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    starting = "import os, subprocess\n"
    starting += f"subprocess.Popen(['sleep', '600'], pass_fds=[os.open({str(pipe)!r}, os.O_WRONLY)])\n"
    assert grade("gcra", starting).words == "there is no function step(self, state, now, cost)"
    assert select.select([reader], [], [], 10)[0], "somebody holds the other end of the pipe"
    os.close(reader)


def test_a_mistake_of_the_examiner_is_not_blamed_on_the_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("from ratelab.learn import submission\nsubmission.answered = None\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{Path(ratelab.__file__).parents[1]}")
    with pytest.raises(RuntimeError, match="the examiner failed"):
        grade("gcra", "")
