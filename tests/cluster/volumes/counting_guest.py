"""A guest of one sector that writes its disk full, a sector at a time, and never twice to the same.

Sector 2048 + n gets the number 2048 + n and a number that the guest drew when it started, about 18 sectors a second;
the next write is sent when the one before was acknowledged. At its start it looks for the first sector without a number
and goes on there. So a disk shows an unbroken row, made by one life of the guest after another: a hole is a write that
was acknowledged and lost, and a life that comes back after the next has begun is a second writer.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

SECTOR = 512
FIRST = 2048
ORIGIN, BUFFER = 0x7C00, 0x8000


def boot_sector() -> bytes:
    """16-bit code for the BIOS's INT 13h, extended read and write (EDD-3)."""
    packet = struct.pack("<BBHHHQ", 16, 0, 1, BUFFER, 0, FIRST)
    at = ORIGIN + SECTOR - 2 - len(packet)  # of the packet: the last thing before the signature
    here, block = struct.pack("<H", at), struct.pack("<H", at + 8)
    buffer = struct.pack("<H", BUFFER)
    begin = bytes.fromhex("31c0 8ed8 8ed0 bc007c fb")  # xor ax,ax; mov ds,ax; mov ss,ax; mov sp,7c00h; sti
    look = b"\xbe" + here + bytes.fromhex("b442 cd13")  # mov si,packet; mov ah,42h; int 13h
    look += _jump(0x72, -len(look))  # jc look
    look += b"\x66\x83\x3e" + buffer + b"\x00"  # cmp dword [buffer],0
    found = b"\x66\xff\x06" + block  # inc dword [block]
    look += _jump(0x74, len(found) + 2)  # je write
    look += found
    look += _jump(0xEB, -len(look))  # jmp look
    draw = b"\x52\x0f\x31\x5a\x66\xa3" + struct.pack("<H", BUFFER + 4)  # push dx; rdtsc; pop dx; mov [buffer+4],eax
    write = b"\x66\xa1" + block + b"\x66\xa3" + buffer  # mov eax,[block]; mov [buffer],eax
    write += b"\xbe" + here + bytes.fromhex("b80043 cd13")  # mov si,packet; mov ax,4300h; int 13h
    write += _jump(0x72, -len(write))  # jc write
    write += b"\x66\xff\x06" + block + b"\xfb\xf4"  # inc dword [block]; sti; hlt until the clock ticks
    write += _jump(0xEB, -len(write))  # jmp write
    code = begin + look + draw + write
    return code.ljust(SECTOR - 2 - len(packet), b"\0") + packet + b"\x55\xaa"


def _jump(opcode: int, distance: int) -> bytes:
    """A short jump over so many bytes, counted from where it begins when that is backwards."""
    return struct.pack("<Bb", opcode, distance - 2 if distance <= 0 else distance)


@dataclass(frozen=True, slots=True)
class Row:
    written: int  # sectors
    lives: int  # how many starts of the guest wrote them


def read_row(disk: bytes) -> Row:
    """Raises AssertionError naming the sector of a hole, of a wrong number, or of a second writer."""
    found = list(struct.iter_unpack("<II504x", disk[FIRST * SECTOR :]))
    written = next((i for i, (number, _) in enumerate(found) if number == 0), len(found))
    lives: list[int] = []
    for i, (number, life) in enumerate(found):
        expected = FIRST + i if i < written else 0
        assert number == expected, f"sector {FIRST + i} has {number}, not {expected}: {written} were written before it"
        if i < written and life not in lives[-1:]:
            assert life not in lives, f"sector {FIRST + i} was written by a guest whose successor had written before"
            lives.append(life)
    return Row(written=written, lives=len(lives))
