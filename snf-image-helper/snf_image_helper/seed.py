"""A small FAT file system with the label cidata, which cloud-init and FreeBSD's nuageinit look for (NoCloud).

It is for systems whose own file systems cannot be written here. It is ours from its first byte, so its files are
written without the care that those of an image need.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from snf_image_helper.modules import load
from snf_image_helper.syscalls import MS_NODEV, MS_NOEXEC, MS_NOSUID, mount, umount
from synnefo_light.run import Runner

LABEL = "cidata"
WORK = Path("/run/seed")


def make_seed(runner: Runner, node: str, files: Iterable[tuple[str, bytes]]) -> None:
    """Make the file system anew with these files. Raises ToolError or OSError."""
    load("vfat")
    runner(("/usr/sbin/mkfs.fat", "-n", LABEL, node), timeout_s=60)
    WORK.mkdir(exist_ok=True)
    mount(node, str(WORK), "vfat", flags=MS_NOSUID | MS_NODEV | MS_NOEXEC)
    try:
        for name, content in files:
            with open(WORK / name, "wb") as file:
                file.write(content)
                os.fsync(file.fileno())
    finally:
        umount(str(WORK))
