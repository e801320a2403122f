"""The kernel's modules, loaded when something is about to need them: most deployments need none.

The image's builder writes /usr/lib/modules/order, a line for each module that may be asked for: "xfs: libcrc32c xfs",
itself the last. One that has no line is built into the kernel.
"""

from __future__ import annotations

from pathlib import Path

from snf_image_helper.syscalls import load_module

MODULES = Path("/usr/lib/modules")

#: One module mounts the older two as well (fs/ext4/super.c: CONFIG_EXT4_USE_FOR_EXT2).
_OTHER_NAMES = {"ext2": "ext4", "ext3": "ext4"}
#: FAT asks for the tables of its names by itself, by a program that is not here.
_BESIDES = {"vfat": ("nls_cp437", "nls_ascii", "nls_utf8")}


def load(name: str) -> None:
    """A second call does nothing. Raises OSError when the kernel refuses a module."""
    lines = (MODULES / "order").read_text("ascii").splitlines()
    for wanted in (*_BESIDES.get(name, ()), _OTHER_NAMES.get(name, name)):
        needed = next((line.partition(":")[2].split() for line in lines if line.startswith(f"{wanted}:")), [])
        for module in needed:
            load_module(str(MODULES / f"{module}.ko"))
