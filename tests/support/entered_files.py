"""Print, as JSON, the files of ratelab in which a command calls functions; of a service, during each of five requests.

Run as `python entered_files.py [--port PORT] COMMAND...`, since `sys.setprofile` cannot be combined with other tools. A
call counts unless a module is being imported; lambdas, comprehensions and bodies of classes do not.
"""

from __future__ import annotations

import inspect
import json
import os
import signal
import sys
from contextlib import redirect_stdout
from http.client import HTTPConnection
from pathlib import Path
from threading import Event, Thread
from types import FrameType

import ratelab
from ratelab.cli import main

PACKAGE = str(Path(ratelab.__file__).parent)
WARM_UP_REQUESTS = 2


class Recorder:
    """The files that functions of ratelab were called in while `active`."""

    def __init__(self, active: bool) -> None:
        self.active = active
        self.files: set[str] = set()
        self._imports = 0

    def profile(self, frame: FrameType, event: str, _: object) -> None:
        """Note a call; for `sys.setprofile`."""
        code = frame.f_code
        if code.co_name == "<module>":
            self._imports += {"call": 1, "return": -1}.get(event, 0)
        elif event != "call" or not self.active or self._imports:
            return
        elif code.co_flags & inspect.CO_OPTIMIZED and code.co_name[0] != "<" and code.co_filename.startswith(PACKAGE):
            self.files.add(Path(code.co_filename).relative_to(PACKAGE).as_posix())


def send_requests(port: int, recorder: Recorder, found: list[set[str]]) -> None:
    """Send requests to a service of this process, and add the files of each to `found`; then stop the service."""
    while len(found) < WARM_UP_REQUESTS + 5:
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        recorder.active = True
        try:
            connection.request("GET", "/ping")
            if connection.getresponse().status == 200:
                found.append({*recorder.files})
        except ConnectionError:
            Event().wait(0.05)  # the service does not listen yet
        recorder.active = False
        recorder.files.clear()
        connection.close()
    os.kill(os.getpid(), signal.SIGTERM)


def list_files(command: list[str]) -> list[str]:
    """Run a command in this process; return the files that it enters."""
    found: list[set[str]] = []
    is_service = command[0] == "--port"
    recorder = Recorder(active=not is_service)
    if is_service:
        Thread(target=send_requests, args=[int(command[1]), recorder, found], daemon=True).start()
    sys.argv = ["ratelab", *command[2:], *command[:2]] if is_service else ["ratelab", *command]
    sys.setprofile(recorder.profile)
    try:
        with redirect_stdout(sys.stderr):
            main()
    except SystemExit as end:
        if end.code:
            raise
    finally:
        sys.setprofile(None)
    return sorted(set.intersection(*found[WARM_UP_REQUESTS:]) if is_service else recorder.files)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(list_files(sys.argv[1:])))
