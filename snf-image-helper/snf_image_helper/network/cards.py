"""What every renderer needs to know of the instance's network cards.

Values come from the manifest, whose classes let nothing but addresses, names and numbers through.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from synnefo_light.manifest import Nic

HEADER = "# Written by snf-image when this instance was deployed. It is yours now: nothing writes it again.\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """`on_link` tells whether the gateway can be reached by the address's own prefix; a routed card's cannot."""

    via: str
    version: int  # 4 or 6
    on_link: bool

    @property
    def host(self) -> str:
        """The gateway alone, as a destination."""
        return f"{self.via}/{32 if self.version == 4 else 128}"


def configured(nics: Sequence[Nic]) -> tuple[tuple[int, Nic], ...]:
    """The cards that get any address, with their number among all."""
    return tuple((n, nic) for n, nic in enumerate(nics) if nic.ipv4 != "none" or nic.ipv6 != "none")


def addresses(nic: Nic) -> tuple[str, ...]:
    """The static addresses of a card with their prefix lengths, IPv4 first."""
    return tuple(address for address in (nic.ipv4_address, nic.ipv6_address) if address is not None)


def gateways(nic: Nic) -> tuple[Gateway, ...]:
    """The gateways of a card's static addresses, IPv4 first."""
    pairs = ((4, nic.ipv4_address, nic.ipv4_gateway), (6, nic.ipv6_address, nic.ipv6_gateway))
    return tuple(
        Gateway(via=via, version=version, on_link=is_on_link(address, via))
        for version, address, via in pairs
        if address is not None and via is not None
    )


def is_on_link(address: str, gateway: str) -> bool:
    """Whether the gateway is within the address's prefix, or a link-local IPv6 one, which every link has."""
    interface, via = ipaddress.ip_interface(address), ipaddress.ip_interface(gateway).ip
    return via in interface.network or (via.version == 6 and via.is_link_local)


def heeds_advertisements(nic: Nic) -> bool:
    """Whether routers tell the card its IPv6 addresses or its way out; DHCPv6 itself knows of no gateway."""
    return nic.ipv6 in ("slaac", "dhcp")


def name_of(number: int) -> str:
    """What a card is called where its stack needs a name; the card gets it by its MAC address."""
    return f"nic{number}"


def nameservers(nics: Sequence[Nic]) -> list[str]:
    """Those of all cards, each once."""
    return list(dict.fromkeys(server for _, nic in configured(nics) for server in nic.nameservers))


def search_domains(nics: Sequence[Nic]) -> list[str]:
    """Those of all cards, each once."""
    return list(dict.fromkeys(domain for _, nic in configured(nics) for domain in nic.search))
