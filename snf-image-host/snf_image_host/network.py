"""How each network card is to be configured inside, from what Ganeti knows about it.

IPv4: only when the NIC has an address. By DHCP when its network carries one of the DHCP tags, or when Ganeti knows no
network (so no prefix); else static. IPv6: only when its network has an IPv6 gateway. By DHCPv6 with one of the stateful
tags, else by router advertisements. A NIC whose own address is IPv6 has it static in its network's prefix. The only
NIC of an instance, without any of this, follows the configuration. Names of cards are never used: the MAC says which.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Literal

from snf_image_host.settings import Settings
from synnefo_light.ganeti import OsNic
from synnefo_light.manifest import Nic

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
        ipv4, address4, gateway4 = plan_ipv4(nic, settings)
        ipv6, address6, gateway6 = plan_ipv6(nic, settings)
        if len(nics) == 1 and ipv4 == "none" and ipv6 == "none":
            ipv4, ipv6 = settings.lone_nic_ipv4, settings.lone_nic_ipv6
        first = not told and (ipv4 != "none" or ipv6 != "none")
        told = told or first
        gateway4, gateway6 = None if routed4 else gateway4, None if routed6 else gateway6
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
            )
        )
    return tuple(planned)


def plan_ipv4(nic: OsNic, settings: Settings) -> IPv4:
    """(method, address with prefix length, gateway)."""
    if not isinstance(nic.ip, ipaddress.IPv4Address):
        return "none", None, None
    if nic.subnet is None or _tagged(nic, settings.dhcp_tags):
        return "dhcp", None, None
    return "static", f"{nic.ip}/{nic.subnet.prefixlen}", str(nic.gateway) if nic.gateway else None


def plan_ipv6(nic: OsNic, settings: Settings) -> IPv6:
    gateway = str(nic.gateway6) if nic.gateway6 else None
    stateful = _tagged(nic, settings.stateful_dhcpv6_tags)
    if isinstance(nic.ip, ipaddress.IPv6Address):
        if nic.subnet6 is None or stateful:
            return "dhcp", None, None
        return "static", f"{nic.ip}/{nic.subnet6.prefixlen}", gateway
    if gateway is None:
        return "none", None, None
    return ("dhcp" if stateful else "slaac"), None, None


def _tagged(nic: OsNic, tags: Iterable[str]) -> bool:
    return not set(tags).isdisjoint(nic.tags)
