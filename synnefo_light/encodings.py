"""What the end of an image's name says about its bytes; its content is never asked."""

from __future__ import annotations

from typing import Final

from synnefo_light.manifest import Compression, SourceFormat

FORMAT_OF: Final = {f.value: f for f in SourceFormat if f is not SourceFormat.RAW}
COMPRESSION_OF: Final = {
    "gz": Compression.GZIP,
    "xz": Compression.XZ,
    "zst": Compression.ZSTD,
    "zstd": Compression.ZSTD,
    "bz2": Compression.BZIP2,
}


def encoding_of(name: str) -> tuple[SourceFormat, Compression]:
    """What an image's name says of its bytes: "debian.qcow2", "disk.raw.xz", "disk.gz"."""
    words = name.lower().split(".")[1:]
    compression = COMPRESSION_OF.get(words[-1], Compression.NONE) if words else Compression.NONE
    if compression is not Compression.NONE:
        words.pop()
    return FORMAT_OF.get(words[-1], SourceFormat.RAW) if words else SourceFormat.RAW, compression
