"""The partition table of our own making: decided and rendered; sfdisk reads it in tests/real."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from snf_image_host.mbr import CODE_LIMIT, LEAD, START, Mbr, plan_mbr, read_boot_code, render_mbr

from synnefo_light.errors import EnvironmentFault, UserError
from synnefo_light.manifest import ImageFormat

MIB = 1 << 20
GIB = 1 << 30


def plan(image: int, disk: int, image_format: ImageFormat = ImageFormat.EXTDUMP) -> Mbr:
    return plan_mbr(image_format, image=image, disk=disk, signature=0x12345678)


@pytest.mark.parametrize(
    ("image", "disk", "sectors"),
    [
        (8 * MIB, GIB, 8 * 2048),
        (8 * MIB + 1, GIB, 9 * 2048),
        (8 * MIB + 1, 10 * MIB, 9 * 2048),
        (8 * MIB + 1, 10 * MIB - 512, 8 * 2048 + 1),
        (1, 2 * MIB - 1, 1),
    ],
)
def test_the_partition_holds_the_image_and_ends_on_a_whole_mib_where_that_fits(
    image: int, disk: int, sectors: int
) -> None:
    found = plan(image, disk)
    assert found.sectors == sectors
    assert image <= found.size - LEAD and found.size <= disk


def test_an_image_beyond_2_tib_is_refused() -> None:
    largest = (0xFFFFFFFF - START) * 512
    assert plan(largest, 1 << 42).sectors > 0
    with pytest.raises(UserError, match=r"an extdump gets an MBR, which ends at 2 TiB"):
        plan(largest + MIB, 1 << 43)


@pytest.mark.parametrize(("image_format", "kind"), [(ImageFormat.EXTDUMP, 0x83), (ImageFormat.NTFSDUMP, 0x07)])
def test_each_byte_of_the_table(image_format: ImageFormat, kind: int) -> None:
    rendered = render_mbr(plan(100 * GIB, 200 * GIB, image_format), code=b"\xfa\x31")
    assert len(rendered) == LEAD and rendered[512:] == bytes(LEAD - 512)
    assert rendered[:440] == b"\xfa\x31".ljust(440, b"\0")
    assert struct.unpack_from("<IH", rendered, 440) == (0x12345678, 0)
    flag, first, found, last, start, count = struct.unpack_from("<B3sB3sII", rendered, 446)
    assert (flag, found, start, count) == (0x80, kind, 2048, 100 * GIB // 512)
    assert first == bytes((32, 33, 0)), "head 32, sector 33, cylinder 0: what everybody writes for sector 2048"
    assert last == bytes((254, 0xFF, 0xFF)), "beyond what cylinders can say"
    assert rendered[462:510] == bytes(48) and rendered[510:512] == b"\x55\xaa"


def test_without_boot_code_there_is_a_warning_and_zeros(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING"):
        assert read_boot_code(tmp_path / "absent") == b""
    (record,) = caplog.records
    assert "install syslinux-common" in record.getMessage() and "no firmware can start" in record.getMessage()


def test_boot_code_of_another_length_than_fits_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mbr.bin").write_bytes(bytes(CODE_LIMIT))
    assert read_boot_code(tmp_path / "mbr.bin") == bytes(CODE_LIMIT)
    (tmp_path / "mbr.bin").write_bytes(bytes(CODE_LIMIT + 1))
    with pytest.raises(EnvironmentFault, match="larger than the 440 bytes"):
        read_boot_code(tmp_path / "mbr.bin")
