"""Trees of a guest that is not what it says: endless counts, odd files and names, and configuration meant for a parser.

The file system and the partition table are good; what is hostile is what tasks read.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tests.attack.attempt import KEY, Attack
from tests.attack.corpus.systems import NETWORKD, PROGRAM
from tests.disk_images import MIB, Device, Entry, Fifo, File, Folder, Link, Tree, make_disk, read_back

MANY = 20_000
LONG = "n" * 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """`refused`: what the sentence says; without one it may be deployed too. `kept`: files and their content."""

    tree: Tree
    refused: str = ""
    succeeds: bool = False
    kept: Mapping[str, bytes] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)


def corpus() -> tuple[Attack, ...]:
    return tuple(
        Attack(
            name=f"tree-{name}",
            make=functools.partial(_make, tree=guest.tree),
            disk_mib=96,
            parameters=guest.parameters,
            must="fail" if guest.refused else "succeed" if guest.succeeds else "either",
            cause=guest.refused,
            inspect=functools.partial(_inspect, kept=guest.kept),
        )
        for name, guest in GUESTS.items()
    )


def _make(path: Path, *, tree: Tree) -> None:
    make_disk(path, tree=tree)


def _inspect(disk: Path, instance: str, *, kept: Mapping[str, bytes]) -> list[str]:
    found = {path: read_back(disk, path) for path in kept}
    return [f"{path} of the image is {found[path][:80]!r}" for path, content in kept.items() if found[path] != content]


def _many(folder: str, suffix: str, content: str, *, count: int = 3000) -> dict[str, Entry]:
    return {f"{folder}/{n:05}{suffix}": File(content=content) for n in range(count)}


def _users(count: int) -> bytes:
    return b"root:x:0:0:root:/root:/bin/sh\n" + b"".join(b"u%d:x:%d:1::/:/bin/sh\n" % (n, n + 1) for n in range(count))


EVIL_RELEASE = b"""ID="$(touch /run/escape)"
ID=`reboot`
NAME="a\\
b
VERSION_ID='\xff\xfe
PRETTY_NAME=\x1b[2J\x1b]0;owned\x07
=
ID
"""
#: Mounts of the host's or the helper's own folders, options that no image may choose, devices, and lines of any length.
EVIL_FSTAB = (
    "/dev/vda1 / ext4 defaults 0 1\n"
    "/dev/vdb /boot ext4 defaults,exec,suid,dev 0 0\n"
    "/dev/ttyS1 /boot/efi vfat defaults 0 0\n"
    "proc /etc proc defaults 0 0\n"
    "/ /mnt none bind 0 0\n"
    "/run /var none rbind 0 0\n"
    "overlay /usr overlay lowerdir=/,upperdir=/run,workdir=/tmp 0 0\n"
    "tmpfs /root tmpfs size=100% 0 0\n"
    "UUID=../../etc/shadow /home ext4 defaults 0 0\n"
    "LABEL=-o\\040exec /srv ext4 defaults 0 0\n"
    "/dev/disk/by-uuid/../../sda /opt ext4 defaults 0 0\n"
    "server:/x /home nfs defaults 0 0\n"
    "//server/x /home cifs username=a,password=b 0 0\n"
    "/dev/vda1 /../../../etc ext4 defaults 0 0\n"
    "/swapfile none swap sw 0 0\n"
)
CLOUD = "datasource_list: [ NoCloud ]\n" + "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]\n" * 50

DEVICES: tuple[tuple[Literal["b", "c"], int, int], ...] = (
    *(("b", 8, 0), ("b", 254, 0)),
    *(("c", 1, 1), ("c", 1, 2), ("c", 10, 232)),
)

GUESTS: Mapping[str, Guest] = {
    "users-20000": Guest(tree={"etc/passwd": File(content=_users(MANY)[: MIB - 200])}),
    "users-without-end": Guest(tree={"etc/passwd": File(content=_users(100_000))}, refused="over 1048576 bytes"),
    "passwd-one-line-of-a-mib": Guest(tree={"etc/passwd": File(content="root:" * (MIB // 5))}),
    "passwd-home-leads-out": Guest(
        tree={"etc/passwd": File(content="root:x:0:0:root:/../../../run:/bin/sh\n")}, refused=r"\.\.|not in the image"
    ),
    "passwd-home-with-nul": Guest(tree={"etc/passwd": File(content="root:x:0:0:root:/ro\0ot:/bin/sh\n")}),
    "passwd-home-is-dev": Guest(tree={"etc/passwd": File(content="root:x:0:0:root:/dev:/bin/sh\n")}),
    "passwd-number-without-end": Guest(tree={"etc/passwd": File(content=f"root:x:{'9' * 5000}:0:r:/root:/bin/sh\n")}),
    "shadow-without-newlines": Guest(tree={"etc/shadow": File(content=b"root" + b"\xff" * 9000, mode=0o640)}),
    "keys-20000": Guest(
        tree={"root/.ssh": Folder(mode=0o700), "root/.ssh/authorized_keys": File(content=f"{KEY} old\n" * 12_000)},
    ),
    "sshd-keys-file-with-nul": Guest(tree={"etc/ssh/sshd_config": File(content="AuthorizedKeysFile \0x\n")}),
    "sshd-keys-file-leads-out": Guest(
        tree={"etc/ssh/sshd_config": File(content="AuthorizedKeysFile ../../../../run/x\n")},
        refused=r"holds '\.\.'",
    ),
    "sshd-keys-file-is-a-device": Guest(tree={"etc/ssh/sshd_config": File(content="AuthorizedKeysFile /dev/ttyS1\n")}),
    "sshd-includes-itself": Guest(
        tree={"etc/ssh/sshd_config": File(content="Include /etc/ssh/sshd_config\nInclude /etc/ssh/*\n")}
    ),
    "sshd-includes-everything": Guest(tree={"etc/ssh/sshd_config": File(content="Include /*/*/*\nInclude /dev/*\n")}),
    "sshd-host-key-is-shadow": Guest(
        tree={
            "usr/sbin/sshd": PROGRAM,
            "etc/ssh/sshd_config": File(content="HostKey /etc/../etc/shadow\nHostKey \0\nHostKey /run/../proc/1/mem\n"),
        }
    ),
    "sshd-host-keys-3000": Guest(
        tree={
            "usr/sbin/sshd": PROGRAM,
            **_many("etc/ssh", "", "x", count=10),
            **{f"etc/ssh/ssh_host_k{n}_key": File(content="x") for n in range(3000)},
        },
    ),
    "interfaces-d-3000": Guest(tree=_many("etc/network/interfaces.d", ".cfg", "auto lo\n")),
    "netplan-3000": Guest(
        tree={"usr/sbin/netplan": PROGRAM, **_many("etc/netplan", ".yaml", "network: {version: 2}\n")},
    ),
    "networkd-3000": Guest(
        tree={
            "etc/systemd/system/multi-user.target.wants/systemd-networkd.service": NETWORKD,
            "usr/lib/systemd/systemd-networkd": PROGRAM,
            **_many("etc/systemd/network", ".network", "[Match]\nName=*\n"),
        }
    ),
    "folder-of-12000": Guest(tree=_many("etc/ssh/sshd_config.d", ".conf", "", count=12_000)),
    "sparse-bomb-shadow": Guest(tree={"etc/shadow": File(content=b"\0" * (8 * MIB))}, refused="over 1048576 bytes"),
    "sparse-bomb-hosts": Guest(tree={"etc/hosts": File(content=b"\0" * (8 * MIB))}),
    "fstab-evil": Guest(tree={"etc/fstab": File(content=EVIL_FSTAB)}),
    "fstab-of-a-mib": Guest(tree={"etc/fstab": File(content="/dev/vda1 /a ext4 x 0 0\n" * 40_000)}),
    "fstab-is-a-fifo": Guest(tree={"etc/fstab": Fifo()}),
    "fstab-mounts-8000": Guest(
        tree={"etc/fstab": File(content="".join(f"LABEL=root /m{n} ext4 ro 0 0\n" for n in range(8000)))}
    ),
    "os-release-evil": Guest(
        tree={"etc/os-release": File(content=EVIL_RELEASE)}, kept={"/etc/os-release": EVIL_RELEASE}
    ),
    "os-release-is-zero": Guest(tree={"etc/os-release": Device(kind="c", major=1, minor=5)}),
    "os-release-leads-to-itself": Guest(tree={"etc/os-release": Link(target="os-release")}),
    "cloud-yaml-bomb": Guest(
        tree={"etc/cloud/cloud.cfg": File(content=CLOUD), "usr/bin/cloud-init": PROGRAM},
        parameters={"img_properties": json.dumps({"CLOUD_INIT": "yes"})},
    ),
    "cloud-seed-leads-out": Guest(
        tree={
            "etc/cloud/cloud.cfg": File(content="{}\n"),
            "usr/bin/cloud-init": PROGRAM,
            "var/lib/cloud": Link(target="/run"),
        },
        parameters={"img_properties": json.dumps({"CLOUD_INIT": "yes"})},
    ),
    "names-of-255": Guest(
        tree={
            f"etc/network/interfaces.d/{LONG}": File(),
            f"etc/{LONG}/{LONG}": File(),
            f"root/{LONG}": Link(target=LONG),
        }
    ),
    "names-of-every-byte": Guest(
        tree={
            **{f"etc/network/interfaces.d/a{chr(n)}b": File(content="auto lo\n") for n in range(1, 128) if n != 47},
            "etc/ssh/sshd_config.d/\udcff\udcfe.conf": File(content="PermitRootLogin no\n"),
            "etc/netplan/\x1b[2J.yaml": File(),
            "etc/-rf": File(),
            "etc/ssh/ssh_host_\udcff_key": File(),
        },
    ),
    "hosts-in-utf-16": Guest(tree={"etc/hosts": File(content="127.0.1.1\timage\n".encode("utf-16"))}),
    "hosts-in-latin-1": Guest(
        tree={"etc/hosts": File(content=b"10.0.0.9\tcaf\xe9\n127.0.1.1\timage\n")}, succeeds=True
    ),
    "devices-everywhere": Guest(
        tree={
            f"{folder}/d{major}-{minor}": Device(kind=kind, major=major, minor=minor)
            for folder in ("etc", "root", "home/user")
            for kind, major, minor in DEVICES
        },
        succeeds=True,
    ),
    "no-etc": Guest(tree=dict.fromkeys(("etc/os-release", "etc/passwd", "etc/shadow", "etc/group", "etc/hosts"))),
    "etc-leads-to-proc": Guest(
        tree={
            "etc/network": Link(target="/proc/self"),
            "etc/network/interfaces": None,
            "etc/network/interfaces.d": None,
        }
    ),
    "deep-links": Guest(
        tree={f"etc/l{n}": Link(target=f"l{n + 1}") for n in range(60)} | {"etc/hostname": Link(target="l0")}
    ),
}
