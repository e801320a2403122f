"""Headers of disk images: what is accepted, and what is refused by its name."""

from __future__ import annotations

import contextlib
import random
import struct
import time
import uuid
from collections.abc import Callable

import pytest
from snf_image_helper.source_headers import Header, SourceError, parse_header

from synnefo_light.manifest import SourceFormat

MIB = 1 << 20


def parsed(kind: SourceFormat, image: bytes) -> Header:
    def read(offset: int, length: int) -> bytes:
        assert length <= 64 << 10, "a header is read in bounded pieces"
        return image[offset : offset + length] if offset >= 0 else b""

    return parse_header(kind, read, size=len(image))


def refusal(kind: SourceFormat, image: bytes) -> str:
    with pytest.raises(SourceError) as caught:
        parsed(kind, image)
    return str(caught.value)


def qcow2(
    *,
    version: int = 3,
    backing: int = 0,
    bits: int = 16,
    crypt: int = 0,
    l1: int = 1,
    refcounts: int = 1,
    snapshots: int = 0,
    features: int = 0,
    extensions: tuple[tuple[int, bytes], ...] = (),
    size: int = 8 * MIB,
) -> bytes:
    """As docs/interop/qcow2.txt has it."""
    fields = (backing, 0, bits, size, crypt, l1, 3 << bits, 1 << bits, refcounts, snapshots, 0)
    image = b"QFI\xfb" + struct.pack(">IQIIQIIQQIIQ", version, *fields)
    if version == 3:
        image += struct.pack(">QQQII", features, 0, 0, 4, 112) + bytes(8)
    for kind, data in extensions:
        image += struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8)
    return image.ljust(256 << 10, b"\0")


DESCRIPTOR = '# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType="{kind}"\n{extents}'


def vmdk(
    *,
    capacity: int = 8 * MIB // 512,
    kind: str = "monolithicSparse",
    extents: str = 'RW 16384 SPARSE "a.vmdk"\n',
    more: str = "",
    descriptor_at: int = 1,
    at_end: bool = False,
    footer: bytes | None = None,
) -> bytes:
    """As "Virtual Disk Format 5.0" has it."""
    table = (1 << 64) - 1 if at_end else 24

    def header(place: int) -> bytes:
        fields = (1, 3, capacity, 128, descriptor_at, 20, 512, 0, place, 128, 0)
        return (b"KDMV" + struct.pack("<IIQQQQIQQQB", *fields) + b"\n \r\n\1\0").ljust(512, b"\0")

    text = (DESCRIPTOR.format(kind=kind, extents=extents) + more).encode()
    image = (header(table) + text.ljust(20 * 512, b"\0")).ljust(140 * 512, b"\0")
    if at_end:
        image += bytes(512) + (header(24) if footer is None else footer.ljust(512, b"\0")) + bytes(512)
    return image


METADATA, SIZE, PARAMETERS, PARENT = (
    uuid.UUID(name).bytes_le
    for name in (
        "8B7CA206-4790-4B9A-B8FE-575F050F886E",
        "2FA54224-CD1B-4876-B211-5DBED83BF4B8",
        "CAA16737-FA36-4D43-B3B6-33F0AA44E76B",
        "A8D35F2D-B30B-454D-ABF7-D3D84834AB0C",
    )
)


def vhdx(*, size: int = 8 * MIB, bits: int = 0, parent: bool = False, without: bytes = b"", regions: int = 1) -> bytes:
    """As [MS-VHDX] has it, as far as the metadata."""
    image = bytearray(2 * MIB)
    image[:8] = b"vhdxfile"
    image[192 << 10 : (192 << 10) + 16] = b"regi" + struct.pack("<III", 0, regions, 0)
    image[(192 << 10) + 16 : (192 << 10) + 48] = METADATA + struct.pack("<QII", MIB, MIB, 1)
    items = [(SIZE, 65536 + 8), (PARAMETERS, 65536), *([(PARENT, 65536 + 16)] if parent else [])]
    items = [(name, offset) for name, offset in items if name != without]
    table = b"metadata" + struct.pack("<HH", 0, len(items)) + bytes(20)
    table += b"".join(name + struct.pack("<IIII", offset, 8, 6, 0) for name, offset in items)
    image[MIB : MIB + len(table)] = table
    image[MIB + 65536 : MIB + 65536 + 16] = struct.pack("<IIQ", 8 * MIB, bits, size)
    return bytes(image)


def vdi(
    *,
    version: int = 0x00010001,
    kind: int = 1,
    size: int = 8 * MIB,
    block: int = MIB,
    blocks: int = 8,
    allocated: int = 1,
    link: bytes = bytes(16),
    parent: bytes = bytes(16),
) -> bytes:
    """As VDICore.h has it."""
    start = struct.pack("<64sIIIII256sII", b"<<< disk >>>", 0xBEDA107F, version, 400, kind, 0, b"", 512, MIB)
    shape = struct.pack("<IIIIIQIIII", 0, 0, 0, 512, 0, size, block, 0, blocks, allocated)
    return (start + shape + bytes(32) + link + parent).ljust(2 * MIB, b"\0")


MAKERS: dict[SourceFormat, Callable[[], bytes]] = {
    SourceFormat.QCOW2: qcow2,
    SourceFormat.VMDK: vmdk,
    SourceFormat.VHDX: vhdx,
    SourceFormat.VDI: vdi,
}


@pytest.mark.parametrize(
    ("kind", "image"),
    [
        (SourceFormat.QCOW2, qcow2()),
        (SourceFormat.QCOW2, qcow2(version=2)),
        (SourceFormat.QCOW2, qcow2(features=0b11001)),
        (SourceFormat.QCOW2, qcow2(extensions=((0x6803F857, bytes(48)), (0x23852875, bytes(24))))),
        (SourceFormat.VMDK, vmdk()),
        (SourceFormat.VMDK, vmdk(kind="streamOptimized", at_end=True)),
        (SourceFormat.VHDX, vhdx()),
        (SourceFormat.VDI, vdi()),
        (SourceFormat.VDI, vdi(kind=2)),
    ],
)
def test_a_whole_image_says_the_size_of_its_disk(kind: SourceFormat, image: bytes) -> None:
    assert parsed(kind, image) == Header(virtual_size=8 * MIB)


def test_internal_snapshots_are_told_of_and_left_out() -> None:
    (note,) = parsed(SourceFormat.QCOW2, qcow2(snapshots=2)).notes
    assert note == "the image has 2 internal snapshots; they are left out, its current state is used"


@pytest.mark.parametrize(
    ("kind", "image", "sentence"),
    [
        (SourceFormat.QCOW2, b"QFI\xfb", "the image ends before its header at byte 0; it is not whole"),
        (SourceFormat.QCOW2, bytes(4096), "was said to be qcow2, but it does not begin as one"),
        (SourceFormat.QCOW2, qcow2(version=1), "qcow2 of version 1; versions 2 and 3 are read"),
        (SourceFormat.QCOW2, qcow2(version=4), "qcow2 of version 4; versions 2 and 3 are read"),
        (SourceFormat.QCOW2, qcow2(backing=600), "the image has a backing file, so it is not whole"),
        (SourceFormat.QCOW2, qcow2(version=2, backing=600), "the image has a backing file, so it is not whole"),
        (SourceFormat.QCOW2, qcow2(crypt=2), "the image is encrypted"),
        (SourceFormat.QCOW2, qcow2(bits=8), "clusters of 2^8 bytes"),
        (SourceFormat.QCOW2, qcow2(bits=60), "clusters of 2^60 bytes"),
        (SourceFormat.QCOW2, qcow2(l1=0xFFFFFFFF), "a level 1 table of 4294967295 entries"),
        (SourceFormat.QCOW2, qcow2(refcounts=1 << 20), "1048576 refcount clusters: too many"),
        (SourceFormat.QCOW2, qcow2()[: 192 << 10], "the image ends before its tables; it is not whole"),
        (SourceFormat.QCOW2, qcow2(refcounts=100), "the image ends before its tables; it is not whole"),
        (SourceFormat.QCOW2, qcow2(features=2), "marked as corrupt"),
        (SourceFormat.QCOW2, qcow2(features=4), "the image has a data file, so it is not whole"),
        (SourceFormat.QCOW2, qcow2(features=32), "incompatible features that are not known here (bits 0x20)"),
        (SourceFormat.QCOW2, qcow2(extensions=((0x44415441, b"/etc/shadow"),)), "the image has a data file"),
        (SourceFormat.QCOW2, qcow2(extensions=((0x0537BE77, bytes(16)),)), "the image has encryption"),
        (SourceFormat.QCOW2, qcow2(version=2, extensions=((0x44415441, b"a"),)), "the image has a data file"),
        (SourceFormat.QCOW2, qcow2(extensions=tuple((9, b"") for _ in range(40))), "more than 32 header extensions"),
        (SourceFormat.VMDK, DESCRIPTOR.format(kind="monolithicFlat", extents="").encode(), "extents are other files"),
        (SourceFormat.VMDK, b"COWD".ljust(4096, b"\0"), "extents are other files (or no VMDK at all)"),
        (SourceFormat.VMDK, vmdk(capacity=0), "descriptor is not where it belongs"),
        (SourceFormat.VMDK, vmdk(descriptor_at=2), "descriptor is not where it belongs"),
        (SourceFormat.VMDK, vmdk(kind="monolithicFlat"), "VMDK of the type 'monolithicFlat'"),
        (SourceFormat.VMDK, vmdk(extents='RW 1 FLAT "/etc/shadow" 0\n'), "1 extents (FLAT)"),
        (SourceFormat.VMDK, vmdk(extents='RW 1 SPARSE "a"\nRW 1 FLAT "/b" 0\n'), "2 extents (SPARSE FLAT)"),
        (SourceFormat.VMDK, vmdk(more='parentFileNameHint="/etc/shadow"\n'), "a VMDK with a parent"),
        (SourceFormat.VMDK, vmdk(more="#parentCID=12345678\n"), "a VMDK with a parent"),
        (SourceFormat.VMDK, vmdk(at_end=True, footer=b"KDMX"), "without its footer"),
        (SourceFormat.VMDK, vmdk(at_end=True, footer=vmdk(capacity=5)[:512]), "footer gives another capacity"),
        (SourceFormat.VMDK, vmdk(at_end=True, footer=vmdk(capacity=0)[:512]), "descriptor is not where it belongs"),
        (SourceFormat.VHDX, bytes(4096), "was said to be vhdx, but it does not begin as one"),
        (SourceFormat.VHDX, vhdx(bits=2), "a differencing VHDX: it has a parent"),
        (SourceFormat.VHDX, vhdx(parent=True), "a differencing VHDX: it has a parent"),
        (SourceFormat.VHDX, vhdx(without=SIZE), "lacks its size or its parameters"),
        (SourceFormat.VHDX, vhdx(regions=0), "a VHDX without metadata"),
        (SourceFormat.VHDX, vhdx(regions=4000000000), "without a region table"),
        (SourceFormat.VHDX, vhdx()[: 1 << 20], "ends before its metadata"),
        (SourceFormat.VDI, bytes(4096), "was said to be vdi, but it does not begin as one"),
        (SourceFormat.VDI, vdi(version=1), "a VDI of version 0x1;"),
        (SourceFormat.VDI, vdi(kind=4), "the difference to another one"),
        (SourceFormat.VDI, vdi(link=b"x" * 16), "the difference to another one"),
        (SourceFormat.VDI, vdi(parent=b"x" * 16), "the difference to another one"),
        (SourceFormat.VDI, vdi(block=512), "blocks of another size or number"),
        (SourceFormat.VDI, vdi(blocks=1 << 30), "blocks of another size or number"),
        (SourceFormat.VDI, vdi(allocated=8), "a VDI of 8 blocks and ends before the last"),
    ],
)
def test_what_is_not_whole_or_not_understood_is_refused_by_name(
    kind: SourceFormat, image: bytes, sentence: str
) -> None:
    assert sentence in refusal(kind, image)


@pytest.mark.parametrize("blank", ["\n", " ", "\r", "\t", "RW 1 ", 'createType="', "createType" + " " * 60])
def test_no_descriptor_takes_long_to_read(blank: str) -> None:
    image = vmdk(more=blank * (64 << 10))
    started = time.monotonic()
    with contextlib.suppress(SourceError):
        parsed(SourceFormat.VMDK, image)
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("kind", MAKERS)
def test_any_change_of_a_header_is_read_or_refused_and_nothing_else(kind: SourceFormat) -> None:
    chance = random.Random(kind.value)
    whole = MAKERS[kind]()
    # Where something stands: zeros between are not worth a change.
    places = [n for n, byte in enumerate(whole) if byte]
    ends = {True: 0, False: 0}
    for _ in range(500):
        image = bytearray(whole[: chance.choice((len(whole), len(whole), chance.randrange(len(whole))))])
        for _ in range(chance.randint(1, 4)):
            place = chance.choice(places) + chance.randint(-2, 2)
            if 0 <= place < len(image):
                image[place] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        try:
            header = parsed(kind, bytes(image))
        except SourceError as e:
            assert len(str(e)) < 400
            ends[False] += 1
        else:
            assert 0 <= header.virtual_size < 1 << 73
            ends[True] += 1
    assert min(ends.values()) > 10, f"too few images were read or refused: {ends}"
