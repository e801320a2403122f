"""ifupdown of Debian: /etc/network/interfaces, interfaces(5).

`auto mac/X=nic0` (ifupdown 0.8.19 and later) gives the card with that MAC the logical name nic0: nothing is renamed,
which would race with the kernel's names and with udev in the initramfs.
"""

from __future__ import annotations

from collections.abc import Sequence

from snf_image_helper.actions import Action, WriteFile
from snf_image_helper.distribution import has_systemd
from snf_image_helper.folders import plan_folders
from snf_image_helper.image import Files, RootPath
from snf_image_helper.network.aside import plan_copy
from snf_image_helper.network.cards import HEADER, Gateway, configured, gateways, name_of
from synnefo_light.manifest import Nic

INTERFACES = RootPath("etc/network/interfaces")
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


def plan_ifupdown(files: Files, nics: Sequence[Nic]) -> list[Action]:
    actions = plan_interfaces(files, render_interfaces(nics))
    if has_systemd(files):
        wait = WriteFile(path=DROP_IN / "snf-image.conf", content=(HEADER + WAIT_FOR_CARDS).encode(), mode=0o644)
        actions += [*plan_folders(files, DROP_IN), wait]
    return actions


def plan_interfaces(files: Files, text: str) -> list[Action]:
    """The file with a copy of what was there."""
    content = text.encode()
    aside = plan_copy(files, INTERFACES) if files.read(INTERFACES) not in (None, content) else []
    return [*aside, WriteFile(path=INTERFACES, content=content)]


def render_interfaces(nics: Sequence[Nic]) -> str:
    blocks = [HEADER + "auto lo\niface lo inet loopback\n"]
    for number, nic in configured(nics):
        name = name_of(number)
        families = [
            _family(name, "inet", nic.ipv4, nic.ipv4_address, nic, 4),
            _family(name, "inet6", nic.ipv6, nic.ipv6_address, nic, 6),
        ]
        families = [family for family in families if family]
        families[0] += _whole_card(nic)
        blocks.append("\n".join([f"auto mac/{nic.mac}={name}", *(line for f in families for line in f)]) + "\n")
    return "\n".join(blocks)


def _family(name: str, family: str, method: str, address: str | None, nic: Nic, version: int) -> list[str]:
    if method == "none":
        return []
    lines = [f"iface {name} {family} {'auto' if method == 'slaac' else method}"]
    if address is not None:
        lines.append(f"    address {address}")
        lines += [line for gateway in gateways(nic) if gateway.version == version for line in _gateway(gateway)]
    if method == "static" and family == "inet6":
        lines.append("    accept_ra 0")
    return lines


def _gateway(gateway: Gateway) -> list[str]:
    if gateway.on_link:
        return [f"    gateway {gateway.via}"]
    return routes_by_command(gateway)


def routes_by_command(gateway: Gateway) -> list[str]:
    """The way to a gateway outside of the prefix, and through it, for stacks that have no words for it."""
    ip = "ip -6" if gateway.version == 6 else "ip"
    return [
        f"    up {ip} route replace {gateway.via} dev $IFACE",
        f"    up {ip} route replace default via {gateway.via} dev $IFACE onlink",
    ]


def _whole_card(nic: Nic) -> list[str]:
    lines = [] if nic.mtu is None else [f"    up ip link set dev $IFACE mtu {nic.mtu}"]
    lines += [f"    dns-nameservers {' '.join(nic.nameservers)}"] if nic.nameservers else []
    return lines + ([f"    dns-search {' '.join(nic.search)}"] if nic.search else [])
