"""The corners of needs (`ratelab.lab.tune.hulls`), compiled by Numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload, register_jitable

from ratelab.lab.compiled.intrinsics import jit
from ratelab.lab.tune import hulls


def _multiply_less_equal(
    typing_context: Any,  # noqa: ARG001
    a: Any,
    b: Any,
    c: Any,
    d: Any,
) -> tuple[Any, Callable[..., Any]]:
    """Compare two products of 64-bit integers, which have 128 bits: `a * b <= c * d`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wide = ir.IntType(128)
        a, b, c, d = (
            builder.sext(context.cast(builder, argument, kind, types.int64), wide)
            for argument, kind in zip(arguments, signature.args, strict=True)
        )
        return builder.icmp_signed("<=", builder.mul(a, b), builder.mul(c, d))

    return types.boolean(a, b, c, d), generate


multiply_less_equal: Any = intrinsic(_multiply_less_equal)


@overload(hulls.allocate, strict=False)
def _overload_allocate(size: Any) -> Callable[..., Any]:  # noqa: ARG001  (only types count)
    return lambda size: np.empty(size, np.int64)


@overload(hulls.is_flatter, inline="always", strict=False)
def _overload_is_flatter(height: Any, width: Any, other_height: Any, other_width: Any) -> Callable[..., Any]:  # noqa: ARG001
    return lambda height, width, other_height, other_width: multiply_less_equal(
        height, other_width, other_height, width
    )


for _name in ("push", "copy_column", "find_crossing", "merge_hulls", "merge_blocks", "find_corners"):
    register_jitable(getattr(hulls, _name))

find_all_corners: Any = jit(hulls.find_all_corners)
"""`hulls.find_all_corners` for columns of 64-bit integers; totals of costs must be below 2**63."""
