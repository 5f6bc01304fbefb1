"""The compiler: tuned by commands only, and used through private parts that still exist."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np
import pytest
from cli_runner import BURST, run_python

from ratelab.lab.compiled import intrinsics

# --- tuning

OPTIONS = """
import json
from llvmlite import binding
from numba import config

def read():
    return {name: repr(value) for name, value in vars(config).items() if name.isupper()}

def record(name, option):
    changed.append(option)
    set_option(name, option)  # code that it concerns may be cached on disk

changed, before, set_option = [], read(), binding.set_option
binding.set_option = record
from ratelab.lab import replay
replay.MIN_COMPILED_DECISIONS = 0
"""

LIBRARY = """
from ratelab import create
from ratelab.lab.scenarios import load_scenario
replay.replay(create("gcra", "1/s"), load_scenario({path!r}).traffic)
"""

COMMAND = """
import io, sys
from contextlib import redirect_stdout
from ratelab.cli import main
sys.argv = ["ratelab", *{arguments!r}]
try:
    with redirect_stdout(io.TextIOWrapper(io.BytesIO())):
        main()
except SystemExit as status:
    assert not status.code
"""

REPORT = """
print(json.dumps([*changed, *(name for name, value in read().items() if value != before[name])]))
"""


def changed_options(program: str) -> Any:
    """Return the options of LLVM and Numba that differ after a program, which compiles its replays."""
    return json.loads(run_python("-c", OPTIONS + program + REPORT))


@pytest.mark.slow
def test_the_library_leaves_the_options_of_the_process_alone() -> None:
    assert changed_options(LIBRARY.format(path=BURST)) == []


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="only code for x86 is tuned")
@pytest.mark.parametrize(
    "arguments",
    [("simulate", BURST, "--algo", "gcra"), ("sweep", BURST, "--algo", "gcra", "--rate", "1/s")],
    ids=["simulate", "sweep"],
)
def test_a_command_tunes_its_process(arguments: tuple[str, ...]) -> None:
    tuned = ["-x86-cmov-converter=false", "-jump-is-expensive", "CPU_FEATURES"]
    assert changed_options(COMMAND.format(arguments=arguments)) == tuned


# --- private parts


@numba.njit
def write_to_slice(states: Any) -> int:
    part = intrinsics.slice_unchecked(states, 2, 3)
    part[1] = 7
    return len(part)


def test_a_write_to_a_slice_changes_the_array() -> None:
    states = np.zeros(6, np.int64)
    assert write_to_slice(states) == 3
    assert states.tolist() == [0, 0, 0, 7, 0, 0]


@numba.njit
def prefetch_and_read(states: Any) -> int:
    intrinsics.prefetch(states, 1)
    return int(states[0])


def test_prefetch_is_an_instruction() -> None:
    assert prefetch_and_read(np.array([5, 6])) == 5
    (code,) = prefetch_and_read.inspect_llvm().values()
    assert "llvm.prefetch" in code


def add_one(number: int) -> int:
    return number + 1


def add_text(number: Any) -> Any:
    return number + "one"


def test_a_function_is_compiled_for_a_signature() -> None:
    compiled: Callable[..., int] = intrinsics.compile_for(intrinsics.jit(add_one), numba.int64(numba.int64))
    assert compiled(1) == 2


def test_a_type_error_of_the_compiler_is_a_compiler_error() -> None:
    assert issubclass(intrinsics.TypingError, intrinsics.CompilerError)
    with pytest.raises(intrinsics.CompilerError):
        intrinsics.compile_for(numba.njit(add_text), numba.int64(numba.int64))


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="only code for x86 is tuned")
def test_the_options_that_tuning_sets_exist() -> None:
    options = run_python("-c", "from llvmlite import binding; binding.set_option('ratelab', '--help-list-hidden')")
    assert "--x86-cmov-converter " in options
    assert "--jump-is-expensive " in options
    assert "CPU_FEATURES" in vars(intrinsics.config)
    tune = "from ratelab.lab.compiled import tune_process; tune_process()"
    run_python("-c", f"{tune}; import numba; numba.njit(lambda n: n // 3)(7)")  # LLVM reports an unknown feature


# --- fields of tuples


class Pair(NamedTuple):
    """A tuple that is not the memory of this test, and has a field of the same name."""

    number: int
    field_of_this_test: Any


@pytest.mark.parametrize("value", [0.5, np.arange(3)], ids=["a number", "an array"])
def test_fields_of_other_tuples_are_read_as_ever(value: Any) -> None:
    array = numba.types.Array(numba.int64, 1, "C")
    arrays, kept = {"field_of_this_test": (array, 0)}, "kept_of_this_test"
    intrinsics.declare_memory(numba.types.NamedTuple, "MemoryOfThisTest", arrays, {}, (kept, {}))
    read = numba.njit(lambda pair: pair.field_of_this_test)
    assert np.array_equal(read(Pair(1, value)), value)
