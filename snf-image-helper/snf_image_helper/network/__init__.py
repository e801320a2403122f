"""Who configures the network of an image at boot, and one module for each that may.

A module has `render_` functions, which make text of cards, and one `plan_`, which says what to write, and what of the
image's own to put out of effect: two stacks, or two files for one card, would fight. Cards are matched by their MAC
address, never by a name that we would have to guess.
"""

from __future__ import annotations

import enum

from snf_image_helper.distribution import exists, is_enabled, os_release
from snf_image_helper.image import Files


class NetworkStack(enum.Enum):
    NETPLAN = "netplan"
    NETWORKD = "systemd-networkd"
    NETWORK_MANAGER = "NetworkManager"
    IFCFG_RH = "ifcfg of RHEL"
    IFCFG_SUSE = "wicked"
    IFUPDOWN = "ifupdown"
    IFUPDOWN_NG = "ifupdown-ng"
    NETIFRC = "netifrc"


def network_stack(files: Files) -> NetworkStack | None:
    """What is there and starts at boot. netplan writes for the others, so it is asked first."""
    if exists(files, "usr/sbin/netplan", "usr/bin/netplan"):
        return NetworkStack.NETPLAN
    if is_enabled(files, "systemd-networkd.service"):
        return NetworkStack.NETWORKD
    if is_enabled(files, "wicked.service"):
        return NetworkStack.IFCFG_SUSE
    if is_enabled(files, "NetworkManager.service"):
        return NetworkStack.IFCFG_RH if _is_rhel_before_9(files) else NetworkStack.NETWORK_MANAGER
    if exists(files, "etc/rc.d/init.d/network") and exists(files, "etc/sysconfig/network-scripts"):
        return NetworkStack.IFCFG_RH
    if exists(files, "etc/alpine-release", "usr/libexec/ifupdown-ng"):
        return NetworkStack.IFUPDOWN_NG
    if exists(files, "usr/sbin/ifup", "sbin/ifup"):
        return NetworkStack.IFUPDOWN
    return NetworkStack.NETIFRC if exists(files, "etc/init.d/net.lo") else None


def _is_rhel_before_9(files: Files) -> bool:
    """RHEL 8 still has tools and people that look for ifcfg files; 9 made keyfiles the rule, 10 has no ifcfg."""
    release = os_release(files)
    ids = {release.get("ID", ""), *release.get("ID_LIKE", "").split()}
    major = release.get("VERSION_ID", "").partition(".")[0]
    return bool(ids & {"rhel", "centos"}) and major in ("6", "7", "8")
