"""A relabelling at the first boot, where the image uses SELinux: what was written in the VM has no labels, since the
VM's kernel has no SELinux and file_contexts is the image's own list of patterns, which are not run here.

The system relabels itself when it finds /.autorelabel, and boots once more (selinux(8)). SUSE's read-only systems look
in /etc/selinux. Images with SELinux disabled are left alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from snf_image_helper.actions import Action, WriteFile
from snf_image_helper.distribution import os_release, text
from snf_image_helper.image import Files, Image, RootPath, Skipped
from synnefo_light.manifest import Manifest
from synnefo_light.tasks import Phase, TaskInfo

INFO = TaskInfo(
    name="selinux",
    snf_image="SELinuxAutorelabel",
    groups=frozenset({"mounted"}),
    phase=Phase.MOUNTED,
    summary="Have SELinux label what was written",
)


def plan(image: Image, manifest: Manifest) -> Sequence[Action]:
    mode = selinux_mode(image.files)
    if mode not in ("enforcing", "permissive"):
        raise Skipped("the image does not use SELinux" if mode is None else f"SELinux is {mode} in the image")
    paths = [RootPath(".autorelabel")]
    if "suse" in os_release(image.files).get("ID_LIKE", "").split():
        paths.append(RootPath("etc/selinux/.autorelabel"))
    return [WriteFile(path=path, content=b"", mode=0o600, owner=(0, 0)) for path in paths]


def selinux_mode(files: Files) -> str | None:
    """SELINUX= of /etc/selinux/config, the last one; None without SELinux."""
    mode = None
    for line in (text(files, "etc/selinux/config") or "").split("\n"):
        name, _, value = line.partition("=")
        if name.strip() == "SELINUX":
            mode = value.strip().lower()[:20]
    return mode
