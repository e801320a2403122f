"""What qemu-img is asked and what it says; the task that asks; progress in few messages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from snf_image_helper.actions import CheckSource, WriteSource, describe
from snf_image_helper.channel import Channel
from snf_image_helper.image import Skipped
from snf_image_helper.qemu_img import convert_command, info_command, parse_info, parse_percent
from snf_image_helper.source_headers import Header, SourceError
from snf_image_helper.tasks import convert

from synnefo_light.manifest import Compression, Progressed, Source, SourceFormat, parse_message
from tests.unit.snf_image_helper.fake_image import fake_image, manifest

NODE = "/dev/vdc"
RECORDED = Path(__file__).parents[2] / "data" / "qemu-img"
QCOW2 = json.loads((RECORDED / "qemu-img-7.2-info-qcow2.json").read_text())
VMDK = json.loads((RECORDED / "qemu-img-7.2-info-vmdk-stream.json").read_text())


def hold(said: object, *, kind: SourceFormat = SourceFormat.QCOW2, size: int = 100663296) -> None:
    parse_info(json.dumps(said).encode(), kind=kind, node=NODE, header=Header(virtual_size=size))


@pytest.mark.parametrize("kind", ["qcow2", "vmdk", "vmdk-stream", "vhdx", "vdi"])
def test_what_qemu_img_says_of_a_whole_image_is_accepted(kind: str) -> None:
    said = json.loads((RECORDED / f"qemu-img-7.2-info-{kind}.json").read_text())
    hold(said, kind=SourceFormat(kind.partition("-")[0]))
    with pytest.raises(SourceError, match="qemu-img takes the image for"):
        hold(said, kind=SourceFormat.RAW)


def test_a_size_that_is_no_whole_sector_is_rounded_as_qemu_does() -> None:
    hold(QCOW2, size=100663295)
    with pytest.raises(SourceError, match="sees a disk of 100663296 bytes"):
        hold(QCOW2, size=100663297)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"backing-filename": "/etc/shadow"}, "the image has a backing-filename, which is not accepted"),
        ({"full-backing-filename": "json:{}"}, "the image has a full-backing-filename, which is not accepted"),
        ({"encrypted": True}, "the image has a encrypted, which is not accepted"),
        ({"format": "raw"}, "qemu-img takes the image for 'raw', not for qcow2"),
        ({"filename": "/dev/vdb"}, "qemu-img takes the image for 'qcow2'"),
        ({"virtual-size": 1 << 60}, "qemu-img sees a disk of 1152921504606846976 bytes in the image"),
        ({"format-specific": {"data": {"data-file": "/etc/shadow"}}}, "the image has a data-file, which is not"),
        ({"format-specific": {"data": {"corrupt": True}}}, "the image is marked as corrupt"),
        ({"format-specific": {"data": []}}, "by no JSON object"),
    ],
)
def test_anything_else_that_it_says_is_refused(change: dict[str, object], sentence: str) -> None:
    with pytest.raises(SourceError) as caught:
        hold({**QCOW2, **change})
    assert sentence in str(caught.value)


def test_a_vmdk_of_other_files_is_refused() -> None:
    data = VMDK["format-specific"]["data"]
    other = {**data["extents"][0], "filename": "/etc/shadow"}
    lists: list[object] = [[other], [data["extents"][0], other], [], None]
    for extents in lists:
        with pytest.raises(SourceError, match="extents are other files"):
            hold({**VMDK, "format-specific": {"data": {**data, "extents": extents}}}, kind=SourceFormat.VMDK)
    with pytest.raises(SourceError, match="with a parent"):
        hold({**VMDK, "format-specific": {"data": {**data, "parent-cid": 5}}}, kind=SourceFormat.VMDK)


def child(filename: object) -> dict[str, object]:
    return {"name": "file", "info": {"filename": filename, "format": "host_device", "children": []}}


def test_the_only_file_beneath_an_image_is_its_own() -> None:
    """As qemu-img describes it since 8.1."""
    hold({**QCOW2, "children": [child(NODE)]})
    wrong: list[object] = [[child(NODE), child("/etc/shadow")], [child(None)], ["file"], {}, [{"name": "file"}]]
    for children in wrong:
        with pytest.raises(SourceError, match="more than its own file"):
            hold({**QCOW2, "children": children})


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff", b'{"format": 1.5}', b"x" * (2 << 20)])
def test_what_is_no_description_is_refused(raw: bytes) -> None:
    with pytest.raises(SourceError):
        parse_info(raw, kind=SourceFormat.QCOW2, node=NODE, header=Header(virtual_size=1))


@pytest.mark.parametrize("kind", [k for k in SourceFormat if k is not SourceFormat.RAW])
def test_every_command_names_the_format_and_runs_under_limits(kind: SourceFormat) -> None:
    for command in (info_command(kind, NODE), convert_command(kind, NODE, "/dev/vda")):
        assert command[0] == "/usr/bin/prlimit"
        assert command[command.index("-f") + 1] == kind.value


def test_progress_is_read_out_of_what_qemu_img_prints() -> None:
    assert parse_percent(b"    (0.00/100%)\r    (12.50/100%)\r") == 12
    assert parse_percent(b"    (100.00/100%)\r\n") == 100
    assert parse_percent(b"(999.99/100%)") == 100
    for other in (b"", b"(12", b"12.50/100%", b"(1e9/100%)", b"(-1.00/100%)"):
        assert parse_percent(other) is None


def test_an_image_is_checked_and_then_written() -> None:
    asked = manifest(source={"format": "vmdk", "compression": "none", "size": 512})
    source = Source(format=SourceFormat.VMDK, size=512)
    assert convert.plan(fake_image(), asked) == [CheckSource(source=source), WriteSource(source=source)]
    assert describe(WriteSource(source=source)) == "write the image, 512 bytes of vmdk, onto disk 0"
    packed = Source(compression=Compression.XZ, size=9)
    assert describe(CheckSource(source=packed)) == "check the image, 9 bytes of raw within xz"


def test_without_a_source_there_is_nothing_to_convert() -> None:
    with pytest.raises(Skipped):
        convert.plan(fake_image(), manifest())


def test_a_disk_image_within_a_compressed_file_is_refused() -> None:
    with pytest.raises(SourceError, match="the image is qcow2 within xz"):
        convert.plan(fake_image(), manifest(source={"format": "qcow2", "compression": "xz", "size": 512}))


def test_progress_is_told_at_most_a_hundred_times_a_task(tmp_path: Path) -> None:
    line = tmp_path / "line"
    line.touch()
    channel = Channel(str(line))
    for task in ("convert", "swap"):
        for done in range(5000):
            channel.progress(task, done, 3000)
    told = [parse_message(text, seq=n) for n, text in enumerate(line.read_bytes().splitlines(), 1)]
    assert [m for m in told if not isinstance(m, Progressed)] == []
    assert len(told) == 200
    assert told[0] == Progressed(task="convert", done=30, total=3000)
    assert told[99] == Progressed(task="convert", done=3000, total=3000)
    channel.progress("mount", 0, 0)
    assert len(line.read_bytes().splitlines()) == 200
