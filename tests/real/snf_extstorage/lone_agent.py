"""The real guest agent in a world with one file system: started as root with a folder, the image of an XFS, and a name.

It freezes whatever is mounted where it lives. So it lives in a mount namespace whose root is a small folder in memory,
with that XFS and nothing else that has a device; which is looked at before it starts.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

AGENT = "/usr/sbin/qemu-ga"
SOCKET = "/agent.qga"
_CLONE_NEWNS = 0x20000
_MS_REC_PRIVATE = 0x4000 | 0x40000
_MNT_DETACH = 2
_PIVOT_ROOT = 155  # x86-64


def main(root: Path, image: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)

    def act(result: int) -> None:
        if result != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    act(libc.unshare(_CLONE_NEWNS))
    act(libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_REC_PRIVATE), None))
    act(libc.mount(b"tmpfs", os.fsencode(root), b"tmpfs", ctypes.c_ulong(0), None))
    listed = subprocess.run(["ldd", AGENT], check=True, capture_output=True, text=True).stdout
    for needed in [AGENT, *re.findall(r"(/\S+) \(0x", listed)]:
        target = root / needed[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(needed, target)
    for name in ("old", "proc", "frozen", "run", "var"):
        (root / name).mkdir()
    subprocess.run(["mount", "-o", "loop", image, root / "frozen"], check=True)
    os.chdir(root)
    act(libc.syscall(_PIVOT_ROOT, b".", b"old"))
    os.chdir("/")
    act(libc.mount(b"proc", b"/proc", b"proc", ctypes.c_ulong(0), None))
    act(libc.umount2(b"/old", _MNT_DETACH))
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        mounted = sorted(line.split()[4] for line in file)
    if mounted != ["/", "/frozen", "/proc"]:
        sys.exit(f"the agent would freeze more than is meant: {mounted}")
    os.execv(AGENT, [AGENT, "-m", "unix-listen", "-p", SOCKET, "-t", "/run", "-f", "/run/pid"])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
