"""ifcfg files of RHEL up to 8, read by NetworkManager's ifcfg-rh plugin or by the older network service.

The card is matched by HWADDR, without a DEVICE, which both allow. NetworkManager makes the way to a gateway outside of
the prefix by itself. The network service does not: there such a way is told by route files, whose lines must name the
card, so all cards get their names by their MAC. Files of routes and rules of the image are put aside like its cards'.

Sources: NetworkManager's nm-settings-ifcfg-rh(5); sysconfig.txt and ifup-routes of initscripts.
"""

from __future__ import annotations

from collections.abc import Sequence

from snf_image_helper.actions import Action, WriteFile
from snf_image_helper.distribution import is_enabled
from snf_image_helper.folders import plan_folders
from snf_image_helper.image import Files, RootPath
from snf_image_helper.network.aside import plan_folder_aside
from snf_image_helper.network.cards import HEADER, configured, gateways, heeds_advertisements, name_of
from snf_image_helper.network.udev_names import plan_names
from synnefo_light.manifest import Nic

NETWORK_SCRIPTS = RootPath("etc/sysconfig/network-scripts")


def is_ifcfg(name: str) -> bool:
    """Whether a file of the folder configures a card, its routes or its rules; lo's do not."""
    kind, _, card = name.partition("-")
    return kind in ("ifcfg", "route", "route6", "rule", "rule6") and card not in ("", "lo")


def plan_ifcfg_rh(files: Files, nics: Sequence[Nic]) -> list[Action]:
    off_link = any(not gateway.on_link for _, nic in configured(nics) for gateway in gateways(nic))
    named = off_link and not is_enabled(files, "NetworkManager.service")
    own = {f"ifcfg-{name_of(n)}": render_ifcfg_rh(n, nic, named=named) for n, nic in configured(nics)}
    if named:
        for number, nic in configured(nics):
            for version, kind in ((4, "route"), (6, "route6")):
                if routes := render_routes(number, nic, version):
                    own[f"{kind}-{name_of(number)}"] = routes
    actions = plan_folder_aside(files, NETWORK_SCRIPTS, lambda name: is_ifcfg(name) and name not in own)
    actions += plan_folders(files, NETWORK_SCRIPTS)
    actions += plan_names(files, nics) if named else []
    return actions + [
        WriteFile(path=NETWORK_SCRIPTS / name, content=text.encode(), mode=0o644) for name, text in own.items()
    ]


def render_ifcfg_rh(number: int, nic: Nic, *, named: bool = False) -> str:
    """With `named` the card has our name, and gateways outside of the prefix are left to `render_routes`."""
    lines = ["TYPE=Ethernet", f"NAME={name_of(number)}", f"HWADDR={nic.mac.upper()}", "ONBOOT=yes"]
    lines += [f"DEVICE={name_of(number)}"] if named else []
    lines.append(f"BOOTPROTO={'dhcp' if nic.ipv4 == 'dhcp' else 'none'}")
    if nic.ipv4_address is not None:
        address, _, prefix = nic.ipv4_address.partition("/")
        lines += [f"IPADDR={address}", f"PREFIX={prefix or 32}"]
    lines.append(f"IPV6INIT={'no' if nic.ipv6 == 'none' else 'yes'}")
    if nic.ipv6 != "none":
        lines.append(f"IPV6_AUTOCONF={'yes' if heeds_advertisements(nic) else 'no'}")
        lines += ["DHCPV6C=yes"] if nic.ipv6 == "dhcp" else []
        lines += [f"IPV6ADDR={nic.ipv6_address}"] if nic.ipv6_address is not None else []
    told = [gateway for gateway in gateways(nic) if gateway.on_link or not named]
    lines += [f"{'GATEWAY' if g.version == 4 else 'IPV6_DEFAULTGW'}={g.via}" for g in told]
    lines += [f"DNS{n}={server}" for n, server in enumerate(nic.nameservers, 1)]
    lines += [f'DOMAIN="{" ".join(nic.search)}"'] if nic.search else []
    lines += [f"MTU={nic.mtu}"] if nic.mtu is not None else []
    return HEADER + "".join(f"{line}\n" for line in lines)


def render_routes(number: int, nic: Nic, version: int) -> str:
    """The ways to gateways outside of the prefix and through them, as ip-route(8) takes them; empty without one."""
    lines = []
    for gateway in gateways(nic):
        if gateway.version == version and not gateway.on_link:
            lines += [f"{gateway.via} dev {name_of(number)}", f"default via {gateway.via} dev {name_of(number)}"]
    return HEADER + "".join(f"{line}\n" for line in lines) if lines else ""
