"""What the entry file calls: one event into the spool, then exit status 0, whatever happened.

The work is done by a child. Ganeti waits for its parent alone, and that for at most PATIENCE_MS: a disk that does not
answer delays an operation by that and no more, and the event is written when the disk answers. The child says what went
wrong, in one line of syslog, and hands the line to the parent, who prints it for whoever runs this by hand.

Commit point: the rename of `synnefo_light.spool.put`. Killed before it, the event is lost (the job that it is of is in
Ganeti's queue); after it the event is there. What is remembered is written after it, and a hint.
"""

from __future__ import annotations

import os
import select
import time

from snf_hooks import memory
from snf_hooks.document import to_bytes
from snf_hooks.environment import Hook, HookError, clean, name
from snf_hooks.translate import event_from_hook, tells
from synnefo_light.spool import FOLDER, SpoolFull, put

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

PATIENCE_MS = 1000
_NODES_LIMIT = 1 << 20


def main(words: Sequence[str]) -> NoReturn:
    """`50-synnefo-light [SPOOL [MEMORY]]`; Ganeti gives no words. Exit status 0."""
    spool, remembered = (*words, *(FOLDER, memory.FOLDER)[len(words) :])[:2]
    said = b""
    try:
        call = calling()
        reading, writing = os.pipe()
        if os.fork() == 0:
            _work(spool, remembered, call, reading, writing)
        os.close(writing)
        poll = select.poll()
        poll.register(reading, select.POLLIN)
        if poll.poll(PATIENCE_MS):
            said = os.read(reading, 4096)
    except OSError as e:
        said = _tell_syslog(f"no event was left: {e}")
    finally:
        try:
            os.write(2, said)
        finally:
            os._exit(0)


def leave_event(hook: Hook, spool: str, remembered: str, call: str) -> str:
    """Leave the event of a hook; returns its file. Raises HookError, SpoolFull or OSError."""
    known = None
    if hook.operation == "instance-modify":
        known = memory.recall(remembered, name(hook.before, "INSTANCE_NAME"))
    node = os.uname().nodename
    document = event_from_hook(hook, node=node, call=call, now_ns=time.time_ns(), remembered=known)
    return put(to_bytes(document), document["id"], folder=spool)


def calling() -> str:
    """What tells this call of Ganeti from all others: its process, which it makes for one call alone."""
    parent = os.getppid()
    with open(f"/proc/{parent}/stat", "rb") as file:
        # The name in brackets may hold anything; the time of its start is the 20th word behind it (proc(5)).
        started = file.read().rpartition(b")")[2].split()[19].decode()
    with open("/proc/sys/kernel/random/boot_id") as file:
        return f"{file.read().strip()}/{parent}/{started}"


def _work(spool: str, remembered: str, call: str, reading: int, writing: int) -> NoReturn:
    try:
        os.close(reading)
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):  # Ganeti reads our output until all who hold it are gone
            os.dup2(null, fd)
        said = _work_and_tell(spool, remembered, call)
        if said:
            os.write(writing, _tell_syslog(said))
    finally:
        os._exit(0)


def _work_and_tell(spool: str, remembered: str, call: str) -> str:
    """Do what the hook is there for; returns the line that tells what went wrong, "" when nothing did."""
    try:
        hook = Hook(os.environ)
    except HookError as e:
        return f"{_about()}: no event was left: {e}"
    if not tells(hook, node=os.uname().nodename, nodes=_nodes(hook.data)):
        return ""
    said = _tried("NICs of before are not forgotten", lambda: memory.forget_before(hook, remembered))
    lost = _tried("no event was left", lambda: leave_event(hook, spool, remembered, call))
    if not lost:
        lost = _tried("the next change of NICs will not say what was before", lambda: memory.note(hook, remembered))
    if lost:
        lost += _tried("; nor are its NICs forgotten", lambda: memory.forget_after_failure(hook, remembered))
    said = "; ".join(filter(None, (said, lost)))
    return f"{_about()}: {said}" if said else ""


def _tried(lost: str, work: Callable[[], object]) -> str:
    """What is lost and why, where some work fails; "" where it does not."""
    try:
        work()
    except (HookError, SpoolFull, OSError) as e:
        return f"{lost}: {e}"
    except Exception as e:  # a defect of ours is no reason to stop an operation
        return f"{lost}, by a defect of ours: {type(e).__name__}: {e}"
    return ""


def _about() -> str:
    operation, phase = os.environ.get("GANETI_HOOKS_PATH", "?"), os.environ.get("GANETI_HOOKS_PHASE", "?")
    return f"hook {clean(operation, 40)} {clean(phase, 10)}"


def _tell_syslog(line: str) -> bytes:
    import syslog

    text = clean(line, 900)
    syslog.openlog("snf-hooks", syslog.LOG_PID, syslog.LOG_DAEMON)
    syslog.syslog(syslog.LOG_ERR, text)
    return text.encode() + b"\n"


def _nodes(data: str) -> list[str]:
    """The names of all nodes, as Ganeti keeps them on each of them."""
    try:
        with open(f"{data}/ssconf_node_list", "rb") as file:
            return file.read(_NODES_LIMIT).decode("ascii", "replace").split()
    except OSError:
        return []
