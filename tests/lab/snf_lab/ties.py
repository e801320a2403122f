"""Nothing that a lab command started goes on when that command is gone, however it went.

So after `kill -9` of ./lab the next one finds no builder that still writes into the cache, and no half command that
goes on in a node.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

#: The program gets SIGKILL when the thread that started it ends (prctl(2), PR_SET_PDEATHSIG).
TIE = ("setpriv", "--pdeathsig", "KILL")


def contained(argv: Sequence[str | Path]) -> list[str | Path]:
    """Words that run a program as PID 1 of its own PID and mount namespace, tied to us.

    With it die all its descendants, and what they mounted is gone too: for builders, which start many programs.
    """
    return [*TIE, "unshare", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", *argv]


def on_each(things: Iterable[T], act: Callable[[T], None]) -> None:
    """Do something to all things at once; when all have ended, raise the first error, if any.

    Unlike those of a ThreadPoolExecutor, the threads do not keep an interrupted program from ending.
    """
    ends: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def work(thing: T) -> None:
        try:
            act(thing)
        except BaseException as e:
            ends.put(e)
        else:
            ends.put(None)

    threads = [threading.Thread(target=work, args=(thing,), daemon=True) for thing in things]
    for thread in threads:
        thread.start()
    errors = [end for end in [ends.get() for _ in threads] if end is not None]
    if errors:
        raise errors[0]
