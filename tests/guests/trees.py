"""File trees of distributions, as far as a deployment looks at them or writes into them.

They are fixtures: paths, links, services that start, users and settings are those of the named release's own image, the
programs are empty files, and the long configuration files are cut to the lines that count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LinkTo:
    target: str


#: bytes or text of a file, a link, or None for an empty folder.
Tree = dict[str, str | bytes | LinkTo | None]

_WANTS = "etc/systemd/system/multi-user.target.wants"


def _unit(name: str, *, units: str = "/usr/lib/systemd/system", wants: str = _WANTS) -> Tree:
    """A service of systemd that starts at boot."""
    return {f"{wants}/{name}": LinkTo(f"{units}/{name}"), f"{units.lstrip('/')}/{name}": "[Service]\n"}


def _system(release: str, *, passwd: str = "", shadow: str = "", hosts: str = "127.0.0.1 localhost\n") -> Tree:
    return {
        "etc/os-release": release,
        "etc/passwd": f"root:x:0:0:root:/root:/bin/bash\n{passwd}",
        "etc/shadow": f"root:*:19800:0:99999:7:::\n{shadow}",
        "etc/group": "root:x:0:\nsys:x:3:\n",
        "etc/hosts": hosts,
        "etc/fstab": "UUID=11111111-2222-3333-4444-555555555555 / ext4 defaults 0 1\n",
        "etc/ssh/sshd_config": "Include /etc/ssh/sshd_config.d/*.conf\nSubsystem sftp internal-sftp\n",
        "etc/ssh/sshd_config.d": None,
        "root": None,
        "home": None,
        "tmp": None,
        "var/lib": None,
    }


_SYSTEMD: Tree = {
    "usr/lib/systemd/systemd": "",
    "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "etc/hostname": "localhost\n",
    "usr/lib/systemd/network": None,
    "etc/systemd/network": None,
    "etc/systemd/system": None,
}
_CLOUD_INIT: Tree = {
    "usr/bin/cloud-init": "",
    "etc/cloud/cloud.cfg": "users:\n  - default\ndisable_root: true\n",
    "etc/cloud/cloud.cfg.d/05_logging.cfg": "",
    "var/lib/cloud": None,
}
_SELINUX: Tree = {
    "etc/selinux/config": "SELINUX=enforcing\nSELINUXTYPE=targeted\n",
    "etc/selinux/targeted/contexts/files/file_contexts": "/etc/hostname\t--\tsystem_u:object_r:hostname_etc_t:s0\n",
}
_RED_HAT: Tree = {
    **_SYSTEMD,
    **_SELINUX,
    **_unit("NetworkManager.service"),
    "usr/sbin/NetworkManager": "",
    "etc/NetworkManager/system-connections": None,
    "usr/lib/systemd/system/sshd-keygen@.service": "[Service]\nExecStart=/usr/libexec/openssh/sshd-keygen %i\n",
    "usr/sbin/sshd": "",
}

DEBIAN_12: Tree = {
    **_system(
        'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_ID="12"\nID=debian\n',
        hosts="127.0.0.1\tlocalhost\n127.0.1.1\tdebian\n",
    ),
    **_SYSTEMD,
    "usr/sbin/ifup": "",
    "etc/network/interfaces": "source /etc/network/interfaces.d/*\nauto lo\niface lo inet loopback\n",
    "etc/network/interfaces.d": None,
    "var/lib/dbus/machine-id": LinkTo("/etc/machine-id"),
    "etc/ssh/ssh_host_ed25519_key": "old",
    "etc/ssh/ssh_host_ed25519_key.pub": "old",
    "usr/sbin/sshd": "",
}
UBUNTU_24: Tree = {
    **_system(
        'NAME="Ubuntu"\nVERSION_ID="24.04"\nID=ubuntu\nID_LIKE=debian\n',
        passwd="ubuntu:x:1000:1000:Ubuntu:/home/ubuntu:/bin/bash\n",
        shadow="ubuntu:!:19800:0:99999:7:::\n",
    ),
    **_SYSTEMD,
    **_CLOUD_INIT,
    **_unit("systemd-networkd.service"),
    **_unit("systemd-resolved.service", wants="etc/systemd/system/sysinit.target.wants"),
    "usr/sbin/netplan": "",
    "etc/netplan/50-cloud-init.yaml": "network: {version: 2}\n",
    "usr/lib/python3/dist-packages/cloudinit/version.py": '__VERSION__ = "24.1.3"\n',
    "etc/resolv.conf": LinkTo("../run/systemd/resolve/stub-resolv.conf"),
    "home/ubuntu": None,
    "etc/ssh/ssh_host_rsa_key": "old",
    "usr/sbin/sshd": "",
}
FEDORA_41: Tree = {
    **_system('NAME="Fedora Linux"\nID=fedora\nVERSION_ID=41\n'),
    **_RED_HAT,
    **_CLOUD_INIT,
    "usr/lib/python3.13/site-packages/cloudinit/version.py": '__VERSION__ = "24.2"\n',
}
RHEL_8: Tree = {
    **_system('NAME="Rocky Linux"\nID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="8.10"\n'),
    **_RED_HAT,
    "etc/sysconfig/network": "# Created by anaconda\n",
    "etc/sysconfig/network-scripts/ifcfg-eth0": "DEVICE=eth0\nBOOTPROTO=dhcp\nONBOOT=yes\n",
    "etc/sysconfig/network-scripts/ifcfg-lo": "DEVICE=lo\nIPADDR=127.0.0.1\n",
}
RHEL_9: Tree = {
    **_system('NAME="AlmaLinux"\nID="almalinux"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.4"\n'),
    **_RED_HAT,
    "etc/sysconfig/network-scripts/readme-ifcfg-rh.txt": "",
    "etc/NetworkManager/system-connections/eth0.nmconnection": "[connection]\nid=eth0\ntype=ethernet\n",
}
RHEL_10: Tree = {
    **_system('NAME="CentOS Stream"\nID="centos"\nID_LIKE="rhel fedora"\nVERSION_ID="10"\n'),
    **_RED_HAT,
}
_SUSE: Tree = {
    **_SYSTEMD,
    "usr/sbin/sshd-gen-keys-start": "",
    "usr/lib/systemd/system/sshd.service": "[Service]\nExecStartPre=/usr/sbin/sshd-gen-keys-start\n",
    "etc/ssh/ssh_host_ed25519_key": "old",
    "usr/sbin/sshd": "",
    "etc/udev/rules.d": None,
}
LEAP_15: Tree = {
    **_system('NAME="openSUSE Leap"\nVERSION_ID="15.6"\nID="opensuse-leap"\nID_LIKE="suse opensuse"\n'),
    **_SUSE,
    **_unit("wicked.service"),
    "etc/sysconfig/network/config": '# comment\nNETCONFIG_DNS_STATIC_SEARCHLIST=""\nNETCONFIG_DNS_STATIC_SERVERS=""\n',
    "etc/sysconfig/network/ifcfg-eth0": "BOOTPROTO='dhcp'\nSTARTMODE='auto'\n",
    "etc/sysconfig/network/ifcfg-lo": "IPADDR=127.0.0.1/8\n",
    "etc/sysconfig/network/ifcfg.template": "",
    "etc/resolv.conf": LinkTo("/run/netconfig/resolv.conf"),
}
LEAP_16: Tree = {
    **_system('NAME="openSUSE Leap"\nVERSION_ID="16.0"\nID="opensuse-leap"\nID_LIKE="suse opensuse"\n'),
    **_SUSE,
    **_SELINUX,
    **_unit("NetworkManager.service"),
    "usr/sbin/NetworkManager": "",
    "etc/NetworkManager/system-connections": None,
}
ARCH: Tree = {
    **_system('NAME="Arch Linux"\nID=arch\nBUILD_ID=rolling\n'),
    **_SYSTEMD,
    **_unit("systemd-networkd.service"),
    **_unit("systemd-resolved.service", wants="etc/systemd/system/sysinit.target.wants"),
    "usr/lib/systemd/system/sshdgenkeys.service": "[Service]\nExecStart=ssh-keygen -A\n",
    "etc/ssh/ssh_host_ed25519_key": "old",
    "usr/bin/sshd": "",
}
ALPINE_3_20: Tree = {
    **_system('NAME="Alpine Linux"\nID=alpine\nVERSION_ID=3.20.3\n'),
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "etc/shadow": "root:*::0:::::\n",
    "etc/alpine-release": "3.20.3\n",
    "etc/hostname": "localhost\n",
    "etc/network/interfaces": "auto lo\niface lo inet loopback\n\nauto eth0\niface eth0 inet dhcp\n",
    "sbin/ifup": LinkTo("ifupdown"),
    "sbin/ifupdown": "",
    "usr/libexec/ifupdown-ng/dhcp": "",
    "lib/ld-musl-x86_64.so.1": "",
    "etc/init.d/networking": "#!/sbin/openrc-run\n",
    "etc/init.d/sshd": "#!/sbin/openrc-run\ngenerate_host_keys() {\n\tssh-keygen -A\n}\n",
    "etc/runlevels/boot/hostname": LinkTo("/etc/init.d/hostname"),
    "etc/runlevels/default/sshd": LinkTo("/etc/init.d/sshd"),
    "etc/ssh/ssh_host_ed25519_key": "old",
    "usr/sbin/sshd": "",
}
GENTOO: Tree = {
    **_system('NAME=Gentoo\nID=gentoo\nVERSION_ID="2.15"\n'),
    "etc/conf.d/hostname": '# Set to the hostname of this machine\nhostname="localhost"\n',
    "etc/conf.d/net": 'config_eth0="dhcp"\n',
    "etc/init.d/net.lo": "#!/sbin/openrc-run\n",
    "etc/init.d/net.eth0": LinkTo("net.lo"),
    "etc/init.d/sshd": "#!/sbin/openrc-run\nssh-keygen -A\n",
    "etc/runlevels/default/net.eth0": LinkTo("/etc/init.d/net.eth0"),
    "etc/runlevels/default/sshd": LinkTo("/etc/init.d/sshd"),
    "etc/ssh/ssh_host_ed25519_key": "old",
    "usr/sbin/sshd": "",
    "etc/udev/rules.d": None,
}

GUESTS: Mapping[str, Tree] = {
    "debian-12": DEBIAN_12,
    "ubuntu-24.04": UBUNTU_24,
    "fedora-41": FEDORA_41,
    "rhel-8": RHEL_8,
    "rhel-9": RHEL_9,
    "rhel-10": RHEL_10,
    "opensuse-15.6": LEAP_15,
    "opensuse-16": LEAP_16,
    "arch": ARCH,
    "alpine-3.20": ALPINE_3_20,
    "gentoo": GENTOO,
}
