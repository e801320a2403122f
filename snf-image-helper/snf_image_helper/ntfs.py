"""NTFS: mounted by lowntfs-3g, a program of this VM, which finds names whatever their case; grown by ntfsresize.

Files that we make there get rights as their mode says: 0600 is for SYSTEM and Administrators alone ("permissions").
Names that Windows could not open are refused ("windows_names").
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from snf_image_helper.modules import load
from snf_image_helper.syscalls import umount
from synnefo_light.errors import EnvironmentFault
from synnefo_light.run import Runner

MOUNT_OPTIONS = "nosuid,nodev,noexec,noatime,ignore_case,windows_names,permissions"
MOUNT_TIMEOUT_S = 600.0
RESIZE_TIMEOUT_S = 3600.0
END_S = 300.0  # for what it still has to write
EXIT_CODES = range(10, 32)  # what lowntfs-3g ends with when it could not mount; the reason is in its words
HIBERNATED = (
    "Windows in the image is hibernated or was shut down by fast startup; start it, run `shutdown /s /t 0`, "
    "and take the image then"
)


def mount(runner: Runner, node: str, target: str, *, read_only: bool, warn: Callable[[str], None]) -> None:
    """Mount an NTFS file system of the image. Raises EnvironmentFault with the reason.

    A journal that is not clean is thrown away, with a warning, as Windows' own changes in it cannot be replayed here.
    """
    load("fuse")
    failure = _try(runner, node, target, "ro" if read_only else "norecover")
    if failure is not None and failure.fell_back and not failure.is_hibernated:
        warn("the image's NTFS was not unmounted cleanly; its journal is thrown away, and the last changes with it")
        failure = _try(runner, node, target, "recover")
    if failure is not None:
        reason = HIBERNATED if failure.is_hibernated else f"the image's NTFS cannot be mounted: {_reason(failure.said)}"
        raise EnvironmentFault(reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failure:
    """What lowntfs-3g said when it could not mount as it was asked to."""

    said: str
    fell_back: bool  # to reading only: it saw no other fault than that the file system was not closed

    @property
    def is_hibernated(self) -> bool:
        """Also after a fast startup, which is half a hibernation."""
        return "is hibernated" in self.said or "kept in Windows cache" in self.said


def _try(runner: Runner, node: str, target: str, option: str) -> _Failure | None:
    words = ["/usr/bin/lowntfs-3g", "-o", f"{option},{MOUNT_OPTIONS}", node, target]
    done = runner(words, ok=(0, *EXIT_CODES), timeout_s=MOUNT_TIMEOUT_S)
    said = done.stderr.decode("utf-8", "replace")
    if done.returncode != 0:
        return _Failure(said=said, fell_back=False)
    if option != "ro" and os.statvfs(target).f_flag & os.ST_RDONLY:
        umount(target)
        wait_for_end()
        return _Failure(said=said, fell_back=True)
    return None


def wait_for_end() -> None:
    """After an unmount: until lowntfs-3g, our child as we are process 1, has written everything and ended.

    Raises EnvironmentFault when it does not.
    """
    deadline = time.monotonic() + END_S
    with suppress(ChildProcessError):  # there is no child any more
        while time.monotonic() < deadline:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.01)
        raise EnvironmentFault(f"lowntfs-3g did not end within {END_S:g} s of the unmount; what it wrote may be lost")


def grow(runner: Runner, node: str, *, check: bool) -> None:
    """Grow to the size of the partition. Raises EnvironmentFault when the file system waits for chkdsk.

    Windows checks the file system at its next boot, because ntfsresize marks it so; not so without `check`.
    """
    done = runner(["/usr/sbin/ntfsresize", "-P", node], stdin=b"y\n", ok=(0, 1), timeout_s=RESIZE_TIMEOUT_S)
    said = (done.stdout + done.stderr).decode("utf-8", "replace")
    if done.returncode != 0:
        if "scheduled for check" in said:
            raise EnvironmentFault(
                "the image's NTFS waits to be checked by Windows, so it cannot be grown here; "
                "run `chkdsk /f` in the image, or leave OFFLINE_NTFSRESIZE out"
            )
        raise EnvironmentFault(f"the image's NTFS cannot be grown: {_reason(said)}")
    if not check:
        runner(["/usr/bin/ntfsfix", "-d", node], timeout_s=RESIZE_TIMEOUT_S)


def _reason(said: str) -> str:
    """The line that tells most: an error by that name, else the first."""
    lines = said.strip().splitlines() or ["it gave no reason"]
    return next((line for line in lines if line.startswith("ERROR")), lines[0])[:200]
