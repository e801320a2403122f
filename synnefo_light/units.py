"""Sizes: what a person types, what Ganeti passes, what we compute with (bytes, as int)."""

from __future__ import annotations

import re
from typing import NewType

from synnefo_light.errors import UserError

Bytes = NewType("Bytes", int)
MiB = NewType("MiB", int)

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
SECTOR = 512

_FACTORS = {"": 1, "b": 1, "k": KIB, "m": MIB, "g": GIB, "t": 1 << 40}
_SIZE = re.compile(r"(\d{1,15})\s*([bkmgt]?)(?:i?b)?", re.IGNORECASE)


def parse_size(text: str) -> Bytes:
    """ "512", "10M", "2 GiB" to bytes, in powers of 1024. Raises UserError naming the text."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UserError(f"the size {text!r} is not a number with an optional K, M, G or T")
    return Bytes(int(match[1]) * _FACTORS[match[2].lower()])


def bytes_of(size: MiB) -> Bytes:
    return Bytes(size * MIB)


def mib_at_least(size: int) -> MiB:
    """The smallest whole number of MiB that holds `size` bytes."""
    return MiB(-(-size // MIB))


def human(size: int) -> str:
    """Bytes for a person: "1536 MiB" reads worse than "1.5 GiB"."""
    for factor, name in ((1 << 40, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size >= factor:
            value = size / factor
            return f"{value:.0f} {name}" if value >= 100 or value == int(value) else f"{value:.1f} {name}"
    return f"{size} B"
