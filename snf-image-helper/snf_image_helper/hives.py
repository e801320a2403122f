"""The registry of a Windows image, read and changed by hivex.

Hives are hostile, and hivex parses them in C: so it works in a child process with limits on memory and time, which
answers with plain data. When it crashes or hangs, that is a sentence and a failed task. The child gets an open file
and no path; what it changes goes to a file of ours, and from there into the image.
"""

from __future__ import annotations

import json
import os
import select
import signal
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from snf_image_helper.image import ImageError, RootPath
from snf_image_helper.rootfs import RootFs
from snf_image_helper.windows import HIVES, USERS_LIMIT, Facts, parse_facts
from synnefo_light.log import logger
from synnefo_light.run import outcome

READ_LIMIT = 256 << 20
WRITE_LIMIT = 48 << 20  # it is in memory twice while it is written
CPU_S = 60
WALL_S = 300.0
MEMORY = 1 << 30  # of addresses, beside those of the process that asks; a hive that is only read is mapped
ANSWER_LIMIT = 1 << 20
WORK = Path("/tmp/hive")  # noqa: S108, the helper VM's own
REG_DWORD = 4


def read_facts(root: RootFs) -> Facts:
    """What the hives SYSTEM, SOFTWARE and SAM tell. Raises ImageError, with the hive's path, when one is not usable."""
    found: dict[str, Any] = {}
    for name, reader in (("SYSTEM", _read_system), ("SOFTWARE", _read_software), ("SAM", _read_sam)):
        path = HIVES / name
        with root.opened(path, limit=READ_LIMIT) as fd:
            found |= _isolated(path, lambda fd=fd, reader=reader: reader(_open(fd), fd))  # type: ignore[misc]
    return parse_facts(found)


def set_dword(root: RootFs, path: RootPath, key: str, name: str, value: int) -> None:
    """Set one value of a hive of the image. A second call writes the same. Raises ImageError."""

    def change() -> dict[str, object]:
        hive = _open(fd, write=True)
        node = _node(hive, key)
        if node is None:
            raise LookupError(f"it has no key {key}")
        hive.node_set_value(node, {"key": name, "t": REG_DWORD, "value": struct.pack("<I", value)})
        hive.commit(str(WORK))
        return {}

    with ExitStack() as undo:
        fd = undo.enter_context(root.opened(path, limit=WRITE_LIMIT))
        undo.callback(WORK.unlink, missing_ok=True)
        _isolated(path, change)
        root.write(path, WORK.read_bytes())


def _open(fd: int, *, write: bool = False) -> Any:
    import hivex  # type: ignore[import-not-found,import-untyped,unused-ignore]

    return hivex.Hivex(f"/proc/self/fd/{fd}", write=write)


def _read_system(hive: Any, fd: int) -> dict[str, object]:
    select_key = _node(hive, "Select")
    control_set = _number(hive, select_key, "Current")
    control = f"ControlSet{control_set or 0:03d}\\Control"
    header = os.pread(fd, 12, 0)
    return {
        "control_set": control_set,
        "architecture": _text(hive, _node(hive, rf"{control}\Session Manager\Environment"), "PROCESSOR_ARCHITECTURE"),
        "remote_desktop_denied": _number(hive, _node(hive, rf"{control}\Terminal Server"), "fDenyTSConnections"),
        "unattend_file": _text(hive, _node(hive, "Setup"), "UnattendFile"),
        # The two sequence numbers of the base block agree when all of the log is in the hive.
        "system_is_merged": header[4:8] == header[8:12],
    }


def _read_software(hive: Any, fd: int) -> dict[str, object]:
    version = _node(hive, r"Microsoft\Windows NT\CurrentVersion")
    state = _node(hive, r"Microsoft\Windows\CurrentVersion\Setup\State")
    return {
        "major": _number(hive, version, "CurrentMajorVersionNumber"),
        "minor": _number(hive, version, "CurrentMinorVersionNumber"),
        "current_version": _text(hive, version, "CurrentVersion"),
        "image_state": _text(hive, state, "ImageState"),
    }


def _read_sam(hive: Any, fd: int) -> dict[str, object]:
    """A user's number is the *type* of the nameless value of the key of its name."""
    names = _node(hive, r"SAM\Domains\Account\Users\Names")
    users = {}
    for child in hive.node_children(names)[:USERS_LIMIT] if names is not None else ():
        value = _value(hive, child, "")
        users[hive.node_name(child)] = hive.value_type(value)[0] if value is not None else 0
    return {"users": users}


def _node(hive: Any, key: str) -> Any:
    node = hive.root()
    for name in key.split("\\"):
        node = hive.node_get_child(node, name)
        if node is None:
            return None
    return node


def _value(hive: Any, node: Any, name: str) -> Any:
    if node is None:
        return None
    with suppress(RuntimeError, KeyError):  # so it says that there is none
        return hive.node_get_value(node, name)
    return None


def _number(hive: Any, node: Any, name: str) -> int | None:
    value = _value(hive, node, name)
    if value is None or hive.value_type(value)[0] != REG_DWORD:
        return None
    number: int = hive.value_dword(value) & 0xFFFFFFFF
    return number


def _text(hive: Any, node: Any, name: str) -> str | None:
    value = _value(hive, node, name)
    text: str | None = hive.value_string(value)[:1000] if value is not None else None
    return text


def _isolated(path: RootPath, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `work` returns, from a child process with limits. Raises ImageError, whatever becomes of the child."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _work_in_child(writer, work)
    os.close(writer)
    try:
        raw = b"".join(_chunks(reader, time.monotonic() + WALL_S))
    finally:
        os.close(reader)
        os.kill(child, signal.SIGKILL)  # it has answered, or it will not
        _, status = os.waitpid(child, 0)
    try:
        answer = json.loads(raw)
    except ValueError:
        how = outcome(os.waitstatus_to_exitcode(status))
        raise ImageError(f"{path} of the image cannot be read as a hive of the registry: its reader {how}") from None
    if "failed" in answer:
        raise ImageError(f"{path} of the image cannot be used as a hive of the registry: {answer['failed']}")
    logger.debug("hive=%s read", path)
    found: dict[str, Any] = answer["found"]
    return found


def _work_in_child(writer: int, work: Callable[[], dict[str, Any]]) -> None:
    """Never returns."""
    import resource

    try:
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
        addresses = _addresses() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (addresses, addresses))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        try:
            answer: dict[str, object] = {"found": work()}
        except Exception as e:
            answer = {"failed": str(e)[:300] or type(e).__name__}
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(json.dumps(answer).encode())
    finally:
        os._exit(0)


def _addresses() -> int:
    """Bytes of address space that this process has (proc_pid_statm(5)): a child starts with all of its parent's."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")


def _chunks(reader: int, deadline: float) -> Iterator[bytes]:
    left = ANSWER_LIMIT
    while left > 0 and (waiting := deadline - time.monotonic()) > 0:
        if not select.select([reader], [], [], waiting)[0]:
            return
        data = os.read(reader, min(left, 65536))
        if not data:
            return
        left -= len(data)
        yield data
