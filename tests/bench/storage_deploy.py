"""A deployment of a real image, as Ganeti does it: from the disk's `create` to the end of the OS definition's `create`.

The disk is a clone of the image, so nothing is copied and the helper VM only customises; the first of an image and the
hundredth cost the same. The peer is the same deployment onto an empty volume, which the image is copied to.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Final
from uuid import uuid4

from snf_extstorage.volume import FromBase

from synnefo_light.errors import PeerError
from synnefo_light.run import run
from synnefo_light.units import Bytes
from tests.bench.storage_clone import register, timed
from tests.bench.storage_place import DirectorySite, new_name
from tests.bench.storage_sizes import GIB, MIB, Sizes
from tests.real.snf_image_host.node import Fake, fake_node

LIMIT_S: Final = 120.0
#: What `gnt-instance add -t ext --disk 0:size=4G` makes.
DISK: Final = 4 * GIB
IMAGE: Final = "debian"
COMMAND: Final = Path(__file__).resolve().parents[2] / "extstorage/snf-store"


def measure_deploy(site: DirectorySite, image: Path, helper: Path, sizes: Sizes) -> dict[str, object]:
    """`image` is a raw one that can be deployed, `helper` the folder of the helper VM's."""
    map_id = register(site.catalog, IMAGE, image)
    first: list[float] = []
    last: list[float] = []
    copied: list[float] = []
    with fake_node(helper=helper) as node:
        command = node.folder / "snf-store"
        command.write_text(f'#!/bin/sh\nSNF_STORE_CONFIG={site.config} exec {COMMAND} "$@"\n')
        command.chmod(0o755)
        node.configure(qemu=None, accel="auto", tcg_limit_s=200, snf_store=str(command))
        deploy(site, node, origin=IMAGE)  # the first helper VM of a node finds out what accelerates it
        for _ in range(sizes.deploys):
            first.append(timed(lambda: deploy(site, node, origin=IMAGE)))
            copied.append(timed(lambda: deploy(site, node, origin="")))
        names = [new_name() for _ in range(99)]
        for name in names:
            site.volumes.clone(FromBase(map=map_id), name, uuid=None, size=Bytes(DISK))
        last.extend(timed(lambda: deploy(site, node, origin=IMAGE)) for _ in range(sizes.deploys))
        for name in names:
            site.volumes.remove(name)
    return {
        "deploy_first_s": round(statistics.median(first), 2),
        "deploy_100th_s": round(statistics.median(last), 2),
        "deploy_100th_ratio": round(statistics.median(last) / statistics.median(first), 3),
        "deploy_copied_s": round(statistics.median(copied), 2),
    }


def deploy(site: DirectorySite, node: Fake, *, origin: str) -> None:
    """One instance, which is removed again. Raises PeerError when it failed, or copied what it ought to share."""
    name, uuid = new_name(), str(uuid4())

    def script(action: str, **more: str) -> str:
        words, env = site.script(action, name, VOL_UUID=uuid, **more)
        return run(words, env=env, timeout_s=LIMIT_S).text

    script("create", VOL_SIZE=str(DISK // MIB), **({"EXTP_ORIGIN": origin} if origin else {}))
    try:
        device = script("attach").partition("\n")[0]
        script("open", VOL_OPEN_EXCLUSIVE="True")
        given = {"img_id": f"store://{IMAGE}", "img_format": "-", "img_passwd": "bench-password"}
        done = node.create(Path(device), **given, DISK_0_SIZE=str(DISK // MIB), DISK_0_UUID=uuid)
        if done.returncode != 0 or ("nothing is copied" in done.output) != bool(origin):
            raise PeerError(f"the deployment is not what was to be measured: {done.output[-2000:]}")
    finally:
        script("detach")
        script("remove")
