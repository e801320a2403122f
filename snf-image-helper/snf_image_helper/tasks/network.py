"""The instance's network cards, by the stack that the image has: netplan, systemd-networkd or ifupdown.

What the image said about the network before is put out of effect, because two stacks, or two files for one card, would
fight: netplan's and ifupdown's files get the suffix `.before-snf-image`, our .network files sort first, cloud-init is
told to leave the network alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from snf_image_helper.actions import Action, MakeFolder, RemoveFile, Warn, WriteFile
from snf_image_helper.distribution import (
    NetworkStack,
    exists,
    has_cloud_init,
    has_systemd,
    is_enabled,
    is_file,
    network_stack,
)
from snf_image_helper.image import Files, Image, RootPath
from snf_image_helper.renderers import (
    HEADER,
    configured,
    render_interfaces,
    render_netplan,
    render_networkd,
    render_resolv_conf,
)
from synnefo_light.manifest import Manifest, Nic
from synnefo_light.tasks import Phase, TaskInfo

INFO = TaskInfo(
    name="network",
    snf_image="ConfigureNetwork",
    groups=frozenset({"mounted", "cloud-init"}),
    phase=Phase.MOUNTED,
    summary="Configure the network cards",
)
NETPLAN = RootPath("etc/netplan")
NETWORKD = RootPath("etc/systemd/network")
INTERFACES = RootPath("etc/network/interfaces")
RESOLV_CONF = RootPath("etc/resolv.conf")
DROP_IN = RootPath("etc/systemd/system/networking.service.d")
#: Debian's own ifupdown-pre.service waits for udev only when ifquery lists a card, and a mac/ pattern lists none before
#: its card is there: without this, a boot in which the driver loads late ends without a network.
WAIT_FOR_CARDS = """\
[Unit]
Wants=systemd-udev-trigger.service
After=systemd-udev-trigger.service

[Service]
ExecStartPre=udevadm settle
"""
SAVED = ".before-snf-image"


def plan(image: Image, manifest: Manifest) -> Sequence[Action]:
    files, nics = image.files, manifest.nics
    if not configured(nics):
        return []
    stack = network_stack(files)
    match stack:
        case NetworkStack.NETPLAN:
            actions = _netplan(files, nics)
        case NetworkStack.NETWORKD:
            actions = _networkd(nics)
        case NetworkStack.IFUPDOWN:
            actions = _ifupdown(files, nics)
        case None:
            text = (
                "the image has neither netplan, systemd-networkd (enabled) nor ifupdown; its network is left as it is"
            )
            return [Warn(text=text)]
    if has_cloud_init(files) and files.entry(RootPath("etc/cloud/cloud.cfg.d")) is not None:
        actions.append(
            WriteFile(
                path=RootPath("etc/cloud/cloud.cfg.d/99-snf-image-network.cfg"),
                content=(HEADER + "network: {config: disabled}\n").encode(),
            )
        )
    return actions + _resolv_conf(files, nics)


def _netplan(files: Files, nics: Sequence[Nic]) -> list[Action]:
    actions: list[Action] = []
    own = NETPLAN / "90-snf-image.yaml"
    for name in files.names(NETPLAN):
        if name.endswith(".yaml") and NETPLAN / name != own and is_file(files, NETPLAN / name):
            actions += _put_aside(files, NETPLAN / name)
            actions.append(RemoveFile(path=NETPLAN / name))
    # 0600: netplan warns about others, since such files may hold keys.
    actions.append(WriteFile(path=own, content=render_netplan(nics).encode(), mode=0o600, owner=(0, 0)))
    return actions


def _networkd(nics: Sequence[Nic]) -> list[Action]:
    return [
        WriteFile(path=NETWORKD / f"00-snf-image-{number}.network", content=render_networkd(nic).encode(), mode=0o644)
        for number, nic in configured(nics)
    ]


def _ifupdown(files: Files, nics: Sequence[Nic]) -> list[Action]:
    content = render_interfaces(nics).encode()
    old = files.read(INTERFACES)
    aside = _put_aside(files, INTERFACES) if old not in (None, content) else []
    actions = [*aside, WriteFile(path=INTERFACES, content=content)]
    if has_systemd(files):
        wait = WriteFile(path=DROP_IN / "snf-image.conf", content=(HEADER + WAIT_FOR_CARDS).encode(), mode=0o644)
        actions += [MakeFolder(path=DROP_IN), wait]
    return actions


def _put_aside(files: Files, path: RootPath) -> list[Action]:
    """A copy of what was there, once: a second deployment does not overwrite the image's own.

    With the mode and owner of the original, since such files may hold keys.
    """
    saved = RootPath(f"{path}{SAVED}")
    content, entry = files.read(path), files.entry(path)
    if content is None or entry is None or files.entry(saved) is not None:
        return []
    return [WriteFile(path=saved, content=content, mode=entry.mode, owner=(entry.owner, entry.group))]


def _resolv_conf(files: Files, nics: Sequence[Nic]) -> list[Action]:
    """Only where nobody else writes it from the configuration of the cards."""
    if not any(nic.nameservers or nic.search for _, nic in configured(nics)):
        return []
    if is_enabled(files, "systemd-resolved.service") or exists(files, "usr/sbin/resolvconf", "sbin/resolvconf"):
        return []
    # A link that stayed behind from another resolver leads to nothing, or into /run: the file takes its place.
    stale: list[Action] = [RemoveFile(path=RESOLV_CONF)] if files.link(RESOLV_CONF) is not None else []
    return [*stale, WriteFile(path=RESOLV_CONF, content=render_resolv_conf(nics).encode(), mode=0o644)]
