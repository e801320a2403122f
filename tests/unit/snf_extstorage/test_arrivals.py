"""What `snf-store image add` does with what is not simply a raw file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from snf_extstorage.arrivals import Wanted, arrived, plan_conversion
from snf_extstorage.commandline import parse
from snf_extstorage.commands.image import PROPERTIES_LIMIT, parse_properties, parse_wanted
from snf_extstorage.settings import Settings

from synnefo_light.errors import EnvironmentFault, PeerError, ToolError, UserError
from synnefo_light.manifest import Compression, SourceFormat
from synnefo_light.units import GIB, Bytes
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


def test_properties_are_words_with_values_and_their_names_in_capitals() -> None:
    assert parse_properties(["osfamily=linux", "USERS=root me", "X="]) == {
        "OSFAMILY": "linux",
        "USERS": "root me",
        "X": "",
    }
    for wrong in (["x"], ["=x"], ["a b=c"], ["a=b\n"], ["a=1", "A=2"], [f"a{n}=" for n in range(PROPERTIES_LIMIT + 1)]):
        with pytest.raises(UserError, match="propert"):
            parse_properties(wrong)
