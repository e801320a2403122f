"""Guests of one sector: programs for the processor as it starts, written out as bytes, that write to their disks.

They know no file system and no cache: what BIOS says is written, QEMU has written.
"""

from __future__ import annotations

import struct

SECTOR = 512
_BEGIN = bytes.fromhex(
    "31c0"  # xor ax, ax
    "8ed8 8ec0 8ed0"  # ds, es, ss = ax
    "bc007c"  # mov sp, 7c00
    "fb"  # sti
)
#: A record of the filling guest.
RECORD = 32 << 10


def counting() -> bytes:
    """Counts, and writes each number to the second sector of the first disk, then to that of the second disk."""
    return _sector(
        _BEGIN
        + bytes.fromhex(
            "66c706007e00000000"  # mov dword [7e00], 0
            # next:
            "66ff06007e"  # inc dword [7e00]
            "b280 e80700"  # mov dl, 80; call write
            "b281 e80200"  # mov dl, 81; call write
            "ebef"  # jmp next
            # write:
            "b600 b90200 bb007e"  # head 0, cylinder 0, sector 2, from 0:7e00
            "b80103 cd13"  # one sector, write
            "72f1"  # jc write
            "c3"  # ret
        )
    )


def filling(last: int) -> bytes:
    """Writes the records 1 to `last` one after the other, each to its place with its number in front, then halts."""
    head = _BEGIN + bytes.fromhex(
        "66c706008000000000"  # mov dword [8000], 0
        # next:
        "66ff060080"  # inc dword [8000]
        "66a10080 66c1e006"  # mov eax, [8000]; shl eax, 6: its sector
        "66a3 0000"  # mov [packet + 8], eax
        # again:
        "b80043 b280 be0000"  # mov ax, 4300; mov dl, 80; mov si, packet
        "cd13 72f4"  # extended write; jc again
        "66813e0080"  # cmp dword [8000], last
    )
    code = head + struct.pack("<I", last) + bytes.fromhex("72d8f4ebfd")  # jb next; hlt for ever
    packet = 0x7C00 + len(code)
    code = code.replace(bytes.fromhex("66a30000"), b"\x66\xa3" + struct.pack("<H", packet + 8))
    code = code.replace(bytes.fromhex("be0000"), b"\xbe" + struct.pack("<H", packet))
    return _sector(code + struct.pack("<BBHHHQ", 16, 0, RECORD // SECTOR, 0x8000, 0, 0))


def _sector(code: bytes) -> bytes:
    assert len(code) <= 510
    return code.ljust(510, b"\0") + b"\x55\xaa"
