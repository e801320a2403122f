"""A cached Debian root per release, on which nodes are laid as overlays.

It has Ganeti and what a node of any Ganeti cluster has, and none of what our packages depend on beyond that: those
come with our packages, so that their Depends are tested. The name of a root ends in the hash of its recipe.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from snf_lab.apt import AptSettings
from snf_lab.progress import Progress, run_logged
from snf_lab.state import Release, State, content_hash
from synnefo_light.run import Runner, run

PACKAGES = (
    "systemd-sysv",
    "dbus",
    "iproute2",
    "procps",
    "udev",  # its groups; no daemon: a container gets no events
    "ganeti",
    "ganeti-os-noop",  # instances without an operating system, for tests of the lab itself
    "qemu-system-x86",
    "openssh-server",
    "openssh-client",
    "fping",
    "iputils-arping",  # Ganeti announces the master's address in its syntax
    "iputils-ping",
    "e2fsprogs",  # file systems on loop devices
    "socat",  # consoles
    "strace",  # tests watch what a deployment opens
    "curl",  # RAPI by hand
)

#: Units that wait for what a node in a container does not have, or that would wake up in the middle of a test.
MASKED = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@tty1.service",
    "console-getty.service",
    "lvm2-monitor.service",
    "lvm2-lvmpolld.socket",
    "blk-availability.service",
    "dm-event.socket",
    "nvmf-autoconnect.service",
    "nvmefc-boot-connections.service",
    "systemd-pstore.service",
    "systemd-resolved.service",
    "systemd-networkd.service",
    "systemd-timesyncd.service",
    "systemd-udevd.service",
    "systemd-udevd-kernel.socket",
    "systemd-udevd-control.socket",
)


#: Where the root was made from; apt does not read it.
ARCHIVE_LIST = "etc/apt/archive.list"


def customise_script() -> str:
    """Run by sh with the root as $1: no identity of its own, no way out, no unit that fails in a container."""
    masks = "\n".join(f'ln -sf /dev/null "$1/etc/systemd/system/{unit}"' for unit in MASKED)
    return f"""set -eu
rm -f "$1"/etc/ssh/ssh_host_* "$1/etc/hostname" "$1/etc/resolv.conf"
cat "$1"/etc/apt/sources.list "$1"/etc/apt/sources.list.d/*.list >"$1/{ARCHIVE_LIST}" 2>/dev/null || true
rm -f "$1"/etc/apt/sources.list "$1"/etc/apt/sources.list.d/*
: >"$1/etc/machine-id"
{masks}
"""


def root_name(release: Release) -> str:
    return f"{release.codename}-{content_hash(release.codename, ' '.join(PACKAGES), customise_script())}"


def plan_mmdebstrap(release: Release, target: Path, settings: AptSettings) -> list[str | Path]:
    """The command that makes a root. Without recommended packages: Ganeti's would bring Xen."""
    options = [f"--aptopt={line}" for line in settings.options]
    return [
        "mmdebstrap",
        "--variant=minbase",
        *options,
        f"--include={','.join(PACKAGES)}",
        release.codename,
        target,
        *settings.sources(release.codename),
    ]


def ensure_root(
    state: State, release: Release, settings: AptSettings, progress: Progress, runner: Runner = run
) -> Path:
    """The root of a release, made if it is not in the cache; older ones of the same release are removed then."""
    folder = state.cache / "roots"
    final = folder / root_name(release)
    if final.is_dir():
        return final
    folder.mkdir(parents=True, exist_ok=True)
    log = state.log / f"root-{release.codename}.log"
    with progress.step(f"make a Debian {release.debian} root with Ganeti {release.ganeti}", log=log):
        # A failed attempt may have left mounts only in the namespace of mmdebstrap, which has ended.
        for left in folder.glob(f".{release.codename}-*"):
            shutil.rmtree(left)
        making = folder / f".{final.name}"
        run_logged(
            plan_mmdebstrap(release, making, settings),
            log=log,
            contain=True,
            timeout_s=1800,
            env=dict(settings.environment),
            runner=runner,
        )
        runner(["sh", "-c", customise_script(), "sh", making], timeout_s=60)
        for old in folder.glob(f"{release.codename}-*"):
            shutil.rmtree(old)
        making.rename(final)
    return final
