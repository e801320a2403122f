"""The place where a custom task runs: the image, and nothing of the VM around it.

unshare(1) has given this process namespaces of its own for mounts, processes, the network, IPC and the host's name.
Here the image becomes the root and the VM's own root goes away, so that no path leads back. Only then are /dev, /proc,
/run and /tmp mounted: a link at one of these leads to a place in the image. /dev holds no disk and no line to the
host, the capabilities to make such a node are dropped for good, /proc is read-only (core_pattern and sysrq-trigger
act on the whole VM), and no descriptor but the three standard ones is open.

This module runs as a program of its own, with the script as its standard input.
"""

from __future__ import annotations

import os
import stat
import sys

from snf_image_helper import syscalls
from snf_image_helper.mount_points import mount_points
from snf_image_helper.syscalls import MS_BIND, MS_NOATIME, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, MS_REMOUNT

SCRIPT = "/tmp/snf-image-custom-task"  # noqa: S108 - in a new tmpfs that nobody else sees
NODES = {"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9}  # major 1, mem(4)
LINKS = {"fd": "", "stdin": "/0", "stdout": "/1", "stderr": "/2"}
#: capabilities(7): CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, SYS_CHROOT, AUDIT_WRITE,
#: SETFCAP. Without MKNOD, SYS_ADMIN, DAC_READ_SEARCH (open_by_handle_at leaves the root), and all that is the kernel's.
KEPT = frozenset({0, 1, 3, 4, 5, 6, 7, 8, 18, 29, 31})
CANNOT_START = 126


def main() -> None:
    """Does not return. Ends with 126 and a sentence when the task cannot be started."""
    script = sys.stdin.buffer.read()
    try:
        _enter(sys.argv[1])
        _furnish()
        argv = _written(script)
        _give_up_powers()
        os.execve(argv[0], argv, dict(os.environ))  # the administrator's own program
    except OSError as e:
        print(f"{e.filename or 'the root of the image'}: {e.strerror}", file=sys.stderr, flush=True)
        os._exit(CANNOT_START)


def _enter(folder: str) -> None:
    """Make the mount at `folder` the root; its programs may run, and those of the image's other file systems below it,
    as of a separate /usr. pivot_root(2) has the trick with "."."""
    for point in mount_points(folder):
        syscalls.mount("none", point, "none", flags=MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV | MS_NOATIME)
    os.chdir(folder)
    syscalls.pivot_root(".", ".")
    syscalls.detach(".")
    os.chdir("/")


def _furnish() -> None:
    syscalls.mount("tmpfs", "/dev", "tmpfs", flags=MS_NOSUID | MS_NOEXEC, options="mode=755,size=1m")
    for name, minor in NODES.items():
        os.mknod(f"/dev/{name}", stat.S_IFCHR, os.makedev(1, minor))
        os.chmod(f"/dev/{name}", 0o666)  # noqa: S103 - as mem(4) has them
    for name, end in LINKS.items():
        os.symlink(f"/proc/self/fd{end}", f"/dev/{name}")  # noqa: PTH211
    syscalls.mount("proc", "/proc", "proc", flags=MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY)
    syscalls.mount("tmpfs", "/run", "tmpfs", flags=MS_NOSUID | MS_NODEV, options="mode=755,size=16m")
    syscalls.mount("tmpfs", "/tmp", "tmpfs", flags=MS_NOSUID | MS_NODEV, options="mode=1777,size=64m")  # noqa: S108


def _written(script: bytes) -> list[str]:
    """The command that runs the script; without a first line that names its program, a shell does."""
    fd = os.open(SCRIPT, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o700)
    with os.fdopen(fd, "wb") as file:
        file.write(script)
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return [SCRIPT] if script.startswith((b"#!", b"\x7fELF")) else ["/bin/sh", SCRIPT]


def _give_up_powers() -> None:
    for capability in range(64):
        if capability not in KEPT:
            syscalls.drop_capability(capability)
    syscalls.no_new_privileges()
