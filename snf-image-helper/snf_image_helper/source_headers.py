"""The headers of disk images from strangers: how large the disk in it is, and whether it is all in this one file.

Read by our own bounded parsers before qemu-img opens the image, so that a header which names other files (a backing
file, a data file, extents, a parent) is refused by that name and nothing behind the name is ever looked at.
`qemu.parse_info` then compares what qemu-img made of the same header.

Sources: docs/interop/qcow2.txt of QEMU; "Virtual Disk Format 5.0" of VMware; [MS-VHDX]; VDICore.h of VirtualBox.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from snf_image_helper.partitions import SECTOR, Reader
from synnefo_light.errors import PeerError
from synnefo_light.manifest import SourceFormat
from synnefo_light.units import MIB

#: What QEMU itself accepts of qcow2: 32 MiB of level 1 table, 8 MiB of refcount table.
L1_LIMIT, REFCOUNT_LIMIT, EXTENSIONS_LIMIT = 32 * MIB, 8 * MIB, 32
DIRTY, CORRUPT, DATA_FILE, COMPRESSION, EXTENDED_L2 = (1 << bit for bit in range(5))
#: VMDK: the descriptor is where QEMU looks for it whatever the header says, so nowhere else is it accepted.
DESCRIPTOR_SECTOR, DESCRIPTOR_LIMIT = 1, 64 << 10
VMDK_KINDS: Final = ("monolithicSparse", "streamOptimized")
GRAIN_DIRECTORY_AT_END: Final = (1 << 64) - 1
VHDX_METADATA: Final = "06a27c8b90479a4bb8fe575f050f886e"
VHDX_SIZE: Final = "2442a52f1bcd7648b2115dbed83bf4b8"
VHDX_PARAMETERS: Final = "3767a1ca36fa434db3b633f0aa44e76b"
VHDX_PARENT: Final = "2d5fd3a80bb34d45abf7d3d84834ab0c"


class SourceError(PeerError):
    """An image that cannot be, or must not be, written to the disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """`virtual_size`: bytes of the disk in the image, as it says. `notes`: what an admin should know of it."""

    virtual_size: int
    notes: tuple[str, ...] = ()


def parse_header(kind: SourceFormat, read: Reader, *, size: int) -> Header:
    """The header of an image of `size` bytes. Raises SourceError when it is no such image, or needs another file."""
    return _PARSERS[kind](read, size)


def _fields(read: Reader, offset: int, layout: struct.Struct, what: str) -> tuple[int, ...]:
    raw = read(offset, layout.size)
    if len(raw) != layout.size:
        raise SourceError(f"the image ends before its {what} at byte {offset}; it is not whole")
    return layout.unpack(raw)


def _begins(read: Reader, magic: bytes, kind: str, at: int = 0) -> None:
    if read(at, len(magic)) != magic:
        raise SourceError(
            f"the image was said to be {kind}, but it does not begin as one; name its real format by img_source_format"
        )


# --- qcow2

_QCOW2: Final = struct.Struct(">4xIQ4xIQIIQQII8x")
_QCOW2_3: Final = struct.Struct(">Q20xI")
_EXTENSION: Final = struct.Struct(">II")
_REFUSED_EXTENSIONS: Final = {0x44415441: "a data file", 0x0537BE77: "encryption"}


def _qcow2(read: Reader, size: int) -> Header:
    _begins(read, b"QFI\xfb", "qcow2")
    fields = _fields(read, 0, _QCOW2, "header")
    version, backing, bits, virtual, crypt, l1, l1_at, refcounts_at, refcounts, snapshots = fields
    if version not in (2, 3):
        raise SourceError(f"the image is qcow2 of version {version}; versions 2 and 3 are read")
    if backing:
        raise SourceError("the image has a backing file, so it is not whole; flatten it with qemu-img convert")
    if crypt:
        raise SourceError("the image is encrypted; decrypt it with qemu-img convert")
    if not 9 <= bits <= 21:
        raise SourceError(f"the image has clusters of 2^{bits} bytes; qcow2 has 2^9 to 2^21")
    if l1 * 8 > L1_LIMIT or refcounts << bits > REFCOUNT_LIMIT:
        raise SourceError(f"the image has a level 1 table of {l1} entries and {refcounts} refcount clusters: too many")
    if l1_at + l1 * 8 > size or refcounts_at + (refcounts << bits) > size:
        # Behind the end of a file QEMU reads zeros: an image without a table would be an empty disk.
        raise SourceError("the image ends before its tables; it is not whole")
    length = 72
    if version == 3:
        incompatible, length = _fields(read, 72, _QCOW2_3, "header")
        _qcow2_features(incompatible)
    _qcow2_extensions(read, start=length, end=min(1 << bits, size))
    note = f"the image has {snapshots} internal snapshots; they are left out, its current state is used"
    return Header(virtual_size=virtual, notes=(note,) if snapshots else ())


def _qcow2_features(incompatible: int) -> None:
    if incompatible & DATA_FILE:
        raise SourceError("the image has a data file, so it is not whole; flatten it with qemu-img convert")
    if incompatible & CORRUPT:
        raise SourceError("the image is marked as corrupt; repair it with qemu-img check -r all")
    if unknown := incompatible & ~(DIRTY | COMPRESSION | EXTENDED_L2):
        raise SourceError(f"the image has incompatible features that are not known here (bits {unknown:#x})")


def _qcow2_extensions(read: Reader, *, start: int, end: int) -> None:
    """Refuse an extension that leads elsewhere, whether or not the feature's bit is set."""
    for _ in range(EXTENSIONS_LIMIT):
        if start + _EXTENSION.size > end:
            return
        kind, length = _fields(read, start, _EXTENSION, "header extension")
        if kind == 0:
            return
        if kind in _REFUSED_EXTENSIONS:
            raise SourceError(f"the image has {_REFUSED_EXTENSIONS[kind]}; flatten it with qemu-img convert")
        start += _EXTENSION.size + (length + 7) // 8 * 8
    raise SourceError(f"the image has more than {EXTENSIONS_LIMIT} header extensions")


# --- VMDK

#: Not the end of a line, so that no text makes a search start over and over.
_BLANK: Final = r"[ \t\r\v\f]"
_VMDK: Final = struct.Struct("<4xI4xQ8xQQ12xQ8x")


def _vmdk(read: Reader, size: int) -> Header:
    start = read(0, 64)
    if start.startswith((b"# Disk Descriptor", b"COWD")) or not start.startswith(b"KDMV"):
        raise SourceError(
            "the image is a VMDK whose extents are other files (or no VMDK at all); "
            "make it one file with qemu-img convert -O vmdk -o subformat=monolithicSparse or streamOptimized"
        )
    capacity, table = _vmdk_header(read, 0)
    if table == GRAIN_DIRECTORY_AT_END:
        # Marker, footer, end of stream: a sector each. What counts then is the footer, which is a second header.
        at = size - 2 * SECTOR
        if size % SECTOR or at < SECTOR or read(at, 4) != b"KDMV":
            raise SourceError("the image is a streamOptimized VMDK without its footer; it is not whole")
        if _vmdk_header(read, at)[0] != capacity:
            raise SourceError("the image is a VMDK whose footer gives another capacity than its header")
    _vmdk_descriptor(read(DESCRIPTOR_SECTOR * SECTOR, DESCRIPTOR_LIMIT))
    return Header(virtual_size=capacity * SECTOR)


def _vmdk_header(read: Reader, at: int) -> tuple[int, int]:
    """Sectors of the disk, and the sector of the grain directory."""
    version, capacity, descriptor, length, table = _fields(read, at, _VMDK, "header")
    if not 1 <= version <= 3:
        raise SourceError(f"the image is a VMDK of version {version}; versions 1 to 3 are read")
    if capacity == 0 or descriptor != DESCRIPTOR_SECTOR or not 0 < length <= DESCRIPTOR_LIMIT // SECTOR:
        raise SourceError("the image is a VMDK whose descriptor is not where it belongs, behind the header")
    return capacity, table


def _vmdk_descriptor(raw: bytes) -> None:
    text = raw.partition(b"\0")[0].decode("latin-1")
    # Looked for as QEMU does: anywhere, not only where a line begins.
    if "parentFileNameHint" in text or re.search(r"parentCID=(?!ffffffff)", text, re.IGNORECASE):
        raise SourceError("the image is a VMDK with a parent, so it is not whole; flatten it")
    kind = re.search(rf'^{_BLANK}*createType{_BLANK}*={_BLANK}*"([^"\n]{{0,40}})"', text, re.MULTILINE)
    if kind is None or kind[1] not in VMDK_KINDS:
        shown = repr(kind[1]) if kind else "none"
        raise SourceError(f"the image is a VMDK of the type {shown}; {' and '.join(VMDK_KINDS)} are read")
    words = rf"^{_BLANK}*(?:RW|RDONLY|NOACCESS){_BLANK}+[0-9]+{_BLANK}+([A-Z0-9_]+)"
    extents = re.findall(words, text, re.MULTILINE)
    if extents != ["SPARSE"]:
        raise SourceError(f"the image is a VMDK of {len(extents)} extents ({' '.join(extents[:4])}); it must be one")


# --- VHDX

_REGIONS: Final = struct.Struct("<8xI4x")
_REGION: Final = struct.Struct("<16xQI4x")
_METADATA: Final = struct.Struct("<10xH20x")
_ITEM: Final = struct.Struct("<16xI12x")
_PARAMETERS: Final = struct.Struct("<4xI")
_SIZE: Final = struct.Struct("<Q")
ENTRIES_LIMIT: Final = 2047


def _vhdx(read: Reader, size: int) -> Header:
    _begins(read, b"vhdxfile", "vhdx")
    at = _vhdx_metadata(read)
    (count,) = _fields(read, at, _METADATA, "metadata")
    if read(at, 8) != b"metadata" or count > ENTRIES_LIMIT:
        raise SourceError("the image is a VHDX without a metadata table; it is damaged")
    items = {}
    for entry in range(at + _METADATA.size, at + _METADATA.size + count * _ITEM.size, _ITEM.size):
        (offset,) = _fields(read, entry, _ITEM, "metadata")
        items[read(entry, 16).hex()] = at + offset
    if VHDX_SIZE not in items or VHDX_PARAMETERS not in items:
        raise SourceError("the image is a VHDX whose metadata lacks its size or its parameters; it is damaged")
    (bits,) = _fields(read, items[VHDX_PARAMETERS], _PARAMETERS, "parameters")
    if VHDX_PARENT in items or bits & 2:
        raise SourceError("the image is a differencing VHDX: it has a parent, so it is not whole; merge it first")
    (virtual,) = _fields(read, items[VHDX_SIZE], _SIZE, "size")
    return Header(virtual_size=virtual)


def _vhdx_metadata(read: Reader) -> int:
    """Where the metadata begin, by the first of the two region tables, which is the one that QEMU reads."""
    at = 192 << 10
    (count,) = _fields(read, at, _REGIONS, "region table")
    if read(at, 4) != b"regi" or count > ENTRIES_LIMIT:
        raise SourceError("the image is a VHDX without a region table; it is damaged")
    for entry in range(at + _REGIONS.size, at + _REGIONS.size + count * _REGION.size, _REGION.size):
        offset, _ = _fields(read, entry, _REGION, "region table")
        if read(entry, 16).hex() == VHDX_METADATA:
            return offset
    raise SourceError("the image is a VHDX without metadata; it is damaged")


# --- VDI

#: Version, type; offset of the data; sector size; disk size, block size, extra, blocks, allocated.
_VDI: Final = struct.Struct("<68xI4xI264xI12xI4xQIIII")
VDI_MAGIC, VDI_VERSION, VDI_DYNAMIC, VDI_STATIC = 0xBEDA107F, 0x00010001, 1, 2
VDI_LINK, VDI_PARENT = 424, 440


def _vdi(read: Reader, size: int) -> Header:
    version, kind, data, sector, virtual, block, extra, blocks, allocated = _fields(read, 0, _VDI, "header")
    _begins(read, VDI_MAGIC.to_bytes(4, "little"), "vdi", at=64)
    if version != VDI_VERSION:
        raise SourceError(f"the image is a VDI of version {version:#x}; version {VDI_VERSION:#x} is read")
    if kind not in (VDI_DYNAMIC, VDI_STATIC) or any(read(at, 16) != bytes(16) for at in (VDI_LINK, VDI_PARENT)):
        raise SourceError("the image is a VDI that is the difference to another one, so it is not whole; clone it")
    if (sector, block, extra) != (SECTOR, MIB, 0) or not virtual <= blocks * MIB < virtual + MIB or allocated > blocks:
        raise SourceError("the image is a VDI with blocks of another size or number than its disk needs")
    if data + allocated * MIB > size:
        raise SourceError(f"the image is a VDI of {allocated} blocks and ends before the last; it is not whole")
    return Header(virtual_size=virtual)


_PARSERS: Final[Mapping[SourceFormat, Callable[[Reader, int], Header]]] = {
    SourceFormat.QCOW2: _qcow2,
    SourceFormat.VMDK: _vmdk,
    SourceFormat.VHDX: _vhdx,
    SourceFormat.VDI: _vdi,
}
