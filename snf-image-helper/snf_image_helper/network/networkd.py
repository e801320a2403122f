"""systemd-networkd: a .network file for each card, which must come before the image's own (systemd.network(5)).

networkd sorts the files of all its folders by name and takes the first that matches a card. Ours are called 0-..., so
that nearly all others come later and stay in effect, for bridges and the like. What still comes earlier is put aside;
where packages bring it, a link to /dev/null of its name masks it.

Where NetworkManager starts too it is told to leave these cards alone; see `plan_cards_of_another` for the reverse.
"""

from __future__ import annotations

from collections.abc import Sequence

from snf_image_helper.actions import Action, Symlink, WriteFile
from snf_image_helper.distribution import is_enabled
from snf_image_helper.folders import plan_folders
from snf_image_helper.image import Files, RootPath
from snf_image_helper.network.aside import plan_folder_aside
from snf_image_helper.network.cards import HEADER, addresses, configured, gateways, heeds_advertisements
from synnefo_light.manifest import Nic

NETWORKD = RootPath("etc/systemd/network")
PREFIX = "0-snf-image-"
#: Where packages have theirs; on a system whose /lib is not a link into /usr, in the last.
PACKAGED = tuple(RootPath(f"{base}/systemd/network") for base in ("usr/local/lib", "usr/lib", "lib"))
MASK = "/dev/null"
DHCP = {(True, True): "yes", (True, False): "ipv4", (False, True): "ipv6", (False, False): "no"}
UNMANAGED = RootPath("etc/NetworkManager/conf.d/90-snf-image.conf")
WAITING = "systemd-networkd-wait-online.service"
WAIT_ONLINE = RootPath(f"etc/systemd/system/{WAITING}.d/snf-image.conf")


def plan_networkd(files: Files, nics: Sequence[Nic]) -> list[Action]:
    actions = _plan_files(files, {name_of_file(n): render_networkd(nic) for n, nic in configured(nics)})
    if is_enabled(files, "NetworkManager.service"):
        content = render_unmanaged_by_network_manager(nics).encode()
        actions += [*plan_folders(files, UNMANAGED.parent), WriteFile(path=UNMANAGED, content=content, mode=0o644)]
    return actions


def plan_cards_of_another(files: Files, nics: Sequence[Nic]) -> list[Action]:
    """Have networkd leave the cards alone, where it starts beside the program that configures them."""
    if not is_enabled(files, "systemd-networkd.service"):
        return []
    own = {name_of_file(n): render_unmanaged_by_networkd(nic) for n, nic in configured(nics)}
    actions = _plan_files(files, own)
    if is_enabled(files, WAITING):
        content = render_no_waiting(NETWORKD / next(iter(own))).encode()
        actions += [*plan_folders(files, WAIT_ONLINE.parent), WriteFile(path=WAIT_ONLINE, content=content, mode=0o644)]
    return actions


def name_of_file(number: int) -> str:
    return f"{PREFIX}{number}.network"


def _plan_files(files: Files, own: dict[str, str]) -> list[Action]:
    packaged = {name for folder in PACKAGED for name in files.names(folder) if _is_earlier(name)}
    return [
        *plan_folders(files, NETWORKD),
        *plan_folder_aside(files, NETWORKD, _is_earlier),
        *(Symlink(path=NETWORKD / n, target=MASK) for n in sorted(packaged) if files.link(NETWORKD / n) != MASK),
        *(WriteFile(path=NETWORKD / name, content=text.encode(), mode=0o644) for name, text in own.items()),
    ]


def _is_earlier(name: str) -> bool:
    """Whether networkd takes the file before ours. It passes over hidden ones."""
    return name.endswith(".network") and not name.startswith(".") and name < PREFIX


def render_networkd(nic: Nic) -> str:
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
    return HEADER + _match(nic) + link + "\n[Network]\n" + "".join(f"{line}\n" for line in network) + "".join(routes)


def render_unmanaged_by_networkd(nic: Nic) -> str:
    return f"{HEADER}{_match(nic)}\n[Link]\nUnmanaged=yes\n"


def render_no_waiting(unmanaged: RootPath) -> str:
    """With no card of its own systemd-networkd-wait-online(8) waits in vain, for two minutes of each boot."""
    return f"{HEADER}[Unit]\nConditionPathExists=!{unmanaged}\n"


def render_unmanaged_by_network_manager(nics: Sequence[Nic]) -> str:
    """A section for each card, which adds to what else is unmanaged (NetworkManager.conf(5))."""
    cards = (f"[device-snf-image-{n}]\nmatch-device=mac:{nic.mac.upper()}\nmanaged=0\n" for n, nic in configured(nics))
    return HEADER + "\n".join(cards)


def _match(nic: Nic) -> str:
    return f"[Match]\nMACAddress={nic.mac}\n"
