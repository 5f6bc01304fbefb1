"""Process of a command: its standard descriptors, and its end by a signal."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

CLEANUP_TIMEOUT_S = 5
"""Seconds that a command has to remove its temporary files after SIGTERM."""


def open_standard_descriptors() -> None:
    """Open closed standard descriptors on the null device, so that no socket gets their numbers; libuv aborts then."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


class Terminated(BaseException):
    """SIGTERM or SIGHUP: an exception, so that temporary files are removed and the terminal is restored."""


@contextmanager
def clean_up_when_terminated() -> Iterator[None]:
    """Raise `Terminated` at SIGTERM and SIGHUP, and then end with the usual status of the signal.

    A signal that is ignored, as by nohup, stays ignored. A second signal ends the program at once, and so does a
    cleanup that takes more than `CLEANUP_TIMEOUT_S`. Python drops an exception that a handler raises within a
    finalizer or the callback of a weak reference: it is raised again a moment later, and so is a dropped Ctrl-C.
    """
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    handled = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    received: list[int] = []

    def terminate(number: int, _: FrameType | None) -> None:
        for each in handled:
            signal.signal(each, signal.SIG_DFL)
        received.append(number)
        if hasattr(signal, "alarm"):
            signal.alarm(CLEANUP_TIMEOUT_S)
        raise Terminated

    report_unraisable = sys.unraisablehook

    def raise_again(dropped: sys.UnraisableHookArgs) -> None:
        if not (hasattr(signal, "setitimer") and issubclass(dropped.exc_type, (Terminated, KeyboardInterrupt))):
            report_unraisable(dropped)
            return
        error = dropped.exc_type

        def interrupt(_: int, frame: FrameType | None) -> None:
            while frame is not None and frame.f_code is not raise_again.__code__:
                frame = frame.f_back
            if frame is not None:  # after a stall: raised in here, the exception would be dropped again
                signal.setitimer(signal.ITIMER_REAL, 0.01)
                return
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            if error is Terminated:
                signal.alarm(CLEANUP_TIMEOUT_S)
            raise error

        signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.01)

    for number in handled:
        signal.signal(number, terminate)
    sys.unraisablehook = raise_again
    try:
        yield
    except Terminated:
        os.kill(os.getpid(), received[0])
        raise SystemExit(128 + received[0]) from None  # the process with ID 1 ignores the signal
    finally:
        sys.unraisablehook = report_unraisable


def discard_output() -> None:
    """Let the rest of the output, whose reader is gone, go nowhere: Python would report an error at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            os.dup2(null, stream.fileno())
