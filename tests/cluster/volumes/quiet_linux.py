"""A guest that is a Linux kernel with one program, which says READY every second and does nothing else.

A kernel lets go of a PCI device that is to be taken away; a BIOS does not.
"""

from __future__ import annotations

import struct
from pathlib import Path

INITRD = "quiet-linux.cpio"
READY = "quiet linux is ready"
_ADDRESS = 0x400000


def make_initrd(folder: Path) -> Path:
    """An archive of cpio's "newc" format, as the kernel unpacks it (its initramfs-buffer-format)."""
    path = folder / INITRD
    path.write_bytes(_member("init", 0o100755, _program()) + _member("TRAILER!!!", 0, b""))
    return path


def _program() -> bytes:
    """An ELF file for x86-64: write(2) and nanosleep(2) in a loop."""
    text = READY.encode() + b"\n"
    code = bytes.fromhex("b801000000 bf01000000 488d35 2f000000 ba")  # mov eax,1; mov edi,1; lea rsi,[text]; mov edx,
    code += struct.pack("<I", len(text)) + bytes.fromhex("0f05")  # its length; syscall
    code += bytes.fromhex("b823000000 488d3d 0c000000 31f6 0f05 ebd6")  # mov eax,35; lea rdi,[second]; xor esi,esi; ...
    code = code.ljust(48, b"\x90") + struct.pack("<qq", 1, 0) + text
    size = 64 + 56 + len(code)
    head = b"\x7fELF" + bytes([2, 1, 1]).ljust(12, b"\0")
    head += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, _ADDRESS + 120, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return head + struct.pack("<IIQQQQQQ", 1, 5, 0, _ADDRESS, _ADDRESS, size, size, 4096) + code


def _member(name: str, mode: int, content: bytes) -> bytes:
    fields = (0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return _padded(head) + _padded(content)


def _padded(raw: bytes) -> bytes:
    return raw + bytes(-len(raw) % 4)
