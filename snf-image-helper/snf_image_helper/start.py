"""The first program of the VM: find the root by its serial, go on in it, and do as `main` says.

It runs from the initial RAM disk, as process 1, and stays that. The root holds the same Python at the same paths, so
what is imported later comes from there. Whatever fails here ends process 1, and with it the VM.
"""

from __future__ import annotations

import gc
import os
import sys

from snf_image_helper.main import main
from snf_image_helper.syscalls import MS_MOVE, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, load_module, mount

SERIAL = "snf-root"
ROOT = "/root"
PLAIN = MS_NOSUID | MS_NODEV | MS_NOEXEC
#: A helper lives for seconds and leaves little to collect.
COLLECT_AFTER = 50_000


def start() -> None:
    gc.set_threshold(COLLECT_AFTER)
    enter_root()
    main()


def enter_root() -> None:
    """Load what the root needs, mount it, and make it the root of this process. Raises OSError."""
    mount("dev", "/dev", "devtmpfs", flags=0)
    mount("sys", "/sys", "sysfs", flags=PLAIN)
    mount("proc", "/proc", "proc", flags=PLAIN)
    with open("/modules/order", encoding="ascii") as file:
        for name in file.read().split():
            load_module(f"/modules/{name}.ko")
    mount(f"/dev/{find_disk()}", ROOT, "squashfs", flags=MS_RDONLY | MS_NODEV | MS_NOSUID)
    for folder in ("dev", "sys", "proc"):
        mount(f"/{folder}", f"{ROOT}/{folder}", "", flags=MS_MOVE)
    mount("tmpfs", f"{ROOT}/run", "tmpfs", flags=PLAIN, options="mode=755,size=32m")
    mount("tmpfs", f"{ROOT}/tmp", "tmpfs", flags=PLAIN, options="mode=1777,size=64m")  # noqa: S108
    os.chdir(ROOT)
    mount(".", "/", "", flags=MS_MOVE)
    os.chroot(".")
    # What import has seen of the folders is the RAM disk's; their times are the same, so it would not look again.
    sys.path_importer_cache.clear()


def find_disk(folder: str = "/sys/block") -> str:
    """The kernel's name of the disk with the root's serial. Raises FileNotFoundError when there is none."""
    for name in os.listdir(folder):
        try:
            with open(f"{folder}/{name}/serial", encoding="ascii") as file:
                if file.read().strip() == SERIAL:
                    return name
        except OSError:  # a disk of a kind that has no serial
            continue
    raise FileNotFoundError(f"no disk has the serial {SERIAL}")
