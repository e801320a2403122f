"""No remote desktop until Setup is over, so that nobody logs in with a password of the image.

The hive SYSTEM is changed here; what it said before is written back by the script that runs when Setup is over.
"""

from __future__ import annotations

from collections.abc import Sequence

from snf_image_helper.actions import Action, SetRegistryValue, Warn
from snf_image_helper.image import Image, ImageError, Skipped
from snf_image_helper.windows import HIVES
from snf_image_helper.windows_scripts import FINISH, part
from synnefo_light.manifest import Manifest
from synnefo_light.tasks import WINDOWS, Phase, TaskInfo

INFO = TaskInfo(
    name="remote_desktop",
    snf_image="DisableRemoteDesktopConnections",
    os_families=WINDOWS,
    groups=frozenset({"mounted"}),
    phase=Phase.MOUNTED,
    summary="Keep remote desktop closed until Windows is set up",
    after=frozenset({"unattend"}),
)
KEY, NAME, DENIED = r"Control\Terminal Server", "fDenyTSConnections", 1


def plan(image: Image, manifest: Manifest) -> Sequence[Action]:
    facts = image.windows()
    if facts.remote_desktop_denied is None:
        raise Skipped("the image's Windows has no setting for remote desktop")
    if facts.remote_desktop_denied == DENIED:
        raise Skipped("remote desktop is closed in the image")
    if not facts.system_is_merged:
        return [Warn(text="remote desktop is left open: the hive SYSTEM has changes that only Windows can merge")]
    if image.files.entry(FINISH) is None:
        raise ImageError(f"{FINISH} is missing, from where remote desktop would be opened again; keep InstallUnattend")
    restore = (
        r'reg add "HKLM\SYSTEM\CurrentControlSet\Control\Terminal Server"'
        f" /v {NAME} /t REG_DWORD /d {facts.remote_desktop_denied} /f"
    )
    return [
        part(FINISH, "50-remote-desktop", restore),
        SetRegistryValue(
            hive=HIVES / "SYSTEM", key=rf"ControlSet{facts.control_set:03d}\{KEY}", name=NAME, value=DENIED
        ),
    ]
