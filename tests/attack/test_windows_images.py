"""Hostile trees of Windows: links, odd files and bombs where its tasks read and write.

First the tasks on a folder, with a trap at every path in turn, by the code that runs in the VM; the positive control is
a writer that opens the same path plainly. Then some traps as NTFS has them, deployed in the helper VM.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from snf_image_helper.actions import FileAction, SetRegistryValue
from snf_image_helper.image import FilesystemKind, Skipped
from snf_image_helper.tasks import TASKS
from snf_image_helper.windows import GENERALIZED, Facts

from synnefo_light.errors import Error
from synnefo_light.manifest import Manifest
from synnefo_light.records import build
from synnefo_light.tasks import OsFamily, Phase, order
from tests.attack.corpus import links
from tests.attack.corpus.systems import image_of
from tests.attack.test_links_everywhere import SECRET, Place
from tests.attack.time_limit import time_limit
from tests.disk_images import Device, Entry, Fifo, File, Folder, Link, populate
from tests.real.snf_image_helper import virtual_machine
from tests.real.snf_image_helper.test_windows import ASKED, disk_of, ntfs_of
from tests.windows_images import CONFIG, Junction, list_ntfs, read_ntfs, windows

TREE: Mapping[str, Entry] = {
    **{name: entry for name, entry in windows().items() if not isinstance(entry, Junction)},
    "Windows/Panther/Unattend/unattend.xml": File(content='<unattend xmlns="urn:schemas-microsoft-com:unattend"/>'),
    "Windows/Setup/Scripts/SetupComplete.cmd": File(content="@echo off\r\n"),
}
FACTS = Facts(
    architecture="amd64",
    version=(10, 0),
    image_state=GENERALIZED,
    control_set=1,
    remote_desktop_denied=0,
    unattend_file=None,
    users={"administrator": 500, "alice": 1001},
    system_is_merged=True,
)
WRITERS = tuple(
    info
    for info in order(task.INFO for task in TASKS.values())
    if info.phase is Phase.MOUNTED and OsFamily.WINDOWS in info.os_families
)
#: Its file goes through hivex, which has tests of its own; what is written then is written like any other file.
HIVE = f"/{CONFIG}/SYSTEM"


@dataclass(slots=True)
class Done:
    written: dict[str, set[str]] = dataclasses.field(default_factory=dict)
    asked: set[str] = dataclasses.field(default_factory=set)
    errors: dict[str, str] = dataclasses.field(default_factory=dict)


def ordered() -> Manifest:
    nics = [{"mac": "aa:00:00:00:00:01", "ipv4": "static", "ipv4_address": "10.0.0.5/24", "nameservers": ["10.0.0.2"]}]
    basic = {"helper_version": "1", "nonce": virtual_machine.NONCE, "instance": "web1.example.org", "nics": nics}
    return build({**basic, "disks": [{"index": 0, "size": 1 << 30}], **ASKED}, Manifest)


def run_tasks(root: Path) -> Done:
    """Every task of Windows on a tree; one that fails is noted. Raises what no task may raise."""
    done = Done()
    with contextlib.closing(links.WatchedFiles(str(root))) as files:
        machine = links.OnFolder(files)
        for info in WRITERS:
            small = image_of(files)
            filesystem = dataclasses.replace(small.root.filesystem, kind=FilesystemKind.NTFS, size=1 << 20)
            image = dataclasses.replace(
                small,
                root=dataclasses.replace(small.root, filesystem=filesystem),
                family=OsFamily.WINDOWS,
                windows=lambda: FACTS,
            )
            try:
                for action in TASKS[info.name].plan(image, ordered()):
                    if isinstance(action, FileAction):
                        done.written.setdefault(info.name, set()).update(links.paths_of(action))
                        if not isinstance(action, SetRegistryValue):
                            machine.apply(action)
            except (Error, Skipped) as e:
                done.errors[info.name] = str(e)
        done.asked = set(files.asked)
    return done


@contextlib.contextmanager
def a_place() -> Iterator[Place]:
    with tempfile.TemporaryDirectory() as folder:
        place = Place(root=Path(folder, "root"), work=Path(folder, "work"), outside=Path(folder, "outside"))
        for made in (place.root, place.work, place.outside):
            made.mkdir()
        (place.outside / "file").write_bytes(SECRET)
        populate(place.root, TREE)
        yield place


@functools.cache
def in_peace() -> Done:
    with a_place() as place:
        return run_tasks(place.root)


def written() -> list[str]:
    return sorted({path for paths in in_peace().written.values() for path in paths} - {HIVE})


def test_without_a_trap_every_task_of_windows_writes() -> None:
    done = in_peace()
    assert done.errors == {}
    assert set(done.written) == {info.name for info in WRITERS}


@pytest.mark.parametrize("kind", [*links.LINKS, *links.ODD])
def test_no_trap_where_windows_is_written_or_read_leads_out(kind: str) -> None:
    for path in sorted({*written(), *in_peace().asked} - {"/"}):
        with a_place() as place:
            if links.put_trap(place.root, path, kind, place.outside):
                with time_limit(f"{kind} at {path}"):
                    done = run_tasks(place.root)
                assert place.untouched(), f"{kind} at {path} led out"
                assert all(len(sentence) > 20 for sentence in done.errors.values()), done.errors


@pytest.mark.parametrize("kind", ["absolute", "absolute-new", "dotdot", "proc-root"])
def test_a_plain_writer_is_led_out_at_each_of_these_paths(kind: str) -> None:
    """The positive control."""
    for path in written():
        with a_place() as place:
            if links.put_trap(place.root, path, kind, place.outside):
                (place.root / path.lstrip("/")).write_bytes(b"from the image's writer\n")
                assert not place.untouched(), f"{kind} at {path} did not lead out"


# --- as NTFS has them, in the VM

BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><unattend>&b;</unattend>'
PANTHER = "Windows/Panther/unattend.xml"
COMPLETE = "Windows/Setup/Scripts/SetupComplete.cmd"

#: What stands where, and what the last sentence of the failure says; None: it must succeed.
TRAPS: Mapping[str, tuple[Mapping[str, Entry | Junction], str | None]] = {
    "a device for a hive": ({f"{CONFIG}/SYSTEM": Device(kind="b", major=254, minor=0)}, "is a block device"),
    "a fifo for a script": ({COMPLETE: Fifo()}, "SetupComplete.cmd of the image is a fifo"),
    "a folder for the answer file": ({PANTHER: Folder()}, "is a folder, a"),
    "a bomb for an answer file": ({PANTHER: File(content=BOMB)}, "DOCTYPE"),
    "a script over the limit": ({COMPLETE: File(content=b"rem\r\n" * 300_000)}, "has over 1048576 bytes"),
    "a link and a junction": (
        {PANTHER: Link(target="/run/escape"), "Windows/SnfScripts": Junction(target="C:\\Users\\Default")},
        None,
    ),
    "a junction to another drive": ({"Windows/SnfScripts": Junction(target="D:\\elsewhere")}, None),
}


@pytest.mark.vm
@pytest.mark.parametrize("name", TRAPS)
def test_a_trap_of_ntfs_ends_in_a_sentence_or_stays_inside(tmp_path: Path, name: str) -> None:
    changes, cause = TRAPS[name]
    outcome = virtual_machine.run(disk_of(tmp_path, {**windows(), **changes}), asked=ASKED)
    if cause is None:
        assert outcome.finished, outcome.console
        after = ntfs_of(tmp_path / "disk")
        assert (read_ntfs(after, PANTHER) or b"").startswith(b"<?xml")
        # To ntfs-3g these junctions lead to nothing in the image, so a folder takes their place.
        assert "Finish.cmd" in list_ntfs(after, "/Windows/SnfScripts")
        assert "Finish.cmd" not in list_ntfs(after, "/Users/Default")
    else:
        assert outcome.failed is not None and cause in outcome.failed.reason, outcome.console
        assert outcome.in_order and "the helper broke" not in outcome.failed.reason


@pytest.mark.vm
def test_names_are_found_whatever_their_case(tmp_path: Path) -> None:
    tree = {name.upper() if name.startswith("Windows") else name: entry for name, entry in windows().items()}
    tree["WINDOWS/PANTHER/Unattend.XML"] = File(content='<unattend xmlns="urn:schemas-microsoft-com:unattend"/>')
    outcome = virtual_machine.run(disk_of(tmp_path, tree), asked=ASKED)
    assert outcome.finished, outcome.console
    names = list_ntfs(ntfs_of(tmp_path / "disk"), "/WINDOWS/PANTHER")
    assert [name.lower() for name in names].count("unattend.xml") == 1
