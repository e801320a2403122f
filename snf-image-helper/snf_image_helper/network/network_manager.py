"""NetworkManager: a keyfile for each card (nm-settings-keyfile(5)), matched by its MAC address.

NetworkManager makes the way to a gateway outside of the prefix by itself. `ipv6.method=auto` heeds router
advertisements and asks by DHCPv6 when they say so, which is both of our ways. A family that is off takes no name
servers, so each server stands with its own family. ifcfg files, which older ones read too, are put aside with the rest.
"""

from __future__ import annotations

from collections.abc import Sequence

from snf_image_helper.actions import Action, WriteFile
from snf_image_helper.distribution import exists
from snf_image_helper.folders import plan_folders
from snf_image_helper.image import Files, ImageError, RootPath
from snf_image_helper.network.aside import plan_folder_aside
from snf_image_helper.network.cards import HEADER, configured, gateways, name_of
from snf_image_helper.network.ifcfg_rh import NETWORK_SCRIPTS, is_ifcfg
from snf_image_helper.network.ifupdown import INTERFACES, plan_interfaces, render_interfaces
from snf_image_helper.network.netplan import plan_netplan_aside
from snf_image_helper.network.networkd import plan_cards_of_another
from synnefo_light.manifest import Nic

CONNECTIONS = RootPath("etc/NetworkManager/system-connections")
#: Ubuntu's: NetworkManager leaves Ethernet to others. A file of the same name in /etc takes its place, as netplan's own
#: does in /run where it hands the cards to NetworkManager.
UNMANAGING = RootPath("usr/lib/NetworkManager/conf.d/10-globally-managed-devices.conf")
MANAGING = RootPath("etc/NetworkManager/conf.d") / UNMANAGING.name
METHODS4 = {"dhcp": "auto", "static": "manual", "none": "disabled"}
#: "link-local" for a card without IPv6: what the kernel does by itself, and what the other stacks leave it.
METHODS6 = {"dhcp": "auto", "slaac": "auto", "static": "manual", "none": "link-local"}


def plan_network_manager(files: Files, nics: Sequence[Nic]) -> list[Action]:
    if not exists(files, "usr/sbin/NetworkManager", "usr/bin/NetworkManager"):
        raise ImageError("NetworkManager is to configure the network, but the image has none; set NM_NETWORKING=no")
    own = {f"snf-image-{n}.nmconnection": render_keyfile(n, nic) for n, nic in configured(nics)}
    actions = plan_folder_aside(files, CONNECTIONS, lambda name: name not in own)
    actions += plan_folder_aside(files, NETWORK_SCRIPTS, is_ifcfg)
    actions += plan_netplan_aside(files)
    actions += plan_cards_of_another(files, nics)
    if files.entry(UNMANAGING) is not None:
        actions += [*plan_folders(files, MANAGING.parent), WriteFile(path=MANAGING, content=HEADER.encode())]
    if files.read(INTERFACES) is not None:
        actions += plan_interfaces(files, render_interfaces([]))
    actions += plan_folders(files, CONNECTIONS)
    # NetworkManager reads no file that others than root may read.
    return actions + [
        WriteFile(path=CONNECTIONS / name, content=text.encode(), mode=0o600, owner=(0, 0))
        for name, text in own.items()
    ]


def render_keyfile(number: int, nic: Nic) -> str:
    sections = {
        "connection": [f"id={name_of(number)}", "type=ethernet"],
        "ethernet": [f"mac-address={nic.mac.upper()}", *([f"mtu={nic.mtu}"] if nic.mtu is not None else [])],
        "ipv4": [f"method={METHODS4[nic.ipv4]}", *(_family(nic, 4, nic.ipv4_address) if nic.ipv4 != "none" else [])],
        "ipv6": [f"method={METHODS6[nic.ipv6]}", *(_family(nic, 6, nic.ipv6_address) if nic.ipv6 != "none" else [])],
    }
    return HEADER + "\n".join("".join(f"{line}\n" for line in (f"[{k}]", *lines)) for k, lines in sections.items())


def _family(nic: Nic, version: int, address: str | None) -> list[str]:
    lines = [f"address1={address}"] if address is not None else []
    lines += [f"gateway={gateway.via}" for gateway in gateways(nic) if gateway.version == version]
    servers = [server for server in nic.nameservers if (6 if ":" in server else 4) == version]
    lines += [f"dns={';'.join(servers)};"] if servers else []
    return lines + ([f"dns-search={';'.join(nic.search)};"] if nic.search else [])
