"""What must be installed on the host, each with the reason, and nothing else.

The lab installs what is missing by itself (`up`, `demo`, `test`, ...); `doctor` only says it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from snf_lab.progress import Progress, run_logged
from synnefo_light.run import Runner, run


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPackage:
    name: str
    reason: str


RUNS_LAB = (
    HostPackage(name="mmdebstrap", reason="makes the Debian roots of nodes and images"),
    HostPackage(name="debian-archive-keyring", reason="lets apt check what comes into those roots"),
    HostPackage(name="systemd-container", reason="systemd-nspawn boots a node"),
    HostPackage(name="iproute2", reason="the nodes' network"),
    HostPackage(name="util-linux", reason="nsenter, unshare, losetup"),
    HostPackage(name="mount", reason="mounts the nodes' overlays"),
    HostPackage(name="git", reason="lists the files of the source tree"),
    HostPackage(name="dpkg-dev", reason="builds our packages and indexes the nodes' package repository"),
    HostPackage(name="e2fsprogs", reason="makes file systems for images"),
    HostPackage(name="fdisk", reason="partitions images"),
    HostPackage(name="xfsprogs", reason="makes the file system of volumes"),
    HostPackage(name="gdisk", reason="checks partition tables that others made"),
)


def parse_build_depends(control: str) -> tuple[str, ...]:
    """The names in Build-Depends of debian/control; versions and architectures dropped, first alternative taken."""
    match = re.search(r"^Build-Depends:((?:.*\n)(?:[ \t].*\n)*)", control, re.MULTILINE)
    if not match:
        return ()
    names = [re.split(r"[\s(\[<|:]", entry.strip())[0] for entry in match[1].split(",") if entry.strip()]
    # A virtual package, provided by the real one.
    return tuple("debhelper" if name == "debhelper-compat" else name for name in names)


def wanted(tree: Path) -> tuple[HostPackage, ...]:
    """The table above and what debian/control asks for, sorted by name."""
    table = {package.name: package for package in RUNS_LAB}
    control = tree / "debian" / "control"
    if control.exists():
        for name in parse_build_depends(control.read_text()):
            table.setdefault(name, HostPackage(name=name, reason="builds our packages (debian/control)"))
    return tuple(table[name] for name in sorted(table))


def parse_installed(text: str) -> frozenset[str]:
    """Lines of `dpkg-query --show --showformat='${db:Status-Status} ${Package}\\n'`."""
    return frozenset(
        name for status, _, name in (line.partition(" ") for line in text.splitlines()) if status == "installed"
    )


def missing(packages: Iterable[HostPackage], runner: Runner = run) -> tuple[HostPackage, ...]:
    packages = tuple(packages)
    names = [package.name for package in packages]
    # Status 1: some of the names are unknown to dpkg, which is an answer.
    shown = runner(
        ["dpkg-query", "--show", "--showformat=${db:Status-Status} ${Package}\\n", *names], ok=(0, 1), timeout_s=30
    )
    installed = parse_installed(shown.text)
    return tuple(package for package in packages if package.name not in installed)


def plan_install(packages: Iterable[HostPackage]) -> list[str]:
    """The one line that installs them; also what `doctor` prints."""
    names = [package.name for package in packages]
    return ["apt-get", "install", "--yes", "--no-install-recommends", *names]


def ensure_installed(packages: Iterable[HostPackage], *, log: Path, progress: Progress, runner: Runner = run) -> None:
    """Install what is missing. A second call finds nothing to do."""
    absent = missing(packages, runner)
    if not absent:
        return
    env = {"DEBIAN_FRONTEND": "noninteractive"}
    lock = ["-o", "DPkg::Lock::Timeout=300"]
    with progress.step(f"install {len(absent)} packages on this machine", log=log) as step:
        step.note = " ".join(package.name for package in absent)
        run_logged(["apt-get", "update", *lock], log=log, timeout_s=600, env=env, runner=runner)
        run_logged([*plan_install(absent), *lock], log=log, timeout_s=1800, env=env, runner=runner)
