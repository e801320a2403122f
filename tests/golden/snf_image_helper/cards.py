"""Network cards that between them use everything a manifest can say."""

from __future__ import annotations

from synnefo_light.manifest import Nic

CARDS: dict[str, tuple[Nic, ...]] = {
    "dhcp": (Nic(mac="aa:00:00:00:00:01", ipv4="dhcp"),),
    "dhcp-slaac": (Nic(mac="aa:00:00:00:00:01", ipv4="dhcp", ipv6="slaac"),),
    "dhcp-both": (Nic(mac="aa:00:00:00:00:01", ipv4="dhcp", ipv6="dhcp"),),
    "static": (
        Nic(
            mac="aa:00:00:00:00:01",
            ipv4="static",
            ipv4_address="10.0.0.5/24",
            ipv4_gateway="10.0.0.1",
            ipv6="static",
            ipv6_address="2001:db8::5/64",
            ipv6_gateway="2001:db8::1",
            nameservers=("10.0.0.2", "2001:db8::2"),
            search=("example.org", "example.net"),
            mtu=1400,
        ),
    ),
    "routed": (
        Nic(
            mac="aa:00:00:00:00:01",
            ipv4="static",
            ipv4_address="10.0.0.5/32",
            ipv4_gateway="169.254.1.1",
            ipv6="static",
            ipv6_address="2001:db8::5/128",
            ipv6_gateway="2001:db8:1::1",
        ),
    ),
    "three": (
        Nic(mac="aa:00:00:00:00:01", ipv6="slaac"),
        Nic(mac="aa:00:00:00:00:02"),
        Nic(mac="aa:00:00:00:00:03", ipv4="static", ipv4_address="192.168.1.2/16"),
    ),
    "link-local-gateway": (
        Nic(
            mac="aa:00:00:00:00:01",
            ipv4="dhcp",
            ipv6="static",
            ipv6_address="2001:db8::5/64",
            ipv6_gateway="fe80::1",
            nameservers=("2001:db8::2",),
        ),
    ),
}
