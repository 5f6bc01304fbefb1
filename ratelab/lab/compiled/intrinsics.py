"""What the compiler, and through it the processor, is told beyond a step's own text."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pickle import UnpicklingError
from typing import Any, cast

from llvmlite import binding, ir
from numba import config as _config
from numba import njit, types
from numba.core import cgutils as _cgutils
from numba.core import ir_utils as _ir_utils
from numba.extending import intrinsic
from numba.np import arrayobj as _arrayobj

config: Any = _config  # Numba's types do not tell of all that there is
cgutils: Any = _cgutils
ir_utils: Any = _ir_utils
arrayobj: Any = _arrayobj


def tune() -> None:
    """Have LLVM leave out two improvements that guess: whether a request is admitted, nobody can.

    It makes jumps of selects, and tries before each division whether 32 bits would do; both are mispredicted every
    other time. Other code that Numba compiles in this process is compiled so, too.
    """
    if platform.machine() in ("x86_64", "AMD64") and config.CPU_FEATURES is None:
        binding.set_option("ratelab", "-x86-cmov-converter=false")
        config.CPU_FEATURES = f"{binding.get_host_cpu_features().flatten()},-idivq-to-divl"


def jitted(function: Callable[..., Any]) -> Any:
    """Compile when called, and keep the code on disk where there is a place for it."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}  # a divisor is never 0
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # neither the package's folder nor the user's can be written
        return njit(**options)(function)


def made(function: Any, signature: Any) -> Callable[..., Any]:
    """Return what `jitted` gave, compiled for `signature`."""
    try:
        return cast(Callable[..., Any], function.compile(signature))
    except (AttributeError, ImportError, EOFError, UnpicklingError):  # another version's code on disk, or half a file
        function.recompile()  # none so far, but that clears the disk
    except OSError:  # there is no room to keep it
        pass
    return cast(Callable[..., Any], function.compile(signature))


def _fetch(typing_context: Any, states: Any, first: Any) -> tuple[Any, Callable[..., Any]]:  # noqa: ARG001
    """Have the number at place `first` of all states on its way into the cache, to be written there."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        pointer = builder.gep(array.data, [arguments[1]])
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        function_type = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, function_type, "llvm.prefetch.p0i8")
        builder.call(function, [builder.bitcast(pointer, byte), number(1), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(states, types.intp), generate


prefetch: Any = intrinsic(_fetch)


def _piece(typing_context: Any, states: Any, first: Any, size: Any) -> tuple[Any, Callable[..., Any]]:  # noqa: ARG001
    """Return so many of all states' numbers, from place `first` on, as an array; there they must be."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = signature.args[0]
        all_of_them = context.make_array(kind)(context, builder, arguments[0])
        unchecked_slice = context.make_array(kind)(context, builder)
        width, begin = all_of_them.itemsize, builder.gep(all_of_them.data, [arguments[1]])
        arrayobj.populate_array(unchecked_slice, begin, [arguments[2]], [width], width, meminfo=None)
        return unchecked_slice._getvalue()

    return states(states, types.intp, types.intp), generate


unchecked_slice: Any = intrinsic(_piece)


def _is_part_of_them(result: str, arguments: Any, aliases: Any, aliases_of_arguments: Any) -> None:
    """Say that whoever writes to a piece writes to all states, so that no such line is left out as useless."""
    ir_utils._add_alias(result, arguments[0].name, aliases, aliases_of_arguments)


ir_utils.alias_func_extensions[_piece.__name__, __name__] = _is_part_of_them


def _quotient(typing_context: Any, number: Any, reciprocal: Any) -> tuple[Any, Callable[..., Any]]:  # noqa: ARG001
    """Divide a whole number by the divisor that has this reciprocal, rounding down: see `shortcuts`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        number, multiplier, shift, _ = _words(context, builder, signature, arguments)
        sign = builder.ashr(number, _WORD(63))
        divide_floor = _divided(builder, _doubled(builder, builder.xor(number, sign)), multiplier, shift)
        return builder.xor(divide_floor, sign)  # -n // d is ~((n - 1) // d)

    return types.int64(number, reciprocal), generate


def _ceiling(typing_context: Any, number: Any, reciprocal: Any) -> tuple[Any, Callable[..., Any]]:  # noqa: ARG001
    """Divide a whole number >= 0 by the divisor that has this reciprocal, rounding up; their sum is below 2**63."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        number, multiplier, shift, rest = _words(context, builder, signature, arguments)
        return _divided(builder, builder.add(_doubled(builder, number), rest), multiplier, shift)

    return types.int64(number, reciprocal), generate


divide_floor: Any = intrinsic(_quotient)
divide_ceil: Any = intrinsic(_ceiling)

_WORD = ir.IntType(64)


def _words(context: Any, builder: Any, signature: Any, arguments: Any) -> tuple[Any, ...]:
    number = context.cast(builder, arguments[0], signature.args[0], types.int64)
    return number, *cgutils.unpack_tuple(builder, arguments[1])


def _doubled(builder: Any, number: Any) -> Any:
    return builder.shl(number, _WORD(1))


def _divided(builder: Any, doubled: Any, multiplier: Any, shift: Any) -> Any:
    wide = ir.IntType(128)
    product = builder.mul(builder.zext(doubled, wide), builder.zext(multiplier, wide))
    return builder.lshr(builder.trunc(builder.lshr(product, wide(64)), _WORD), shift)
