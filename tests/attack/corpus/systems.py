"""Small systems of each kind that tasks treat differently, as trees, and orders that ask for everything.

Every task that writes files must write one here: that is where the links of the attacks are put (links.py). A task
that finds nothing to do in any of these systems fails a test, so add what it looks for.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping

from snf_image_helper.image import Files, Filesystem, FilesystemKind, Image, Root

from synnefo_light.manifest import Manifest
from synnefo_light.records import build
from tests.disk_images import DEBIAN, MIB, Entry, File, Folder, Link, Tree

BARE: Tree = {name: entry for name, entry in DEBIAN.items() if not name.startswith("etc/network")}
PROGRAM = File(content="#!/bin/sh\n", mode=0o755)


def _system(name: str, changes: Tree) -> Mapping[str, Entry]:
    release = File(content=f'ID={name}\nVERSION_ID="1"\nPRETTY_NAME="{name}"\n')
    whole: Tree = {**BARE, "etc/debian_version": None, "etc/os-release": release, **changes}
    return {path: entry for path, entry in whole.items() if entry is not None}


NETWORKD = Link(target="/usr/lib/systemd/system/systemd-networkd.service")
SYSTEMS: Mapping[str, Mapping[str, Entry]] = {
    "ifupdown": {path: entry for path, entry in DEBIAN.items() if entry is not None},
    "netplan": _system(
        "ubuntu",
        {
            "etc/netplan/50-cloud-init.yaml": File(content="network: {version: 2}\n"),
            "usr/sbin/netplan": PROGRAM,
            "usr/lib/systemd/systemd-networkd": PROGRAM,
        },
    ),
    "networkd": _system(
        "arch",
        {
            "etc/systemd/network": Folder(),
            "usr/lib/systemd/systemd-networkd": PROGRAM,
            "usr/lib/systemd/system/systemd-networkd.service": File(content="[Service]\n"),
            "etc/systemd/system/multi-user.target.wants/systemd-networkd.service": NETWORKD,
        },
    ),
    "networkmanager": _system(
        "fedora",
        {
            "etc/NetworkManager/system-connections": Folder(mode=0o700),
            "etc/NetworkManager/NetworkManager.conf": File(content="[main]\nplugins=keyfile\n"),
            "usr/sbin/NetworkManager": PROGRAM,
            "usr/lib/systemd/system/NetworkManager.service": File(content="[Service]\n"),
            "etc/systemd/system/multi-user.target.wants/NetworkManager.service": Link(
                target="/usr/lib/systemd/system/NetworkManager.service"
            ),
            "etc/selinux/config": File(content="SELINUX=enforcing\nSELINUXTYPE=targeted\n"),
            "etc/selinux/targeted/contexts/files/file_contexts": File(content="/.*\tsystem_u:object_r:default_t:s0\n"),
        },
    ),
    "ifcfg": _system(
        "centos",
        {
            "etc/sysconfig/network-scripts/ifcfg-eth0": File(content="DEVICE=eth0\nBOOTPROTO=dhcp\n"),
            "etc/sysconfig/network-scripts/ifup-eth": PROGRAM,
            "etc/sysconfig/network": File(content="NETWORKING=yes\n"),
            "etc/redhat-release": File(content="CentOS Linux release 7.9\n"),
            "etc/rc.d/init.d/network": PROGRAM,
            "usr/sbin/ifup": PROGRAM,
        },
    ),
    "wicked": _system(
        "opensuse-leap",
        {
            "etc/sysconfig/network/ifcfg-eth0": File(content="BOOTPROTO='dhcp'\n"),
            "etc/sysconfig/network/config": File(content='NETCONFIG_DNS_STATIC_SERVERS=""\n'),
            "usr/sbin/wicked": PROGRAM,
            "etc/systemd/system/multi-user.target.wants/wicked.service": Link(
                target="/usr/lib/systemd/system/wicked.service"
            ),
            "etc/HOSTNAME": File(content="image\n"),
        },
    ),
    "alpine": _system(
        "alpine",
        {
            "etc/alpine-release": File(content="3.19.0\n"),
            "etc/network/interfaces": File(content="auto lo\niface lo inet loopback\n"),
            "sbin": None,
            "sbin/ifup": PROGRAM,
            "sbin/openrc": PROGRAM,
            "usr/lib/systemd/systemd": None,
            "etc/systemd/system": None,
        },
    ),
    "netifrc": _system(
        "gentoo",
        {
            "etc/init.d/net.lo": PROGRAM,
            "etc/conf.d/net": File(content="config_eth0=dhcp\n"),
            "etc/runlevels/default/net.eth0": Link(target="/etc/init.d/net.eth0"),
            "usr/sbin/ifup": None,
            "usr/lib/systemd/systemd": None,
            "etc/systemd/system": None,
        },
    ),
    "cloud-init": _system(
        "debian",
        {
            "etc/cloud/cloud.cfg": File(content="datasource_list: [ NoCloud, None ]\n"),
            "etc/cloud/cloud.cfg.d/90_dpkg.cfg": File(content="# empty\n"),
            "usr/bin/cloud-init": PROGRAM,
            "var/lib/cloud/seed": Folder(),
            "etc/network/interfaces": File(content="source /etc/network/interfaces.d/*\n"),
            "etc/network/interfaces.d": Folder(),
        },
    ),
}

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKK attack"
MACS = ("aa:00:00:00:00:01", "aa:00:00:00:00:02")


def orders(*, cloud_init: bool = False, swap_file: bool = False) -> Manifest:
    """Everything that can be asked for at once; swap on a second disk, or in a file."""
    static = {"ipv4": "static", "ipv4_address": "10.0.0.5/24", "ipv4_gateway": "10.0.0.1"}
    more = {"ipv6": "static", "ipv6_address": "2001:db8::5/64", "ipv6_gateway": "2001:db8::1", "mtu": 1400}
    names = {"nameservers": ["10.0.0.2"], "search": ["example.org"]}
    plain: dict[str, object] = {
        "helper_version": "1",
        "nonce": "00112233445566778899aabbccddeeff",
        "instance": "web1.example.org",
        "hostname": "web1.example.org",
        "disks": [{"index": n, "size": 96 * MIB} for n in range(2)],
        "nics": [{"mac": MACS[0], **static, **more, **names}, {"mac": MACS[1], "ipv4": "dhcp", "ipv6": "slaac"}],
        "users": ["root", "user"],
        "passwords": [{"user": "root", "hashed": "$6$salt$hash"}, {"user": "user", "hashed": "$6$salt$hash"}],
        "authorized_keys": KEY,
        "files": [
            {"path": "/etc/injected/motd", "contents": "aGVsbG8K", "mode": 416},
            {"path": "/home/user/.profile", "contents": "aGVsbG8K", "owner": "user", "group": "user"},
        ],
        "swap": {"file_mib": 1} if swap_file else {"disk": 1},
    }
    if cloud_init:
        plain["cloud_init"] = {"userdata": base64.b64encode(b"#cloud-config\n{}\n").decode()}
    return build(plain, Manifest)


def image_of(files: Files) -> Image:
    """The facts about a disk without a partition table that holds `files`."""
    size = 96 * MIB
    root = Root(partition=None, size=size, filesystem=Filesystem(kind=FilesystemKind.EXT4, size=size))
    return Image(today=20000, disk_size=size, table=None, root=root, files=files)
