"""Where something is mounted, as the kernel says now (proc(5), mountinfo)."""

from __future__ import annotations

import os
import re
from pathlib import Path

MOUNTINFO = Path("/proc/self/mountinfo")


def mount_points(folder: str) -> list[str]:
    """The mount points at a folder and below it, outer ones first. Only a newline ends a line: \\r is not escaped."""
    points = [_unescaped(line.split(b" ")[4]) for line in MOUNTINFO.read_bytes().split(b"\n")[:-1]]
    return [point for point in points if point == folder or point.startswith(f"{folder}/")]


def _unescaped(field: bytes) -> str:
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m[1], 8)]), field))
