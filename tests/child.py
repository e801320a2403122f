"""A child of the test's own process, which does something and dies of it, or not."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable

LIMIT_S = 60


def start(act: Callable[[], object]) -> int:
    """Fork; the child does it and ends: with 0, or with 1 and its traceback on standard error.

    After LIMIT_S it is ended by SIGALRM, so whoever waits for it waits no longer. Returns its process id.
    """
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(LIMIT_S)
        act()
        code = 0
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


def was_killed(pid: int) -> bool:
    """Wait for it. Whether SIGKILL was its end, or it came to the end of what it does. Raises AssertionError when it
    raised, or was still at it after LIMIT_S."""
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status != -signal.SIGALRM, f"the child was still at it after {LIMIT_S} s"
    assert status in (0, -signal.SIGKILL), f"the child ended with {status}; its traceback is on standard error"
    return status != 0
