"""Deployments without a cluster: the OS definition's scripts, called as Ganeti calls them, on a disk that is a file.

The environment is what Ganeti 3.0 was seen to pass (tests/data/ganeti/). The scripts are the installed ones when the
packages are installed (in a lab node), and the tree's own otherwise.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent
INSTALLED = Path("/usr/share/ganeti/os/snf-image")
SCRIPTS = INSTALLED if (INSTALLED / "create").exists() else TREE / "snf-image-host" / "os"
UUID = "41dffc9d-29e0-44ed-9720-245c6e09a612"
MAC = "aa:00:77:18:f3:84"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    returncode: int
    output: str  # stdout and stderr, as in Ganeti's log

    @property
    def sentence(self) -> str:
        """The last line: what Ganeti shows last."""
        lines = [line for line in self.output.splitlines() if line.strip()]
        return lines[-1] if lines else ""


def environment(script: str, *, instance: str, disk: Path, parameters: dict[str, str], **more: str) -> dict[str, str]:
    """What Ganeti sets for `script`; `more` adds or replaces variables."""
    base = {
        "PATH": "/sbin:/bin:/usr/sbin:/usr/bin",
        "PWD": str(SCRIPTS),
        "DEBUG_LEVEL": "0",
        "OS_API_VERSION": "20",
        "OS_NAME": "snf-image",
        "OS_VARIANT": "default",
        "HYPERVISOR": "kvm",
        "INSTANCE_NAME": instance,
        "INSTANCE_UUID": UUID,
        "INSTANCE_OS": "snf-image+default",
        "INSTANCE_PRIMARY_NODE": "409301ff-1845-45c7-8a0a-36609f9e8a6b",
        "INSTANCE_SECONDARY_NODES": "",
        "DISK_COUNT": "1",
        "DISK_0_PATH": str(disk),
        "DISK_0_SIZE": str(disk.stat().st_size >> 20),
        "DISK_0_UUID": "818fe1cd-f89b-4d54-abec-8310b2a043bb",
        "DISK_0_ACCESS": "rw",
        "DISK_0_BACKEND_TYPE": "file:loop",
        "DISK_0_FRONTEND_TYPE": "paravirtual",
        "NIC_COUNT": "1",
        "NIC_0_MAC": MAC,
        "NIC_0_MODE": "bridged",
        "NIC_0_LINK": "br0",
        "NIC_0_BRIDGE": "br0",
        "NIC_0_UUID": "cc527405-11b4-4976-835b-c8913a2dbd05",
        "NIC_0_FRONTEND_TYPE": "paravirtual",
    }
    if script == "verify":
        base = {k: v for k, v in base.items() if not k.startswith(("DISK_", "NIC_", "INSTANCE_"))}
    return base | {f"OSP_{name.upper()}": value for name, value in parameters.items()} | more


def call(script: str, *, instance: str, disk: Path, parameters: dict[str, str], **more: str) -> Outcome:
    """Run one of the OS scripts to its end, as noded does; both outputs together."""
    done = subprocess.run(
        [str(SCRIPTS / script), *(["parameters"] if script == "verify" else [])],
        env=environment(script, instance=instance, disk=disk, parameters=parameters, **more),
        cwd=SCRIPTS,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        umask=0o077,
        timeout=300,
        check=False,
    )
    return Outcome(returncode=done.returncode, output=done.stdout.decode("utf-8", "replace"))


def new_disk(path: Path, *, size_mib: int, pattern: bytes | None = None) -> Path:
    """A disk as Ganeti makes it: a sparse file, or, with `pattern`, one that holds an earlier tenant's bytes."""
    with open(path, "wb") as file:
        if pattern is not None:
            block = (pattern * (1 << 20))[: 1 << 20]
            for _ in range(size_mib):
                file.write(block)
        file.truncate(size_mib << 20)
    return path


def images() -> Path:
    """The folder of local images."""
    folder = Path(os.environ.get("SNF_IMAGES", "/var/lib/snf-image"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
