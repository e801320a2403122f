"""A file system whose locks stay on one node holds no volumes."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from snf_extstorage.commands import init
from snf_extstorage.directory import mount
from snf_extstorage.directory import place as place_module
from snf_extstorage.directory.engine import volumes
from snf_extstorage.directory.mount import (
    Mount,
    local_locks,
    logs_in_order,
    parse_mount,
    parse_mount_id,
    require_shared_locks,
)
from snf_extstorage.directory.place import Place, init_place
from snf_extstorage.settings import Settings

from synnefo_light.errors import EnvironmentFault

NFS = "rw,vers=4.2,rsize=1048576,hard,proto=tcp,timeo=600,sec=sys,clientaddr=192.0.2.2,local_lock={},addr=192.0.2.1"
LOCAL = "36 29 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw,discard,errors=remount-ro"
SHARED = f"52 36 0:47 / /srv/a\\040b rw,relatime shared:27 master:2 - nfs4 filer:/volumes {NFS.format('none')}"


def test_a_line_is_read_with_its_tagged_fields_or_without() -> None:
    text = f"{SHARED}\n{LOCAL}\n60 36 0:50 / /proc rw - proc  rw\nwhat else there is\n"
    assert parse_mount(text, 36) == Mount(point="/", kind="ext4", options=("rw", "discard", "errors=remount-ro"))
    assert parse_mount(text, 52) == Mount(point="/srv/a b", kind="nfs4", options=tuple(NFS.format("none").split(",")))
    assert parse_mount(text, 60) == Mount(point="/proc", kind="proc", options=("rw",))
    assert parse_mount(text, 5) is None


@pytest.mark.parametrize(
    "line", ["36 ", "36 29 254:0 / / rw", LOCAL.replace(" - ", " "), LOCAL.replace("254:0", "254")]
)
def test_a_line_that_is_none_is_refused(line: str) -> None:
    with pytest.raises(EnvironmentFault, match="a line that is none"):
        parse_mount(f"{SHARED}\n{line}\n", 36)


@pytest.mark.parametrize(
    ("options", "option"),
    [
        (NFS.format("none"), None),
        ("rw,attr2,inode64,logbufs=8,noquota", None),
        (NFS.format("flock"), "local_lock=flock"),
        (NFS.format("posix"), "local_lock=posix"),
        (NFS.format("all"), "local_lock=all"),
        ("rw,vers=3,nolock,proto=tcp", "nolock"),
        ("rw,heartbeat=local,localflocks,coherency=full", "localflocks"),
    ],
)
def test_the_option_that_keeps_locks_on_a_node_is_found(options: str, option: str | None) -> None:
    assert local_locks(Mount(point="/", kind="any", options=tuple(options.split(",")))) == option


def test_the_mount_of_an_open_file_is_told_by_its_number() -> None:
    assert parse_mount_id("pos:\t0\nflags:\t0100000\nmnt_id:\t52\nino:\t2\n") == 52
    with pytest.raises(EnvironmentFault, match="mnt_id"):
        parse_mount_id("pos:\t0\n")


def test_a_folder_is_refused_by_what_its_own_mount_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mount, "parse_mount_id", lambda text: 52)
    table = tmp_path / "mountinfo"
    monkeypatch.setattr(mount, "MOUNTINFO", table)
    table.write_text(f"{LOCAL}\n{SHARED}\n{SHARED.replace('52', '53', 1).replace('=none', '=all')}\n")
    require_shared_locks(tmp_path)
    table.write_text(f"{LOCAL}\n{SHARED.replace('=none', '=flock')}\n")
    with pytest.raises(EnvironmentFault, match=r"nfs4 mounted at /srv/a b with local_lock=flock: two nodes"):
        require_shared_locks(tmp_path)


def test_the_kernel_answers_as_it_is_read_here(tmp_path: Path) -> None:
    require_shared_locks(tmp_path)
    fdinfo = Path("/proc/self/fdinfo/0").read_text()
    assert parse_mount_id(fdinfo) > 0


def test_a_mount_with_locks_of_its_own_is_refused_where_volumes_are_opened_and_where_they_would_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    init_place(tmp_path / "old")
    settings = Settings(folder=tmp_path / "old", run=tmp_path / "run", node="n")
    assert list(volumes(settings).volumes()) == []
    local = Mount(point="/srv", kind="nfs4", options=("rw", "local_lock=all"))
    monkeypatch.setattr(mount, "mount_of", lambda folder: local)
    monkeypatch.setattr(init, "require_sharing", lambda folder: None)
    with pytest.raises(EnvironmentFault, match="local_lock=all: two nodes"):
        volumes(settings)
    fresh = Settings(folder=tmp_path / "new", run=tmp_path / "run", node="n")
    with pytest.raises(EnvironmentFault, match="local_lock=all: two nodes"):
        init.run(fresh, argparse.Namespace(image=None, size=None, grace=1), print)
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "options", "in_order"),
    [
        ("xfs", "rw,attr2,inode64,noquota", True),
        ("xfs", "rw,attr2,logdev=/dev/sdc1,noquota", True),
        ("xfs", "rw,attr2,rtdev=/dev/sdb1,noquota", False),
        ("btrfs", "rw,space_cache=v2", False),
        ("nfs4", NFS.format("none"), False),
    ],
)
def test_one_log_covers_all_on_xfs_without_a_device_of_its_own_for_data(
    kind: str, options: str, in_order: bool
) -> None:
    assert logs_in_order(Mount(point="/", kind=kind, options=tuple(options.split(",")))) is in_order


def test_what_is_synced_is_told_by_the_mount_of_the_folder_itself_and_anew_for_each_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another file system may come to have the device number of one that was mounted there before."""
    init_place(tmp_path)
    asked: list[Path] = []
    kind = "xfs"

    def mount_of(folder: Path) -> Mount:
        asked.append(folder)
        return Mount(point="/", kind=kind, options=("rw",))

    written: list[int] = []

    def write_out(fd: int) -> bool:
        written.append(fd)
        return True

    monkeypatch.setattr(place_module, "mount_of", mount_of)
    monkeypatch.setattr(place_module, "write_out", write_out)

    def make(place: Place, name: str) -> int:
        written.clear()
        with place.making("volumes", lambda: name):
            pass
        return len(written)

    place = Place(tmp_path)
    assert make(place, "a") > 0
    assert make(place, "b") > 0
    assert asked == [tmp_path / "volumes"]
    kind = "ext4"
    assert make(Place(tmp_path), "c") == 0
    assert asked == [tmp_path / "volumes"] * 2
