"""Access to the compiler: compilation with a cache on disk, instructions that Numba lacks, and tuning.

All private parts of Numba and llvmlite that the engine uses are here.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from functools import partial
from pickle import UnpicklingError
from typing import Any, cast

from llvmlite import binding, ir
from numba import config as _config
from numba import extending as _extending
from numba import njit, types
from numba.core import cgutils as _cgutils
from numba.core import ir_utils as _ir_utils
from numba.core.errors import NumbaError, TypingError
from numba.core.typing import templates as _templates
from numba.extending import intrinsic
from numba.np import arrayobj as _arrayobj

__all__ = [
    "LINE_INTEGERS", "CompilerError", "TypingError", "allocate_on_stack", "compile_for", "declare_memory",
    "divide_ceil", "divide_floor", "jit", "keep", "multiply_less_equal", "prefetch", "slice_unchecked", "tune_process",
]  # fmt: skip

CompilerError = NumbaError

config: Any = _config  # these modules have attributes that their type annotations lack
cgutils: Any = _cgutils
ir_utils: Any = _ir_utils
arrayobj: Any = _arrayobj
extending: Any = _extending
templates: Any = _templates


# --- compilation


def tune_process() -> None:
    """Turn off three optimizations that slow down replays on x86, for all code that Numba compiles in this process.

    They turn selects into jumps, split `a and b` into two jumps, and test before each division whether 32 bits suffice.
    All expect a branch to be predictable, and whether a request is admitted is not. Only a program may call this,
    before anything is compiled: a library must leave such settings alone.
    """
    if platform.machine() in ("x86_64", "AMD64") and config.CPU_FEATURES is None:
        binding.set_option("ratelab", "-x86-cmov-converter=false")
        binding.set_option("ratelab", "-jump-is-expensive")
        config.CPU_FEATURES = f"{binding.get_host_cpu_features().flatten()},-idivq-to-divl"


def jit(function: Callable[..., Any], allocates: bool = True) -> Any:
    """Return a function that Numba compiles when it is called, with a cache on disk if a folder for it is writable.

    If it allocates no arrays, and returns none, references to arrays need not be counted, which takes atomic additions.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}  # without tests for 0: no divisor is 0
    if not allocates:
        options["_nrt"] = False
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # neither the package's folder nor the user's is writable
        return njit(**options)(function)


def compile_for(function: Any, signature: Any) -> Callable[..., Any]:
    """Return the machine code of a function returned by `jit`, for one signature."""
    try:
        return cast(Callable[..., Any], function.compile(signature))
    except (AttributeError, ImportError, EOFError, UnpicklingError):  # a cache that is damaged, or of another version
        function.recompile()  # clears the cache; it compiles nothing, since nothing has been compiled so far
    except OSError:  # the cache cannot be written
        pass
    return cast(Callable[..., Any], function.compile(signature))


# --- memory

LINE_INTEGERS = 8
"""Integers in a cache line."""

STACK_INTEGERS = 8
"""Integers in an array on the stack, as many as a short state may have."""


def _prefetch(typing_context: Any, states: Any, place: Any) -> tuple[Any, Callable[..., Any]]:  # noqa: ARG001
    """Fetch the integer at this position of `states` into the cache, to be written there."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        pointer = builder.gep(array.data, [arguments[1]])
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        function_type = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, function_type, "llvm.prefetch.p0i8")
        builder.call(function, [builder.bitcast(pointer, byte), number(1), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(states, types.intp), generate


def _slice_unchecked(typing_context: Any, states: Any, begin: Any, size: Any) -> tuple[Any, Callable[..., Any]]:  # noqa: ARG001
    """Return `states[begin : begin + size]`, which must lie within `states`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = signature.args[0]
        whole = context.make_array(kind)(context, builder, arguments[0])
        part = context.make_array(kind)(context, builder)
        width, data = whole.itemsize, builder.gep(whole.data, [arguments[1]])
        arrayobj.populate_array(part, data, [arguments[2]], [width], width, meminfo=None)
        return part._getvalue()

    return states(states, types.intp, types.intp), generate


def _allocate_on_stack(typing_context: Any) -> tuple[Any, Callable[..., Any]]:  # noqa: ARG001
    """Return an array of `STACK_INTEGERS` integers on the stack, of which the compiler may make registers."""
    kind = types.int64[::1]

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        array = context.make_array(kind)(context, builder)
        data = cgutils.alloca_once(builder, _WORD, size=STACK_INTEGERS)
        size, width = (context.get_constant(types.intp, number) for number in (STACK_INTEGERS, 8))
        arrayobj.populate_array(array, data, [size], [width], width, meminfo=None)
        return array._getvalue()

    return kind(), generate


def declare_memory(
    kind: Any, prefix: str, arrays: Mapping[str, tuple[Any, int]], scalars: Mapping[str, Any], kept: tuple[str, Any]
) -> None:
    """Let compiled code read fields of tuples of this kind, whose names begin with a prefix, from a directory.

    The only item of such a tuple is the address of its directory, which has words of 64 bits: the address and the
    length of each array in turn, the scalars, and the address of what `keep` wrote. Each array has its type and, if it
    has rows, the number of items in them; `kept` has the name of that field, and its type by the class of the tuple.
    """
    kept_name, kept_kinds = kept

    class FieldTemplate(templates.AttributeTemplate):  # type: ignore[misc]
        key = kind

        def generic_resolve(self, tuple_type: Any, attribute: str) -> Any:
            if not tuple_type.instance_class.__name__.startswith(prefix):
                return None
            if attribute == kept_name:
                return kept_kinds[tuple_type.instance_class].limiter
            return arrays[attribute][0] if attribute in arrays else scalars.get(attribute)

    extending.infer_getattr(FieldTemplate)
    views = {name: partial(_view_memory, *array, 2 * place) for place, (name, array) in enumerate(arrays.items())}
    first = 2 * len(arrays)
    views |= {
        name: partial(_read_scalar, scalar, first + place) for place, (name, scalar) in enumerate(scalars.items())
    }
    views[kept_name] = partial(_read_kept, kept_kinds, first + len(scalars))
    for name, view in views.items():
        extending.lower_getattr(kind, name)(partial(_read_field, prefix, name, view))


def _read_field(prefix: str, name: str, view: Any, context: Any, builder: Any, kind: Any, value: Any) -> Any:
    """Read a field that is declared, or one of the same name of another tuple, as Numba would."""
    if kind.instance_class.__name__.startswith(prefix):
        return view(context, builder, kind, value)
    place = kind.fields.index(name)
    field = builder.extract_value(value, place)
    if context.enable_nrt:
        context.nrt.incref(builder, kind[place], field)
    return field


def _find_word(builder: Any, value: Any, position: int) -> Any:
    """Return a pointer to a word of the directory of a tuple."""
    return builder.gep(builder.inttoptr(builder.extract_value(value, 0), _WORD.as_pointer()), [_WORD(position)])


def _load_word(builder: Any, value: Any, position: int) -> Any:
    """Load a word of a directory, which is constant while compiled code runs."""
    word = builder.load(_find_word(builder, value, position))
    word.set_metadata("invariant.load", builder.module.add_metadata([]))
    return word


def _view_memory(
    array: Any,
    width: int,
    position: int,
    context: Any,
    builder: Any,
    kind: Any,  # noqa: ARG001
    value: Any,
) -> Any:
    address, length = (_load_word(builder, value, position + part) for part in range(2))
    view = context.make_array(array)(context, builder)
    item = context.get_abi_sizeof(context.get_data_type(array.dtype))
    shape, strides = ([length, _WORD(width)], [_WORD(item * width)]) if width else ([length], [])
    data = builder.inttoptr(address, view.data.type)
    arrayobj.populate_array(view, data, shape, [*strides, _WORD(item)], _WORD(item), meminfo=None)
    return view._getvalue()


def _read_scalar(scalar: Any, position: int, context: Any, builder: Any, kind: Any, value: Any) -> Any:  # noqa: ARG001
    return builder.bitcast(_load_word(builder, value, position), context.get_value_type(scalar))


def _read_kept(kinds: Any, position: int, context: Any, builder: Any, kind: Any, value: Any) -> Any:
    kept = kinds[kind.instance_class].limiter
    if kept == types.none:
        return context.get_dummy_value()
    address = builder.load(_find_word(builder, value, position))
    field = builder.load(builder.inttoptr(address, context.get_value_type(kept).as_pointer()))
    if context.enable_nrt:
        context.nrt.incref(builder, kept, field)
    return field


def _keep(typing_context: Any, world: Any, position: Any, value: Any) -> tuple[Any, Callable[..., Any]]:  # noqa: ARG001
    """Keep a value on the stack until the caller returns, and write its address to this word of a directory."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if signature.args[2] != types.none:
            place = cgutils.alloca_once_value(builder, arguments[2])
            number = builder.ptrtoint(place, _WORD)
            directory = builder.inttoptr(builder.extract_value(arguments[0], 0), _WORD.as_pointer())
            builder.store(number, builder.gep(directory, [arguments[1]]))
        return context.get_dummy_value()

    return types.void(world, types.intp, value), generate


def _declare_alias(result: str, arguments: Any, aliases: Any, aliases_of_arguments: Any) -> None:
    """Declare that a write to a slice is a write to the array, so that Numba does not remove it as dead code."""
    ir_utils._add_alias(result, arguments[0].name, aliases, aliases_of_arguments)


allocate_on_stack: Any = intrinsic(_allocate_on_stack)
keep: Any = intrinsic(_keep)
prefetch: Any = intrinsic(_prefetch)
slice_unchecked: Any = intrinsic(_slice_unchecked)
ir_utils.alias_func_extensions[_slice_unchecked.__name__, __name__] = _declare_alias


# --- division by a constant, given its `optimize.reciprocal`


def _divide_floor(typing_context: Any, number: Any, reciprocal: Any) -> tuple[Any, Callable[..., Any]]:  # noqa: ARG001
    """Divide an integer and round down."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        number, multiplier, shift, _ = _unpack(context, builder, signature, arguments)
        sign = builder.ashr(number, _WORD(63))
        quotient = _multiply(builder, _double(builder, builder.xor(number, sign)), multiplier, shift)
        return builder.xor(quotient, sign)  # -n // d is ~((n - 1) // d)

    return types.int64(number, reciprocal), generate


def _divide_ceil(typing_context: Any, number: Any, reciprocal: Any) -> tuple[Any, Callable[..., Any]]:  # noqa: ARG001
    """Divide an integer >= 0 and round up; the sum of both operands must be below 2**63."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        number, multiplier, shift, rest = _unpack(context, builder, signature, arguments)
        return _multiply(builder, builder.add(_double(builder, number), rest), multiplier, shift)

    return types.int64(number, reciprocal), generate


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
divide_floor: Any = intrinsic(_divide_floor)
divide_ceil: Any = intrinsic(_divide_ceil)

_WORD = ir.IntType(64)


def _unpack(context: Any, builder: Any, signature: Any, arguments: Any) -> tuple[Any, ...]:
    number = context.cast(builder, arguments[0], signature.args[0], types.int64)
    return number, *cgutils.unpack_tuple(builder, arguments[1])


def _double(builder: Any, number: Any) -> Any:
    return builder.shl(number, _WORD(1))


def _multiply(builder: Any, doubled: Any, multiplier: Any, shift: Any) -> Any:
    wide = ir.IntType(128)
    product = builder.mul(builder.zext(doubled, wide), builder.zext(multiplier, wide))
    return builder.lshr(builder.trunc(builder.lshr(product, wide(64)), _WORD), shift)
