"""What a backend on a file system that shares extents offers besides: blocks as files, and files' ranges as blocks.

The volume engine `directory` keeps a volume as an ordinary file in the same file system (XFS with reflink). Composing
such a file from a map shares the extents of block files into it; committing it shares its ranges out as block files.
Neither copies data. `commit.Commit.take` does the second for every engine and falls back to reading and writing;
this protocol is for who wants extents himself.

A block file is a block's bytes without trailing NULs, filled with NULs to a whole number of `EXTENT_ALIGNMENT`, because
only whole file system blocks can be shared.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from synnefo_light.store.backend import Batch
from synnefo_light.store.identity import BlockId

EXTENT_ALIGNMENT = 4096


@runtime_checkable
class SharingBatch(Batch, Protocol):
    def adopt(self, source: int, offset: int, length: int) -> BlockId | None:
        """Make a block of a range of an open file, without copying where the file system can share; None: a hole.

        The range is cloned first and the clone is hashed, so that a writer of `source` cannot make a block of one
        content get the name of another. Where sharing is not possible (another file system, a range that is not
        aligned) one buffer is read, hashed and stored. The block exists after `flush`, like what `create` made.
        """


@runtime_checkable
class SharesExtents(Protocol):
    def open_block(self, block: BlockId) -> int:
        """A descriptor of the block's file for reading; the caller closes it. Raises Absent.

        The file may be shorter than the block: what follows its end is NULs. It stays readable when the collector
        removes it meanwhile. Share from it with FICLONERANGE (ioctl_ficlonerange(2)); never write to it.
        """

    def batch(self) -> SharingBatch: ...
