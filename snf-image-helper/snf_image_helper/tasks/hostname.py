"""/etc/hostname, and the line of 127.0.1.1 in /etc/hosts (Debian's place for a host's own name; harmless elsewhere).

Older places are kept in step where the image has them: HOSTNAME in /etc/sysconfig/network (RHEL up to 6), /etc/HOSTNAME
(SUSE up to 12, Slackware), /etc/conf.d/hostname (Gentoo, whose OpenRC looks there when there is no /etc/hostname).
"""

from __future__ import annotations

from collections.abc import Sequence

from snf_image_helper.actions import Action, Warn, WriteFile
from snf_image_helper.distribution import encoded, is_file, text
from snf_image_helper.image import Files, Image, RootPath, TooLarge
from snf_image_helper.shell_variables import set_variables
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
    files, name = image.files, manifest.hostname
    own = WriteFile(path=RootPath("etc/hostname"), content=f"{name}\n".encode())
    return [own, *_older_places(files, name), _hosts(files, name)]


def _hosts(files: Files, name: str) -> Action:
    """A list of a million blocked names is no reason to fail: the name is resolved without /etc/hosts too."""
    try:
        old = text(files, "etc/hosts")
    except TooLarge as e:
        return Warn(text=f"{e}; it is left as it is, without the instance's name")
    return WriteFile(path=RootPath("etc/hosts"), content=encoded(render_hosts(old, name)))


def _older_places(files: Files, name: str) -> list[Action]:
    actions: list[Action] = []
    capitals = RootPath("etc/HOSTNAME")
    if files.link(capitals) is None and is_file(files, capitals):
        actions.append(WriteFile(path=capitals, content=f"{name}\n".encode()))
    for path, variable in (("etc/sysconfig/network", "HOSTNAME"), ("etc/conf.d/hostname", "hostname")):
        # SUSE's /etc/sysconfig/network is a folder.
        old = text(files, path) if is_file(files, RootPath(path)) else None
        if old is not None and any(line.lstrip().startswith(f"{variable}=") for line in old.split("\n")):
            actions.append(WriteFile(path=RootPath(path), content=encoded(set_variables(old, {variable: name}))))
    return actions


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
