"""The files of img_personality in Windows: at their path on the system drive, with the rights of their mode.

Owner and group are SYSTEM's and the administrators': Windows has no numbers for them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from snf_image_helper.actions import Action, Warn, WriteFile
from snf_image_helper.folders import plan_folders
from snf_image_helper.image import Image, ImageError, RootPath
from snf_image_helper.injection import content_of
from synnefo_light.manifest import Manifest
from synnefo_light.tasks import WINDOWS, Phase, TaskInfo

INFO = TaskInfo(
    name="windows_personality",
    snf_image="EnforcePersonality",
    os_families=WINDOWS,
    groups=frozenset({"mounted"}),
    phase=Phase.MOUNTED,
    summary="Inject files into Windows",
    after=frozenset({"remote_desktop", "windows_filesystem_grow", "windows_hostname", "windows_password"}),
)
#: Names that are devices in every folder of Windows, with and without an ending.
DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
FORBIDDEN = re.compile(r'[\x00-\x1f"*:<>?|\\]|[. ]$')


def plan(image: Image, manifest: Manifest) -> Sequence[Action]:
    actions: list[Action] = []
    made: set[RootPath] = set()
    for file in manifest.files:
        path = RootPath(file.path)
        for name in str(path).strip("/").split("/"):
            if FORBIDDEN.search(name) or DEVICES.fullmatch(name):
                raise ImageError(f"{file.path} cannot be made, because Windows takes no file of the name {name!r}")
        actions += plan_folders(image.files, path.parent, made=made)
        actions.append(WriteFile(path=path, content=content_of(file), mode=file.mode, owner=(0, 0)))
    others = sorted({f.path for f in manifest.files if (f.owner, f.group) != ("root", "root")})
    if others:
        actions.append(Warn(text=f"{others[0]} belongs to the administrators: Windows has no owners by that name"))
    return actions
