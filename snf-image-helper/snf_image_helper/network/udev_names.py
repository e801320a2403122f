"""Names for cards by their MAC address, for stacks that know a card by its name alone: a rule of udev(7).

The same shape as the rules that udev itself wrote until 2014 and that cloud-init writes; eudev reads it too. It comes
before 80-net-setup-link.rules, which keeps a name that is already given. DRIVERS leaves out VLANs and bridges with
the same MAC.
"""

from __future__ import annotations

from collections.abc import Sequence

from snf_image_helper.actions import Action, WriteFile
from snf_image_helper.folders import plan_folders
from snf_image_helper.image import Files, RootPath
from snf_image_helper.network.cards import HEADER, configured, name_of
from synnefo_light.manifest import Nic

RULES = RootPath("etc/udev/rules.d/70-snf-image-names.rules")


def plan_names(files: Files, nics: Sequence[Nic]) -> list[Action]:
    return [
        *plan_folders(files, RULES.parent),
        WriteFile(path=RULES, content=render_names(nics).encode(), mode=0o644),
    ]


def render_names(nics: Sequence[Nic]) -> str:
    rules = (
        f'SUBSYSTEM=="net", ACTION=="add", DRIVERS=="?*", ATTR{{address}}=="{nic.mac}", NAME="{name_of(n)}"\n'
        for n, nic in configured(nics)
    )
    return HEADER + "".join(rules)
