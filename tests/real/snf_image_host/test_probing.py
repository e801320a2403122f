"""The rules for udev and the filter for LVM, given to the real ones, with a loop device in place of an instance's disk.

There is no DRBD or RBD here: of the rule's ways to know an instance's disk the backing file is real, and the name of a
logical volume is put in by a rule of the test. udevadm comes from its package, taken apart, where it is not installed;
it works on folders of its own in a mount namespace. Each has its control: without ours the probing is seen.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from snf_image_host.probing import accepts, judge_lvm, parse_lvmconfig

TREE = Path(__file__).resolve().parents[3]
RULE = TREE / "snf-image-host" / "57-snf-image.rules"
VOLUMES = TREE / "extstorage" / "58-snf-extstorage.rules"
FILTER = TREE / "snf-image-host" / "lvm-filter.conf"

#: In namespaces of its own: a node's /dev, /run and rules; udev's answer about a loop device that shows `disk`.
PROBE = """
set -e
rules=$1 udevadm=$2 disk=$3
mkdir -p /srv
mount -t tmpfs tmpfs /srv
mount -t tmpfs tmpfs /run
mkdir -p "$(dirname "$disk")" /run/udev/data /run/dev
truncate -s 32M "$disk"
mke2fs -q -F -L guest "$disk"
mount --bind "$rules" /lib/udev/rules.d
loop=$(losetup --find --show "$disk")
trap 'losetup --detach "$loop"' EXIT
cp -a "$loop" /dev/null /run/dev/
mount --bind /run/dev /dev
"$udevadm" test --action=change "/sys/block/$(basename "$loop")" 2>/dev/null
"""
IN_GANETI = "/srv/ganeti/file-storage/web1.disk0"
ELSEWHERE = "/srv/backup/disk"
IN_STORE = "/srv/snf-store"


@pytest.fixture(scope="module")
def udev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """udevadm, and a folder with Debian's rules."""
    work = tmp_path_factory.mktemp("udev")
    rules = work / "rules"
    rules.mkdir()
    if (found := shutil.which("udevadm")) is None:
        got = subprocess.run(["apt-get", "download", "udev"], cwd=work, capture_output=True, text=True, check=False)
        if got.returncode != 0:
            pytest.skip(f"udev cannot be downloaded: {got.stderr.strip().splitlines()[-1:]}")
        (package,) = work.glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", package, work], check=True, timeout=60)
        found = str(work / "bin" / "udevadm")
    for folder in (work / "lib/udev/rules.d", Path("/lib/udev/rules.d")):
        for path in folder.glob("*.rules") if folder.is_dir() else []:
            if path.name not in (RULE.name, VOLUMES.name):
                shutil.copy(path, rules)
    assert (rules / "60-persistent-storage.rules").exists()
    yield Path(found), rules


def probed(
    udev: tuple[Path, Path], folder: Path, disk: str, *more: tuple[str, str], ours: Path | None = RULE
) -> dict[str, str]:
    """What udev comes to know of a loop device that shows `disk`; `more` are rules of the test."""
    udevadm, debians = udev
    rules = folder / "rules.d"
    shutil.copytree(debians, rules)
    if ours is not None:
        shutil.copy(ours, rules)
    for name, text in more:
        (rules / name).write_text(text)
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", PROBE, "probe"]
    done = subprocess.run(
        [*words, str(rules), str(udevadm), disk], capture_output=True, text=True, timeout=60, check=False
    )
    known = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line and line[0].isupper())
    assert known.get("DEVTYPE") == "disk", done.stdout + done.stderr
    return known


def test_udev_does_not_look_into_a_disk_of_ganetis_folders(udev: tuple[Path, Path], tmp_path: Path) -> None:
    known = probed(udev, tmp_path, IN_GANETI)
    assert known["SNF_IMAGE_INSTANCE_DISK"] == "1"
    assert not [key for key in known if key.startswith("ID_FS_") or key == "DEVLINKS"]


@pytest.mark.parametrize("part", ["volumes/v.ext.disk0", "snapshots/golden", "trash/v.ext.disk0-1f"])
def test_udev_does_not_look_into_a_volume(udev: tuple[Path, Path], tmp_path: Path, part: str) -> None:
    known = probed(udev, tmp_path, f"{IN_STORE}/{part}/disk", ours=VOLUMES)
    assert known["SNF_EXTSTORAGE_VOLUME"] == "1"
    assert not [key for key in known if key.startswith("ID_FS_") or key == "DEVLINKS"]


@pytest.mark.parametrize(
    ("disk", "ours"),
    [(IN_GANETI, None), (ELSEWHERE, RULE), (f"{IN_STORE}/volumes/v/disk", None), (f"{IN_STORE}/disk", VOLUMES)],
)
def test_control_without_the_rule_or_elsewhere_udev_does(
    udev: tuple[Path, Path], tmp_path: Path, disk: str, ours: Path | None
) -> None:
    known = probed(udev, tmp_path, disk, ours=ours)
    assert known["ID_FS_LABEL"] == "guest" and "/dev/disk/by-label/guest" in known["DEVLINKS"]


@pytest.mark.parametrize("volume", ["0f0.disk0", "41dffc9d-29e0.disk12", "x.disk0_data", "x.disk0_meta"])
def test_udev_does_not_look_into_a_logical_volume_of_ganetis(
    udev: tuple[Path, Path], tmp_path: Path, volume: str
) -> None:
    known = probed(udev, tmp_path, ELSEWHERE, ("56-volume.rules", f'KERNEL=="loop*", ENV{{DM_LV_NAME}}="{volume}"\n'))
    assert known["SNF_IMAGE_INSTANCE_DISK"] == "1" and "ID_FS_TYPE" not in known


@pytest.mark.parametrize("volume", ["root", "swap_1", "disk0", "home.disks"])
def test_the_nodes_own_logical_volumes_stay_as_they_are(udev: tuple[Path, Path], tmp_path: Path, volume: str) -> None:
    known = probed(udev, tmp_path, ELSEWHERE, ("56-volume.rules", f'KERNEL=="loop*", ENV{{DM_LV_NAME}}="{volume}"\n'))
    assert "SNF_IMAGE_INSTANCE_DISK" not in known and known["ID_FS_TYPE"] == "ext2"


def run_lvm(system: Path, *words: str) -> str:
    done = subprocess.run(
        [*words],
        env={"LVM_SYSTEM_DIR": str(system), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def volume_group(folder: Path, name: str) -> Iterator[str]:
    """A loop device with a volume group `xenvg`; LVM's files stay in `folder`."""
    disk = folder / name
    with open(disk, "wb") as file:
        file.truncate(32 << 20)
    shown = subprocess.run(["losetup", "--find", "--show", str(disk)], check=True, capture_output=True, text=True)
    loop = shown.stdout.strip()
    try:
        only = f'devices {{ global_filter = [ "a|^{loop}$|", "r|.*|" ] }}'
        run_lvm(folder, "vgcreate", "--quiet", "--config", only, "xenvg", loop)
        yield loop
    finally:
        subprocess.run(["losetup", "--detach", loop], check=True, timeout=30)


def test_lvm_does_not_see_the_volume_group_that_a_guest_made_with_the_hosts_name(tmp_path: Path) -> None:
    if shutil.which("vgs") is None:
        pytest.skip("lvm2 is not installed")
    (tmp_path / "lvm.conf").write_text(
        "devices { obtain_device_list_from_udev = 0 use_devicesfile = 0 }\n"
        "backup { backup = 0 archive = 0 }\nactivation { udev_sync = 0 udev_rules = 0 }\nglobal { activation = 0 }\n"
    )
    installed = tmp_path / "installed"
    installed.mkdir()
    (installed / "lvm.conf").touch()
    shutil.copy(FILTER, installed / "lvmlocal.conf")
    keys = ("devices/global_filter", "devices/scan_lvs", "devices/use_devicesfile")
    found = parse_lvmconfig(run_lvm(installed, "lvmconfig", "--type", "full", *keys))
    assert judge_lvm(found, listed=False).state == "ok"
    patterns = found["global_filter"]
    with volume_group(tmp_path, "host") as host, volume_group(tmp_path, "guest") as guest:

        def devices(*filters: str) -> set[str]:
            listed = ", ".join(f'"{text}"' for text in filters)
            config = f"devices {{ global_filter = [ {listed} ] }}"
            words = ("pvs", "--noheadings", "-o", "pv_name,vg_name", "--config", config)
            seen = [line.split() for line in run_lvm(tmp_path, *words).splitlines()]
            return {name for name, *group in seen if group == ["xenvg"]} & {host, guest}

        assert devices("a|.*|") == {host, guest}, "the control: LVM sees both"
        assert devices(*patterns) == set()
        assert devices(f"a|^{host}$|", *patterns) == {host}, "the host's own stays"
        for filters in ((f"a|^{host}$|", *patterns), patterns, ("a|.*|",), ("r|loop|", "a|.*|")):
            for name in (host, guest):
                assert (name in devices(*filters)) == accepts(filters, [name]), "the doctor judges as LVM does"
