"""The pure parts of snf-image-helper-build."""

from __future__ import annotations

import gzip
import importlib.machinery
import importlib.util
import lzma
import struct
from pathlib import Path
from typing import Any

import pytest

TREE = Path(__file__).resolve().parents[3]


def load() -> Any:
    path = str(TREE / "snf-image-helper" / "vm" / "snf-image-helper-build")
    loader = importlib.machinery.SourceFileLoader("snf_image_helper_build", path)
    spec = importlib.util.spec_from_loader("snf_image_helper_build", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


recipe = load()


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("./bin/busybox", "usr/bin/busybox"),
        ("lib/x86_64-linux-gnu/libc.so.6", "usr/lib/x86_64-linux-gnu/libc.so.6"),
        ("/lib64/ld-linux-x86-64.so.2", "usr/lib64/ld-linux-x86-64.so.2"),
        ("./usr/bin/python3.11", "usr/bin/python3.11"),
        ("./library/x", "library/x"),
    ],
)
def test_paths_are_those_of_a_merged_usr(name: str, result: str) -> None:
    assert recipe.merged(name) == result


def bz_image(payload: bytes, size: int) -> bytes:
    """A bzImage with one setup sector and this payload, which says that it unpacks to `size` bytes."""
    image = bytearray(1024)
    image[0x1F1] = 1
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", image, 0x248, 16, len(payload) + 4)
    return bytes(image) + bytes(16) + payload + struct.pack("<I", size) + b"more"


ELF = b"\x7fELF" + bytes(1000)


def test_the_kernel_is_taken_out_of_its_wrapping() -> None:
    assert recipe.vmlinux(bz_image(lzma.compress(ELF), len(ELF))) == ELF
    packed = gzip.compress(ELF)  # gzip's own last four bytes are that size
    assert recipe.vmlinux(bz_image(packed[:-4], len(ELF))) == ELF


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (bytes(4096), "not a bzImage"),
        (bz_image(lzma.compress(b"no kernel"), 9), "not an ELF kernel"),
        (bz_image(lzma.compress(ELF), len(ELF) + 1), "not an ELF kernel of 1005"),
    ],
)
def test_what_is_not_a_kernel_is_refused(image: bytes, says: str) -> None:
    with pytest.raises(recipe.EnvironmentFault, match=says):
        recipe.vmlinux(image)


def module(depends: str, *soft: str) -> bytes:
    return f"\0license=GPL\0depends={depends}\0{''.join(f'softdep=pre: {name}{chr(0)}' for name in soft)}".encode()


def test_modules_are_loaded_after_what_they_need() -> None:
    modules = {
        "virtio_pci": lzma.compress(module("virtio,virtio-ring")),
        "virtio": module("virtio-ring"),
        "virtio_ring": module(""),
        "xfs": module("libcrc32c"),
        "libcrc32c": module("", "crc32c"),
        "btrfs": module("libcrc32c", "blake2b-256", "crypto-crc32c"),
        "crc32c_generic": module(""),
    }
    assert recipe.load_order(modules, ["virtio_pci", "built_in"]) == ["virtio_ring", "virtio", "virtio_pci"]
    assert recipe.load_order(modules, ["xfs"]) == ["crc32c_generic", "libcrc32c", "xfs"]
    assert recipe.load_order(modules, ["btrfs"]) == ["crc32c_generic", "libcrc32c", "btrfs"]
    assert modules["virtio_pci"].startswith(b"\0license"), "unpacked for insmod"


def test_what_is_built_into_the_kernel_is_known_by_the_names_of_modules() -> None:
    files = {"usr/lib/modules/6.1.0/modules.builtin": b"kernel/fs/ext4/ext4.ko\nkernel/drivers/md/dm-mod.ko\n"}
    assert recipe.built_in(files, "6.1.0") == {"ext4", "dm_mod"}


def test_a_module_loses_its_signature_and_hides_its_types() -> None:
    body = b"\x7fELF code \0.symtab\0.BTF\0.BTF_ids\0"
    signed = body + b"PKCS7" + bytes(8) + struct.pack(">I", 5) + b"~Module signature appended~\n"
    expected = b"\x7fELF code \0.symtab\0.btf\0.BTF_ids\0"
    assert recipe.bare_module(signed) == expected
    assert recipe.bare_module(body) == expected


def test_the_initrd_is_the_same_whatever_the_order() -> None:
    files = {"init": (0o755, b"#!/bin/sh\n"), "bin/python": (0o755, b"abc")}
    one = recipe.newc(files, folders=("bin", "dev"))
    other = recipe.newc(dict(reversed(files.items())), folders=("dev", "bin"))
    assert one == other
    assert one.startswith(b"070701") and one.count(b"070701") == 5 and len(one) % 4 == 0


def test_links_of_the_packages_are_followed_to_a_file() -> None:
    files = {"usr/sbin/mke2fs": b"x", "usr/sbin/mkfs.ext4": "->mke2fs", "usr/bin/a": "->/sbin/mke2fs", "b": "->b"}
    assert recipe._content(files, "usr/sbin/mkfs.ext4") == b"x"
    assert recipe._content(files, "usr/bin/a") == b"x"
    for missing in ("b", "usr/bin/nothing"):
        with pytest.raises(recipe.EnvironmentFault, match=f"no /{missing}"):
            recipe._content(files, missing)
