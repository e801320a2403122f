"""The figures of "Storage": the engines and the store beside what they are built on.

No cluster is needed. The measuring is a program of its own, `tests.bench.storage`, because it uses the engines, which
the lab does not: everything that it starts and mounts goes with it, however it ends, and `clear` takes the rest.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from snf_lab import ceph, demo, host_packages, mounts
from snf_lab.guest_recipe import GuestRecipe
from snf_lab.host_packages import HostPackage
from snf_lab.lab import Lab
from snf_lab.progress import run_logged
from snf_lab.state import TREE
from synnefo_light.errors import PeerError
from synnefo_light.run import Runner, run

PACKAGES: Final = (
    *ceph.DAEMONS,
    HostPackage(name="fio", reason="reads and writes for `./lab bench storage`"),
    HostPackage(name="nbdkit", reason="what our attached volumes are measured against"),
    HostPackage(name="xfsprogs", reason="the file system that shares extents"),
    HostPackage(name="python3-bitarray", reason="the store's tables"),
    HostPackage(name="python3-rados", reason="the store on Ceph"),
    HostPackage(name="python3-rbd", reason="volumes on Ceph"),
)
#: What people put on a fresh machine, small and large: one in each clone.
INSTALLED: Final = (
    *("apache2-bin", "bind9", "borgbackup", "dovecot-core", "exim4-daemon-light", "gdb", "git", "haproxy", "htop"),
    *("lynx", "mariadb-server", "nginx", "postfix", "openssh-server", "postgresql-common", "python3-django"),
    *("redis-server", "rsync", "samba", "vim"),
)
LIMIT_S: Final = 3600.0


def run_bench(lab: Lab, *, release: str, rounds: int, peers: bool) -> Mapping[str, object]:
    """Raises ToolError when it does not get to its end. Peers are measured in any case: the figures are ratios."""
    lab.install_on_host()
    log, folder = lab.state.log / "bench-storage.log", lab.state.run / "bench-storage"
    with lab.locked():
        packages_log = lab.state.log / "host-packages.log"
        host_packages.ensure_installed(PACKAGES, log=packages_log, progress=lab.progress)
        clear(folder)
        image, helper = demo.ensure_image(lab, GuestRecipe()), lab.helper_image()
        debs = lab.state.cache / "bench-packages"
        with lab.progress.step("fetch packages to install in clones", log=packages_log):
            fetch_packages(debs, log=packages_log)
        log.unlink(missing_ok=True)
        words: list[str | Path] = ["/usr/bin/python3", "-m", "tests.bench.storage", folder, "--rounds", str(rounds)]
        words += ["--image", image.path, "--helper", helper, "--debs", debs]
        try:
            with lab.progress.step("measure the engines and the store", log=log):
                run_logged(words, log=log, timeout_s=LIMIT_S, env=environment(), cwd=TREE, contain=True)
        finally:
            clear(folder)
    lines = log.read_text(errors="replace").splitlines()
    for line in lines[:-1]:
        lab.progress.say(line)
    return {**parse_last(lines), "load_1min": round(os.getloadavg()[0], 2)}


def fetch_packages(folder: Path, *, log: Path, runner: Runner = run) -> None:
    """Those of this machine's Debian; what is there already stays."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [name for name in INSTALLED if not list(folder.glob(f"{name}_*.deb"))]
    if missing:
        words = ["apt-get", "download", "-o", "APT::Sandbox::User=root", *missing]
        run_logged(words, log=log, timeout_s=600, cwd=folder, runner=runner)


def environment() -> dict[str, str]:
    rooms = ("", "extstorage", "snf-image-host", "snf-image-helper", "tests/lab")
    return {"PYTHONPATH": ":".join(str(TREE / room) for room in rooms), "PYTHONDONTWRITEBYTECODE": "1"}


def parse_last(lines: list[str]) -> dict[str, object]:
    """The figures, which are the last line. Raises PeerError."""
    try:
        found = json.loads(lines[-1])
        if isinstance(found, dict):
            return found
    except (IndexError, ValueError):
        pass
    raise PeerError(f"the benchmark's last line is not its figures: {(lines or [''])[-1][:200]!r}")


def clear(folder: Path, runner: Runner = run) -> None:
    """Take loop devices, mounts and daemons of this folder away, then the folder. A second call finds nothing."""
    for made in folder.glob("**/ceph.conf"):
        ceph.Ceph(made.parent).stop()
    for _ in range(3):  # a device on a file in the image, the image's mount, the image's own device
        for device in plan_clear(mounts.read_loops(runner), folder):
            # Of a device that nobody may write the kernel keeps that for who gets it next.
            runner(["blockdev", "--setrw", device], ok=(0, 1), timeout_s=30)
            runner(["losetup", "--detach", device], ok=(0, 1), timeout_s=30)
        for point in mounts.plan_unmounts(mounts.read_mounts(), folder):
            runner(["umount", point], timeout_s=120)
    if folder.exists():
        shutil.rmtree(folder)


def plan_clear(loops: tuple[mounts.Loop, ...], folder: Path) -> tuple[Path, ...]:
    """The devices on files in the folder, and those on files that lie in such an image, mounted here or not."""
    images = mounts.plan_loops(loops, below=folder, devices=())
    inside = {(LOOP_MAJOR, int(image.name.removeprefix("loop"))) for image in images}
    inner = mounts.plan_loops(loops, below=folder, devices=inside)
    return tuple(dict.fromkeys([*(device for device in inner if device not in images), *images]))


#: Of /dev/loop*, whose minor numbers are theirs (max_part is 0, the kernel's default).
LOOP_MAJOR: Final = 7
