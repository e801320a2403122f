"""Raw disk images within gzip, xz, zstd or bzip2, decompressed piece by piece.

Never more than BLOCK bytes come out at once however much a piece of input holds, so a bomb costs time and no memory;
whoever takes the blocks stops when the disk is full. The libraries are Python's own, and libzstd by ctypes because
Python has none yet. Several streams in a row are one image, as with all four programs; zeros behind them are padding.
"""

from __future__ import annotations

import bz2
import ctypes
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Final, Protocol

from snf_image_helper.source_headers import SourceError
from synnefo_light.manifest import Compression

BLOCK = 1 << 20
#: What a decompressor may take of the VM's memory: xz -9 needs 65 MiB, zstd -19 9 MiB, zstd --long 129 MiB.
MEMORY_LIMIT = 136 << 20
WINDOW_LOG_LIMIT = 27


class Decompressor(Protocol):
    """As lzma.LZMADecompressor and bz2.BZ2Decompressor are: one stream, bounded output."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def decompress(kind: Compression, read: Callable[[], bytes]) -> Iterator[bytes]:
    """The image's bytes in blocks of at most BLOCK. `read` gives the next piece of input, empty at its end.

    Raises SourceError when the input is damaged, or ends within a stream.
    """
    if kind is Compression.NONE:
        yield from iter(read, b"")
        return
    given = read()
    while given:
        stream = _DECOMPRESSORS[kind]()
        while not stream.eof:
            if not given and stream.needs_input and not (given := read()):
                raise SourceError(f"the image ends in the middle of its {kind.value} stream; it is not whole")
            try:
                block = stream.decompress(given, BLOCK)
            except (zlib.error, lzma.LZMAError, OSError, ValueError, MemoryError) as e:
                raise SourceError(f"the image cannot be decompressed by {kind.value}: {e or type(e).__name__}") from e
            given = b""
            if block:
                yield block
        given = _behind(stream.unused_data, read)


def _behind(rest: bytes, read: Callable[[], bytes]) -> bytes:
    """What follows a stream, without padding; empty at the end."""
    while not (found := rest.lstrip(b"\0")) and (rest := read()):
        pass
    return found


class _Gzip:
    """zlib's object in the shape of the others."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)  # 16: a gzip header, 15: any window
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        block = self._inner.decompress(self._inner.unconsumed_tail + data, max_length)
        self.needs_input = not self._inner.unconsumed_tail and len(block) < max_length
        return block


class _Buffer(ctypes.Structure):
    """ZSTD_inBuffer and ZSTD_outBuffer of zstd.h."""

    _fields_ = (("start", ctypes.c_void_p), ("size", ctypes.c_size_t), ("position", ctypes.c_size_t))


class _Zstd:
    """One frame through libzstd's streaming interface (zstd.h, "Streaming decompression")."""

    def __init__(self) -> None:
        self._library = _libzstd()
        self._context = ctypes.c_void_p(self._library.ZSTD_createDCtx())
        if not self._context:
            raise MemoryError("libzstd has no memory")
        self._check(self._library.ZSTD_DCtx_setParameter(self._context, 100, WINDOW_LOG_LIMIT))  # ZSTD_d_windowLogMax
        self._output = ctypes.create_string_buffer(BLOCK)
        self._pending = b""
        self.eof = False
        self.needs_input = True

    def __del__(self) -> None:
        self._library.ZSTD_freeDCtx(self._context)

    @property
    def unused_data(self) -> bytes:
        return self._pending if self.eof else b""

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        data = self._pending + data
        given = _Buffer(ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p), len(data), 0)
        made = _Buffer(ctypes.addressof(self._output), min(max_length, BLOCK), 0)
        arguments = (self._context, ctypes.byref(made), ctypes.byref(given))
        self.eof = self._check(self._library.ZSTD_decompressStream(*arguments)) == 0
        self._pending = data[given.position :]
        self.needs_input = not self._pending and made.position < made.size
        return self._output.raw[: made.position]

    def _check(self, code: int) -> int:
        if self._library.ZSTD_isError(code):
            raise ValueError(self._library.ZSTD_getErrorName(code).decode("ascii", "replace"))
        return code


@cache
def _libzstd() -> ctypes.CDLL:
    library = ctypes.CDLL("libzstd.so.1")
    library.ZSTD_createDCtx.restype = ctypes.c_void_p
    library.ZSTD_decompressStream.restype = library.ZSTD_DCtx_setParameter.restype = ctypes.c_size_t
    library.ZSTD_isError.argtypes = library.ZSTD_getErrorName.argtypes = (ctypes.c_size_t,)
    library.ZSTD_getErrorName.restype = ctypes.c_char_p
    return library


_DECOMPRESSORS: Final[Mapping[Compression, Callable[[], Decompressor]]] = {
    Compression.GZIP: _Gzip,
    Compression.XZ: lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MEMORY_LIMIT),
    Compression.ZSTD: _Zstd,
    Compression.BZIP2: bz2.BZ2Decompressor,
}
