"""The network cards of a Windows, in its answer file. snf-image left them to DHCP."""

from __future__ import annotations

from collections.abc import Sequence

from snf_image_helper.actions import Action, Warn
from snf_image_helper.image import Image
from snf_image_helper.network.cards import configured
from snf_image_helper.unattended import rewritten
from synnefo_light.manifest import Manifest
from synnefo_light.tasks import WINDOWS, Phase, TaskInfo

INFO = TaskInfo(
    name="windows_network",
    snf_image="ConfigureNetwork",
    os_families=WINDOWS,
    groups=frozenset({"mounted"}),
    phase=Phase.MOUNTED,
    summary="Configure the network cards of Windows",
    after=frozenset({"unattend"}),
)


def plan(image: Image, manifest: Manifest) -> Sequence[Action]:
    cards = configured(manifest.nics)
    if not cards:
        return []
    from snf_image_helper.network.answers import configure  # not imported for the images that are not Windows

    actions: list[Action] = list(rewritten(image, lambda answers: configure(answers, manifest.nics)))
    if any(nic.mtu is not None for _, nic in cards):
        actions.append(Warn(text="an MTU was given, which an answer file cannot say; Windows uses its own"))
    return actions
