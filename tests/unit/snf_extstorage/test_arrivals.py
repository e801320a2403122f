"""What `snf-store image add` does with what is not simply a raw file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import pytest
from snf_extstorage.arrivals import Room, Wanted, arrived, plan_conversion, plan_limit
from snf_extstorage.commandline import parse
from snf_extstorage.commands.image import parse_wanted
from snf_extstorage.settings import Settings
from snf_extstorage.volume import NoSpace, Space

from synnefo_light.errors import EnvironmentFault, Error, PeerError, ToolError, UserError
from synnefo_light.manifest import Compression, SourceFormat
from synnefo_light.units import GIB, MIB, Bytes
from tests.fake_runner import Answer, FakeRunner

OUT = Path("/proc/1/fd/3")
LIMIT = f"--max-size={128 * GIB}"
RAW = ("snf-image", "convert", "--format=raw", "--compression=none")


@pytest.mark.parametrize("source", ["/srv/debian.raw", "debian", "/dev/vg/x", "C:debian", "a.tar"])
def test_a_raw_file_is_taken_as_it_is(source: str) -> None:
    assert plan_conversion(Wanted(source=source), OUT) is None


@pytest.mark.parametrize(
    ("wanted", "command"),
    [
        (
            Wanted(source="/srv/debian.qcow2"),
            ("snf-image", "convert", "--format=qcow2", "--compression=none", LIMIT, "--", "/srv/debian.qcow2"),
        ),
        (
            Wanted(source="/srv/x.raw.xz", size_limit=Bytes(4096)),
            ("snf-image", "convert", "--format=raw", "--compression=xz", "--max-size=4096", "--", "/srv/x.raw.xz"),
        ),
        (
            Wanted(source="https://h.example/x?token=a.qcow2"),
            (*RAW, LIMIT, "--", "https://h.example/x?token=a.qcow2"),
        ),
        (Wanted(source="x", checksum="sha256:ab"), (*RAW, "--checksum=sha256:ab", LIMIT, "--", "x")),
        (Wanted(source="x", signature="x.sig"), (*RAW, "--signature=x.sig", LIMIT, "--", "x")),
        (
            Wanted(source="--x.vmdk", format=SourceFormat.RAW, signature="y"),
            (*RAW, "--signature=y", LIMIT, "--", "--x.vmdk"),
        ),
        (
            Wanted(source="x.gz", compression=Compression.ZSTD),
            ("snf-image", "convert", "--format=raw", "--compression=zstd", LIMIT, "--", "x.gz"),
        ),
    ],
)
def test_what_is_to_be_made_of_all_else_is_told_to_snf_image(wanted: Wanted, command: tuple[str, ...]) -> None:
    assert plan_conversion(wanted, OUT) == (*command, str(OUT))


def test_an_addresss_secret_is_not_kept_with_the_image() -> None:
    assert Wanted(source="https://h.example/x.raw?token=a").shown == "https://h.example/x.raw"
    assert Wanted(source="/srv/what?.raw").shown == "/srv/what?.raw"


def settings(folder: Path) -> Settings:
    return Settings(folder=folder)


def test_the_result_is_a_file_without_a_name(tmp_path: Path) -> None:
    def convert(argv: tuple[str, ...]) -> Answer:
        Path(argv[-1]).write_bytes(b"disk")
        return Answer()

    wanted = Wanted(source="http://h.example/x")
    with arrived(wanted, settings(tmp_path), runner=FakeRunner(convert)) as (fd, size):
        assert (os.pread(fd, 10, 0), size) == (b"disk", 4)
        assert list(tmp_path.iterdir()) == []


def room(*, free: int, total: int = 100 * GIB, reserve: int = 5) -> Room:
    return Room(folder=Path("/v"), space=Space(total=Bytes(total), free=Bytes(free)), reserve_percent=reserve)


@pytest.mark.parametrize(
    ("wanted", "free", "limit"),
    [
        (128 * GIB, 100 * GIB, 95 * GIB),
        (128 * GIB, 15 * GIB + 4095, 10 * GIB),
        (10 * GIB, 15 * GIB, 10 * GIB),
        (4096, 15 * GIB, 4096),
        (128 * GIB, 5 * GIB + MIB, MIB),
    ],
)
def test_no_disk_may_become_larger_than_what_is_free_above_the_reserve(wanted: int, free: int, limit: int) -> None:
    assert plan_limit(Wanted(source="x", size_limit=Bytes(wanted)), room(free=free)) == limit


@pytest.mark.parametrize("free", [0, 4 * GIB, 5 * GIB, 5 * GIB + MIB - 1])
def test_below_the_reserve_nothing_is_converted(free: int) -> None:
    with pytest.raises(NoSpace, match=r"there is no room: /v has .* of 100 GiB free, and 5 GiB are reserved"):
        plan_limit(Wanted(source="x", size_limit=Bytes(4096)), room(free=free))
    assert plan_limit(Wanted(source="x", size_limit=Bytes(4096)), room(free=free + MIB, reserve=0)) == 4096


def with_free(percent: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A file system of 100 GiB; the folders of which it was asked."""
    asked: list[str] = []

    def statvfs(folder: Path) -> os.statvfs_result:
        asked.append(str(folder))
        blocks = 100 * GIB // 4096
        return os.statvfs_result((4096, 4096, blocks, blocks, percent * blocks // 100, 0, 0, 0, 0, 255))

    monkeypatch.setattr(os, "statvfs", statvfs)
    return asked


@pytest.mark.parametrize(
    ("engine", "reserve", "limit"), [("directory", 5, 25 * GIB), ("directory", 10, 20 * GIB), ("rados", 10, 25 * GIB)]
)
def test_snf_image_is_told_how_much_room_there_is_where_it_converts(
    engine: Literal["directory", "rados"], reserve: int, limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snf_extstorage.arrivals.WAITING", tmp_path / "waiting")
    (tmp_path / "waiting").mkdir()
    asked = with_free(30, monkeypatch)
    runner = FakeRunner()
    given = Settings(engine=engine, folder=tmp_path, reserve_percent=reserve)
    with arrived(Wanted(source="bomb.xz"), given, runner=runner):
        assert [word for word in runner.calls[0].argv if "size" in word] == [f"--max-size={limit}"]
    assert asked == [str(tmp_path if engine == "directory" else tmp_path / "waiting")]


def test_without_room_snf_image_is_not_even_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_free(5, monkeypatch)
    runner = FakeRunner()
    with (
        pytest.raises(NoSpace, match="are reserved"),
        arrived(Wanted(source="x.qcow2"), settings(tmp_path), runner=runner),
    ):
        pass
    assert runner.calls == []


def test_an_image_for_which_there_is_no_room_is_told_from_one_that_is_larger_than_what_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_free(30, monkeypatch)
    said = Answer(returncode=2, stderr=b"snf-image: the disk may have 25600 MiB; ask for --max-size 30720M or more")

    def sentence(wanted: Wanted, kind: type[Error]) -> str:
        with (
            pytest.raises(Error) as caught,
            arrived(wanted, settings(tmp_path), runner=FakeRunner(said)),
        ):
            pass
        assert type(caught.value) is kind
        return str(caught.value)

    told = sentence(Wanted(source="x.qcow2"), NoSpace)
    assert "or more; but more than 25 GiB cannot be converted here: " in told
    assert told.endswith("has 30 GiB of 100 GiB free, and 5 GiB are reserved for others")
    assert sentence(Wanted(source="x.qcow2", size_limit=Bytes(GIB)), UserError).endswith("30720M or more")


def test_a_raw_file_needs_no_room_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its extents are shared or it is copied by the engine, which asks for itself."""
    (tmp_path / "x").write_bytes(b"disk")
    with_free(5, monkeypatch)
    with arrived(Wanted(source=str(tmp_path / "x")), settings(tmp_path), runner=FakeRunner()) as (fd, size):
        assert (os.pread(fd, 10, 0), size) == (b"disk", 4)


def test_what_snf_image_says_is_said(tmp_path: Path) -> None:
    wanted = Wanted(source="x.qcow2")
    said = Answer(returncode=2, stderr=b"2026 INFO x\nsnf-image: the image is empty\n")
    with (
        pytest.raises(UserError, match=r"^the image is empty$"),
        arrived(wanted, settings(tmp_path), runner=FakeRunner(said)),
    ):
        pass
    broken = Answer(returncode=70, stderr=b"Traceback\nsnf-image: a fault")
    with (
        pytest.raises(PeerError, match="snf-image ended with 70: a fault"),
        arrived(wanted, settings(tmp_path), runner=FakeRunner(broken)),
    ):
        pass


def test_without_snf_image_its_package_is_named(tmp_path: Path) -> None:
    absent = FakeRunner(lambda argv: ToolError(argv, "was not found"))
    sentence = "snf-image is not on this node; install the package snf-image-host"
    with (
        pytest.raises(EnvironmentFault, match=sentence),
        arrived(Wanted(source="x.qcow2"), settings(tmp_path), runner=absent),
    ):
        pass


def test_the_words_of_image_add() -> None:
    _, words = parse(["image", "add", "--sha512", "ff", "--format", "vdi", "--max-size", "1G", "d", "/x"])
    assert parse_wanted(words) == Wanted(
        source="/x", format=SourceFormat.VDI, checksum="sha512:ff", size_limit=Bytes(GIB)
    )
