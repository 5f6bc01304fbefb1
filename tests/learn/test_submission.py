"""Submissions that break rules or harm their process: each gets a clear verdict in time, and leaves nothing behind."""

from __future__ import annotations

import os
import select
import signal
import sys
from pathlib import Path

import pytest

import ratelab
from ratelab.learn import drill, sandbox, submission
from ratelab.learn.drill import grade
from ratelab.learn.grader import MAX_PRINTED_CHARS, evaluate
from ratelab.limiter import ROW_FIELDS

pytestmark = pytest.mark.slow


def body(statements: str, before: str = "") -> str:
    """Return a step of one line, which is line 2 of the submission or, after a class of two lines, line 4."""
    return f"{before}def step(self, state, now, cost):\n    {statements}\n"


INTEGER = "must be an integer from 0 to NEVER, got"
FIELDS = f"step must return five fields ({', '.join(ROW_FIELDS)}), got"
INVALID = {
    "pass": f"{FIELDS} None",
    "return True, 1, 0.5, 0, 0": f"retry_after_ns {INTEGER} 0.5",
    "return True, True, 0, 0, 0": f"remaining {INTEGER} True of type bool: convert it with int(...)",
    "return 1, 1, 0, 0, 0": "allowed must be True or False, got 1 of type int: convert it with bool(...)",
    "import numpy; return True, numpy.int64(4), 0, 0, 0": f"remaining {INTEGER} {{}}4{{}} of type "
    "numpy.int64: convert it with int(...)",
    "return True, 10**5000, 0, 0, 0": f"remaining {INTEGER} a value of type int that cannot be formatted",
    "state[:] = [.5]; return True, 1, 0, 0, 0": "state must remain 2 integers, got [0.5]",
    "object.__setattr__(self, 'limit', 7); return True, 4, 0, 5 * 10**8, 0": "step must not change the parameters in "
    "self",
    "1 / 0": "line 2: ZeroDivisionError: division by zero",
    "return step(self, state, now, cost)": "line 2: RecursionError: maximum recursion depth exceeded",
    "raise SystemExit(0)": "line 2: SystemExit: 0",
    "raise KeyboardInterrupt": "line 2: KeyboardInterrupt",
    "raise ValueError('x' * 100_000)": f"line 2: ValueError: {'x' * 200}...",
}
ENDLESS = ("while True: pass", "import time; time.sleep(100)")
HARMFUL = {
    "input()": "line 2: EOFError: EOF when reading a line",
    "[0] * 10**10": "line 2: MemoryError",
    "import os; os._exit(0)": "the submission ended the grader's process",
    "import os; os.kill(os.getpid(), 11)": "the submission ended the grader's process",
}


@pytest.mark.parametrize("statements", INVALID)
def test_an_invalid_step_is_shown_with_a_single_request(statements: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission, "STEP_TIMEOUT_S", 60)  # an import takes a while on a busy machine
    verdict = evaluate("token-bucket", body(statements))
    assert (verdict.correct, [(one.at, one.cost) for one in verdict.requests]) == (False, [(0, 1)])
    assert verdict.message in (INVALID[statements].format("np.int64(", ")"), INVALID[statements].format("", ""))


@pytest.mark.parametrize("statements", ENDLESS)
def test_an_endless_step_is_stopped_and_its_line_is_known(statements: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission, "STEP_TIMEOUT_S", 0.5)
    verdict = evaluate("token-bucket", body(statements))
    assert (verdict.correct, verdict.message) == (False, "line 2: still running after 0.5 s")


def test_a_machine_that_stalls_ends_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(submission, "STEP_TIMEOUT_S", 60)
    monkeypatch.setattr(submission, "monotonic", lambda: now)
    with submission._time_limit():
        now += 90
        submission._raise_timeout(signal.SIGALRM, None)  # half a minute late
        now += 60
        with pytest.raises(submission.StepTimeoutError):
            submission._raise_timeout(signal.SIGALRM, None)


def test_an_error_is_formatted_on_one_line_if_possible() -> None:
    error = "class Broken(Exception):\n    def __str__(self): raise ValueError\n"
    message = "line 4: Broken: (message cannot be formatted)"
    assert evaluate("gcra", body("raise Broken", error)).message == message
    assert evaluate("gcra", body(r"raise KeyError")).message == "line 2: KeyError"
    assert evaluate("gcra", body(r"raise OSError('\ud800\n\x1b[2J')")).message == r"line 2: OSError: \ud800\n\x1b[2J"


def test_a_value_that_cannot_be_formatted_is_named_by_its_type() -> None:
    value = "class Broken(tuple):\n    def __repr__(self): raise ValueError\n"
    message = f"{FIELDS} a value of type Broken that cannot be formatted"
    assert evaluate("gcra", body("return Broken()", value)).message == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def step(:", "line 1: SyntaxError: invalid syntax"),
        ("a\0", "SyntaxError: source code string cannot contain null bytes"),
        ("def stop(self, state, now, cost): ...", "missing function: step(self, state, now, cost)"),
        ("import no_such_module", "line 1: ModuleNotFoundError: No module named 'no_such_module'"),
        ("def start(self, now): ...\nstep = 0 .__add__", "start must return a list of integers, got None"),
    ],
)
def test_a_file_without_a_valid_step_has_a_message(text: str, message: str) -> None:
    assert evaluate("gcra", text).message == message


# --- the grader's process


@pytest.mark.parametrize("statements", HARMFUL)
def test_a_harmful_step_only_harms_the_graders_process(statements: str) -> None:
    verdict = grade("token-bucket", body(statements))
    assert (verdict.correct, verdict.message) == (False, HARMFUL[statements])


@pytest.mark.parametrize("size", [1, 10_000_000])
def test_an_endless_print_gets_a_verdict_with_its_beginning(size: int) -> None:
    verdict = grade("token-bucket", body(f"while True: print('x' * {size})"))
    assert (verdict.correct, verdict.message) == (False, "line 2: still running after 1 s")
    assert len(verdict.printed) == MAX_PRINTED_CHARS


def test_a_submission_that_leaves_no_memory_gets_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(sandbox, "evaluate", fail)
    assert "keeps more memory" in sandbox._grade("gcra", "")


def test_text_in_place_of_the_verdict_is_the_submissions() -> None:
    write = "    try:\n        os.write(number, b'!')\n    except OSError:\n        pass\n"
    forged = f"import os\nfor number in range(3, 20):\n{write}"
    assert grade("gcra", forged).message == "the submission wrote to the grader's output"


def test_an_error_of_the_submissions_values_names_its_line() -> None:
    odd = "class Odd(int):\n    def __eq__(self, other): raise ValueError\n    __hash__ = None\n"
    changing = body("object.__setattr__(self, 'limit', Odd(7)); return True, 4, 0, 5 * 10**8, 0", odd)
    assert grade("token-bucket", changing).message == "line 2: ValueError during grading"


def test_a_step_that_blocks_signals_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drill, "GRADER_TIMEOUT_S", 0.5)
    stubborn = body("import signal; signal.pthread_sigmask(0, {signal.SIGALRM}); signal.pause()")
    assert grade("gcra", stubborn).message == "no verdict after 0.5 s: step is slow or blocks signals"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no process groups")
def test_no_process_of_a_submission_outlives_the_verdict(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    starting = "import os, subprocess\n"
    starting += f"subprocess.Popen(['sleep', '600'], pass_fds=[os.open({str(pipe)!r}, os.O_WRONLY)])\n"
    assert grade("gcra", starting).message == "missing function: step(self, state, now, cost)"
    assert select.select([reader], [], [], 10)[0], "a process still holds the other end of the pipe"
    os.close(reader)


def test_a_bug_of_the_grader_is_not_blamed_on_the_submission(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("from ratelab.learn import grader\ngrader.load_submission = None\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{Path(ratelab.__file__).parents[1]}")
    with pytest.raises(RuntimeError, match="the grader failed"):
        grade("gcra", "")
