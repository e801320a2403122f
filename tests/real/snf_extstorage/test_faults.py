"""Every write of the engine's own fails once: nothing is acknowledged that is not there, and nothing is tried again.

What the store writes below it has tests of its own.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from snf_extstorage.directory import sharing
from snf_extstorage.directory.place import init_place
from snf_extstorage.volume import NoSpace, SnapshotName

from synnefo_light import reflink
from synnefo_light.errors import Error
from synnefo_light.store import fsck, gc
from synnefo_light.store.identity import MapId
from tests.real.snf_extstorage.operations import (
    CASES,
    CONTENT,
    Case,
    Node,
    V,
    clear,
    compose,
    content_of,
    drop,
    made,
    nothing,
    registered,
)
from tests.real.snf_extstorage.places import Site, mounted_xfs, release

SYNCS: Final = ("fsync", "fdatasync", "write_out")
CHANGES: Final = ("rename", "mkdir", "ftruncate", "truncate", "posix_fallocate", "write", "pwrite", "fdopen")
REMOVES: Final = ("unlink", "rmdir")
SHARES: Final = {
    reflink.FICLONE: "clone",
    reflink.FICLONERANGE: "clone_range",
    sharing._FS_IOC_FSSETXATTR: "hint",
}
#: Where a range that cannot be shared is no harm: the clone that follows shares everything.
AHEAD: Final = ("clone", "snapshot")


class Failing:
    """Stands before the calls of `os` and `fcntl` that change something in the folder, but for the store in it.

    The `fail_at`th ends with an error. Syncs do nothing: the storage is memory.
    """

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.root = str(root)
        self.patch = patch
        self.fail_at = 0
        self.sync_error = self.other_error = errno.EIO
        self.calls: list[tuple[str, str]] = []
        for name in ("fsync", "fdatasync", *CHANGES, *REMOVES, "open"):
            self._stand_before(os, name)
        self._stand_before(fcntl, "ioctl")

    def arm(self, fail_at: int) -> None:
        self.fail_at, self.calls = fail_at, []

    @property
    def failed(self) -> tuple[str, str] | None:
        return self.calls[self.fail_at - 1] if 0 < self.fail_at <= len(self.calls) else None

    def _stand_before(self, module: Any, called: str) -> None:
        real = getattr(module, called)

        def call(*arguments: Any, **named: Any) -> Any:
            name = _kind_of_ioctl(*arguments[1:]) if called == "ioctl" else called
            place = self._place(name, arguments, named)
            if self.fail_at and place is not None:
                self.calls.append((name, place))
                if len(self.calls) == self.fail_at:
                    if name == "fdopen":
                        os.close(arguments[0])
                    error = self.sync_error if name in SYNCS else self.other_error
                    raise OSError(error, os.strerror(error), place)
            return None if name in SYNCS else real(*arguments, **named)

        self.patch.setattr(module, called, call)

    def _place(self, name: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> str | None:
        """What is changed by it; None if nothing of ours is."""
        if (name == "open" and not arguments[1] & os.O_CREAT) or name == "look":
            return None
        first = arguments[0]
        path = str(Path(f"/proc/self/fd/{first}").readlink()) if isinstance(first, int) else os.fspath(first)
        if named.get("dir_fd") is not None:
            path = str(Path(f"/proc/self/fd/{named['dir_fd']}").readlink() / path)
        ours = path.startswith(self.root) and not path.startswith(f"{self.root}/store")
        return path.removeprefix(self.root) if ours else None


def _kind_of_ioctl(request: int, argument: Any = None) -> str:
    """FIEMAP that asks for no extents, and first for what is dirty to be written, is a sync."""
    if request == sharing._FS_IOC_FIEMAP:
        _, _, flags, _, wanted, _ = sharing._FIEMAP.unpack_from(argument)
        return "write_out" if flags and not wanted else "look"
    return SHARES.get(request, "look")


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = Path("/dev/shm") / tmp_path_factory.mktemp("faults").name
    folder.mkdir()
    try:
        with mounted_xfs(folder, size=640 << 20) as mount:
            yield mount
    finally:
        (folder / "xfs.img").unlink(missing_ok=True)
        (folder / "mnt").rmdir()
        folder.rmdir()


@pytest.fixture
def site(memory: Path, tmp_path: Path) -> Iterator[Site]:
    root = memory / tmp_path.name
    yield Site(place=init_place(root), hints=tmp_path / "run")
    release(root)


def uncomposed(node: Node) -> None:
    registered(node)
    for base in list(node.volumes.bases()):
        node.volumes.drop_base(MapId(base))


def cut(node: Node) -> None:
    made(node)
    node.volumes.snapshot({V: SnapshotName("golden")})


def is_dropped(node: Node) -> None:
    assert list(node.volumes.snapshots()) == []


def is_composed(node: Node) -> None:
    (base,) = node.volumes.bases()
    assert content_of(node, "bases", base) == CONTENT


OPERATIONS: Final[dict[str, Case]] = {
    **CASES,
    "setinfo": Case(made, lambda n: n.volumes.set_info(V, "originstname+web1"), nothing, 0),
    "drop snapshot": Case(cut, drop, is_dropped, 0),
    "compose": Case(uncomposed, compose, is_composed, 0),
}


def fail_everywhere(
    site: Site, failing: Failing, case: Case, check: Callable[[tuple[str, str], Exception | None, set[str]], None]
) -> int:
    """`check` gets what failed, what came out of it, and which calls were made after that. Returns how many failed."""
    for fail_at in range(1, 1000):
        case.before(Node(site))
        failing.arm(fail_at)
        fault: Exception | None = None
        try:
            case.act(Node(site))
        except (OSError, Error) as e:
            fault = e
        failed, rest = failing.failed, {name for name, _ in failing.calls[fail_at:]}
        failing.arm(0)
        if failed is None:
            case.after(Node(site))
            return fail_at - 1
        check(failed, fault, rest)
        node = Node(site)
        assert list(node.catalog.problems()) == []
        if V in node.volumes.volumes():
            assert content_of(node, "volumes", V) == CONTENT
        case.act(node)
        case.after(node)
        gc.collect(node.catalog.store)
        assert fsck.check(node.catalog.store).exit_code == 0
        assert list(node.catalog.problems()) == []
        clear(site)
    raise AssertionError("it never came to its end")


@pytest.fixture
def failing(site: Site, monkeypatch: pytest.MonkeyPatch) -> Failing:
    return Failing(site.place.root, monkeypatch)


@pytest.mark.parametrize("operation", [name for name in OPERATIONS if name not in ("attach", "remove image")])
def test_an_error_of_the_disk_at_every_write_ends_the_operation(site: Site, failing: Failing, operation: str) -> None:
    def check(failed: tuple[str, str], fault: Exception | None, rest: set[str]) -> None:
        name, place = failed
        if fault is None:  # what was to go stays in the trash, or under its temporary name; no ballast is no harm
            ahead = name == "clone_range" and operation in AHEAD
            assert ahead or name in REMOVES or place == "/ballast", failed
        else:
            assert rest <= set(REMOVES), (failed, rest)

    failures = fail_everywhere(site, failing, OPERATIONS[operation], check)
    assert failures >= 3


@pytest.mark.parametrize("operation", [name for name in OPERATIONS if name not in ("attach", "remove image")])
def test_no_space_at_every_write_is_said_or_made(site: Site, failing: Failing, operation: str) -> None:
    failing.other_error = errno.ENOSPC

    def check(failed: tuple[str, str], fault: Exception | None, rest: set[str]) -> None:
        name, place = failed
        if fault is None:
            # A fence's clone, or a way to the trash: the ballast made room.
            urgent = place.endswith("/.tmp-disk") or (name == "rename" and "/.tmp-" not in place)
            ahead = name == "clone_range" and operation in AHEAD
            assert urgent or ahead or name in REMOVES or place == "/ballast", failed
            assert not urgent or "truncate" in rest
        elif name in SYNCS:
            assert rest <= set(REMOVES), (failed, rest)
        else:
            assert isinstance(fault, NoSpace) or (isinstance(fault, OSError) and fault.errno == errno.ENOSPC)

    failures = fail_everywhere(site, failing, OPERATIONS[operation], check)
    assert failures >= 3


def test_a_record_whose_sync_failed_is_not_synced_again(site: Site, failing: Failing) -> None:
    """fsync(2) may report success the next time though the data is gone."""
    node = Node(site)
    made(node)
    failing.arm(2)
    with pytest.raises(OSError, match="Input/output error"):
        node.volumes.set_info(V, "originstname+web1")
    assert [name for name, _ in failing.calls] == ["pwrite", "fdatasync"]
