"""Hives of the Windows registry, made from a description: one bin, hash leaves, no transaction log.

It knows the format by itself, so that what the product reads with hivex, and a test reads back with reged(8) of chntpw,
was written by a third party. Source: M. Suhanov, Windows registry file format specification.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

NONE = 0xFFFFFFFF
BIN_HEADER = 32
MIB, BIN = 1 << 20, 1 << 16
SZ, DWORD = 1, 4


@dataclass(frozen=True, slots=True)
class Key:
    """`values` are text, numbers, or (type, bytes); "" is the nameless one."""

    keys: Mapping[str, Key] = field(default_factory=dict)
    values: Mapping[str, str | int | tuple[int, bytes]] = field(default_factory=dict)


def at(path: str, key: Key) -> Key:
    """A key, with those above it: at(r"A\\B", key) is A with B in it."""
    for name in reversed(path.split("\\")):
        key = Key(keys={name: key})
    return key


def merge(*keys: Key) -> Key:
    """One key out of several that may share keys below."""
    below: dict[str, Key] = {}
    values: dict[str, str | int | tuple[int, bytes]] = {}
    for key in keys:
        values |= key.values
        for name, child in key.keys.items():
            below[name] = merge(below[name], child) if name in below else child
    return Key(keys=below, values=values)


def make_hive(root: Key, *, sequence: tuple[int, int] = (1, 1), filler_mib: int = 0) -> bytes:
    """The file. Different numbers in `sequence` say that a log is still to be merged; the filler are cells in use that
    nothing names, as many as a hive of that size has."""
    cells = _Cells()
    security = cells.add(b"sk" + struct.pack("<HIIII", 0, BIN_HEADER, BIN_HEADER, 1, len(_DESCRIPTOR)) + _DESCRIPTOR)
    top = _key(cells, "ROOT", root, parent=NONE, security=security, flags=0x2C)
    size = -(-(BIN_HEADER + len(cells.data)) // 4096) * 4096
    left = size - BIN_HEADER - len(cells.data)
    if left:
        cells.data += struct.pack("<i", left).ljust(left, b"\0")
    header = struct.pack("<4sIIQIIIIIII", b"regf", *sequence, 0, 1, 5, 0, 1, top, size + filler_mib * MIB, 1).ljust(
        508, b"\0"
    )
    words = struct.unpack("<127I", header)
    checksum = 0
    for word in words:
        checksum ^= word
    base = (header + struct.pack("<I", checksum)).ljust(4096, b"\0")
    own = _bin_header(0, size) + bytes(cells.data)
    return base + own + b"".join(_filler(size + n * BIN) for n in range(filler_mib * MIB // BIN))


def _bin_header(place: int, size: int) -> bytes:
    return struct.pack("<4sIIQQI", b"hbin", place, size, 0, 0, 0)


def _filler(place: int) -> bytes:
    cell = struct.pack("<i", -248).ljust(248, b"x")
    cells = cell * ((BIN - BIN_HEADER) // len(cell))
    left = BIN - BIN_HEADER - len(cells)
    return _bin_header(place, BIN) + cells + (struct.pack("<i", left).ljust(left, b"\0") if left else b"")


#: A self-relative descriptor that says nothing: no owner, no group, no lists.
_DESCRIPTOR = struct.pack("<BBHIIII", 1, 0, 0x8000, 0, 0, 0, 0)


class _Cells:
    """The content of the one bin; a cell is named by its place in the bin."""

    def __init__(self) -> None:
        self.data = bytearray()

    def add(self, content: bytes) -> int:
        place = BIN_HEADER + len(self.data)
        size = -(-(len(content) + 4) // 8) * 8
        self.data += struct.pack("<i", -size) + content.ljust(size - 4, b"\0")
        return place

    def patch(self, place: int, offset: int, number: int) -> None:
        struct.pack_into("<I", self.data, place - BIN_HEADER + 4 + offset, number)


def _key(cells: _Cells, name: str, key: Key, *, parent: int, security: int, flags: int = 0x20) -> int:
    fields = struct.pack(
        "<HQIIIIIIIIII", flags, 0, 0, parent, len(key.keys), 0, NONE, NONE, len(key.values), NONE, security, NONE
    )
    encoded = name.encode("latin-1")
    place = cells.add(b"nk" + fields + struct.pack("<IIIIIHH", 64, 0, 64, 4096, 0, len(encoded), 0) + encoded)
    if key.keys:
        below = [(n, _key(cells, n, k, parent=place, security=security)) for n, k in _sorted(key.keys)]
        leaf = b"".join(struct.pack("<I4s", p, n.encode("latin-1")[:4]) for n, p in below)
        cells.patch(place, 28, cells.add(b"lf" + struct.pack("<H", len(below)) + leaf))
    if key.values:
        values = [_value(cells, n, v) for n, v in key.values.items()]
        cells.patch(place, 40, cells.add(struct.pack(f"<{len(values)}I", *values)))
    return place


def _sorted(keys: Mapping[str, Key]) -> list[tuple[str, Key]]:
    return sorted(keys.items(), key=lambda item: item[0].upper())


def _value(cells: _Cells, name: str, value: str | int | tuple[int, bytes]) -> int:
    if isinstance(value, str):
        kind, data = SZ, (value + "\0").encode("utf-16-le")
    elif isinstance(value, int):
        kind, data = DWORD, struct.pack("<I", value)
    else:
        kind, data = value
    encoded = name.encode("latin-1")
    if len(data) <= 4:
        size, place = len(data) | 0x80000000, struct.unpack("<I", data.ljust(4, b"\0"))[0]
    else:
        size, place = len(data), cells.add(data)
    return cells.add(b"vk" + struct.pack("<HIIIHH", len(encoded), size, place, kind, 1, 0) + encoded)
