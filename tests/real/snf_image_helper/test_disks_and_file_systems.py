"""Each kind of file system and layout, deployed by the whole helper, judged by the file system's own reader."""

from __future__ import annotations

import base64
import json
import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from tests.disk_images import DEBIAN, MIB, File, Folder, Link, Tree, debugfs
from tests.filesystem_images import Kind, check_clean, cut_out, make_filesystem, read_file
from tests.layouts import FREEBSD_BOOT, FREEBSD_SWAP, FREEBSD_UFS, Part, lay_out
from tests.real.snf_image_helper import virtual_machine
from tests.real.snf_image_helper.fixture_machine import run_script

pytestmark = pytest.mark.vm
UUIDS = {name: f"{n:08x}-2222-3333-4444-555555555555" for n, name in enumerate(("root", "boot", "home", "swap"), 1)}


def with_fstab(*lines: str, **more: File | Folder | Link) -> Tree:
    return {**DEBIAN, "etc/fstab": File(content="".join(f"{line}\n" for line in lines)), **more}


def injected(*paths: str) -> list[dict[str, object]]:
    content = base64.b64encode(b"injected\n").decode()
    return [{"path": path, "contents": content, "mode": 0o644} for path in paths]


def resized(disk: Path, mib: int) -> Path:
    with open(disk, "r+b") as file:
        file.truncate(mib * MIB)
    return disk


def table_of(disk: Path) -> dict[int, tuple[int, int]]:
    """Number -> first MiB and MiB, by sfdisk."""
    shown = json.loads(subprocess.run(["sfdisk", "--json", disk], capture_output=True, check=True).stdout)
    partitions = shown["partitiontable"]["partitions"]
    return {int(p["node"].removeprefix(str(disk))): (p["start"] // 2048, p["size"] // 2048) for p in partitions}


BUSYBOX = Path(shutil.which("busybox") or "/bin/busybox")
MOVING_TASK = b"""\
#!/usr/bin/sh
set -e
mv /var /elsewhere
echo said > /elsewhere/lib/by-custom-task
"""


@pytest.mark.skipif(not BUSYBOX.exists(), reason="busybox-static is not installed")
def test_a_custom_task_uses_a_usr_of_its_own_and_may_move_what_is_mounted_while_a_broken_srv_is_left_out(
    tmp_path: Path,
) -> None:
    """By an MBR's PARTUUIDs, which only its disk's signature tells."""
    lines = (
        "PARTUUID=0cafe123-01 /usr ext4 ro 0 2",
        "PARTUUID=0cafe123-02 /srv ext4 nofail 0 2",
        "PARTUUID=0cafe123-03 /var/lib ext4 defaults 0 2",
        "tmpfs /var/log tmpfs defaults 0 0",
    )
    tree = with_fstab(*lines, **{"var/lib": Folder(), "usr": Folder(), "srv": Folder()})
    root = {name: entry for name, entry in tree.items() if not name.startswith(("usr/", "var/lib/"))}
    usr: Tree = {name.removeprefix("usr/"): e for name, e in DEBIAN.items() if name.startswith("usr/")}
    usr = {**usr, "bin/sh": File(content=BUSYBOX.read_bytes(), mode=0o755), "bin/mv": Link(target="sh")}
    disk = tmp_path / "disk"
    parts = (
        Part(mib=16, filesystem=make_filesystem(tmp_path / "usr", "ext4", mib=16, tree=usr, uuid=UUIDS["boot"])),
        Part(mib=16, filesystem=make_filesystem(tmp_path / "srv", "ext4", mib=16, tree={}, uuid=UUIDS["home"])),
        Part(mib=16, filesystem=make_filesystem(tmp_path / "lib", "ext4", mib=16, tree={}, uuid=UUIDS["swap"])),
        Part(mib=48, filesystem=make_filesystem(tmp_path / "root", "ext4", mib=48, tree=root, uuid=UUIDS["root"])),
    )
    places = lay_out(disk, parts, table="mbr")
    with open(disk, "r+b") as file:
        file.seek(440)
        file.write(struct.pack("<I", 0x0CAFE123))
        file.seek(places[2] * MIB + 1024 + 96)
        file.write(struct.pack("<I", 0x8000_0042))  # a feature that no kernel knows
    outcome = virtual_machine.run(disk, asked={"custom_task": base64.b64encode(MOVING_TASK).decode()})
    assert outcome.finished, outcome.console
    (warning,) = outcome.warnings
    assert "mounts at /srv is left out: the image's ext4 file system for /srv cannot be mounted" in warning
    lib = cut_out(disk, tmp_path / "lib-after", first_mib=places[3], mib=16)
    check_clean(lib, "ext4")
    assert read_file(lib, "/by-custom-task", "ext4") == b"said\n"
    after = cut_out(disk, tmp_path / "root-after", first_mib=places[4], mib=48)
    check_clean(after, "ext4")
    assert read_file(after, "/etc/hostname", "ext4") == b"web1\n"


def test_an_xfs_root_grows_and_what_goes_to_boot_and_efi_is_seen_after_the_boot(tmp_path: Path) -> None:
    esp = make_filesystem(
        tmp_path / "esp", "vfat", mib=33, tree={"EFI/debian/grub.cfg": File(content="old\n")}, label="EFI"
    )
    boot = make_filesystem(
        tmp_path / "boot", "ext4", mib=32, tree={"efi": Folder(), "grub": Folder()}, label="boot", uuid=UUIDS["boot"]
    )
    lines = (
        f"UUID={UUIDS['root']} / xfs defaults 0 0",
        f"UUID={UUIDS['boot']} /boot ext4 defaults 0 2",
        "UUID=1111-1111 /boot/efi vfat umask=0077 0 1",
        f"UUID={UUIDS['home']} /srv ext4 nofail 0 0",
        "LABEL=elsewhere /var ext4 defaults 0 0",
        "PARTLABEL=boot /etc/cron.d ext4 defaults 0 0",
    )
    root = make_filesystem(
        tmp_path / "root", "xfs", mib=300, tree=with_fstab(*lines, boot=Folder()), uuid=UUIDS["root"]
    )
    disk = tmp_path / "disk"
    lay_out(
        disk,
        (
            Part(mib=33, kind="uefi", filesystem=esp),
            Part(mib=32, filesystem=boot, name="boot"),
            Part(mib=300, filesystem=root),
        ),
    )
    paths = ("/boot/efi/EFI/debian/grub.cfg", "/boot/grub/injected", "/etc/injected")
    outcome = virtual_machine.run(resized(disk, 512), asked={"files": injected(*paths)})
    assert outcome.finished, outcome.console
    assert {"mount_others", "filesystem_grow_mounted", "personality"} <= set(outcome.done)
    assert outcome.warnings == ["what the image's fstab mounts at /var (LABEL=elsewhere) was not found on its disk"]

    assert table_of(disk)[3] == (66, 445)
    grown = cut_out(disk, tmp_path / "root-after", first_mib=66, mib=445)
    check_clean(grown, "xfs")
    asked_db = ["xfs_db", "-r", "-f", "-c", "sb 0", "-c", "print dblocks", str(grown)]
    blocks = subprocess.run(asked_db, check=True, capture_output=True)
    assert int(blocks.stdout.split()[-1]) * 4096 == 445 * MIB
    assert read_file(grown, "/etc/hostname", "xfs") == b"web1\n"
    assert read_file(grown, "/etc/injected", "xfs") == b"injected\n"
    assert read_file(grown, "/boot/grub/injected", "xfs") == b"", "not under the mount"

    after = cut_out(disk, tmp_path / "boot-after", first_mib=34, mib=32)
    check_clean(after, "ext4")
    assert read_file(after, "/grub/injected", "ext4") == b"injected\n"
    after = cut_out(disk, tmp_path / "esp-after", first_mib=1, mib=33)
    check_clean(after, "vfat")
    assert read_file(after, "/EFI/debian/grub.cfg", "vfat") == b"injected\n"


@pytest.fixture(scope="session")
def subvolumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A btrfs as Debian's installer makes it: its top is empty but for the subvolumes @rootfs and @home."""
    folder = tmp_path_factory.mktemp("btrfs")
    lines = (
        f"UUID={UUIDS['root']} / btrfs subvol=@rootfs 0 0",
        f"UUID={UUIDS['root']} /home btrfs defaults,subvol=/@home 0 0",
    )
    root = make_filesystem(folder / "root", "btrfs", mib=256, tree=with_fstab(*lines), uuid=UUIDS["root"])
    run_script(
        """
        load("btrfs")
        mount(disk0, "/mnt", "btrfs", flags=0)
        for name in ("@rootfs", "@home"):
            run("/usr/bin/btrfs", "subvolume", "create", f"/mnt/{name}")
        for path in sorted(Path("/mnt").iterdir()):
            if path.name[0] != "@":
                shutil.move(path, f"/mnt/@rootfs/{path.name}")
        os.mkdir("/mnt/@home/user")
        os.rmdir("/mnt/@rootfs/home/user")
        umount("/mnt")
        """,
        root,
    )
    return root


def test_a_btrfs_root_in_a_subvolume_grows_and_its_home_is_mounted(tmp_path: Path, subvolumes: Path) -> None:
    disk = tmp_path / "disk"
    lay_out(disk, (Part(mib=256, filesystem=subvolumes),), table="mbr")
    asked = {"files": injected("/home/user/injected", "/etc/injected")}
    outcome = virtual_machine.run(resized(disk, 400), asked=asked)
    assert outcome.finished, outcome.console
    grown = cut_out(disk, tmp_path / "after", first_mib=1)
    check_clean(grown, "btrfs")
    inspect = ["btrfs", "inspect-internal"]
    shown = subprocess.run([*inspect, "dump-super", grown], check=True, capture_output=True, text=True).stdout
    assert re.search(rf"^total_bytes\s+{399 * MIB}$", shown, re.M), shown
    listed = subprocess.run([*inspect, "dump-tree", "-t", "root", grown], check=True, capture_output=True)
    references = re.findall(r"ROOT_REF (\d+)\).*?name (@\w+)", listed.stdout.decode(), re.S)
    numbers = {name: int(number) for number, name in references}
    assert read_file(grown, "/etc/hostname", "btrfs", subvolume=numbers["@rootfs"]) == b"web1\n"
    assert read_file(grown, "/etc/injected", "btrfs", subvolume=numbers["@rootfs"]) == b"injected\n"
    assert read_file(grown, "/user/injected", "btrfs", subvolume=numbers["@home"]) == b"injected\n"


@pytest.fixture(scope="session")
def logical_volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk as Fedora's installer made it: /boot on a partition, and a group of two volumes on the last one."""
    folder = tmp_path_factory.mktemp("lvm")
    boot = make_filesystem(folder / "boot", "ext4", mib=32, label="boot", uuid=UUIDS["boot"])
    home = make_filesystem(folder / "home", "ext4", mib=32, tree={"user": Folder()}, uuid=UUIDS["home"])
    lines = (
        "/dev/mapper/vg--0-root--lv / ext4 defaults 0 1",
        "LABEL=boot /boot ext4 defaults 0 2",
        "/dev/vg-0/home /home ext4 defaults 0 2",
    )
    root = make_filesystem(folder / "root", "ext4", mib=64, tree=with_fstab(*lines, boot=Folder()), uuid=UUIDS["root"])
    both = folder / "both"
    with open(both, "wb") as file:
        for part in (home, root):
            file.write(part.read_bytes())
    disk = folder / "disk"
    lay_out(disk, (Part(mib=32, filesystem=boot), Part(mib=160, kind="lvm")), table="mbr")
    run_script(
        """
        lvm("pvcreate", disk0 + "2")
        lvm("vgcreate", "vg-0", disk0 + "2")
        lvm("lvcreate", "-Wn", "-L", "32M", "-n", "home", "vg-0")
        lvm("lvcreate", "-Wn", "-L", "64M", "-n", "root-lv", "vg-0")
        with open(disk1, "rb") as given:
            for name, size in (("home", 32), ("root--lv", 64)):
                with open(f"/dev/mapper/vg--0-{name}", "r+b") as taken:
                    taken.write(given.read(size << 20))
                    os.fsync(taken.fileno())
        lvm("vgchange", "-an", "vg-0")
        """,
        disk,
        both,
    )
    return disk


def test_a_root_on_lvm_gets_the_space_of_the_larger_disk(tmp_path: Path, logical_volumes: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(logical_volumes.read_bytes())
    asked = {"files": injected("/boot/injected", "/home/user/injected", "/etc/injected")}
    outcome = virtual_machine.run(resized(disk, 320), asked=asked)
    assert outcome.finished, outcome.console
    assert {"lvm", "filesystem_check_grow", "mount_others"} <= set(outcome.done)
    assert table_of(disk) == {1: (1, 32), 2: (33, 287)}
    volume = cut_out(disk, tmp_path / "volume", first_mib=33)
    extents = extents_of(volume)
    assert extents["home"] == [(0, 8)]
    assert extents["root-lv"] == [(8, 71 - 8)], "287 MiB hold 71 extents of 4 MiB and the metadata"
    root = cut_out(volume, tmp_path / "root-after", first_mib=1 + 32)
    check_clean(root, "ext4")
    assert re.search(rb"Block count: +%d\n" % ((71 - 8) * 4096), debugfs(root, "show_super_stats -h", 0))
    assert read_file(root, "/etc/hostname", "ext4") == b"web1\n"
    assert read_file(root, "/etc/injected", "ext4") == b"injected\n"
    home = cut_out(volume, tmp_path / "home-after", first_mib=1, mib=32)
    assert read_file(home, "/user/injected", "ext4") == b"injected\n"
    boot = cut_out(disk, tmp_path / "boot-after", first_mib=1, mib=32)
    assert read_file(boot, "/injected", "ext4") == b"injected\n"


def extents_of(volume: Path) -> dict[str, list[tuple[int, int]]]:
    """Name -> first physical extent and count of each segment, from the newest text of LVM's metadata."""
    with open(volume, "rb") as file:
        texts = re.findall(rb"\n?([\w.+-]+ \{\nid = .*?)\0", file.read(MIB), re.S)
    newest = max(texts, key=lambda t: int(re.findall(rb"seqno = (\d+)", t)[0])).decode()
    assert re.search(r"pe_start = 2048\n", newest), "1 MiB"
    found = {}
    for name, body in re.findall(r"\n([\w.+-]+) \{\nid = [^}]*?(segment1 \{.*?\n\}\n\})", newest, re.S):
        counts = [int(n) for n in re.findall(r"extent_count = (\d+)", body)]
        starts = [int(n) for n in re.findall(r'"pv0", (\d+)', body)]
        found[name] = list(zip(starts, counts, strict=True))
    return found


@pytest.mark.parametrize("target", ["/../../../dev", "../../run"])
def test_a_mount_point_that_is_a_link_leads_to_a_folder_of_the_image(tmp_path: Path, target: str) -> None:
    """Mounted is where the link leads inside the image, and what would be written there would be lost at boot."""
    home = make_filesystem(tmp_path / "home", "ext4", mib=16, label="home", uuid=UUIDS["home"])
    tree = with_fstab("LABEL=home /home ext4 defaults 0 0", home=Link(target=target))
    tree = {name: entry for name, entry in tree.items() if not name.startswith("home/")}
    root = make_filesystem(tmp_path / "root", "ext4", mib=48, tree=tree, uuid=UUIDS["root"])
    disk = tmp_path / "disk"
    lay_out(disk, (Part(mib=16, filesystem=home, kind="linux-home"), Part(mib=48, filesystem=root)))
    outcome = virtual_machine.run(disk, asked={"root_partition": 2, "files": injected("/home/injected")})
    assert outcome.failed is not None and outcome.failed.task == "personality", outcome.console
    assert f"leads to /{target.rpartition('/')[2]}, where nothing outlives a boot" in outcome.failed.reason
    assert "mount_others" in outcome.done and "ssh_host_keys" in outcome.done
    after = cut_out(disk, tmp_path / "after", first_mib=1, mib=16)
    check_clean(after, "ext4")
    assert read_file(after, "/injected", "ext4") == b""


@pytest.mark.parametrize("table", ["gpt", "mbr"])
def test_swap_behind_the_root_moves_to_the_end_and_keeps_its_names(tmp_path: Path, table: str) -> None:
    root = make_filesystem(tmp_path / "root", "ext4", mib=48, tree=DEBIAN, uuid=UUIDS["root"])
    swap = make_filesystem(tmp_path / "swap", "swap", mib=16, label="swap0", uuid=UUIDS["swap"])
    disk = tmp_path / "disk"
    number = 2 if table == "gpt" else 5
    parts = (Part(mib=48, filesystem=root), Part(mib=16, kind="swap", filesystem=swap, number=number))
    lay_out(disk, parts, table="gpt" if table == "gpt" else "mbr")
    outcome = virtual_machine.run(resized(disk, 192))
    assert outcome.finished and outcome.warnings == [], outcome.console
    end = 191 if table == "gpt" else 192
    assert table_of(disk)[number] == (end - 16, 16)
    assert table_of(disk)[1] == (1, end - 17 if table == "gpt" else end - 18)
    shown = subprocess.run(
        ["blkid", "-p", "-O", str((end - 16) * MIB), "-o", "export", disk], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert {"TYPE=swap", f"UUID={UUIDS['swap']}", "LABEL=swap0"} <= set(shown)
    check_clean(cut_out(disk, tmp_path / "after", first_mib=1, mib=table_of(disk)[1][1]), "ext4")
    before = disk.read_bytes()[: 34 * 512]
    assert virtual_machine.run(disk, asked={"skip": ["machine_id"]}).finished
    assert disk.read_bytes()[: 34 * 512] == before, "a second run moves nothing"


def test_freebsd_gets_a_larger_partition_and_a_seed(tmp_path: Path) -> None:
    ufs = make_filesystem(tmp_path / "ufs", "ufs", mib=32, tree={"etc/rc.conf": File(content='growfs_enable="YES"\n')})
    esp = make_filesystem(tmp_path / "esp", "vfat", mib=33, label="EFI")
    disk = tmp_path / "disk"
    parts = (
        Part(mib=1, kind=FREEBSD_BOOT),
        Part(mib=33, kind="uefi", filesystem=esp),
        Part(mib=16, kind=FREEBSD_SWAP),
        Part(mib=32, kind=FREEBSD_UFS, filesystem=ufs, name="rootfs"),
    )
    lay_out(disk, parts)
    asked = {
        "passwords": [{"user": "root", "hashed": "$6$salt$hash"}],
        "authorized_keys": "ssh-ed25519 AAAA admin",
        "nics": [{"mac": "aa:00:00:00:00:01", "ipv4": "dhcp"}],
        "files": injected("/etc/motd"),
    }
    outcome = virtual_machine.run(resized(disk, 192), asked=asked)
    assert outcome.finished, outcome.console
    assert outcome.skipped["hostname"] == "it is not for the family freebsd"
    assert table_of(disk) == {1: (1, 1), 2: (2, 33), 3: (35, 16), 4: (51, 124), 5: (175, 16)}
    checked = subprocess.run(["sgdisk", "-v", disk], check=True, capture_output=True, text=True)
    assert "No problems found" in checked.stdout
    assert cut_out(disk, tmp_path / "ufs-after", first_mib=51, mib=32).read_bytes() == ufs.read_bytes()
    seed = cut_out(disk, tmp_path / "seed", first_mib=175, mib=16)
    check_clean(seed, "vfat")
    shown = subprocess.run(["blkid", "-p", "-o", "export", seed], capture_output=True, text=True, check=True).stdout
    assert "LABEL=cidata" in shown
    assert b'local-hostname: "web1"' in read_file(seed, "/meta-data", "vfat")
    user = read_file(seed, "/user-data", "vfat").decode()
    assert user.startswith("#cloud-config\n") and '"$6$salt$hash"' in user and "ssh-ed25519 AAAA admin" in user
    assert b'macaddress: "aa:00:00:00:00:01"' in read_file(seed, "/network-config", "vfat")


def test_an_xfs_on_the_whole_disk_grows(tmp_path: Path) -> None:
    disk = make_filesystem(tmp_path / "disk", "xfs", mib=300, tree=DEBIAN)
    outcome = virtual_machine.run(resized(disk, 400))
    assert outcome.finished, outcome.console
    assert "partition_table" in outcome.skipped and "filesystem_grow_mounted" in outcome.done
    check_clean(disk, "xfs")
    asked_db = ["xfs_db", "-r", "-f", "-c", "sb 0", "-c", "print dblocks", str(disk)]
    assert subprocess.run(asked_db, check=True, capture_output=True).stdout.split()[-1] == b"102400"
    assert read_file(disk, "/etc/hostname", "xfs") == b"web1\n"


@pytest.mark.parametrize("kind", ["ext2", "ext3"])
def test_the_older_two_of_ext_are_checked_grown_and_written(tmp_path: Path, kind: Kind) -> None:
    disk = make_filesystem(tmp_path / "disk", kind, mib=48, tree=DEBIAN)
    outcome = virtual_machine.run(resized(disk, 96))
    assert outcome.finished, outcome.console
    check_clean(disk, kind)
    assert b"Block count:              98304" in debugfs(disk, "stats -h", 0)
    assert read_file(disk, "/etc/hostname", kind) == b"web1\n"
