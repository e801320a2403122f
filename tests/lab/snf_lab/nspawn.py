"""The command line that boots a node, and the files that make an overlay on the cached root into that node.

Pure: what is written and what is run is decided here and done in `node`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from snf_lab import fabric
from snf_lab.state import MAX_NODES, Release

FILE_STORAGE = "/srv/ganeti/file-storage"
SHARED_STORAGE = "/srv/ganeti/shared-file-storage"
REPO = "/srv/synnefo-light-repo"
TREE = "/srv/synnefo-light-tree"
IMAGES = "/srv/synnefo-light-images"
VOLUMES = "/srv/snf-store"  # where snf-extstorage looks unless it is told otherwise
LOOP_DEVICES = 64

#: A node has these when the host does: mode and group as Debian's udev sets them, and the kernel's fixed numbers
#: (admin-guide/devices.txt). Disks of the host are not among them.
DEVICES = {
    "/dev/kvm": "c {} 0660 root kvm - 10:232",
    "/dev/net/tun": "c {} 0666 root root - 10:200",
    "/dev/fuse": "c {} 0666 root root - 10:229",
    "/dev/loop-control": "c {} 0660 root disk - 10:237",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    source: Path
    target: str
    writable: bool = False


def plan_nspawn(
    *,
    number: int,
    machine: str,
    release: Release,
    root: Path,
    binds: tuple[Bind, ...],
    cgroup_v2: bool,
) -> list[str | Path]:
    """systemd-nspawn's words. It must be started in the node's network namespace and its own cgroup.

    Not `--network-namespace-path`: /sys would show another namespace's interfaces, and Ganeti would miss its bridges.
    """
    argv: list[str | Path] = [
        "systemd-nspawn",
        "--quiet",
        f"--directory={root}",
        f"--machine={machine}",
        f"--hostname={fabric.node_name(number)}",
        "--register=no",
        "--keep-unit",
        "--settings=no",
        "--capability=all",
        "--resolv-conf=off",
        "--timezone=off",
        "--link-journal=no",
        *[f"--bind{'' if bind.writable else '-ro'}={bind.source}:{bind.target}" for bind in binds],
        "--boot",
    ]
    if release.needs_cgroup_v2 and not cgroup_v2:
        argv += ["--", "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1", "systemd.unified_cgroup_hierarchy=0"]
    return argv


#: nspawn(1): /proc/sys/net and all of /sys stay writable, which the nodes' network scripts need; no lock files.
NSPAWN_ENVIRONMENT = {"SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network", "SYSTEMD_NSPAWN_LOCK": "0"}


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFile:
    path: str
    content: str
    mode: int = 0o644


def render_hosts() -> str:
    """Every node's /etc/hosts knows all nodes and the cluster: there is no name server."""
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    lines.append(f"{fabric.CLUSTER_IP} {fabric.CLUSTER_NAME} cluster")
    lines += [f"{fabric.management_ip(n)} {fabric.node_name(n)} node{n}" for n in range(1, MAX_NODES + 1)]
    return "".join(f"{line}\n" for line in lines)


def render_devices(present: Collection[str]) -> str:
    """tmpfiles.d(5) lines that make device nodes: nothing else makes them in a container.

    Not binds of the host's device files: a node may change the mode of its own.
    """
    lines = [line.format(device) for device, line in DEVICES.items() if device in present]
    lines += [f"b /dev/loop{n} 0660 root disk - 7:{n}" for n in range(LOOP_DEVICES)]
    return "".join(f"{line}\n" for line in lines)


def node_files(number: int, *, machine_id: str, devices: Collection[str]) -> tuple[NodeFile, ...]:
    """What a node has from the start, before anybody installs something on it; `devices` are those of the host."""
    return (
        NodeFile(path="etc/hostname", content=fabric.node_name(number) + "\n"),
        NodeFile(path="etc/hosts", content=render_hosts()),
        NodeFile(path="etc/machine-id", content=machine_id + "\n", mode=0o444),
        NodeFile(path="etc/tmpfiles.d/lab-devices.conf", content=render_devices(devices)),
        NodeFile(path="etc/ganeti/file-storage-paths", content=f"{FILE_STORAGE}\n{SHARED_STORAGE}\n"),
        NodeFile(path="etc/default/ganeti", content='RAPI_ARGS="-b 0.0.0.0 --require-authentication"\n'),
        # "deb" of one folder; [trusted=yes] because what was built a minute ago is not signed.
        NodeFile(path="etc/apt/sources.list.d/synnefo-light.list", content=f"deb [trusted=yes] file:{REPO} ./\n"),
    )


#: Folders that Ganeti expects and does not make.
NODE_FOLDERS = (
    "var/log/ganeti/extstorage",
    *(path[1:] for path in (FILE_STORAGE, SHARED_STORAGE, REPO, TREE, IMAGES, VOLUMES)),
)
