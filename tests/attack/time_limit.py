"""An end for what a hostile image could make endless."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

LIMIT_S = 20


@contextlib.contextmanager
def time_limit(what: str) -> Iterator[None]:
    """Raises AssertionError in the block, wherever it is, when it takes over 20 s. Only in the main thread."""

    def late(*_: object) -> None:
        raise AssertionError(f"{what} did not end within {LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(LIMIT_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
