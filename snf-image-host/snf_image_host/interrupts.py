"""SIGTERM, SIGINT and SIGHUP as an exception, and stretches of work that they may not enter."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Final

from synnefo_light.errors import EnvironmentFault

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Interrupted(BaseException):
    """Somebody sent one of the signals. Not an Exception: it may arrive anywhere, and nobody but main may take it."""

    exit_code = EnvironmentFault.exit_code


@contextlib.contextmanager
def signals_raise() -> Iterator[None]:
    """The signals raise Interrupted, the first of them once; further ones do not disturb the clean-up."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(f"it was interrupted by {signal.Signals(number).name}")

    before = {number: signal.signal(number, interrupt) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """The signals wait until the end of this: what was begun has its undo registered, an undo is not cut short."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
