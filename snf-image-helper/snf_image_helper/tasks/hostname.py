"""/etc/hostname, and the line of 127.0.1.1 in /etc/hosts (Debian's place for a host's own name)."""

from __future__ import annotations

from collections.abc import Sequence

from snf_image_helper.actions import Action, WriteFile
from snf_image_helper.distribution import encoded, text
from snf_image_helper.image import Image, RootPath
from synnefo_light.manifest import Manifest
from synnefo_light.tasks import Phase, TaskInfo

INFO = TaskInfo(
    name="hostname",
    snf_image="AssignHostname",
    groups=frozenset({"mounted", "cloud-init"}),
    phase=Phase.MOUNTED,
    summary="Set the host name",
)


def plan(image: Image, manifest: Manifest) -> Sequence[Action]:
    hosts = text(image.files, "etc/hosts")
    return [
        WriteFile(path=RootPath("etc/hostname"), content=f"{manifest.hostname}\n".encode()),
        WriteFile(path=RootPath("etc/hosts"), content=encoded(render_hosts(hosts, manifest.hostname))),
    ]


def render_hosts(hosts: str | None, hostname: str) -> str:
    """The file with one line for 127.0.1.1: in place of the first such line, else behind 127.0.0.1's."""
    short = hostname.split(".", maxsplit=1)[0]
    own = f"127.0.1.1\t{hostname}" if short == hostname else f"127.0.1.1\t{hostname} {short}"
    lines = (hosts if hosts is not None else "127.0.0.1\tlocalhost\n::1\tlocalhost\n").split("\n")
    if lines[-1] == "":
        lines.pop()
    addresses = [(line.split() or [""])[0] for line in lines]
    if "127.0.1.1" in addresses:
        at = addresses.index("127.0.1.1")
        kept = [line for line, address in zip(lines, addresses, strict=True) if address != "127.0.1.1"]
    else:
        at = addresses.index("127.0.0.1") + 1 if "127.0.0.1" in addresses else len(lines)
        kept = lines
    return "\n".join([*kept[:at], own, *kept[at:]]) + "\n"
