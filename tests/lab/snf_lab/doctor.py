"""What a lab wants of the machine that no package brings: kernel features, space, root."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from snf_lab.state import State

SPACE_GIB = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    what: str
    ok: bool
    words: str
    remedy: str = ""


def parse_filesystems(text: str) -> frozenset[str]:
    """The names in /proc/filesystems (proc(5)): what the kernel can mount now, without loading a module."""
    return frozenset(line.split()[-1] for line in text.splitlines() if line.strip())


def examine() -> list[Finding]:
    """Look at this machine; changes nothing."""
    kernel = os.uname().release
    known = parse_filesystems(Path("/proc/filesystems").read_text())
    modules = Path(f"/lib/modules/{kernel}").is_dir()
    findings = [
        Finding(
            what="root",
            ok=os.geteuid() == 0,
            words="makes namespaces and mounts",
            remedy="run ./lab with sudo",
        ),
        Finding(
            what="overlay file system",
            ok="overlay" in known or modules,
            words="lays each node on one cached root",
            remedy=f"kernel {kernel} has no overlay file system; use one that has (CONFIG_OVERLAY_FS)",
        ),
        Finding(
            what="loop devices",
            ok=Path("/dev/loop-control").exists(),
            words="disks out of files, inside the nodes",
            remedy="load the module: modprobe loop",
        ),
        Finding(
            what="tun device",
            ok=Path("/dev/net/tun").exists(),
            words="instances' network cards",
            remedy="load the module: modprobe tun",
        ),
    ]
    place = State.from_environment().path
    while not place.exists():
        place = place.parent
    free_gib = shutil.disk_usage(place).free / (1 << 30)
    findings.append(
        Finding(
            what="space",
            ok=free_gib >= SPACE_GIB,
            words=f"{free_gib:.0f} GiB free in {place}",
            remedy=f"the lab wants {SPACE_GIB} GiB; free some, or set SNF_LAB_STATE to a directory on another disk",
        )
    )
    # Not a fault: without it, or where it does not run a kernel, instances are emulated.
    kvm = "there; whether a kernel boots under it is tried on the node" if Path("/dev/kvm").exists() else "none: TCG"
    findings.append(Finding(what="/dev/kvm", ok=True, words=kvm))
    return findings
