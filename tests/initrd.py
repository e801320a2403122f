"""More files for an initial RAM disk."""

from __future__ import annotations


def newc(files: dict[str, tuple[int, str]]) -> bytes:
    """An archive to be put behind another one: what it holds comes later, so it counts."""
    out = bytearray()
    for number, (name, (mode, text)) in enumerate([*files.items(), ("TRAILER!!!", (0, ""))], 1):
        content = text.encode()
        fields = (number, 0o100000 | mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        out += b"070701" + b"".join(b"%08X" % f for f in fields) + name.encode() + b"\0"
        out += bytes(-len(out) % 4)
        out += content
        out += bytes(-len(out) % 4)
    return bytes(out)
