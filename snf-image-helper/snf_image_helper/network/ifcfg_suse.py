"""ifcfg and ifroute files of SUSE, read by wicked: ifcfg(5), ifroute(5), ifsysctl(5) of wicked.

wicked knows a card by its name, so udev gives it one by its MAC address. Name servers are netconfig's, for all cards.
A router's word is heeded by the kernel, as ifsysctl says; DHCPv6 is wicked's.
"""

from __future__ import annotations

from collections.abc import Sequence

from snf_image_helper.actions import Action, WriteFile
from snf_image_helper.distribution import encoded, text
from snf_image_helper.folders import plan_folders
from snf_image_helper.image import Files, RootPath
from snf_image_helper.network.aside import plan_folder_aside
from snf_image_helper.network.cards import (
    HEADER,
    addresses,
    configured,
    gateways,
    heeds_advertisements,
    name_of,
    nameservers,
    search_domains,
)
from snf_image_helper.network.udev_names import plan_names
from snf_image_helper.shell_variables import set_variables
from synnefo_light.manifest import Nic

NETWORK = RootPath("etc/sysconfig/network")
CONFIG = NETWORK / "config"
BOOTPROTO = {(True, True): "dhcp", (True, False): "dhcp4", (False, True): "dhcp6", (False, False): "static"}


def plan_ifcfg_suse(files: Files, nics: Sequence[Nic]) -> list[Action]:
    own: dict[str, str] = {}
    for number, nic in configured(nics):
        own[f"ifcfg-{name_of(number)}"] = render_ifcfg_suse(nic)
        own[f"ifsysctl-{name_of(number)}"] = render_ifsysctl(number, nic)
        if gateways(nic):
            own[f"ifroute-{name_of(number)}"] = render_ifroute(number, nic)
    actions = plan_folder_aside(files, NETWORK, lambda name: _is_stale(name) and name not in own)
    actions += plan_folders(files, NETWORK)
    actions += [WriteFile(path=NETWORK / name, content=content.encode(), mode=0o644) for name, content in own.items()]
    if nameservers(nics) or search_domains(nics):
        actions.append(WriteFile(path=CONFIG, content=encoded(render_config(text(files, CONFIG) or "", nics))))
    return actions + plan_names(files, nics)


def _is_stale(name: str) -> bool:
    return name == "routes" or (name.startswith(("ifcfg-", "ifroute-")) and name != "ifcfg-lo")


def render_ifcfg_suse(nic: Nic) -> str:
    lines = ["STARTMODE='auto'", f"BOOTPROTO='{BOOTPROTO[nic.ipv4 == 'dhcp', nic.ipv6 == 'dhcp']}'"]
    lines += [f"IPADDR_{n}='{address}'" for n, address in enumerate(addresses(nic))]
    lines += [f"MTU='{nic.mtu}'"] if nic.mtu is not None else []
    return HEADER + "".join(f"{line}\n" for line in lines)


def render_ifsysctl(number: int, nic: Nic) -> str:
    return f"{HEADER}net.ipv6.conf.{name_of(number)}.accept_ra = {'1' if heeds_advertisements(nic) else '0'}\n"


def render_ifroute(number: int, nic: Nic) -> str:
    """Destination, gateway, nothing, card. A gateway outside of the prefix gets a way of its own first."""
    lines = []
    for gateway in gateways(nic):
        lines += [] if gateway.on_link else [f"{gateway.host} - - {name_of(number)}"]
        lines.append(f"default {gateway.via} - {name_of(number)}")
    return HEADER + "".join(f"{line}\n" for line in lines)


def render_config(config: str, nics: Sequence[Nic]) -> str:
    """/etc/sysconfig/network/config with the name servers in it; all else stays."""
    variables = {
        "NETCONFIG_DNS_STATIC_SERVERS": " ".join(nameservers(nics)),
        "NETCONFIG_DNS_STATIC_SEARCHLIST": " ".join(search_domains(nics)),
    }
    return set_variables(config, variables)
