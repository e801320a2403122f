"""File systems with damage that somebody meant: bytes changed where a file system driver believes what it reads.

Kinds x regions x rounds; the seed of each is its own name, so that one attack can be repeated alone. Checksums are
made right again or were left out when the base was made, else the first of them would hide what is behind it.
"""

from __future__ import annotations

import dataclasses
import functools
import random
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.attack.attempt import Attack
from tests.attack.corpus.regions import FINDERS, REGIONS, Region
from tests.disk_images import DEBIAN, MIB, Entry, File, Folder, run_tool
from tests.filesystem_images import make_filesystem
from tests.layouts import MICROSOFT_DATA, Part, lay_out

KINDS = tuple(FINDERS)
ROUNDS = 9
SIZES_MIB = {"ext4": 32, "xfs": 300, "btrfs": 128, "f2fs": 100, "vfat": 40, "ntfs": 32}
#: Attacks that run side by side want the same bases: one makes them, the others wait.
_MAKING = threading.Lock()
UUID = "7f5c0e66-0a57-4c1b-9b39-0ddc0ffee000"
FSTAB = "LABEL=root / auto defaults 0 1\nLABEL=ESP /boot/efi vfat umask=0077 0 1\n"


def corpus(rounds: int = ROUNDS) -> tuple[Attack, ...]:
    """Round by round, so that a shorter list still has every kind and every region."""
    return tuple(_attack(kind, region, n) for n in range(rounds) for kind in KINDS for region in REGIONS)


def sample() -> tuple[Attack, ...]:
    """Each kind and each region, though not each with each."""
    count = len(REGIONS)
    return tuple(attack for n, attack in enumerate(corpus(rounds=1)) if n % count == n // count % count)


def _attack(kind: str, region: str, n: int) -> Attack:
    return Attack(
        name=f"fuzz-{kind}-{region}-{n}",
        make=functools.partial(mutated, kind=kind, region=region, seed=f"{kind}-{region}-{n}"),
        disk_mib=_disk_mib(kind) + 32,
        parameters={"img_properties": '{"OSFAMILY": "windows"}'} if kind == "ntfs" else {},
    )


def good(kind: str) -> Attack:
    """The control: the base as it is, deployed in the same way."""
    return dataclasses.replace(
        _attack(kind, "superblock", 0), name=f"fuzz-{kind}-good", make=functools.partial(_unchanged, kind=kind)
    )


def _unchanged(path: Path, *, kind: str) -> None:
    with _MAKING:
        base = base_disk(kind)
    subprocess.run(["cp", "--sparse=always", base, path], check=True, timeout=120)


def _disk_mib(kind: str) -> int:
    """Of the image; btrfs cannot be grown to less than 256 MiB by the kernel."""
    return 2 + SIZES_MIB[kind] + {"vfat": SIZES_MIB["ext4"], "btrfs": 160}.get(kind, 0)


def mutated(path: Path, *, kind: str, region: str, seed: str) -> None:
    """The base disk of `kind`, with bytes of `region` changed as `seed` says."""
    _unchanged(path, kind=kind)
    where = regions_of(kind)[region]
    with open(path, "r+b") as disk:
        disk.seek(MIB + where.offset)
        block = bytearray(disk.read(where.length))
        mutate(block, random.Random(seed))
        where.seal(block)
        disk.seek(MIB + where.offset)
        disk.write(block)


def mutate(block: bytearray, chance: random.Random) -> None:
    """Changes `block` in one to four places, always in fact."""
    before = bytes(block)
    while bytes(block) == before:
        for _ in range(chance.randint(1, 4)):
            chance.choice(OPERATORS)(block, chance)


def _flip(block: bytearray, chance: random.Random) -> None:
    for _ in range(chance.randint(1, 16)):
        block[chance.randrange(len(block))] ^= 1 << chance.randrange(8)


def _extreme(block: bytearray, chance: random.Random) -> None:
    """A number at its limits: where sizes, counts and addresses are."""
    width = chance.choice((2, 4, 8))
    at = chance.randrange(0, len(block) - width, width)
    value = chance.choice((0, 1, (1 << 8 * width) - 1, (1 << 8 * width - 1) - 1, 1 << 8 * width - 1))
    block[at : at + width] = value.to_bytes(width, chance.choice(("little", "big")))


def _noise(block: bytearray, chance: random.Random) -> None:
    length = min(chance.choice((4, 16, 64)), len(block))
    at = chance.randrange(0, len(block) - length + 1)
    block[at : at + length] = chance.randbytes(length)


def _move(block: bytearray, chance: random.Random) -> None:
    """Right bytes in the wrong place."""
    length = min(32, len(block) // 4)
    source, target = (chance.randrange(0, len(block) - length, 4) for _ in range(2))
    block[target : target + length] = block[source : source + length]


OPERATORS: Sequence[Callable[[bytearray, random.Random], None]] = (_flip, _extreme, _noise, _move)


@functools.cache
def _work() -> Path:
    return Path(tempfile.mkdtemp(prefix="snf-corpus-"))


def forget_bases() -> None:
    """Remove what the bases take on the disk."""
    shutil.rmtree(_work())
    for cached in (_work, base_disk, regions_of, _filesystem):
        cached.cache_clear()


@functools.cache
def base_disk(kind: str) -> Path:
    """A good disk with a small Debian on this kind of file system; with an ESP before it for vfat, with data for NTFS.

    The file system that is to be changed begins at 1 MiB.
    """
    made = _filesystem(kind)
    size = SIZES_MIB[kind]
    if kind == "vfat":
        root = _work() / "vfat-root"
        make_filesystem(root, "ext4", mib=SIZES_MIB["ext4"], tree=_tree(), uuid=UUID)
        parts = [Part(mib=size, kind="uefi", filesystem=made), Part(mib=SIZES_MIB["ext4"], filesystem=root)]
    else:
        parts = [Part(mib=size, kind=MICROSOFT_DATA if kind == "ntfs" else "linux", filesystem=made)]
    disk = _work() / f"{kind}.disk"
    lay_out(disk, parts)
    return disk


@functools.cache
def regions_of(kind: str) -> dict[str, Region]:
    return dict(FINDERS[kind](_filesystem(kind)))


@functools.cache
def _filesystem(kind: str) -> Path:
    path, size = _work() / kind, SIZES_MIB[kind]
    if kind == "ntfs":
        with open(path, "wb") as file:
            file.truncate(size * MIB)
        run_tool(["mkntfs", "-q", "-F", "-f", "-L", "root", str(path)])
    elif kind == "vfat":
        make_filesystem(path, "vfat", mib=size, tree={"EFI/BOOT/BOOTX64.EFI": File(content=b"MZ" * 512)}, label="ESP")
    elif kind == "ext4":
        make_filesystem(path, "ext4", mib=size, tree=_tree(), uuid=UUID)
        run_tool(["tune2fs", "-O", "^metadata_csum", str(path)])
    else:
        make_filesystem(path, kind, mib=size, tree=_tree(), uuid=UUID)  # type: ignore[arg-type]
    return path


def _tree() -> dict[str, Entry]:
    tree = {n: e for n, e in DEBIAN.items() if e is not None}
    return tree | {"etc/fstab": File(content=FSTAB), "boot/efi": Folder()}
