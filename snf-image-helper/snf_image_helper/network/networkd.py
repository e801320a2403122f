"""systemd-networkd: a .network file for each card, named to sort before the image's own (systemd.network(5))."""

from __future__ import annotations

from collections.abc import Sequence

from snf_image_helper.actions import Action, WriteFile
from snf_image_helper.folders import plan_folders
from snf_image_helper.image import Files, RootPath
from snf_image_helper.network.cards import HEADER, addresses, configured, gateways, heeds_advertisements
from synnefo_light.manifest import Nic

NETWORKD = RootPath("etc/systemd/network")
DHCP = {(True, True): "yes", (True, False): "ipv4", (False, True): "ipv6", (False, False): "no"}


def plan_networkd(files: Files, nics: Sequence[Nic]) -> list[Action]:
    return [
        *plan_folders(files, NETWORKD),
        *(
            WriteFile(path=NETWORKD / f"00-snf-image-{n}.network", content=render_networkd(nic).encode(), mode=0o644)
            for n, nic in configured(nics)
        ),
    ]


def render_networkd(nic: Nic) -> str:
    match = f"[Match]\nMACAddress={nic.mac}\n"
    link = f"\n[Link]\nMTUBytes={nic.mtu}\n" if nic.mtu is not None else ""
    network = [f"DHCP={DHCP[nic.ipv4 == 'dhcp', nic.ipv6 == 'dhcp']}"]
    network.append(f"IPv6AcceptRA={'yes' if heeds_advertisements(nic) else 'no'}")
    network += [f"Address={address}" for address in addresses(nic)]
    network += [f"DNS={server}" for server in nic.nameservers]
    network += [f"Domains={' '.join(nic.search)}"] if nic.search else []
    routes = []
    for gateway in gateways(nic):
        on_link = "" if gateway.on_link else "GatewayOnLink=yes\n"
        routes.append(f"\n[Route]\nGateway={gateway.via}\n{on_link}")
    return HEADER + match + link + "\n[Network]\n" + "".join(f"{line}\n" for line in network) + "".join(routes)
