"""netifrc of Gentoo: /etc/conf.d/net and a service net.NAME for each card, whose name udev gives it by its MAC.

A router's word is heeded by the kernel itself. Source: net.example of netifrc.
"""

from __future__ import annotations

from collections.abc import Sequence

from snf_image_helper.actions import Action, RemoveFile, Symlink, WriteFile
from snf_image_helper.image import Files, RootPath
from snf_image_helper.network.aside import plan_copy
from snf_image_helper.network.cards import HEADER, addresses, configured, gateways, name_of
from snf_image_helper.network.udev_names import plan_names
from synnefo_light.manifest import Nic

CONFIG = RootPath("etc/conf.d/net")
SERVICES = RootPath("etc/init.d")
DEFAULT = RootPath("etc/runlevels/default")


def plan_netifrc(files: Files, nics: Sequence[Nic]) -> list[Action]:
    content = render_netifrc(nics).encode()
    actions = plan_copy(files, CONFIG) if files.read(CONFIG) not in (None, content) else []
    actions.append(WriteFile(path=CONFIG, content=content))
    own = [f"net.{name_of(number)}" for number, _ in configured(nics)]
    for name in files.names(DEFAULT):
        if name.startswith("net.") and name not in (*own, "net.lo"):
            actions.append(RemoveFile(path=DEFAULT / name))
    for name in own:
        actions += [Symlink(path=SERVICES / name, target="net.lo")] if files.link(SERVICES / name) is None else []
        if files.link(DEFAULT / name) is None:
            actions.append(Symlink(path=DEFAULT / name, target=str(SERVICES / name)))
    return actions + plan_names(files, nics)


def render_netifrc(nics: Sequence[Nic]) -> str:
    lines = []
    for number, nic in configured(nics):
        name = name_of(number)
        config = [*(["dhcp"] if nic.ipv4 == "dhcp" else []), *(["dhcpv6"] if nic.ipv6 == "dhcp" else [])]
        config += addresses(nic)
        lines.append(_variable("config", name, config or ["null"]))
        routes = []
        for gateway in gateways(nic):
            routes += [] if gateway.on_link else [f"{gateway.host} scope link"]
            routes.append(f"default via {gateway.via}")
        lines += [_variable("routes", name, routes)] if routes else []
        lines += [f'dns_servers_{name}="{" ".join(nic.nameservers)}"'] if nic.nameservers else []
        lines += [f'dns_search_{name}="{" ".join(nic.search)}"'] if nic.search else []
        lines += [f'mtu_{name}="{nic.mtu}"'] if nic.mtu is not None else []
    return HEADER + "".join(f"{line}\n" for line in lines)


def _variable(what: str, name: str, values: Sequence[str]) -> str:
    """One value a line, as netifrc takes several."""
    return f'{what}_{name}="{chr(10).join(values)}"'
