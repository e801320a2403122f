"""The image's files. This is the only module that opens a path of the image.

Everything goes through openat2(2) with RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS and RESOLVE_NO_XDEV relative to one open
folder, so an absolute link, a chain of "..", a link of /proc or a bind mount can lead to another place *in the image*
or to an error, and to nothing else. Where the image's own file systems were mounted below its root (`cross_into`), the
mount that a path ended in is compared with those instead. Links at the end of a path are followed by us, one at a time,
so that we know the real folder and name to replace; before a file is opened its type is known, so a fifo cannot hang us
and a device cannot answer. Files are replaced by a temporary name and a rename; owner, mode and extended attributes
stay.

A link into a folder that the booted system empties or covers (/dev, /proc, /run, /sys, /tmp) is refused when writing:
what was asked for would silently be lost. A link to nothing is replaced by the file itself.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from snf_image_helper.image import Entry, ImageError, Kind, RootPath, TooLarge
from snf_image_helper.syscalls import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_XDEV, openat2

INSIDE = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV
LINKS_LIMIT = 40  # as the kernel's own MAXSYMLINKS
VOLATILE = ("dev", "proc", "run", "sys", "tmp")
READ_LIMIT = 1 << 20
LIST_LIMIT = 10_000
FS_IOC_SETFLAGS, FS_NOCOW_FL = 0x40086602, 0x00800000  # <linux/fs.h>


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where a path really ends: an open folder, and a name in it that is not a link (or is not there at all)."""

    folder: int
    name: str
    found: os.stat_result | None


class RootFs:
    """The tree under one folder. Use it in a `with`, or `close` it: it holds the folder open."""

    def __init__(self, folder: str) -> None:
        self._root = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._crossing: set[int] = set()

    def __enter__(self) -> RootFs:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._root)

    def open_folder(self, path: RootPath) -> int:
        """A folder of the image, links followed, opened for its place alone (O_PATH). Raises ImageError if it is none.

        The caller closes it.
        """
        with _explained(path):
            folder = self._open_folder(path)
        if folder is None:
            raise ImageError(f"{path} of the image does not exist, a folder is needed there")
        return folder

    def cross_into(self, folder: str) -> None:
        """From now on paths may lead into what is mounted at `folder`: the caller mounted it, and it is the image's."""
        fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            self._crossing |= {_mount_id(self._root), _mount_id(fd)}
        finally:
            os.close(fd)

    def _open(self, path: str, flags: int) -> int:
        if not self._crossing:
            return openat2(self._root, path, flags, resolve=INSIDE)
        fd = openat2(self._root, path, flags, resolve=INSIDE & ~RESOLVE_NO_XDEV)
        if _mount_id(fd) not in self._crossing:
            os.close(fd)
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
        return fd

    def entry(self, path: RootPath) -> Entry | None:
        """What `path` is, links followed inside the image; None if there is nothing (or a link to nothing)."""
        with _explained(path), self._place(path) as place:
            return _entry(place.found) if place is not None and place.found is not None else None

    def link(self, path: RootPath) -> str | None:
        """The target of the link at `path` itself; None if it is not a link."""
        with _explained(path):
            folder = self._open_folder(path.parent)
            if folder is None:
                return None
            try:
                return os.readlink(path.name, dir_fd=folder)
            except (FileNotFoundError, OSError) as e:
                if e.errno in (errno.EINVAL, errno.ENOENT):
                    return None
                raise
            finally:
                os.close(folder)

    def read(self, path: RootPath, *, limit: int = READ_LIMIT) -> bytes | None:
        """The whole content of a regular file; None if there is none. Raises TooLarge over `limit` bytes."""
        with _explained(path), self._place(path) as place:
            if place is None or place.found is None:
                return None
            _must_be_regular(path, place.found)
            fd = os.open(place.name, os.O_RDONLY | os.O_NONBLOCK | _LEAF, dir_fd=place.folder)
            with os.fdopen(fd, "rb") as file:
                _must_be_regular(path, os.fstat(fd))
                content = file.read(limit + 1)
            if len(content) > limit:
                raise TooLarge(f"{path} of the image has over {limit} bytes, more than such a file may have")
            return content

    @contextlib.contextmanager
    def opened(self, path: RootPath, *, limit: int) -> Iterator[int]:
        """A regular file, open for reading, for a library that takes a file and not its content.

        Raises ImageError when there is none, and over `limit` bytes.
        """
        with _explained(path), self._place(path) as place:
            if place is None or place.found is None:
                raise ImageError(f"{path} of the image does not exist")
            _must_be_regular(path, place.found)
            fd = os.open(place.name, os.O_RDONLY | os.O_NONBLOCK | _LEAF, dir_fd=place.folder)
        try:
            _must_be_regular(path, os.fstat(fd))
            if os.fstat(fd).st_size > limit:
                raise ImageError(f"{path} of the image has over {limit} bytes, more than such a file may have")
            yield fd
        finally:
            os.close(fd)

    def names(self, path: RootPath) -> tuple[str, ...]:
        """The names in a folder, sorted; none if there is no such folder."""
        with _explained(path):
            folder = self._open_folder(path)
            if folder is None:
                return ()
            os.close(folder)
            fd = self._open(str(path), os.O_RDONLY | os.O_DIRECTORY)
            try:
                with os.scandir(fd) as entries:
                    names = []
                    for entry in entries:
                        names.append(entry.name)
                        if len(names) > LIST_LIMIT:
                            raise ImageError(f"{path} of the image has over {LIST_LIMIT} entries")
                return tuple(sorted(names))
            finally:
                os.close(fd)

    def write(
        self, path: RootPath, content: bytes, *, mode: int | None = None, owner: tuple[int, int] | None = None
    ) -> None:
        """Replace or make a file whose folder exists. What is None stays as it was, or is 0644 and root's when new."""
        with _explained(path), self._place(path, replacing=True) as place:
            if place is None:
                raise ImageError(f"{path} of the image is in a folder that does not exist")
            self._must_last(path, place.folder)
            if place.found is not None:
                _must_be_regular(path, place.found)
            _replace(place, content, mode, owner)

    def allocate(self, path: RootPath, size: int, *, head: bytes, in_place: bool) -> None:
        """Replace or make a file of `size` bytes without holes that begins with `head`, root's and of mode 0600.

        `in_place` sets FS_NOCOW_FL (chattr +C) while the file is still empty, which is when it has an effect.
        """
        with _explained(path), self._place(path, replacing=True) as place:
            if place is None:
                raise ImageError(f"{path} of the image is in a folder that does not exist")
            self._must_last(path, place.folder)
            if place.found is not None:
                _must_be_regular(path, place.found)
            temporary = _temporary()
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _LEAF, 0o600, dir_fd=place.folder)
            try:
                if in_place:
                    fcntl.ioctl(fd, FS_IOC_SETFLAGS, struct.pack("=l", FS_NOCOW_FL))
                os.posix_fallocate(fd, 0, size)
                os.pwrite(fd, head, 0)
                os.fchmod(fd, 0o600)
                os.rename(temporary, place.name, src_dir_fd=place.folder, dst_dir_fd=place.folder)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=place.folder)
                raise
            finally:
                os.close(fd)

    def make_folder(self, path: RootPath, *, mode: int, owner: tuple[int, int]) -> None:
        """A new folder in one that exists. One that is there already stays as it is."""
        with _explained(path), self._place(path, replacing=True) as place:
            if place is None:
                raise ImageError(f"{path} of the image is in a folder that does not exist")
            self._must_last(path, place.folder)
            if place.found is not None and not stat.S_ISLNK(place.found.st_mode):
                if not stat.S_ISDIR(place.found.st_mode):
                    raise ImageError(f"{path} of the image is {_name_of(place.found)}, a folder is needed there")
                return
            if place.found is not None:
                os.unlink(place.name, dir_fd=place.folder)
            os.mkdir(place.name, 0o700, dir_fd=place.folder)
            fd = os.open(place.name, os.O_RDONLY | os.O_DIRECTORY | _LEAF, dir_fd=place.folder)
            try:
                os.fchown(fd, *owner)
                os.fchmod(fd, mode)
            finally:
                os.close(fd)

    def remove(self, path: RootPath) -> None:
        """Remove the file or link at `path` itself, if there is one. Never a folder."""
        with _explained(path):
            folder = self._open_folder(path.parent)
            if folder is None:
                return
            try:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path.name, dir_fd=folder)
            finally:
                os.close(folder)

    def symlink(self, path: RootPath, target: str) -> None:
        """Make `path` itself a link, instead of the file or link that is there."""
        with _explained(path):
            folder = self._open_folder(path.parent)
            if folder is None:
                raise ImageError(f"{path} of the image is in a folder that does not exist")
            try:
                temporary = _temporary()
                os.symlink(target, temporary, dir_fd=folder)
                try:
                    os.rename(temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder)
                except OSError:
                    os.unlink(temporary, dir_fd=folder)
                    raise
            finally:
                os.close(folder)

    def _open_folder(self, path: RootPath | str) -> int | None:
        try:
            return self._open(str(path).lstrip("/") or ".", os.O_PATH | os.O_DIRECTORY)
        except FileNotFoundError:
            return None

    @contextlib.contextmanager
    def _place(self, path: RootPath, *, replacing: bool = False) -> Iterator[_Place | None]:
        """The end of `path`, links followed; None if a folder on the way is missing.

        With `replacing`, a link to nothing is itself the end, so that it is replaced and not followed.
        """
        current = str(path).lstrip("/")
        with contextlib.ExitStack() as folders:
            dangling: _Place | None = None
            for _ in range(LINKS_LIMIT):
                parent, _, name = current.rpartition("/")
                if name in ("", ".", ".."):  # a link to "/" or "..": surely a folder
                    name = "." if name != ".." else ".."
                folder = self._open_folder(f"{parent}/.." if name == ".." else parent)
                if folder is None:
                    break
                folders.callback(os.close, folder)
                if name == "..":
                    name = "."
                try:
                    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
                except FileNotFoundError:
                    found = None
                if found is None or not stat.S_ISLNK(found.st_mode):
                    if found is None and dangling is not None:
                        break
                    yield _Place(folder=folder, name=name, found=found)
                    return
                target = os.readlink(name, dir_fd=folder)
                dangling = dangling or _Place(folder=folder, name=name, found=found)
                current = target.lstrip("/") if target.startswith("/") else f"{parent}/{target}"
            else:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            yield dangling if replacing else None

    def _must_last(self, path: RootPath, folder: int) -> None:
        """Raises ImageError when a link led to a folder whose content does not outlive a boot."""
        root, real = (Path(f"/proc/self/fd/{fd}").readlink() for fd in (self._root, folder))
        inside = (*real.relative_to(root).parts, "")[0]
        if inside in VOLATILE and str(path).strip("/").split("/")[0] != inside:
            raise ImageError(
                f"{path} of the image leads to /{inside}, where nothing outlives a boot; make it a real path"
            )


_LEAF = os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC


def _replace(place: _Place, content: bytes, mode: int | None, owner: tuple[int, int] | None) -> None:
    old = place.found if place.found is not None and stat.S_ISREG(place.found.st_mode) else None
    temporary = _temporary()
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _LEAF, 0o600, dir_fd=place.folder)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            if old is not None:
                owner = owner or (old.st_uid, old.st_gid)
                mode = stat.S_IMODE(old.st_mode) if mode is None else mode
                _copy_attributes(place, fd)
            os.fchown(fd, *(owner or (0, 0)))
            os.fchmod(fd, 0o644 if mode is None else mode)
        os.rename(temporary, place.name, src_dir_fd=place.folder, dst_dir_fd=place.folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=place.folder)
        raise


def _copy_attributes(place: _Place, new: int) -> None:
    """Extended attributes: SELinux's label, ACLs, what else there is. Access ACLs come before the mode is set."""
    old = os.open(place.name, os.O_RDONLY | os.O_NONBLOCK | _LEAF, dir_fd=place.folder)
    try:
        for name in os.listxattr(old):
            os.setxattr(new, name, os.getxattr(old, name))
    finally:
        os.close(old)


def _mount_id(fd: int) -> int:
    """In which mount an open file is (proc(5), fdinfo)."""
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("mnt_id:"))


def _temporary() -> str:
    return f".snf-image-{secrets.token_hex(6)}"


def _entry(found: os.stat_result) -> Entry:
    kind = Kind.FILE if stat.S_ISREG(found.st_mode) else Kind.FOLDER if stat.S_ISDIR(found.st_mode) else Kind.OTHER
    return Entry(kind=kind, mode=stat.S_IMODE(found.st_mode), owner=found.st_uid, group=found.st_gid)


def _must_be_regular(path: RootPath, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode) and not stat.S_ISLNK(found.st_mode):
        raise ImageError(f"{path} of the image is {_name_of(found)}, a regular file is needed there")


def _name_of(found: os.stat_result) -> str:
    names = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a fifo",
        stat.S_IFCHR: "a character device",
        stat.S_IFBLK: "a block device",
        stat.S_IFSOCK: "a socket",
        stat.S_IFREG: "a regular file",
    }
    return names.get(stat.S_IFMT(found.st_mode), "something unknown")


@contextlib.contextmanager
def _explained(path: RootPath) -> Iterator[None]:
    """What the kernel refuses, as a sentence with the image's path."""
    try:
        yield
    except OSError as e:
        reasons = {
            errno.ELOOP: "is a chain of links without an end",
            errno.EXDEV: "leads out of the file system it is on",
            errno.ENOTDIR: "goes through something that is not a folder",
            errno.EISDIR: "is a folder, a file is needed there",
            errno.ENOSPC: "cannot be written: the image's file system is full",
            errno.EDQUOT: "cannot be written: the image's quota is used up",
            errno.EROFS: "cannot be written: the image's file system is damaged and became read-only",
            errno.EPERM: "cannot be changed: it, or its folder, is marked immutable",
            errno.ENAMETOOLONG: "has a name that is too long",
        }
        reason = reasons.get(e.errno or 0, f"cannot be used: {e.strerror}")
        raise ImageError(f"{path} of the image {reason}") from e
