"""Network configuration as text, for each stack. Cards are matched by MAC address, never by name.

A gateway outside of the address's own prefix (routed networks: 10.0.0.5/32 via 169.254.1.1) gets a route on the link.
Values come from the manifest, whose classes let nothing but addresses, names and numbers through.

Sources: interfaces(5) of ifupdown 0.8.19 or later for the mac/ pattern, systemd.network(5), netplan's YAML reference.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from synnefo_light.manifest import Nic

HEADER = "# Written by snf-image when this instance was deployed. It is yours now: nothing writes it again.\n"


def configured(nics: Sequence[Nic]) -> tuple[tuple[int, Nic], ...]:
    """The cards that get any address, with their number among all."""
    return tuple((n, nic) for n, nic in enumerate(nics) if nic.ipv4 != "none" or nic.ipv6 != "none")


def is_on_link(address: str, gateway: str) -> bool:
    """Whether the gateway is within the address's prefix, or a link-local IPv6 one, which every link has."""
    interface, via = ipaddress.ip_interface(address), ipaddress.ip_interface(gateway).ip
    return via in interface.network or (via.version == 6 and via.is_link_local)


def render_interfaces(nics: Sequence[Nic]) -> str:
    """/etc/network/interfaces. `auto mac/X=nic0` gives the card with that MAC the logical name nic0: no renaming,
    which would race with the kernel's names and with udev in the initramfs."""
    blocks = [HEADER + "auto lo\niface lo inet loopback\n"]
    for number, nic in configured(nics):
        name = f"nic{number}"
        lines = [f"auto mac/{nic.mac}={name}"]
        families = []
        if nic.ipv4 != "none":
            families.append(_ifupdown_family(name, "inet", nic.ipv4, nic.ipv4_address, nic.ipv4_gateway))
        if nic.ipv6 != "none":
            families.append(_ifupdown_family(name, "inet6", nic.ipv6, nic.ipv6_address, nic.ipv6_gateway))
        families[0] += _ifupdown_common(nic)
        blocks.append("\n".join(lines + [line for family in families for line in family]) + "\n")
    return "\n".join(blocks)


def _ifupdown_family(name: str, family: str, method: str, address: str | None, gateway: str | None) -> list[str]:
    method = {"slaac": "auto"}.get(method, method)
    lines = [f"iface {name} {family} {method}"]
    if address is not None:
        lines.append(f"    address {address}")
        if gateway is not None and is_on_link(address, gateway):
            lines.append(f"    gateway {gateway}")
        elif gateway is not None:
            ip = "ip -6" if family == "inet6" else "ip"
            lines.append(f"    up {ip} route replace {gateway} dev $IFACE")
            lines.append(f"    up {ip} route replace default via {gateway} dev $IFACE onlink")
    if method == "static" and family == "inet6":
        lines.append("    accept_ra 0")
    return lines


def _ifupdown_common(nic: Nic) -> list[str]:
    lines = []
    if nic.mtu is not None:
        lines.append(f"    up ip link set dev $IFACE mtu {nic.mtu}")
    if nic.nameservers:
        lines.append(f"    dns-nameservers {' '.join(nic.nameservers)}")
    if nic.search:
        lines.append(f"    dns-search {' '.join(nic.search)}")
    return lines


def render_networkd(nic: Nic) -> str:
    """A .network file of systemd-networkd for one card."""
    match = f"[Match]\nMACAddress={nic.mac}\n"
    link = f"\n[Link]\nMTUBytes={nic.mtu}\n" if nic.mtu is not None else ""
    dhcp = {(True, True): "yes", (True, False): "ipv4", (False, True): "ipv6", (False, False): "no"}[
        (nic.ipv4 == "dhcp", nic.ipv6 == "dhcp")
    ]
    network = [f"DHCP={dhcp}", f"IPv6AcceptRA={'yes' if nic.ipv6 in ('slaac', 'dhcp') else 'no'}"]
    network += [f"Address={address}" for address in (nic.ipv4_address, nic.ipv6_address) if address is not None]
    network += [f"DNS={server}" for server in nic.nameservers]
    network += [f"Domains={' '.join(nic.search)}"] if nic.search else []
    routes = []
    for address, gateway in ((nic.ipv4_address, nic.ipv4_gateway), (nic.ipv6_address, nic.ipv6_gateway)):
        if address is not None and gateway is not None:
            on_link = "" if is_on_link(address, gateway) else "GatewayOnLink=yes\n"
            routes.append(f"\n[Route]\nGateway={gateway}\n{on_link}")
    return HEADER + match + link + "\n[Network]\n" + "".join(f"{line}\n" for line in network) + "".join(routes)


def render_netplan(nics: Sequence[Nic]) -> str:
    """A netplan file for all cards. Every value is quoted: YAML would read some addresses as numbers."""
    lines = ["network:", "  version: 2", "  ethernets:"]
    for number, nic in configured(nics):
        lines += [f"    nic{number}:", "      match:", f'        macaddress: "{nic.mac}"']
        lines += [f"      dhcp4: {_yes(nic.ipv4 == 'dhcp')}", f"      dhcp6: {_yes(nic.ipv6 == 'dhcp')}"]
        lines.append(f"      accept-ra: {_yes(nic.ipv6 in ('slaac', 'dhcp'))}")
        addresses = [a for a in (nic.ipv4_address, nic.ipv6_address) if a is not None]
        if addresses:
            lines += ["      addresses:", *(f'        - "{address}"' for address in addresses)]
        routes = []
        pairs = (("0.0.0.0/0", nic.ipv4_address, nic.ipv4_gateway), ("::/0", nic.ipv6_address, nic.ipv6_gateway))
        for to, address, gateway in pairs:
            if address is not None and gateway is not None:
                routes += [f'        - to: "{to}"', f'          via: "{gateway}"']
                routes += [] if is_on_link(address, gateway) else ["          on-link: true"]
        lines += ["      routes:", *routes] if routes else []
        if nic.nameservers or nic.search:
            lines.append("      nameservers:")
            lines += [f"        addresses: [{_quoted(nic.nameservers)}]"] if nic.nameservers else []
            lines += [f"        search: [{_quoted(nic.search)}]"] if nic.search else []
        lines += [f"      mtu: {nic.mtu}"] if nic.mtu is not None else []
    return HEADER + "\n".join(lines) + "\n"


def render_resolv_conf(nics: Sequence[Nic]) -> str:
    """resolv.conf(5) takes three servers and one line of domains."""
    servers = list(dict.fromkeys(server for _, nic in configured(nics) for server in nic.nameservers))[:3]
    search = list(dict.fromkeys(domain for _, nic in configured(nics) for domain in nic.search))
    lines = [f"search {' '.join(search)}"] if search else []
    return HEADER + "".join(f"{line}\n" for line in [*lines, *(f"nameserver {server}" for server in servers)])


def _yes(value: bool) -> str:
    return "true" if value else "false"


def _quoted(values: Sequence[str]) -> str:
    return ", ".join(f'"{value}"' for value in values)
