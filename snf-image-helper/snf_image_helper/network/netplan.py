"""netplan: one YAML file for all cards, in the format that cloud-init calls version 2 (netplan's YAML reference)."""

from __future__ import annotations

from collections.abc import Sequence

from snf_image_helper.actions import Action, WriteFile
from snf_image_helper.image import Files, RootPath
from snf_image_helper.network.aside import plan_files_aside
from snf_image_helper.network.cards import HEADER, addresses, configured, gateways, heeds_advertisements, name_of
from synnefo_light.manifest import Nic

NETPLAN = RootPath("etc/netplan")
OWN = NETPLAN / "90-snf-image.yaml"
OF_CLOUD_INIT = NETPLAN / "50-cloud-init.yaml"  # written anew by it
ANYWHERE = {4: "0.0.0.0/0", 6: "::/0"}


def plan_netplan(files: Files, nics: Sequence[Nic]) -> list[Action]:
    actions = plan_netplan_aside(files)
    # 0600: netplan warns about others, since such files may hold keys.
    return [*actions, WriteFile(path=OWN, content=render_netplan(nics).encode(), mode=0o600, owner=(0, 0))]


def plan_netplan_aside(files: Files, *, but: RootPath = OWN) -> list[Action]:
    """The image's own files, `but` one."""
    return plan_files_aside(files, NETPLAN, lambda name: name.endswith(".yaml") and name not in (OWN.name, but.name))


def render_netplan(nics: Sequence[Nic]) -> str:
    indented = "".join(f"  {line}\n" for line in render_version_2(nics).splitlines())
    return f"{HEADER}network:\n{indented}"


def render_version_2(nics: Sequence[Nic], *, for_cloud_init: bool = False) -> str:
    """What stands below `network:`. Every value is quoted: YAML would read some addresses as numbers.

    netplan calls gateway4 and gateway6 outdated and takes them; cloud-init translates only these well for all other
    stacks (22.4 makes ::/64 of the destination ::/0).
    """
    lines = ["version: 2", "ethernets:"]
    for number, nic in configured(nics):
        lines += [f"  {name_of(number)}:", "    match:", f'      macaddress: "{nic.mac}"']
        lines += [f"    dhcp4: {_yes(nic.ipv4 == 'dhcp')}", f"    dhcp6: {_yes(nic.ipv6 == 'dhcp')}"]
        lines.append(f"    accept-ra: {_yes(heeds_advertisements(nic))}")
        if addresses(nic):
            lines += ["    addresses:", *(f'      - "{address}"' for address in addresses(nic))]
        routes = []
        for gateway in gateways(nic):
            if for_cloud_init and gateway.on_link:
                lines.append(f'    gateway{gateway.version}: "{gateway.via}"')
                continue
            routes += [f'      - to: "{ANYWHERE[gateway.version]}"', f'        via: "{gateway.via}"']
            routes += [] if gateway.on_link else ["        on-link: true"]
        lines += ["    routes:", *routes] if routes else []
        if nic.nameservers or nic.search:
            lines.append("    nameservers:")
            lines += [f"      addresses: [{_quoted(nic.nameservers)}]"] if nic.nameservers else []
            lines += [f"      search: [{_quoted(nic.search)}]"] if nic.search else []
        lines += [f"    mtu: {nic.mtu}"] if nic.mtu is not None else []
    return "\n".join(lines) + "\n"


def _yes(value: bool) -> str:
    return "true" if value else "false"


def _quoted(values: Sequence[str]) -> str:
    return ", ".join(f'"{value}"' for value in values)
