"""How each network card is to be configured inside, from what Ganeti knows about it.

IPv4: only when the NIC has an address. By DHCP when its network carries one of the DHCP tags, or when Ganeti knows no
network (so no prefix); else static. IPv6: only when its network has an IPv6 gateway. By DHCPv6 with one of the stateful
tags, else by router advertisements. A NIC whose own address is IPv6 has it static in its network's prefix. The only
NIC of an instance, without any of this, follows the configuration. Names of cards are never used: the MAC says which.

A NIC of mode "routed" sits on no common link: its static address has the full prefix length (/32, /128), so that the
instance sends all to the gateway, which answers on the link though it is not in any prefix of it. The node's network
scripts see to that (ARP and neighbours by proxy). A network's tag mtu:9000 sets the MTU of its NICs.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Final, Literal

from snf_image_host.settings import Settings
from synnefo_light.errors import UserError
from synnefo_light.ganeti import OsNic
from synnefo_light.log import escape
from synnefo_light.manifest import Nic

ROUTED: Final = "routed"
MTU_TAG: Final = "mtu:"
MTU: Final = (576, 65536)  # RFC 791: what each host takes; what a card of Linux can have at most

IPv4 = tuple[Literal["none", "dhcp", "static"], str | None, str | None]
IPv6 = tuple[Literal["none", "slaac", "dhcp", "static"], str | None, str | None]


def plan_nics(
    nics: Sequence[OsNic], settings: Settings, *, nameservers: tuple[str, ...], search: tuple[str, ...]
) -> tuple[Nic, ...]:
    """The cards in Ganeti's order. What holds for the whole machine goes to one card: name servers to the first that is
    configured, the gateway of each family to the first that has one (ifupdown fails on a second default route).
    """
    planned: list[Nic] = []
    told = routed4 = routed6 = False
    for nic in nics:
        ipv4, address4, gateway4 = plan_ipv4(nic, settings, default=not routed4)
        ipv6, address6, gateway6 = plan_ipv6(nic, settings, default=not routed6)
        if len(nics) == 1 and ipv4 == "none" and ipv6 == "none":
            ipv4, ipv6 = settings.lone_nic_ipv4, settings.lone_nic_ipv6
        first = not told and (ipv4 != "none" or ipv6 != "none")
        told = told or first
        routed4, routed6 = routed4 or gateway4 is not None, routed6 or gateway6 is not None
        planned.append(
            Nic(
                mac=nic.mac,
                ipv4=ipv4,
                ipv4_address=address4,
                ipv4_gateway=gateway4,
                ipv6=ipv6,
                ipv6_address=address6,
                ipv6_gateway=gateway6,
                nameservers=nameservers if first else (),
                search=search if first else (),
                mtu=plan_mtu(nic),
            )
        )
    return tuple(planned)


def plan_ipv4(nic: OsNic, settings: Settings, *, default: bool = True) -> IPv4:
    """(method, address with prefix length, gateway); not `default`: another NIC has the gateway already."""
    if not isinstance(nic.ip, ipaddress.IPv4Address):
        return "none", None, None
    if nic.subnet is None or _tagged(nic, settings.dhcp_tags):
        return "dhcp", None, None
    gateway = nic.gateway if default else None
    length = 32 if nic.mode == ROUTED and gateway else nic.subnet.prefixlen
    return "static", f"{nic.ip}/{length}", str(gateway) if gateway else None


def plan_ipv6(nic: OsNic, settings: Settings, *, default: bool = True) -> IPv6:
    stateful = _tagged(nic, settings.stateful_dhcpv6_tags)
    if isinstance(nic.ip, ipaddress.IPv6Address):
        if nic.subnet6 is None or stateful:
            return "dhcp", None, None
        gateway = nic.gateway6 if default else None
        length = 128 if nic.mode == ROUTED and gateway else nic.subnet6.prefixlen
        return "static", f"{nic.ip}/{length}", str(gateway) if gateway else None
    if nic.gateway6 is None:
        return "none", None, None
    return ("dhcp" if stateful else "slaac"), None, None


def plan_mtu(nic: OsNic) -> int | None:
    """What the network's tag mtu:NUMBER says. Raises UserError for one that is no MTU, or for two."""
    tags = [tag for tag in nic.tags if tag.startswith(MTU_TAG)]
    if not tags:
        return None
    words = [tag.removeprefix(MTU_TAG) for tag in tags]
    if len(words) > 1 or not (words[0].isascii() and words[0].isdigit() and MTU[0] <= int(words[0][:9]) <= MTU[1]):
        shown = ", ".join(escape(tag, limit=40) for tag in tags)
        raise UserError(
            f"the network {nic.network or ''} has the tags {shown}, of which no MTU follows; give it one, from "
            f"{MTU_TAG}{MTU[0]} to {MTU_TAG}{MTU[1]}"
        )
    return int(words[0])


def _tagged(nic: OsNic, tags: Iterable[str]) -> bool:
    return not set(tags).isdisjoint(nic.tags)
