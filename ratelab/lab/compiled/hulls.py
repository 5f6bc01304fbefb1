"""The corners of needs (`ratelab.lab.tune.hulls`), compiled by Numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba.extending import overload, register_jitable

from ratelab.lab.compiled.intrinsics import jit, multiply_less_equal
from ratelab.lab.tune import hulls


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
