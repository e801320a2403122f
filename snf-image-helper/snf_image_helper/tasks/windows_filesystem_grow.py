"""Have Windows grow its own file system at its first boot, by diskpart. The partition has grown already."""

from __future__ import annotations

from collections.abc import Sequence

from snf_image_helper.actions import Action
from snf_image_helper.image import Image, ImageError, Skipped
from snf_image_helper.windows_scripts import SPECIALIZE, part
from synnefo_light.manifest import Manifest
from synnefo_light.tasks import WINDOWS, Phase, TaskInfo

INFO = TaskInfo(
    name="windows_filesystem_grow",
    snf_image="FilesystemResizeMounted",
    os_families=WINDOWS,
    groups=frozenset({"mounted", "resize"}),
    phase=Phase.MOUNTED,
    summary="Have Windows grow its file system at the first boot",
    after=frozenset({"unattend"}),
)
WORTH = 1 << 20


def plan(image: Image, manifest: Manifest) -> Sequence[Action]:
    if manifest.ntfs_resize != "boot":
        raise Skipped("the file system is grown here, after it is unmounted")
    if image.root.size - image.root.filesystem.size < WORTH:
        return []
    if image.files.entry(SPECIALIZE) is None:
        raise ImageError(f"{SPECIALIZE} is missing, from where Windows grows its file system; keep InstallUnattend")
    lines = (
        "(",
        "echo select volume %SystemDrive:~0,1%",
        "echo extend filesystem",
        ') > "%~dp0extend.txt"',
        'diskpart /s "%~dp0extend.txt"',
    )
    return [part(SPECIALIZE, "20-extend-filesystem", *lines)]
