"""Links and odd files at every path that a task writes or reads; the paths are found out by letting the tasks plan.

So a new task is covered as soon as there is a system (systems.py) in which it has something to do.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import socket
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from snf_image_helper import apply
from snf_image_helper.actions import FileAction
from snf_image_helper.apply import Machine
from snf_image_helper.image import Entry as Seen
from snf_image_helper.image import RootPath, Skipped
from snf_image_helper.rootfs import READ_LIMIT, RootFs
from snf_image_helper.tasks import TASKS

from synnefo_light.errors import Error
from synnefo_light.run import Completed
from synnefo_light.tasks import OsFamily, Phase, order
from tests.attack.attempt import Attack
from tests.attack.corpus.systems import SYSTEMS, image_of, orders
from tests.disk_images import DEBIAN, Device, Entry, Folder, Link, list_back, make_disk, populate

#: Tasks that change files of a Linux image.
WRITERS = tuple(
    info
    for info in order(task.INFO for task in TASKS.values())
    if info.phase is Phase.MOUNTED and OsFamily.LINUX in info.os_families
)


class WatchedFiles(RootFs):
    """Remembers what was asked for."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self.asked: set[str] = set()

    def entry(self, path: RootPath) -> Seen | None:
        self.asked.add(str(path))
        return super().entry(path)

    def read(self, path: RootPath, *, limit: int = READ_LIMIT) -> bytes | None:
        self.asked.add(str(path))
        return super().read(path, limit=limit)

    def names(self, path: RootPath) -> tuple[str, ...]:
        self.asked.add(str(path))
        return super().names(path)


class OnFolder(Machine):
    """Without disks: a folder is the mounted image."""

    def __init__(self, files: RootFs) -> None:
        super().__init__(None, _no_program, lambda text: None, lambda done, total: None)  # type: ignore[arg-type]
        self._folder = files

    @property
    def root(self) -> RootFs:
        return self._folder


@dataclass(slots=True)
class Done:
    """What the tasks did to a tree: paths written by task, paths asked for, and the sentences of those that gave up."""

    written: dict[str, set[str]] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)
    skipped: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)


def run_tasks(root: Path, work: Path, *, system: str) -> Done:
    """Let every task plan and apply on the tree at `root`, by the code that does it in the VM.

    A task that fails is noted, and the next one goes on, so that one trap does not hide the others. Raises what no task
    may raise.
    """
    cloud_init = system == "cloud-init"
    manifest, done = orders(cloud_init=cloud_init, swap_file=system == "netplan"), Done()
    with _work_in(work), contextlib.closing(WatchedFiles(str(root))) as files:
        machine = OnFolder(files)
        for info in WRITERS:
            if cloud_init and "cloud-init" in info.groups:
                continue
            try:
                for action in TASKS[info.name].plan(image_of(files), manifest):
                    if isinstance(action, FileAction):
                        done.written.setdefault(info.name, set()).update(paths_of(action))
                        machine.apply(action)
            except Skipped as e:
                done.skipped[info.name] = str(e)
            except Error as e:
                done.errors[info.name] = str(e)
        done.asked = set(files.asked)
    return done


def paths_of(action: object) -> set[str]:
    """Whatever field of an action is a path of the image."""
    assert dataclasses.is_dataclass(action)
    values = (getattr(action, f.name) for f in dataclasses.fields(action))
    return {str(value) for value in values if isinstance(value, RootPath)}


def _no_program(argv: object, **_: object) -> Completed:
    """ssh-keygen's place: the files that it was to make."""
    words = [str(word) for word in argv]  # type: ignore[attr-defined]
    if "-f" in words:
        made = Path(words[words.index("-f") + 1])
        made.write_text("PRIVATE\n")
        made.with_name(f"{made.name}.pub").write_text("PUBLIC\n")
    return Completed(argv=tuple(words), returncode=0, stdout=b"", stderr=b"")


@contextlib.contextmanager
def _work_in(folder: Path) -> Iterator[None]:
    before = apply.WORK
    apply.WORK = folder
    try:
        yield
    finally:
        apply.WORK = before


@functools.cache
def found() -> Mapping[str, Done]:
    """What the tasks do in each system when nothing is hostile."""
    result = {}
    for name, tree in SYSTEMS.items():
        with tempfile.TemporaryDirectory(prefix="snf-corpus-") as folder:
            root, work = Path(folder, "root"), Path(folder, "work")
            root.mkdir()
            work.mkdir()
            populate(root, tree)
            result[name] = run_tasks(root, work, system=name)
    return result


def written() -> Mapping[str, str]:
    """Every path that some task writes, and the first system in which it does."""
    paths: dict[str, str] = {}
    for name, done in found().items():
        for path in sorted(p for paths in done.written.values() for p in paths):
            paths.setdefault(path, name)
    return paths


def asked() -> Mapping[str, str]:
    """Every path that some task reads or lists and none writes, with a system."""
    paths: dict[str, str] = {}
    for name, done in found().items():
        for path in sorted(done.asked - set(written())):
            paths.setdefault(path, name)
    return paths


# --- traps

UP = "../" * 40
#: Instead of a file: where a link leads to; `{file}`, `{folder}` and `{new}` are places outside of the image.
LINKS: Mapping[str, str] = {
    "absolute": "{file}",
    "absolute-new": "{new}",
    "absolute-folder": "{folder}",
    "dotdot": UP + "{file}",
    "proc-root": "/proc/self/root{file}",
    "proc-cwd": "/proc/self/cwd/" + UP + "{file}",
    "proc-fd": "/proc/self/fd/0",
    "itself": ".",
    "root": "/",
}
ODD = ("fifo", "device", "socket", "folder", "circle")


def put_trap(root: Path, path: str, kind: str, outside: Path) -> bool:
    """Replace what is at `path` of the tree; False when its folder is not there."""
    place = root / path.lstrip("/")
    if not place.parent.is_dir():
        return False
    if place.is_dir() and not place.is_symlink():
        place.rename(place.with_name(f"{place.name}.was"))
    place.unlink(missing_ok=True)
    if kind in LINKS:
        places = {"file": outside / "file", "folder": outside, "new": outside / "new"}
        place.symlink_to(LINKS[kind].format(**places))
    elif kind == "fifo":
        os.mkfifo(place)
    elif kind == "device":
        os.mknod(place, 0o20666, os.makedev(1, 5))
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as sock:
            folder = os.open(place.parent, os.O_PATH)
            sock.bind(f"/proc/self/fd/{folder}/{place.name}")  # a socket's path may not be long
            os.close(folder)
    elif kind == "folder":
        place.mkdir()
    else:
        place.symlink_to(place.name)
    return True


# --- the same, deployed

DEPLOYED: Mapping[str, Entry] = {
    "absolute": Link(target="/run/escape"),
    "dotdot": Link(target=UP + "tmp/escape"),
    "proc": Link(target="/proc/self/root/run/escape"),
    "device": Device(kind="b", major=254, minor=0),
    "folder": Folder(),
}


def corpus() -> tuple[Attack, ...]:
    return tuple(
        Attack(
            name=f"link-{kind}-{path.strip('/').replace('/', '-')}",
            make=functools.partial(_make, system=system, path=path, entry=entry),
            disk_mib=96,
            inspect=_nothing_elsewhere,
        )
        for path, system in written().items()
        for kind, entry in DEPLOYED.items()
        if _can_stand(path, system)
    )


def _can_stand(path: str, system: str) -> bool:
    """Not below a link of the system: what stands there cannot be said in a tree."""
    parents = [str(parent) for parent in Path(path.lstrip("/")).parents]
    return not any(isinstance(SYSTEMS[system].get(parent), Link) for parent in parents)


def _make(disk: Path, *, system: str, path: str, entry: Entry) -> None:
    at = path.lstrip("/")
    tree = {name: e for name, e in SYSTEMS[system].items() if not f"{name}/".startswith(f"{at}/")}
    make_disk(disk, tree={**dict.fromkeys(DEBIAN), **tree, at: entry})


def _nothing_elsewhere(disk: Path, instance: str) -> list[str]:
    names = {folder: list_back(disk, folder) for folder in ("/dev", "/proc", "/run", "/sys", "/tmp")}
    return [f"{folder} of the image has {found}" for folder, found in names.items() if found]
