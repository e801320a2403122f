"""Images in every format and compression, made from a raw disk by other programs, and the VM that writes them."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.real.snf_image_helper.virtual_machine import Outcome, run
from tests.task_list import NAMES

MIB = 1 << 20
PACK = {
    "none": ["cat"],
    "gzip": ["gzip", "-c"],
    "xz": ["xz", "-c"],
    "zstd": ["zstd", "-q", "-c"],
    "bzip2": ["bzip2", "-c"],
}


def make_raw(path: Path, *, size: int = 20 * MIB + 512 * 7, seed: int = 1) -> Path:
    """Noise, text, holes and an odd end: nothing that is a multiple of anything but a sector."""
    chance = random.Random(seed)
    with open(path, "wb") as file:
        file.truncate(size)
        for start in (0, 3 * MIB + 4096, size - 70_000):
            file.seek(start)
            file.write(chance.randbytes(70_000))
        file.seek(5 * MIB)
        file.write(b"the quick brown fox " * 100_000)
        file.seek(size - 1)
        file.write(b"!")
    return path


def qemu_img(kind: str, *options: str, convert: tuple[str, ...] = ()) -> Callable[[Path, Path], object]:
    def make(raw: Path, image: Path) -> None:
        words = ["qemu-img", "convert", *convert, "-f", "raw", "-O", kind, *(w for o in options for w in ("-o", o))]
        subprocess.run([*words, raw, image], check=True, timeout=60)

    return make


def packed(kind: str) -> Callable[[Path, Path], object]:
    def make(raw: Path, image: Path) -> None:
        with open(image, "wb") as out:
            subprocess.run([*PACK[kind], raw], stdout=out, check=True, timeout=60)

    return make


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    format: str
    make: Callable[[Path, Path], object]
    compression: str = "none"


KINDS = {
    **{kind: Kind(format="raw", compression=kind, make=packed(kind)) for kind in PACK},
    "qcow2": Kind(format="qcow2", make=qemu_img("qcow2")),
    "qcow2-v2": Kind(format="qcow2", make=qemu_img("qcow2", "compat=0.10")),
    "qcow2-zlib": Kind(format="qcow2", make=qemu_img("qcow2", convert=("-c",))),
    "qcow2-zstd": Kind(format="qcow2", make=qemu_img("qcow2", "compression_type=zstd", convert=("-c",))),
    "qcow2-extended": Kind(format="qcow2", make=qemu_img("qcow2", "extended_l2=on,cluster_size=128k")),
    "qcow2-small": Kind(format="qcow2", make=qemu_img("qcow2", "cluster_size=512,lazy_refcounts=on")),
    "vmdk": Kind(format="vmdk", make=qemu_img("vmdk", "subformat=monolithicSparse")),
    "vmdk-stream": Kind(format="vmdk", make=qemu_img("vmdk", "subformat=streamOptimized")),
    "vhdx": Kind(format="vhdx", make=qemu_img("vhdx")),
    "vhdx-fixed": Kind(format="vhdx", make=qemu_img("vhdx", "subformat=fixed")),
    "vdi": Kind(format="vdi", make=qemu_img("vdi")),
    "vdi-static": Kind(format="vdi", make=qemu_img("vdi", "static=on")),
}


def convert(image: Path, disk: Path, *, format: str, compression: str = "none", size: int | None = None) -> Outcome:
    """Have the VM write the image onto the disk, and do nothing else."""
    source = {"format": format, "compression": compression, "size": image.stat().st_size if size is None else size}
    return run(disk, source=image, asked={"source": source, "skip": [name for name in NAMES if name != "convert"]})


def blank(path: Path, *, size: int) -> Path:
    with open(path, "wb") as file:
        file.truncate(size)
    return path
