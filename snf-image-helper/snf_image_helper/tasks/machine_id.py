"""A machine id of its own for each instance.

With systemd the file is emptied, and the first boot fills it (machine-id(5)). An empty file, not a missing one and not
the word "uninitialized": those two make systemd treat the boot as a machine's first, and reset which units are enabled.
Without systemd nobody would fill it, so it gets an id here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from snf_image_helper.actions import Action, RemoveFile, Symlink, WriteFile
from snf_image_helper.distribution import has_systemd
from snf_image_helper.image import Image, RootPath, Skipped
from synnefo_light.manifest import Manifest
from synnefo_light.tasks import Phase, TaskInfo

INFO = TaskInfo(
    name="machine_id",
    snf_image="ChangeMachineId",
    groups=frozenset({"mounted"}),
    phase=Phase.MOUNTED,
    summary="Let the instance have a machine id of its own",
)
ID = RootPath("etc/machine-id")
DBUS = RootPath("var/lib/dbus/machine-id")


def plan(image: Image, manifest: Manifest) -> Sequence[Action]:
    files = image.files
    # Where it is a link to D-Bus' file, the link that is made there would lead back to it.
    own: list[Action] = [RemoveFile(path=ID)] if files.link(ID) is not None else []
    dbus = files.entry(DBUS.parent) is not None and files.link(DBUS) is None
    if has_systemd(files):
        actions = [*own, WriteFile(path=ID, content=b"", mode=0o444)]
        if dbus:
            actions.append(Symlink(path=DBUS, target="/etc/machine-id"))
        return actions
    if files.entry(ID) is None and files.entry(DBUS) is None:
        raise Skipped("the image has no machine id")
    fresh = hashlib.sha256(f"{manifest.nonce}:machine-id".encode()).hexdigest()[:32]
    actions = [*own, WriteFile(path=ID, content=f"{fresh}\n".encode(), mode=0o444)]
    if dbus:
        actions += [RemoveFile(path=DBUS), Symlink(path=DBUS, target="/etc/machine-id")]
    return actions
