"""Mount what the image's fstab puts below its root, as far as tasks write there: /boot, /home, /var and the like.

What cannot be mounted fails the deployment where something would be written into the folder below it, which nobody
would see after the boot; else, and where fstab says nofail, it is a warning.
"""

from __future__ import annotations

from collections.abc import Sequence

from snf_image_helper.actions import Action, MountBelow, Warn
from snf_image_helper.distribution import text
from snf_image_helper.folders import plan_folders
from snf_image_helper.fstab import parse_fstab, plan_mounts
from snf_image_helper.image import Image, RootPath, Skipped
from synnefo_light.manifest import Manifest
from synnefo_light.tasks import Phase, TaskInfo

INFO = TaskInfo(
    name="mount_others",
    phase=Phase.UNMOUNTED,
    summary="Mount the image's other file systems that its fstab names",
    after=frozenset({"mount"}),
    groups=frozenset({"mounted"}),
)
#: Read or written by tasks in any image.
ALWAYS = frozenset({"/etc", "/usr", "/var", "/var/lib"})
SHOWN = 4  # of the mount points that were not found


def plan(image: Image, manifest: Manifest) -> Sequence[Action]:
    if not image.is_mounted:
        raise Skipped("the image is not mounted")
    planned = plan_mounts(parse_fstab(text(image.files, "etc/fstab") or ""), image.blocks)
    actions: list[Action] = []
    for n, m in enumerate(planned.mounts):
        on_root = not any(m.point.startswith(f"{outer.point}/") for outer in planned.mounts[:n])
        if on_root and image.files.link(m.point) is None:
            actions += plan_folders(image.files, m.point)  # systemd makes what is missing when it mounts
        needed = not m.nofail and _is_needed(m.point, manifest)
        actions.append(MountBelow(point=m.point, place=m.place, kind=m.kind, subvolume=m.subvolume, needed=needed))
    missing = [line for line in planned.missing if "nofail" not in line.options]
    if missing:
        named = ", ".join(f"{line.point[:64]} ({line.device[:64]})" for line in missing[:SHOWN])
        actions.append(Warn(text=f"what the image's fstab mounts at {named} was not found on its disk"))
    return actions


def _is_needed(point: RootPath, manifest: Manifest) -> bool:
    """Whether tasks write there. Keys go into homes, which may be anywhere but in /boot; a custom task anywhere."""
    if point in ALWAYS or manifest.custom_task is not None:
        return True
    homes = bool(manifest.authorized_keys.strip()) and not point.startswith(("/boot", "/efi"))
    return homes or any(RootPath(file.path).startswith(f"{point}/") for file in manifest.files)
