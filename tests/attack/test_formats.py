"""Disk images made to read files that are not theirs, or to fill a disk (threats A1 to A4 and A6).

Each attack is converted by the real helper VM, and then, as its positive control, by a plain `qemu-img convert` as a
naive program would run it on the host, in namespaces of its own: that one does leak the canary.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
import resource
import struct
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from snf_image_helper.conversion import Way, check
from snf_image_helper.source_headers import SourceError

from synnefo_light.manifest import Failed, Source, SourceFormat
from synnefo_light.run import run as run_program
from tests.real.snf_image_helper.conversions import KINDS, MIB, PACK, blank, convert, make_raw
from tests.real.snf_image_helper.virtual_machine import Outcome
from tests.real.snf_image_host.node import fake_node

CANARY = b"root:$6$canary-of-the-host$:19000:0:99999:7:::\n" * 3000
DISK = 4 * MIB
NAIVE = ("unshare", "--net", "--mount", "--ipc", "--", "prlimit", "--as=2147483648", "--fsize=134217728", "--")


def qemu_img(*words: str | Path | int) -> None:
    subprocess.run(["qemu-img", *map(str, words)], check=True, timeout=60, stdout=subprocess.DEVNULL)


def naive(image: Path) -> bytes:
    """What comes of the image where no format is named and no other file is refused; nothing if it does not work."""
    out = image.with_suffix(".naive")
    command = [*NAIVE, "qemu-img", "convert", "-O", "raw", str(image), str(out)]
    subprocess.run(command, timeout=60, capture_output=True, check=False)
    return out.read_bytes() if out.exists() else b""


# --- attacks that name another file


def backing(canary: Path, image: Path) -> None:
    qemu_img("create", "-f", "qcow2", "-F", "raw", "-b", canary, image, DISK)


def backing_by_json(canary: Path, image: Path) -> None:
    """CVE-2024-4467 and its kind: the name is a whole description of a block device."""
    name = f'json:{{"driver":"raw","file":{{"driver":"file","filename":"{canary}"}}}}'
    qemu_img("create", "-u", "-f", "qcow2", "-F", "raw", "-b", name, image, DISK)


def backing_of_version_2(canary: Path, image: Path) -> None:
    qemu_img("create", "-f", "qcow2", "-o", "compat=0.10", "-F", "raw", "-b", canary, image, DISK)


def data_file(canary: Path, image: Path) -> None:
    """Made with a data file of our own, whose name is then replaced: qemu-img would empty the canary."""
    own = canary.with_name("x" * len(canary.name))
    qemu_img("create", "-f", "qcow2", "-o", f"data_file={own},data_file_raw=on", image, DISK)
    image.write_bytes(image.read_bytes().replace(bytes(own), bytes(canary)))


def nested(canary: Path, image: Path) -> None:
    """OSSA-2024-001: the image is harmless to look at, and so is its backing file, but for the data file of that."""
    middle = image.with_name("middle")
    data_file(canary, middle)
    qemu_img("create", "-u", "-f", "qcow2", "-F", "qcow2", "-b", middle, image, DISK)


def vmdk_flat(canary: Path, image: Path) -> None:
    """CVE-2022-47951."""
    sectors = canary.stat().st_size // 512
    image.write_text(
        '# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType="monolithicFlat"\n'
        f'RW {sectors} FLAT "{canary}" 0\nddb.adapterType = "ide"\n'
    )


def vmdk_embedded(canary: Path, image: Path) -> None:
    """The same within a sparse file: a capacity of nothing makes QEMU take the embedded descriptor for a real one."""
    text = image.with_name("text")
    vmdk_flat(canary, text)
    header = b"KDMV" + struct.pack("<IIQQQQIQQQB", 1, 3, 0, 128, 1, 20, 512, 0, 0, 128, 0) + b"\n \r\n"
    image.write_bytes((header.ljust(512, b"\0") + text.read_bytes()).ljust(MIB, b"\0"))


def vmdk_parent(canary: Path, image: Path) -> None:
    parent = image.with_name("parent")
    qemu_img("convert", "-f", "raw", "-O", "vmdk", canary, parent)
    qemu_img("create", "-f", "vmdk", "-F", "vmdk", "-b", parent, image)


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    format: str
    make: Callable[[Path, Path], None]
    refused: str  # within the sentence


LEAKS = {
    "backing": Leak(format="qcow2", make=backing, refused="the image has a backing file, so it is not whole"),
    "backing-json": Leak(format="qcow2", make=backing_by_json, refused="the image has a backing file"),
    "backing-version-2": Leak(format="qcow2", make=backing_of_version_2, refused="the image has a backing file"),
    "data-file": Leak(format="qcow2", make=data_file, refused="the image has a data file, so it is not whole"),
    "nested-data-file": Leak(format="qcow2", make=nested, refused="the image has a backing file"),
    "vmdk-flat": Leak(format="vmdk", make=vmdk_flat, refused="the image is a VMDK whose extents are other files"),
    "vmdk-embedded": Leak(format="vmdk", make=vmdk_embedded, refused="a VMDK whose descriptor is not where it belongs"),
    "vmdk-parent": Leak(format="vmdk", make=vmdk_parent, refused="the image is a VMDK with a parent"),
}


def leaking(folder: Path, name: str) -> Path:
    canary, image = folder / "canary", folder / "image"
    canary.write_bytes(CANARY.ljust(-(-len(CANARY) // 512) * 512, b"\0"))
    LEAKS[name].make(canary, image)
    return image


def assert_refused(outcome: Outcome, disk: Path, sentence: str) -> Failed:
    """Not a byte was written, and the reason says what is wrong."""
    assert outcome.failed is not None, outcome.console
    assert outcome.failed.task == "convert"
    assert sentence in outcome.failed.reason
    assert not outcome.failed.changed
    assert disk.stat().st_blocks == 0
    assert b"canary-of-the-host" not in outcome.console.encode()
    return outcome.failed


@pytest.mark.vm
@pytest.mark.parametrize("name", LEAKS)
def test_an_image_that_names_another_file_is_refused(tmp_path: Path, name: str) -> None:
    image, disk = leaking(tmp_path, name), blank(tmp_path / "disk", size=2 * DISK)
    assert_refused(convert(image, disk, format=LEAKS[name].format), disk, LEAKS[name].refused)


@pytest.mark.parametrize("name", LEAKS)
def test_a_naive_conversion_of_the_same_image_leaks(tmp_path: Path, name: str) -> None:
    """The positive control."""
    assert CANARY in naive(leaking(tmp_path, name))


def differencing_vhdx(folder: Path) -> Path:
    """A VHDX whose file parameters say that it has a parent ([MS-VHDX] 2.6.2.1)."""
    image = folder / "image"
    KINDS["vhdx"].make(make_raw(folder / "raw"), image)
    content = bytearray(image.read_bytes())
    place = content.index(bytes.fromhex("3767a1ca36fa434db3b633f0aa44e76b"))
    table = content.rindex(b"metadata", 0, place)
    (offset,) = struct.unpack_from("<I", content, place + 16)
    content[table + offset + 4] |= 2
    image.write_bytes(content)
    return image


@pytest.mark.vm
def test_a_vhdx_with_a_parent_is_refused_by_that_name(tmp_path: Path) -> None:
    """QEMU cannot follow a VHDX to its parent, so no naive conversion leaks; it only says "Invalid argument"."""
    image, disk = differencing_vhdx(tmp_path), blank(tmp_path / "disk", size=24 * MIB)
    assert_refused(convert(image, disk, format="vhdx"), disk, "a differencing VHDX: it has a parent")
    assert naive(image) == b""


# --- A4: a raw image that looks like something else


@pytest.mark.vm
def test_a_raw_image_with_the_header_of_a_qcow2_stays_raw(tmp_path: Path) -> None:
    """What was said to be raw is written as it is, whatever it looks like."""
    image, disk = leaking(tmp_path, "backing"), blank(tmp_path / "disk", size=2 * DISK)
    packed = tmp_path / "packed"
    packed.write_bytes(gzip.compress(image.read_bytes()))
    outcome = convert(packed, disk, format="raw", compression="gzip")
    assert outcome.finished, outcome.console
    content = disk.read_bytes()
    assert content[: image.stat().st_size] == image.read_bytes()
    assert b"canary-of-the-host$:" not in content


def test_the_host_copies_a_raw_image_with_the_header_of_a_qcow2_as_it_is(tmp_path: Path) -> None:
    """No helper VM is even started; a naive conversion of the copied disk leaks (the control above)."""
    image = leaking(tmp_path, "backing")
    disk = blank(tmp_path / "disk", size=2 * DISK)
    with fake_node() as node:
        (node.images / "looks.raw").write_bytes(image.read_bytes())
        properties = '{"EXCLUDE_ALL_TASKS": "yes"}'
        outcome = node.create(disk, img_id="looks.raw", img_properties=properties)
    assert outcome.returncode == 0, outcome.output
    assert disk.read_bytes()[: image.stat().st_size] == image.read_bytes()
    assert CANARY in naive(disk)


@pytest.mark.vm
@pytest.mark.parametrize("format", ["qcow2", "vmdk", "vhdx", "vdi"])
def test_a_raw_disk_that_was_said_to_be_something_else_is_refused(tmp_path: Path, format: str) -> None:
    image, disk = make_raw(tmp_path / "raw"), blank(tmp_path / "disk", size=24 * MIB)
    assert_refused(convert(image, disk, format=format), disk, "it" if format == "vmdk" else f"was said to be {format}")


# --- A6: sizes


def huge(folder: Path, name: str) -> Path:
    """A small file that says it is a disk of nearly 16 EiB."""
    image = folder / "image"
    KINDS[name].make(make_raw(folder / "raw"), image)
    content = bytearray(image.read_bytes())
    if name == "qcow2":
        struct.pack_into(">Q", content, 24, (1 << 64) - 512)
    elif name == "vmdk":
        struct.pack_into("<Q", content, 12, (1 << 55) - 1)
    elif name == "vdi":
        struct.pack_into("<QI", content, 368, (1 << 32) * MIB - MIB, MIB)
        struct.pack_into("<I", content, 384, (1 << 32) - 1)
    else:
        place = content.index(bytes.fromhex("2442a52f1bcd7648b2115dbed83bf4b8"))
        table = content.rindex(b"metadata", 0, place)
        (offset,) = struct.unpack_from("<I", content, place + 16)
        struct.pack_into("<Q", content, table + offset, (1 << 64) - 512)
    image.write_bytes(content)
    return image


def checked(image: Path, *, format: str, limit: int = 24 * MIB) -> tuple[str, ...]:
    """The first half of a conversion, here and not in the VM: its parsers and the same qemu-img, on a file."""
    source = Source(format=SourceFormat(format), size=image.stat().st_size)
    way = Way(source=source, node=str(image), target="/nonexistent", limit=limit)
    return check(way, available=image.stat().st_size, runner=run_program)


@pytest.mark.parametrize("name", ["qcow2", "vmdk", "vhdx", "vdi"])
def test_a_disk_of_exabytes_is_refused_at_once(tmp_path: Path, name: str) -> None:
    image = huge(tmp_path, name)
    started = time.monotonic()
    with pytest.raises(SourceError, match=r"the image holds a disk of \d{9,} MiB, but disk 0 has 24 MiB"):
        checked(image, format=name)
    assert time.monotonic() - started < 1


def test_a_naive_conversion_takes_the_size_that_an_image_says(tmp_path: Path) -> None:
    """The positive control: a file of a few bytes becomes a disk of a terabyte."""
    image = tmp_path / "image"
    qemu_img("create", "-f", "qcow2", image, "1T")
    out = tmp_path / "out"
    qemu_img("convert", "-O", "raw", image, out)
    assert out.stat().st_size == 1 << 40
    with pytest.raises(SourceError, match="ask for --disk 0:size=1048576M or more"):
        checked(image, format="qcow2")


BOMB = 128 * MIB


def shell(script: str, *words: str | Path) -> bytes:
    command = ["sh", "-c", script, "sh", *map(str, words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=120).stdout


def bomb(kind: str, path: Path) -> Path:
    """Zeros that take a thousandth of their size."""
    if kind == "zstd":
        shell('head -c "$1" /dev/zero | zstd -q -c >"$2"', str(BOMB), path)
        return path
    makers: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress}
    # Streams in a row are one image: what makes 16 MiB makes any multiple of it.
    path.write_bytes(makers[kind](bytes(16 * MIB)) * (BOMB // (16 * MIB)))
    return path


@pytest.mark.vm
@pytest.mark.parametrize("kind", [kind for kind in PACK if kind != "none"])
def test_a_bomb_stops_at_the_end_of_the_disk(tmp_path: Path, kind: str) -> None:
    image, disk = bomb(kind, tmp_path / "image"), blank(tmp_path / "disk", size=8 * MIB)
    assert image.stat().st_size < MIB
    outcome = convert(image, disk, format="raw", compression=kind)
    assert outcome.failed is not None, outcome.console
    assert outcome.failed.reason == (
        "the image goes on behind the end of disk 0, which has 8 MiB; ask for a larger one by --disk 0:size"
    )
    assert (disk.stat().st_size, disk.stat().st_blocks) == (8 * MIB, 0)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10
    assert peak < 600, f"{peak} MiB of the host's memory were taken"


@pytest.mark.parametrize("kind", [kind for kind in PACK if kind != "none"])
def test_a_naive_decompression_goes_on_to_the_end(tmp_path: Path, kind: str) -> None:
    """The positive control."""
    image = bomb(kind, tmp_path / "image")
    assert int(shell('"$1" -dc <"$2" | wc -c', PACK[kind][0], image)) == BOMB


# --- files that were cut, or changed at random


@pytest.mark.vm
@pytest.mark.parametrize("kind", [kind for kind in PACK if kind != "none"])
def test_a_compressed_image_that_was_cut_is_not_whole(tmp_path: Path, kind: str) -> None:
    image, disk = tmp_path / "image", blank(tmp_path / "disk", size=24 * MIB)
    KINDS[kind].make(make_raw(tmp_path / "raw"), image)
    outcome = convert(image, disk, format="raw", compression=kind, size=image.stat().st_size - 1)
    assert outcome.failed is not None, outcome.console
    assert outcome.failed.reason == f"the image ends in the middle of its {kind} stream; it is not whole"
    assert outcome.failed.changed


IMAGES = [name for name, kind in KINDS.items() if kind.format != "raw"]


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_that_was_cut_is_not_whole(tmp_path: Path, name: str) -> None:
    image = tmp_path / "image"
    KINDS[name].make(make_raw(tmp_path / "raw"), image)
    whole = image.read_bytes()
    checked(image, format=KINDS[name].format)
    for part in (0.01, 0.2, 0.5):
        image.write_bytes(whole[: int(len(whole) * part) // 512 * 512])
        with pytest.raises(SourceError, match=r"not whole|ends before|damaged"):
            checked(image, format=KINDS[name].format)


def test_a_naive_conversion_of_a_cut_image_succeeds_with_zeros(tmp_path: Path) -> None:
    """The positive control: behind the end of a qcow2 QEMU reads zeros and says nothing."""
    raw, image = make_raw(tmp_path / "raw"), tmp_path / "image"
    KINDS["qcow2"].make(raw, image)
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) * 3 // 5 // 512 * 512])
    made = naive(image)
    assert len(made) == raw.stat().st_size
    assert made != raw.read_bytes()


@pytest.mark.parametrize("name", IMAGES)
def test_no_change_of_a_header_makes_qemu_img_see_more_than_we_do(tmp_path: Path, name: str) -> None:
    """What our parsers let through, qemu-img describes as one whole file of the same size, or cannot open."""
    chance = random.Random(name)
    image = tmp_path / "image"
    KINDS[name].make(make_raw(tmp_path / "raw", size=2 * MIB), image)
    whole = image.read_bytes()
    kind = KINDS[name].format
    places = [n for n in range(min(len(whole), 2 * MIB)) if whole[n] or n < 512][:4000]
    ends: dict[str, int] = {}
    for _ in range(60):
        content = bytearray(whole)
        for _ in range(chance.randint(1, 3)):
            content[chance.choice(places)] = chance.choice((0, 1, 2, 4, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        image.write_bytes(content)
        try:
            checked(image, format=kind)
        except SourceError as e:
            end = str(e)
            # These are the sentences of parse_info about other files: our own parsers must have seen them first.
            for missed in ("which is not accepted", "qemu-img takes the image for", "qemu-img sees a disk of"):
                assert missed not in end, end
            ends["refused"] = ends.get("refused", 0) + 1
        else:
            ends["read"] = ends.get("read", 0) + 1
    assert ends.get("read", 0) + ends.get("refused", 0) == 60
    assert ends.get("refused", 0) >= 1
