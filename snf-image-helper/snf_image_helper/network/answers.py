"""Network cards in an answer file of Windows: the components TCPIP and DNS-Client, cards told by their MAC.

Source: Unattended Windows Setup Reference. Here the order of elements counts: Ipv4Settings, Ipv6Settings, Identifier,
UnicastIpAddresses, Routes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from snf_image_helper.answer_file import AnswerFile, add, child, items, put, text_of
from snf_image_helper.network.cards import addresses, configured, gateways, heeds_advertisements
from synnefo_light.manifest import Nic

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

TCPIP, DNS = "Microsoft-Windows-TCPIP", "Microsoft-Windows-DNS-Client"
DEFAULT_ROUTES = {4: "0.0.0.0/0", 6: "::/0"}
ON_LINK = {4: "0.0.0.0", 6: "::"}  # noqa: S104, a next hop and no address to listen on


def configure(answers: AnswerFile, nics: Sequence[Nic]) -> None:
    """Say how each configured card is; what the answer file said of the same cards is replaced."""
    for _, nic in configured(nics):
        _addresses(_fresh(answers, TCPIP, nic), nic)
        if nic.nameservers:
            _name_servers(_fresh(answers, DNS, nic), nic)
    searched = list(dict.fromkeys(domain for _, nic in configured(nics) for domain in nic.search))
    if searched:
        component = answers.component("specialize", DNS)
        for old in items(component, "DNSSuffixSearchOrder"):
            component.remove(old)
        _list(child(component, "DNSSuffixSearchOrder"), "DomainName", searched)


def _fresh(answers: AnswerFile, component: str, nic: Nic) -> Element:
    """An element for the card, in the place of one that was there."""
    interfaces = child(answers.component("specialize", component), "Interfaces")
    for old in items(interfaces, "Interface"):
        if (text_of(old, "Identifier") or "").upper() == _identifier(nic):
            interfaces.remove(old)
    return add(interfaces, "Interface")


def _identifier(nic: Nic) -> str:
    return nic.mac.upper().replace(":", "-")


def _addresses(interface: Element, nic: Nic) -> None:
    put(interface, "Ipv4Settings/DhcpEnabled", _word(nic.ipv4 == "dhcp"))
    put(interface, "Ipv6Settings/DhcpEnabled", _word(nic.ipv6 == "dhcp"))
    put(interface, "Ipv6Settings/RouterDiscoveryEnabled", _word(heeds_advertisements(nic)))
    put(interface, "Identifier", _identifier(nic))
    if addresses(nic):
        _list(child(interface, "UnicastIpAddresses"), "IpAddress", addresses(nic))
    routes: list[tuple[str, str]] = []
    for gateway in gateways(nic):
        if not gateway.on_link:
            routes.append((gateway.host, ON_LINK[gateway.version]))
        routes.append((DEFAULT_ROUTES[gateway.version], gateway.via))
    for number, (prefix, via) in enumerate(routes, 1):
        route = add(child(interface, "Routes"), "Route")
        for name, text in (("Identifier", str(number)), ("Metric", "10"), ("NextHopAddress", via), ("Prefix", prefix)):
            put(route, name, text)


def _name_servers(interface: Element, nic: Nic) -> None:
    put(interface, "Identifier", _identifier(nic))
    _list(child(interface, "DNSServerSearchOrder"), "IpAddress", nic.nameservers)


def _list(parent: Element, name: str, texts: Sequence[str]) -> None:
    for number, text in enumerate(texts, 1):
        add(parent, name, key=str(number)).text = text


def _word(holds: bool) -> str:
    return "true" if holds else "false"
