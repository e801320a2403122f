"""The computer's name, in the answer file. It is the first part of the host name: Windows allows 15 characters."""

from __future__ import annotations

import re
from collections.abc import Sequence

from snf_image_helper.actions import Action
from snf_image_helper.answer_file import SHELL
from snf_image_helper.image import Image, ImageError
from snf_image_helper.unattended import rewritten
from synnefo_light.manifest import Manifest
from synnefo_light.tasks import WINDOWS, Phase, TaskInfo

INFO = TaskInfo(
    name="windows_hostname",
    snf_image="AssignHostname",
    os_families=WINDOWS,
    groups=frozenset({"mounted"}),
    phase=Phase.MOUNTED,
    summary="Set the name of a Windows computer",
    after=frozenset({"unattend"}),
)


def plan(image: Image, manifest: Manifest) -> Sequence[Action]:
    name = computer_name(manifest.hostname)
    return rewritten(image, lambda answers: answers.set("specialize", SHELL, "ComputerName", name))


def computer_name(hostname: str) -> str:
    """The NetBIOS name for a host name. Raises ImageError when Windows would not take it."""
    name = hostname.split(".", maxsplit=1)[0]
    if re.fullmatch(r"(?!-)[A-Za-z0-9-]{1,15}(?<!-)", name) is None or name.isdigit():
        raise ImageError(
            f"a Windows computer cannot be called {name}; its name has at most 15 letters, digits and hyphens, "
            "and not digits alone"
        )
    return name
