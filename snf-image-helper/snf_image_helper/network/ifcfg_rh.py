"""ifcfg files of RHEL up to 8, read by NetworkManager's ifcfg-rh plugin or by the older network service.

The card is matched by HWADDR, without a DEVICE, which both allow. NetworkManager makes the way to a gateway outside of
the prefix by itself; the network service does not. Source: NetworkManager's nm-settings-ifcfg-rh(5).
"""

from __future__ import annotations

from collections.abc import Sequence

from snf_image_helper.actions import Action, WriteFile
from snf_image_helper.folders import plan_folders
from snf_image_helper.image import Files, RootPath
from snf_image_helper.network.aside import plan_folder_aside
from snf_image_helper.network.cards import HEADER, configured, gateways, heeds_advertisements, name_of
from synnefo_light.manifest import Nic

NETWORK_SCRIPTS = RootPath("etc/sysconfig/network-scripts")


def is_ifcfg(name: str) -> bool:
    """Whether a file of the folder configures a card; lo's does not."""
    return name.startswith("ifcfg-") and name != "ifcfg-lo"


def plan_ifcfg_rh(files: Files, nics: Sequence[Nic]) -> list[Action]:
    own = {f"ifcfg-{name_of(n)}": render_ifcfg_rh(n, nic) for n, nic in configured(nics)}
    actions = plan_folder_aside(files, NETWORK_SCRIPTS, lambda name: is_ifcfg(name) and name not in own)
    actions += plan_folders(files, NETWORK_SCRIPTS)
    return actions + [
        WriteFile(path=NETWORK_SCRIPTS / name, content=text.encode(), mode=0o644) for name, text in own.items()
    ]


def render_ifcfg_rh(number: int, nic: Nic) -> str:
    lines = ["TYPE=Ethernet", f"NAME={name_of(number)}", f"HWADDR={nic.mac.upper()}", "ONBOOT=yes"]
    lines.append(f"BOOTPROTO={'dhcp' if nic.ipv4 == 'dhcp' else 'none'}")
    if nic.ipv4_address is not None:
        address, _, prefix = nic.ipv4_address.partition("/")
        lines += [f"IPADDR={address}", f"PREFIX={prefix or 32}"]
    lines.append(f"IPV6INIT={'no' if nic.ipv6 == 'none' else 'yes'}")
    if nic.ipv6 != "none":
        lines.append(f"IPV6_AUTOCONF={'yes' if heeds_advertisements(nic) else 'no'}")
        lines += ["DHCPV6C=yes"] if nic.ipv6 == "dhcp" else []
        lines += [f"IPV6ADDR={nic.ipv6_address}"] if nic.ipv6_address is not None else []
    lines += [f"{'GATEWAY' if g.version == 4 else 'IPV6_DEFAULTGW'}={g.via}" for g in gateways(nic)]
    lines += [f"DNS{n}={server}" for n, server in enumerate(nic.nameservers, 1)]
    lines += [f'DOMAIN="{" ".join(nic.search)}"'] if nic.search else []
    lines += [f"MTU={nic.mtu}"] if nic.mtu is not None else []
    return HEADER + "".join(f"{line}\n" for line in lines)
