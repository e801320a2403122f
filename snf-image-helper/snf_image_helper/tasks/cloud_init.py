"""Input for cloud-init, where CLOUD_INIT=yes: a NoCloud seed in the image, in place of changed system files.

Ours (name, users, keys, passwords) goes to cloud-init as vendor-data, so that the user's own user-data is as it was
given and wins. The network is given in version 2. ds-identify, which decides at boot whether cloud-init runs at all,
is told the datasource and searches no further.

Without CLOUD_INIT what an earlier deployment gave is taken away again: there are passwords' hashes in it, and an
image's cloud-init would set up the instance by it.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

from snf_image_helper.actions import Action, RemoveFile, WriteFile
from snf_image_helper.cloud_config import cloud_init_version, render_cloud_config, render_meta_data
from snf_image_helper.distribution import has_cloud_init
from snf_image_helper.folders import plan_folders
from snf_image_helper.image import Files, Image, ImageError, RootPath, Skipped
from snf_image_helper.network.cards import HEADER, configured
from snf_image_helper.network.earlier import plan_earlier_removed, plan_interfaces_back
from snf_image_helper.network.netplan import OF_CLOUD_INIT, plan_netplan_aside, render_version_2
from snf_image_helper.tasks.network import CLOUD_CFG, CLOUD_INIT_OFF
from synnefo_light.manifest import Manifest
from synnefo_light.tasks import Phase, TaskInfo

INFO = TaskInfo(
    name="cloud_init",
    snf_image="InitializeDatasource",
    groups=frozenset({"mounted"}),
    phase=Phase.MOUNTED,
    summary="Give cloud-init its input",
)
SEED = RootPath("var/lib/cloud/seed/nocloud")
#: cloud-init takes the first of its two seed folders that is whole, and this one is the second.
OTHER_SEED = RootPath("var/lib/cloud/seed/nocloud-net")
SEED_FILES = ("meta-data", "user-data", "vendor-data", "network-config")
IDENTIFY = RootPath("etc/cloud/ds-identify.cfg")
IDENTIFIED = f"{HEADER}datasource: NoCloud\n".encode()
DISABLED = RootPath("etc/cloud/cloud-init.disabled")
OWN_CFG = CLOUD_CFG / "99-snf-image.cfg"


def plan(image: Image, manifest: Manifest) -> Sequence[Action]:
    if manifest.cloud_init is None:
        return _plan_removal(image.files)
    files = image.files
    if not has_cloud_init(files):
        raise ImageError("CLOUD_INIT is yes, but the image has no cloud-init; deploy it with CLOUD_INIT=no")
    seed = {
        "meta-data": render_meta_data(manifest).encode(),
        "user-data": base64.b64decode(manifest.cloud_init.userdata) or b"#cloud-config\n{}\n",
        "vendor-data": render_cloud_config(manifest, version=cloud_init_version(files)).encode(),
    }
    network: list[Action] = []
    if configured(manifest.nics) and "network" not in manifest.skip:
        # cloud images say "DHCP on e*" there, which networkd reads before what netplan makes of cloud-init's file.
        others = plan_netplan_aside(files, but=OF_CLOUD_INIT)
        network = [*others, *plan_earlier_removed(files, others), *plan_interfaces_back(files)]
        seed["network-config"] = (HEADER + render_version_2(manifest.nics, for_cloud_init=True)).encode()
    old = {folder / name for folder in (SEED, OTHER_SEED) for name in SEED_FILES} - {SEED / name for name in seed}
    made: set[RootPath] = set()
    return [
        *network,
        *(RemoveFile(path=path) for path in (*sorted(old), CLOUD_INIT_OFF, DISABLED) if files.entry(path) is not None),
        *plan_folders(files, SEED, made=made),
        *plan_folders(files, CLOUD_CFG, made=made),
        # 0600: there are hashes and perhaps secrets of the user in them.
        *(WriteFile(path=SEED / n, content=content, mode=0o600, owner=(0, 0)) for n, content in seed.items()),
        WriteFile(path=OWN_CFG, content=f"{HEADER}datasource_list: [NoCloud]\n".encode()),
        WriteFile(path=IDENTIFY, content=IDENTIFIED),
    ]


def _plan_removal(files: Files) -> list[Action]:
    """A seed is ours where our configuration is beside it; one that the image came with stays."""
    if files.entry(OWN_CFG) is None:
        raise Skipped("cloud-init was not asked for")
    identify = [IDENTIFY] if files.read(IDENTIFY) == IDENTIFIED else []
    ours = [*(SEED / name for name in SEED_FILES), *identify, OWN_CFG]
    return [RemoveFile(path=path) for path in ours if files.entry(path) is not None]
