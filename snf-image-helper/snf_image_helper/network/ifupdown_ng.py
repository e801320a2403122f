"""ifupdown-ng and busybox's ifup, as Alpine has them: /etc/network/interfaces without patterns for MAC addresses.

So the card gets its name just before it is configured, by the nameif of busybox: in `pre-up`, which both run before
they look for the card. It is down then, as renaming needs. Only words that both understand are used.

A router's word is heeded by the kernel itself; DHCPv6 needs a client that does it (dhcpcd, Alpine's own since 3.17).
Sources: interfaces(5) of ifupdown-ng 0.11 and 0.12, networking/ifupdown.c and nameif.c of busybox 1.36.
"""

from __future__ import annotations

from collections.abc import Sequence

from snf_image_helper.actions import Action, Symlink
from snf_image_helper.image import Files, RootPath
from snf_image_helper.network.cards import HEADER, configured, gateways, heeds_advertisements, name_of
from snf_image_helper.network.ifupdown import plan_interfaces, routes_by_command
from synnefo_light.manifest import Nic

SERVICE = RootPath("etc/init.d/networking")
BOOT = RootPath("etc/runlevels/boot/networking")


def plan_ifupdown_ng(files: Files, nics: Sequence[Nic]) -> list[Action]:
    actions = plan_interfaces(files, render_interfaces_ng(nics))
    if files.entry(SERVICE) is not None and files.entry(BOOT.parent) is not None and files.link(BOOT) is None:
        actions.append(Symlink(path=BOOT, target=str(SERVICE)))
    return actions


def render_interfaces_ng(nics: Sequence[Nic]) -> str:
    blocks = [HEADER + "auto lo\niface lo inet loopback\n"]
    for number, nic in configured(nics):
        name = name_of(number)
        first = [f"    pre-up [ -e /sys/class/net/$IFACE ] || nameif $IFACE {nic.mac}"]
        first += [f"    up ip link set dev $IFACE mtu {nic.mtu}"] if nic.mtu is not None else []
        lines = [f"auto {name}"]
        for version, family, method in ((4, "inet", nic.ipv4), (6, "inet6", nic.ipv6)):
            if method != "none":
                lines.append(f"iface {name} {family} {'manual' if method == 'slaac' else method}")
                lines += first + _family(nic, version)
                first = []
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def _family(nic: Nic, version: int) -> list[str]:
    lines = []
    if version == 6:
        heeds = "1" if heeds_advertisements(nic) else "0"
        lines.append(f"    pre-up echo {heeds} > /proc/sys/net/ipv6/conf/$IFACE/accept_ra")
    address = nic.ipv4_address if version == 4 else nic.ipv6_address
    lines += [f"    address {address}"] if address is not None else []
    for gateway in gateways(nic):
        if gateway.version == version:
            lines += [f"    gateway {gateway.via}"] if gateway.on_link else routes_by_command(gateway)
    return lines
