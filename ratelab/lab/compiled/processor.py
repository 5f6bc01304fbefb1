"""What the processor is told beyond a step's own text."""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

from llvmlite import binding, ir
from numba import config as _config
from numba import types
from numba.core import cgutils as _cgutils
from numba.extending import intrinsic

config: Any = _config  # Numba's types do not tell of all that there is
cgutils: Any = _cgutils


def tune() -> None:
    """Have LLVM leave out two improvements that guess: whether a request is admitted, nobody can.

    It makes jumps of selects, and tries before each division whether 32 bits would do; both are mispredicted every
    other time. Other code that Numba compiles in this process is compiled so, too.
    """
    if platform.machine() in ("x86_64", "AMD64") and config.CPU_FEATURES is None:
        binding.set_option("ratelab", "-x86-cmov-converter=false")
        config.CPU_FEATURES = f"{binding.get_host_cpu_features().flatten()},-idivq-to-divl"


def _fetch(typing_context: Any, states: Any, row: Any) -> tuple[Any, Callable[..., Any]]:  # noqa: ARG001
    """Have the beginning of a state's row on its way into the cache, to be written there."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = signature.args[0]
        array = context.make_array(kind)(context, builder, arguments[0])
        first = arguments[1].type(0)
        pointer = cgutils.get_item_pointer(context, builder, kind, array, [arguments[1], first], wraparound=False)
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        function_type = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, function_type, "llvm.prefetch.p0i8")
        builder.call(function, [builder.bitcast(pointer, byte), number(1), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(states, types.intp), generate


fetch: Any = intrinsic(_fetch)


def _quotient(typing_context: Any, number: Any, multiplier: Any, shift: Any) -> tuple[Any, Callable[..., Any]]:  # noqa: ARG001
    """Divide a whole number by the divisor that has this reciprocal, rounding down: see `division`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        number, multiplier, shift = (
            context.cast(builder, value, kind, types.int64)
            for value, kind in zip(arguments, signature.args, strict=True)
        )
        wide, word = ir.IntType(128), ir.IntType(64)
        sign = builder.ashr(number, word(63))
        doubled = builder.shl(builder.xor(number, sign), word(1))  # -n // d is ~((n - 1) // d)
        product = builder.mul(builder.zext(doubled, wide), builder.zext(multiplier, wide))
        high = builder.trunc(builder.lshr(product, wide(64)), word)
        return builder.xor(builder.lshr(high, shift), sign)

    return types.int64(number, multiplier, shift), generate


quotient: Any = intrinsic(_quotient)
