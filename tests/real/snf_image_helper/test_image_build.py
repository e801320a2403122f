"""The VM's image is built for real, twice, and taken apart by other tools."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from synnefo_light import __version__

TREE = Path(__file__).resolve().parents[3]
BUILD = TREE / "snf-image-helper" / "vm" / "snf-image-helper-build"
NAMES = ["helper.json", "initrd.img", "root.squashfs", "vmlinux"]


def build(output: Path, cache: Path, **environment: str) -> Path:
    done = subprocess.run(
        ["/usr/bin/python3", BUILD, "--output", output, "--cache", cache],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, **environment},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return output


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    return build(tmp_path_factory.mktemp("one"), cache)


def test_two_builds_have_the_same_bytes(built: Path, cache: Path, tmp_path: Path) -> None:
    other = build(tmp_path / "other" / "place", cache, TZ="Asia/Tokyo", PYTHONHASHSEED="7", LC_ALL="C")
    for name in NAMES:
        assert (built / name).read_bytes() == (other / name).read_bytes(), name


def test_nothing_but_the_image_is_left(built: Path, cache: Path) -> None:
    assert sorted(os.listdir(built)) == NAMES
    assert len(os.listdir(cache)) == 1


def test_the_description_is_true_and_the_whole_fits(built: Path) -> None:
    described = json.loads((built / "helper.json").read_text())
    assert described["version"] == __version__
    assert sorted([*described["files"], "helper.json"]) == NAMES
    for name, file in described["files"].items():
        content = (built / name).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file["size"], file["sha256"])
    assert sum(file["size"] for file in described["files"].values()) <= 120 << 20
    assert {"linux-image-amd64", "python3-pyudev", "e2fsprogs"} <= set(described["packages"])


def listed(built: Path) -> list[str]:
    shown = subprocess.run(["unsquashfs", "-lln", built / "root.squashfs"], capture_output=True, text=True, check=True)
    return [line for line in shown.stdout.splitlines() if "squashfs-root" in line]


def test_the_root_holds_no_program_that_the_helper_does_not_run(built: Path) -> None:
    programs = {m[1] for line in listed(built) if (m := re.search(r"squashfs-root(/usr/s?bin/\S+)$", line))}
    assert {"/usr/sbin/e2fsck", "/usr/bin/qemu-img", "/usr/sbin/lvm"} <= programs
    code = "".join(file.read_text() for file in (TREE / "snf-image-helper" / "snf_image_helper").rglob("*.py"))
    assert {program for program in programs if f'"{program}"' not in code} == set()


def test_nothing_in_the_root_is_setuid_or_of_another_owner_or_time(built: Path) -> None:
    lines = listed(built)
    assert len(lines) > 300
    for line in lines:
        mode, owner, _, date, *_ = line.split()
        assert "s" not in mode[1:].replace("-", "") and owner == "0/0" and date == "1970-01-01", line


def test_every_library_that_a_program_names_is_there(built: Path, tmp_path: Path) -> None:
    """By the VM's own loader, not by our reader of ELF files."""
    root = tmp_path / "root"
    subprocess.run(["unsquashfs", "-q", "-n", "-d", root, built / "root.squashfs"], check=True, capture_output=True)
    libraries = root / "usr/lib/x86_64-linux-gnu"
    objects = [*(root / "usr/bin").iterdir(), *(root / "usr/sbin").iterdir()]
    objects += (root / "usr/lib/python3.11/lib-dynload").iterdir()
    for program in objects:
        shown = subprocess.run(
            [
                root / "usr/lib64/ld-linux-x86-64.so.2",
                "--inhibit-cache",
                "--library-path",
                libraries,
                "--list",
                program,
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert shown.returncode == 0 and "not found" not in shown.stdout, program
        paths = re.findall(r"=> (\S+)", shown.stdout)
        assert all(path.startswith(str(root)) for path in paths), shown.stdout
        assert paths or "statically linked" in shown.stdout, shown.stdout


def test_the_kernel_has_the_note_that_lets_qemu_start_it(built: Path) -> None:
    # XEN_ELFNOTE_PHYS32_ENTRY is note 18 of the owner "Xen" (xen/include/public/elfnote.h).
    assert b"\x04\0\0\0\x08\0\0\0\x12\0\0\0Xen\0" in (built / "vmlinux").read_bytes()
