"""Objects of one namespace of a RADOS pool, as the store's backend uses them: one operation each, errors in its words.

An acknowledged write is durable, and one operation on one object is atomic, whatever it is made of. After an error in
mid-write it may have been done or not, and may yet be: nothing is written through the same `Objects` any more.
"""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Callable, Iterator
from typing import Any

from synnefo_light import ceph
from synnefo_light.store.errors import Absent, Corrupt, StoreBroken, StoreFault, StoreFull

#: What RADOS answers when a guard does not hold: version (too low, too high or absent), omap, and content.
_GUARD = frozenset({errno.ERANGE, errno.EOVERFLOW, errno.ECANCELED})
_MAX_ERRNO = 4095
_PAGE = 512


class Objects:
    """May be used by several threads."""

    def __init__(self, cluster: ceph.Cluster, *, pool: str, namespace: str) -> None:
        self._cluster = cluster
        self._pool = ceph.check_word(pool, what="pool")
        self._namespace = ceph.check_word(namespace, what="namespace") if namespace else ""
        self._rados: Any = ceph.load("rados")
        self._broken: StoreBroken | None = None
        # The version of the last answer belongs to an I/O context: each thread has its own.
        self._own = threading.local()

    @property
    def place(self) -> str:
        return f"rados:{self._pool}/{self._namespace}"

    def read(self, name: str, limit: int) -> bytes:
        """At most `limit` bytes. Raises Absent."""
        return self.read_versioned(name, limit)[0]

    def read_versioned(self, name: str, limit: int) -> tuple[bytes, int]:
        """As `read`, and the object's version, for `assert_version`."""
        with self._asking(f"read {name}", writing=False):
            try:
                return bytes(self._io.read(name, limit)), int(self._io.get_last_version())
            except self._rados.ObjectNotFound:
                raise self._absent(name) from None

    def read_attribute(self, name: str, attribute: str) -> tuple[bytes, int]:
        """An extended attribute, and the object's version, for `assert_version`. Raises Absent, and Corrupt without."""
        with self._asking(f"look at {name}", writing=False):
            try:
                return bytes(self._io.get_xattr(name, attribute)), int(self._io.get_last_version())
            except self._rados.ObjectNotFound:
                raise self._absent(name) from None
            except self._rados.NoData:
                raise Corrupt(name, f"has no attribute {attribute!r}, so it is not the store's") from None

    def read_entry(self, name: str, key: str) -> str:
        """One value of an omap, "" when there is none."""
        with self._asking(f"read {name}", writing=False), self._rados.ReadOpCtx() as op:
            entries, _ = self._io.get_omap_vals_by_keys(op, (key,))
            try:
                self._io.operate_read_op(op, name)
            except self._rados.ObjectNotFound:
                return ""
            return next((_text(value) for _, value in entries), "")

    def entries(self, name: str) -> Iterator[list[tuple[str, str]]]:
        """An omap in the order of its keys, page by page. Empty when there is none."""
        after = ""
        while True:
            with self._asking(f"read {name}", writing=False), self._rados.ReadOpCtx() as op:
                entries, _ = self._io.get_omap_vals(op, after, "", _PAGE)
                try:
                    self._io.operate_read_op(op, name)
                except self._rados.ObjectNotFound:
                    return
                page = [(str(key), _text(value)) for key, value in entries]
            yield page
            if len(page) < _PAGE:
                return
            after = page[-1][0]

    def names(self) -> Iterator[str]:
        with self._asking("list the objects", writing=False):
            for listed in self._io.list_objects():
                yield str(listed.key)

    def space(self) -> tuple[int, int]:
        """Bytes in all and free bytes of the cluster; zero both when it runs no manager daemon, which counts them."""
        with self._asking("say how much space there is", writing=False):
            stats = self._cluster.connect().get_cluster_stats()
        return stats["kb"] * 1024, stats["kb_avail"] * 1024

    # --- writing: False when what guards the operation does not hold, and then nothing was done

    def create(self, name: str, data: bytes, attributes: dict[str, bytes]) -> bool:
        """Whole or not at all; False when it is there."""

        def fill(op: Any) -> None:
            op.new(self._rados.LIBRADOS_CREATE_EXCLUSIVE)
            self._write_whole(op, data, attributes)

        return self._operate(name, fill, asked="create")

    def swap(self, name: str, data: bytes, attributes: dict[str, bytes], *, beginning: bytes) -> bool:
        """Replace it if it begins so. `beginning` must not begin with NUL: an absent object would have it."""

        def fill(op: Any) -> None:
            op.cmpext(beginning, 0)
            self._write_whole(op, data, attributes)

        return self._operate(name, fill, asked="replace")

    def set_attribute(self, name: str, attribute: str, value: bytes, *, version: int) -> bool:
        def fill(op: Any) -> None:
            op.assert_version(version)
            op.set_xattr(attribute, value)

        return self._operate(name, fill, asked="mark")

    def remove(self, name: str, *, version: int | None = None, beginning: bytes = b"") -> bool:
        """False also when it is absent."""

        def fill(op: Any) -> None:
            if version is not None:
                op.assert_version(version)
            if beginning:
                op.cmpext(beginning, 0)
            op.remove()

        return self._operate(name, fill, asked="remove")

    def set_entry(self, name: str, key: str, value: str) -> None:
        """An entry of an omap; the object is made when there is none."""
        self._operate(name, lambda op: self._io.set_omap(op, (key,), (value.encode(),)), asked="write to")

    def swap_entry(self, name: str, key: str, new: str, *, value: str) -> bool:
        """Replace the entry if it has this value; "": if there is none."""

        def fill(op: Any) -> None:
            op.omap_cmp(key, value)
            self._io.set_omap(op, (key,), (new.encode(),))

        if self._operate(name, fill, asked="write to"):
            return True
        if value:
            return False
        # An object that is not there has no entry to compare, not even an empty one.
        self._operate(name, lambda op: op.new(self._rados.LIBRADOS_CREATE_IDEMPOTENT), asked="create")
        return self._operate(name, fill, asked="write to")

    def remove_entry(self, name: str, key: str, *, value: str) -> bool:
        def fill(op: Any) -> None:
            op.omap_cmp(key, value)
            self._io.remove_omap_keys(op, (key,))

        return self._operate(name, fill, asked="remove from")

    # --- parts

    @property
    def _io(self) -> Any:
        io = getattr(self._own, "io", None)
        if io is None:
            io = self._cluster.open_pool(self._pool, self._namespace)
            # Without this a write to a full cluster waits until there is space again, for ever.
            io.set_osdmap_full_try()
            self._own.io = io
        return io

    @staticmethod
    def _write_whole(op: Any, data: bytes, attributes: dict[str, bytes]) -> None:
        op.write_full(data)
        for attribute, value in attributes.items():
            op.set_xattr(attribute, value)

    def _operate(self, name: str, fill: Callable[[Any], None], *, asked: str) -> bool:
        with self._asking(f"{asked} {name}", writing=True):
            try:
                with self._rados.WriteOpCtx() as op:
                    fill(op)
                    self._io.operate_write_op(op, name)
            except (self._rados.ObjectExists, self._rados.ObjectNotFound, self._rados.ExtendMismatch):
                return False
            except self._rados.Error as e:
                number = ceph.error_number(e)
                if number in _GUARD or number >= _MAX_ERRNO:
                    return False
                raise
        return True

    def _absent(self, name: str) -> Absent:
        return Absent(f"{name} is not in the store {self.place}")

    @contextlib.contextmanager
    def _asking(self, asked: str, *, writing: bool) -> Iterator[None]:
        if writing and self._broken is not None:
            raise self._broken
        try:
            yield
        except self._rados.Error as e:
            fault = ceph.explain(e, asked, self._cluster.access)
            if ceph.error_number(e) in (errno.ENOSPC, errno.EDQUOT):
                raise StoreFull(f"{self.place}: {fault}") from e
            if not writing and not isinstance(fault, ceph.Fenced):
                raise StoreFault(f"{self.place}: {fault}") from e
            self._broken = StoreBroken(f"{self.place}: {fault}")
            raise self._broken from e


def _text(value: bytes | str) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else value
