"""The instance's network cards, by the stack that the image has; see snf_image_helper.network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from snf_image_helper.actions import Action, Warn, WriteFile
from snf_image_helper.distribution import has_cloud_init
from snf_image_helper.image import Files, Image, RootPath
from snf_image_helper.network import NetworkStack, network_stack
from snf_image_helper.network.cards import HEADER, configured
from snf_image_helper.network.earlier import plan_earlier_removed
from snf_image_helper.network.ifcfg_rh import plan_ifcfg_rh
from snf_image_helper.network.ifcfg_suse import plan_ifcfg_suse
from snf_image_helper.network.ifupdown import plan_ifupdown
from snf_image_helper.network.ifupdown_ng import plan_ifupdown_ng
from snf_image_helper.network.netifrc import plan_netifrc
from snf_image_helper.network.netplan import plan_netplan
from snf_image_helper.network.network_manager import plan_network_manager
from snf_image_helper.network.networkd import plan_networkd
from snf_image_helper.network.resolv_conf import plan_resolv_conf
from synnefo_light.manifest import Manifest, Nic
from synnefo_light.tasks import Phase, TaskInfo

INFO = TaskInfo(
    name="network",
    snf_image="ConfigureNetwork",
    groups=frozenset({"mounted", "cloud-init"}),
    phase=Phase.MOUNTED,
    summary="Configure the network cards",
)
PLANS: Mapping[NetworkStack, Callable[[Files, Sequence[Nic]], list[Action]]] = {
    NetworkStack.NETPLAN: plan_netplan,
    NetworkStack.NETWORKD: plan_networkd,
    NetworkStack.NETWORK_MANAGER: plan_network_manager,
    NetworkStack.IFCFG_RH: plan_ifcfg_rh,
    NetworkStack.IFCFG_SUSE: plan_ifcfg_suse,
    NetworkStack.IFUPDOWN: plan_ifupdown,
    NetworkStack.IFUPDOWN_NG: plan_ifupdown_ng,
    NetworkStack.NETIFRC: plan_netifrc,
}
#: These write /etc/resolv.conf themselves, of what is configured for the cards.
RESOLVING = (NetworkStack.NETWORK_MANAGER, NetworkStack.IFCFG_RH, NetworkStack.IFCFG_SUSE, NetworkStack.NETIFRC)
CLOUD_CFG = RootPath("etc/cloud/cloud.cfg.d")
CLOUD_INIT_OFF = CLOUD_CFG / "99-snf-image-network.cfg"


def plan(image: Image, manifest: Manifest) -> Sequence[Action]:
    files, nics = image.files, manifest.nics
    if not configured(nics):
        return []
    stack = NetworkStack.NETWORK_MANAGER if manifest.nm_networking else network_stack(files)
    if stack is None:
        known = ", ".join(s.value for s in NetworkStack)
        return [Warn(text=f"the image starts none of {known}; its network is left as it is")]
    actions = PLANS[stack](files, nics)
    actions = [*plan_earlier_removed(files, actions), *actions]
    if has_cloud_init(files) and files.entry(CLOUD_CFG) is not None:
        disabled = (HEADER + "network: {config: disabled}\n").encode()
        actions.append(WriteFile(path=CLOUD_INIT_OFF, content=disabled))
    return actions if stack in RESOLVING else actions + plan_resolv_conf(files, nics)
