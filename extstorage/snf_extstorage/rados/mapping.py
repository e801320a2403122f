"""The kernel's RBD driver, for sites that ask for it: an image as /dev/rbdN.

Opt-in, because the kernel reads the partition table of what it is given. Nothing is remembered: `rbd device list` is
asked each time, so attach and detach may be repeated.

Images that are mapped alike share one client of the kernel's, which the fence would shut out with all of them; hence
`noshare`, an option of rbd(8), and a connection more for each disk.
"""

from __future__ import annotations

import json

from snf_extstorage.rados.images import Images
from snf_extstorage.volume import InUse
from synnefo_light.errors import EnvironmentFault, PeerError, ToolError
from synnefo_light.run import Runner, run

LIMIT_S = 60.0


def parse_mapped(text: str, *, pool: str, namespace: str, image: str) -> str | None:
    """The device of an image in the output of `rbd device list --format json`; None: it is not mapped here."""
    try:
        listed = json.loads(text or "[]")
        entries = listed.values() if isinstance(listed, dict) else listed
        for entry in entries:
            found = (entry["pool"], entry.get("namespace", ""), entry["name"], entry.get("snap", "-"))
            if found in ((pool, namespace, image, "-"), (pool, namespace, image, "")):
                return str(entry["device"])
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise PeerError(f"rbd device list said what cannot be read: {e}") from None
    return None


def map_image(images: Images, name: str, *, runner: Runner = run) -> str:
    """The image's device on this node, made if there is none."""
    found = _mapped(images, name, runner)
    if found is None:
        try:
            found = runner(render_map(images, name), timeout_s=LIMIT_S).text.strip()
        except ToolError as e:
            raise EnvironmentFault(
                f"volume {name} is to be attached by the kernel (krbd = true), and `rbd device map` said: {e}"
            ) from e
    return found


def unmap(images: Images, name: str, *, runner: Runner = run) -> None:
    """Raises InUse while a process has the device open."""
    found = _mapped(images, name, runner)
    if found is not None:
        try:
            runner(["rbd", "device", "unmap", found], timeout_s=LIMIT_S)
        except ToolError as e:
            raise InUse(f"volume {name} is to be detached, but {found} is in use: {e}") from e


def _mapped(images: Images, name: str, runner: Runner) -> str | None:
    listed = runner(["rbd", "device", "list", "--format", "json"], timeout_s=LIMIT_S).text
    return parse_mapped(listed, pool=images.pool, namespace=images.namespace, image=name)


def render_map(images: Images, name: str) -> list[str]:
    access = images.cluster.access
    client = ["rbd", "--conf", str(access.conf), "--id", access.user]
    return [*client, "device", "map", "--options", "noshare", f"{images.place}/{name}"]
