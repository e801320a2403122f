"""An f2fs root, deployed by the whole helper: the kernel of the VM mounts it, f2fs-tools here judge what came out."""

from __future__ import annotations

import base64
import re
import subprocess
from pathlib import Path

import pytest

from tests.disk_images import DEBIAN, MIB, File, Folder, Tree
from tests.filesystem_images import check_clean, cut_out, make_filesystem, read_file
from tests.layouts import Part, lay_out
from tests.real.snf_image_helper import virtual_machine
from tests.real.snf_image_helper.fixture_machine import DONE, run_script

pytestmark = pytest.mark.vm
SIZE_MIB, DISK_MIB = 100, 400
ROOT, HOME = "11111111-2222-3333-4444-555555555555", "22222222-2222-3333-4444-555555555555"

# Written and synced, but in no checkpoint yet, when the machine loses its power.
CRASH = f"""
load("f2fs")
os.mkdir("/run/root")
mount(disk0, "/run/root", "f2fs", flags=0)
with open("/run/root/etc/synced", "w") as file:
    file.write("synced\\n")
    file.flush()
    os.fsync(file.fileno())
print("{DONE}", flush=True)
Path("/proc/sysrq-trigger").write_text("o")
import time
time.sleep(60)
"""


def f2fs(path: Path, tree: Tree, *, uuid: str = ROOT) -> Path:
    return make_filesystem(path, "f2fs", mib=SIZE_MIB, tree=tree, uuid=uuid)


def resized(disk: Path) -> Path:
    with open(disk, "r+b") as file:
        file.truncate(DISK_MIB * MIB)
    return disk


def mib_of(filesystem: Path) -> int:
    """As fsck.f2fs says it."""
    shown = subprocess.run(["fsck.f2fs", "--dry-run", filesystem], capture_output=True, text=True, check=True).stdout
    (size,) = re.findall(r"total FS sectors = \d+ \((\d+) MB\)", shown)
    return int(size)


def test_an_f2fs_root_grows_and_is_written_and_so_is_its_home_beside_it(tmp_path: Path) -> None:
    """Which of the two holds the system is found out by a look at both."""
    fstab = f"UUID={ROOT} / f2fs defaults 0 1\nUUID={HOME} /home f2fs defaults 0 2\n"
    home = f2fs(tmp_path / "home", {"user": Folder(mode=0o755)}, uuid=HOME)
    root = f2fs(tmp_path / "root", {**DEBIAN, "etc/fstab": File(content=fstab), "home": Folder()})
    disk = tmp_path / "disk"
    lay_out(disk, (Part(mib=SIZE_MIB, filesystem=home), Part(mib=SIZE_MIB, filesystem=root)))
    content = base64.b64encode(b"injected\n").decode()
    files = [{"path": path, "contents": content, "mode": 0o640} for path in ("/etc/motd", "/home/user/injected")]
    asked = {"files": files, "passwords": [{"user": "root", "hashed": "$6$salt$hash"}]}
    outcome = virtual_machine.run(resized(disk), asked=asked)
    assert outcome.finished and outcome.warnings == [], outcome.console
    assert {"partition_table", "filesystem_check_grow", "mount_others", "password", "umount"} <= set(outcome.done)

    first, last = SIZE_MIB + 1, DISK_MIB - 1
    after = cut_out(disk, tmp_path / "root-after", first_mib=first, mib=last - first)
    check_clean(after, "f2fs")
    assert mib_of(after) >= last - first - 1
    assert read_file(after, "/etc/hostname", "f2fs") == b"web1\n"
    assert read_file(after, "/etc/motd", "f2fs") == b"injected\n"
    assert read_file(after, "/etc/shadow", "f2fs").startswith(b"root:$6$salt$hash:")
    assert read_file(after, "/home/user/injected", "f2fs") == b"", "it is in the other file system"
    home_after = cut_out(disk, tmp_path / "home-after", first_mib=1, mib=SIZE_MIB)
    check_clean(home_after, "f2fs")
    assert mib_of(home_after) == SIZE_MIB
    assert read_file(home_after, "/user/injected", "f2fs") == b"injected\n"


def test_what_was_synced_before_a_crash_outlives_the_growth(tmp_path: Path) -> None:
    disk = f2fs(tmp_path / "disk", DEBIAN)
    run_script(CRASH, disk)
    assert read_file(disk, "/etc/synced", "f2fs") == b"", "the tools do not see it: only the kernel can bring it back"
    outcome = virtual_machine.run(resized(disk))
    assert outcome.finished, outcome.console
    check_clean(disk, "f2fs")
    assert mib_of(disk) == DISK_MIB
    assert read_file(disk, "/etc/synced", "f2fs") == b"synced\n"
    assert read_file(disk, "/etc/hostname", "f2fs") == b"web1\n"


@pytest.mark.parametrize(
    ("field", "size"), [(76, 512 * 4096), (80, 4096), (84, 4096)], ids=["checkpoints", "SIT", "NAT"]
)
def test_damage_is_refused_before_the_file_system_is_grown(tmp_path: Path, field: int, size: int) -> None:
    """fsck.f2fs -a alone finds none of these: it looks where the kernel has found something."""
    disk = f2fs(tmp_path / "disk", DEBIAN)
    with open(disk, "r+b") as file:
        file.seek(1024 + field)
        offset = int.from_bytes(file.read(4), "little") * 4096
        file.seek(offset)
        found = file.read(size + 4096)
        file.seek(offset)
        file.write(found[:100] + bytes(byte ^ 0xFF for byte in found[100:900]) + found[900:])
        if field == 76:  # the second checkpoint too, else it would do
            file.seek(offset + size)
            file.write(bytes(4096))
    outcome = virtual_machine.run(resized(disk))
    assert outcome.failed is not None and not outcome.finished, outcome.console
    assert outcome.failed.task == "filesystem_check_grow"
    assert "f2fs file system has damage that fsck.f2fs does not mend" in outcome.failed.reason
