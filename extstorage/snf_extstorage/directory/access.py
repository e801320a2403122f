"""Where a volume is used: attach, detach, open, close, grow.

`attach` makes no writer: the device refuses writes until `open` lets them through, on this node, and again after
`close`. Whether it does follows the record whenever any of them runs, under a lock of this node's own (`Loops.gate`);
so attach never waits for another node. A disk that QEMU opens as a file (userspace access) has no such gate; what
guards it is the order in which Ganeti calls open, and the fence.

The fence (`open` exclusively, while another node is written down as a writer and cannot be asked):

    1 clone    the file is cloned to a new inode; what was flushed is in it
    2 drop     nobody is a writer by the record, and a fence of the others is owed: an attach there that comes after 3
               finds the new inode, and must find no leave to write it
    3 publish  the clone takes the file's name: commit point. The other node's device and QEMU keep the old inode
    4 device   our own device, which attach put on the old inode, is put on the new one, under the same number
    5 record   we are the writer

If a process here has the file open already it cannot be moved, and the fence is owed: see writers.py.

Died before 2: a temporary file, which the next fence replaces; nothing has happened. Before 3: the next exclusive
`open` fences those to whom it is owed. Before 4 or 5: they are fenced already, and the next `open` fences them again,
which costs a clone; `attach` mends the device.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Final

from snf_extstorage.directory import sharing
from snf_extstorage.directory.handles import reading
from snf_extstorage.directory.holding import callers, is_locked, processes_with
from snf_extstorage.directory.kept import held, load, save
from snf_extstorage.directory.loops import Loop, Loops, forget_pages, let_write, update_size
from snf_extstorage.directory.place import Place
from snf_extstorage.directory.record import VolumeRecord
from snf_extstorage.refusals import formerly_after_open, refuse_shrinking
from snf_extstorage.volume import Attachment, InUse, NotFound, Trace
from snf_extstorage.writers import Writers, is_contested, plan_close, plan_open
from synnefo_light.errors import Error, HalfDone
from synnefo_light.files import TEMPORARY, sync_folder
from synnefo_light.log import logger
from synnefo_light.reflink import clone_file

#: How long LVM or udev may look at a device, where they are not told to leave it alone.
LOOKERS_S: Final = 5.0


class Access:
    """The volumes of a place as this node uses them."""

    def __init__(self, place: Place, loops: Loops, *, node: str, cow_extent: int, trace: Trace) -> None:
        self._place = place
        self._loops = loops
        self._node = node
        self._cow_extent = cow_extent
        self._trace = trace

    def attach(self, name: str) -> Attachment:
        load(self._place, name)  # what is damaged or was never whole is not attached
        path = self._place.disk("volumes", name)
        with self._loops.gate(name), reading(path, f"volume {name}", how=os.O_RDWR) as fd:
            loop = self._loops.find(name, os.fstat(fd))
            if loop is None:
                self._clear_stale(name)
                self._trace("attach device")
                loop = self._loops.attach(name, fd)
                self._trace("attach gate")
            else:
                update_size(loop, os.fstat(fd).st_size)  # another node may have grown it
            let_write(loop, self._node in load(self._place, name).holders)
        return Attachment(device=loop.path, uris=(f"kvm:{path}",))

    def detach(self, name: str) -> None:
        try:
            with held(self._place, name) as record, self._loops.gate(name):
                self._leave(name)
                self._trace("detach record")
                self._save_writers(name, record, plan_close(_writers(record), self._node))
        except NotFound:
            with self._loops.gate(name):
                self._clear_stale(name)

    def open(self, name: str, *, exclusive: bool) -> None:
        with held(self._place, name) as record, self._loops.gate(name):
            now = _writers(record)
            others = {*record.holders, *record.owed} - {self._node}
            used_here = is_contested(now, self._node) and bool(self._users(name))
            plan = plan_open(now, self._node, exclusive=exclusive, used_here=used_here, volume=name)
            generation = record.generation
            if plan.fence:
                logger.warning("volume=%s open: fencing %s, which did not close it", name, ", ".join(sorted(others)))
                generation += 1
                self._fence(name, record)
            elif others - set(plan.writers.nodes):
                logger.warning(
                    "volume=%s open: %s lost it and did not close it; a start that follows a stop here will fence",
                    name,
                    ", ".join(sorted(others)),
                )
            self._trace("open record")
            opened = dataclasses.replace(
                record, generation=generation, opened=True, formerly=formerly_after_open(record)
            )
            self._save_writers(name, opened, plan.writers)
            loop = self._device(name)
            if loop is not None:
                forget_pages(loop)
                let_write(loop, True)

    def close(self, name: str) -> None:
        with contextlib.suppress(NotFound), held(self._place, name) as record, self._loops.gate(name):
            loop = self._device(name)
            if loop is not None:
                let_write(loop, False)
                forget_pages(loop)
            self._trace("close record")
            self._save_writers(name, record, plan_close(_writers(record), self._node))

    def grow(self, name: str, new: int) -> None:
        """The file, then the record (commit point), then the device. A file longer than its record is grown again."""
        with held(self._place, name) as record:
            refuse_shrinking(name, record.size, new)
            with reading(self._place.disk("volumes", name), f"volume {name}", how=os.O_RDWR) as fd:
                if os.fstat(fd).st_size < new:
                    self._trace("grow file")
                    os.ftruncate(fd, new)
                os.fsync(fd)
                has = os.fstat(fd).st_size
            self._trace("grow record")
            save(self._place, name, dataclasses.replace(record, size=new))
            self._trace("grow device")
            loop = self._device(name)
            if loop is not None:
                update_size(loop, has)

    def reset(self, name: str, base: Path, *, origin: str, map: str | None) -> None:
        """The file, in place, so that who called us may have the device open; what that cached is dropped.

        The record says before that nobody knows what it holds, and afterwards which image it is.
        """
        from snf_extstorage.directory import contents

        with held(self._place, name) as record:
            if record.holders != (self._node,):
                who = ", ".join(record.holders) or "nobody: activate the instance's disks first"
                raise InUse(f"volume {name} is to become an image again, which only its one writer may; that is {who}")
            deadline = time.monotonic() + LOOKERS_S
            while users := self._users(name, without=callers()):
                if time.monotonic() < deadline:
                    time.sleep(0.2)
                    continue
                raise InUse(
                    f"volume {name} is to become an image again, but {', '.join(users)} has it; stop that first"
                )
            path = self._place.disk("volumes", name)
            with contents.beginning(base, path.parent, size=record.size) as whole:
                self._trace("reset record")
                save(self._place, name, dataclasses.replace(record, map=None))
                with _half_done(name):
                    self._trace("reset file")
                    contents.overwrite(path, whole)
                    self._trace("reset device")
                    loop = self._device(name)
                    if loop is not None:
                        forget_pages(loop)
                    self._trace("reset known")
                    save(self._place, name, dataclasses.replace(record, origin=origin, map=map))

    def set_info(self, name: str, text: str) -> None:
        with held(self._place, name) as record:
            self._trace("setinfo record")
            save(self._place, name, dataclasses.replace(record, info=text))

    def set_origin(self, name: str, map: str | None) -> None:
        with held(self._place, name) as record:
            self._trace("setorigin record")
            save(self._place, name, dataclasses.replace(record, map=map))

    @contextlib.contextmanager
    def leaving(
        self, name: str, record: VolumeRecord, *, deserted: bool = False, wanted: str = "removed"
    ) -> Iterator[None]:
        """What `remove` does first, holding the record; nobody attaches it here meanwhile. Raises InUse.

        `deserted`: whatever another node writes goes to a file without a name.
        """
        others = sorted(set(record.holders) - {self._node})
        if others and not deserted:
            raise InUse(f"volume {name} is to be {wanted}, but {others[0]} has it open; stop its instance there first")
        with self._loops.gate(name):
            self._leave(name)
            yield

    def _leave(self, name: str) -> None:
        self._loops.forget(name)
        # Also those that a fence left on the file of before: they are this node's, and nobody will ask for them again.
        for loop in self._loops.named(name):
            if not self._loops.detach(name, loop):
                who = processes_with(os.stat(loop.path)) or ["the kernel"]
                raise InUse(f"volume {name} is held by {', '.join(who)} through {loop.path}; stop that first")
        with reading(self._place.disk("volumes", name), f"volume {name}", how=os.O_RDWR) as fd:
            # The lock may be another node's, where the instance has gone; so it only says that looking is worth it.
            if is_locked(fd) and (found := processes_with(os.fstat(fd))):
                raise InUse(f"volume {name} is held by {', '.join(found)}; stop that first")

    def _fence(self, name: str, record: VolumeRecord) -> None:
        lost = tuple(sorted({*record.holders, *record.owed} - {self._node}))
        path = self._place.disk("volumes", name)
        clone = path.with_name(f"{TEMPORARY}disk")
        self._trace("open fence-clone")
        with reading(path, f"volume {name}", how=os.O_RDWR) as source:
            target = self._place.roomy(lambda: self._clone(source, clone))
            try:
                os.fsync(target)
                old = self._loops.find(name, os.fstat(source))
                self._trace("open fence-drop")
                self._save_writers(name, record, Writers(owed=lost))
                self._trace("open fence-publish")
                os.rename(clone, path)
                sync_folder(path.parent)
                if old is not None:
                    self._trace("open fence-device")
                    if not self._loops.move(name, old, target):
                        raise InUse(f"volume {name} was taken over, but {old.path} is held here and shows the old one")
            finally:
                os.close(target)

    def _clone(self, source: int, path: Path) -> int:
        target = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            sharing.hint_cow_extents(target, self._cow_extent)
            clone_file(source, target)
        except BaseException:
            os.close(target)
            raise
        return target

    def _device(self, name: str) -> Loop | None:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return self._loops.find(name, os.stat(self._place.disk("volumes", name)))
        return None

    def _clear_stale(self, name: str) -> None:
        """Devices of a file that had this name before, so that nothing reaches a later volume through them."""
        self._loops.forget(name)
        current = self._device(name)
        for loop in self._loops.named(name):
            if loop != current and not self._loops.detach(name, loop):
                logger.warning("volume=%s device=%s shows a file that was replaced, and is held", name, loop.path)

    def _users(self, name: str, *, without: Collection[int] = ()) -> Sequence[str]:
        loop = self._device(name)
        device = [os.stat(loop.path)] if loop is not None else []
        return processes_with(os.stat(self._place.disk("volumes", name)), *device, without=without)

    def _save_writers(self, name: str, record: VolumeRecord, writers: Writers) -> None:
        save(
            self._place,
            name,
            dataclasses.replace(record, holders=writers.nodes, exclusive=writers.exclusive, owed=writers.owed),
        )


def _writers(record: VolumeRecord) -> Writers:
    return Writers(record.holders, record.exclusive, record.owed)


@contextlib.contextmanager
def _half_done(name: str) -> Iterator[None]:
    """Whatever goes wrong in here is HalfDone: the file is not what it was any more."""
    try:
        yield
    except (Error, OSError) as e:
        raise HalfDone(
            f"volume {name} became an image again in part only ({e}), so it holds no system; do it again"
        ) from e
