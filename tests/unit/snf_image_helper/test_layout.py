"""How tables change: the bytes that are planned are parsed again, and a second plan finds nothing to do."""

from __future__ import annotations

import pytest
from snf_image_helper.layout import NewPartition, movable, plan_table
from snf_image_helper.partitions import SECTOR, Table, TableError, parse_table

from tests.unit.snf_image_helper.fake_image import FakeDisk, mbr_sector
from tests.unit.snf_image_helper.test_partitions import gpt_disk

SMALL, LARGE = 131072, 262144  # 64 and 128 MiB


def grown(disk: FakeDisk, *, root: int, swap: NewPartition | None = None) -> dict[int, tuple[int, int]]:
    """Put the disk's content on one of 128 MiB, plan, write, and return number -> (start, end) of what is read back."""
    larger = FakeDisk(LARGE, {0: bytes(disk.data)})
    table = _parse(larger)
    for write in plan_table(table, root=root, disk_sectors=LARGE, swap=swap):
        assert len(write.data) % SECTOR == 0
        larger.write(write.sector * SECTOR, write.data)
    again = _parse(larger)
    assert plan_table(again, root=root, disk_sectors=LARGE, swap=swap) == (), "a second call has nothing to do"
    return {p.number: (p.start, p.end) for p in again.partitions}


def _parse(disk: FakeDisk) -> Table:
    table = parse_table(disk.read, disk_sectors=disk.sectors)
    assert table is not None
    return table


def swap(number: int, mib: int = 16) -> NewPartition:
    return NewPartition(number=number, sectors=mib * 2048, seed="seed")


MBR = FakeDisk(SMALL, {0: mbr_sector((0x83, 2048, 98304))})
LOGICAL = FakeDisk(
    SMALL,
    {
        0: mbr_sector((0x83, 2048, 2048), (0x05, 4096, 98304)),
        4096: mbr_sector((0x83, 2048, 2048), (0x05, 8192, 20480)),
        12288: mbr_sector((0x83, 2048, 18432)),
    },
)
EMPTY_EXTENDED = FakeDisk(SMALL, {0: mbr_sector((0x83, 2048, 2048), (0x05, 4096, 98304))})
#: 12 MiB before the end of the larger disk: 16 MiB of swap would begin before it.
LATE_EXTENDED = FakeDisk(LARGE, {0: mbr_sector((0x83, 2048, 2048), (0x05, LARGE - 24576, 24576))})
END = LARGE - 2048  # the last MiB is the GPT's


@pytest.mark.parametrize(
    ("disk", "root", "wanted", "result"),
    [
        (gpt_disk({1: (2048, 100351)}), 1, None, {1: (2048, END)}),
        (gpt_disk({1: (2048, 100351)}), 1, swap(2), {1: (2048, END - 32768), 2: (END - 32768, END)}),
        (gpt_disk({1: (10240, 100351), 14: (2048, 10239)}), 1, None, {1: (10240, END), 14: (2048, 10240)}),
        (gpt_disk({1: (2048, 4095), 2: (4096, 8191)}), 1, None, {1: (2048, 4096), 2: (4096, 8192)}),
        (MBR, 1, None, {1: (2048, LARGE)}),
        (MBR, 1, swap(2), {1: (2048, LARGE - 32768), 2: (LARGE - 32768, LARGE)}),
        (MBR, 1, swap(5), {1: (2048, LARGE - 34816), 5: (LARGE - 32768, LARGE)}),
        (LOGICAL, 6, None, {1: (2048, 4096), 5: (6144, 8192), 6: (14336, LARGE)}),
        (LOGICAL, 6, swap(7), {1: (2048, 4096), 5: (6144, 8192), 6: (14336, LARGE - 34816), 7: (LARGE - 32768, LARGE)}),
        (LOGICAL, 1, None, {1: (2048, 4096), 5: (6144, 8192), 6: (14336, 32768)}),
        (EMPTY_EXTENDED, 1, None, {1: (2048, 4096)}),
        (EMPTY_EXTENDED, 1, swap(5), {1: (2048, 4096), 5: (LARGE - 32768, LARGE)}),
        (LATE_EXTENDED, 1, swap(5, 11), {1: (2048, LARGE - 24576), 5: (LARGE - 22528, LARGE)}),
    ],
)
def test_the_root_grows_and_swap_is_made(
    disk: FakeDisk, root: int, wanted: NewPartition | None, result: dict[int, tuple[int, int]]
) -> None:
    assert grown(disk, root=root, swap=wanted) == result


SWAP = "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f"
GPT_SWAP = gpt_disk({1: (2048, 67583), 2: (67584, 100351)}, kinds={2: SWAP})
MBR_SWAP = FakeDisk(SMALL, {0: mbr_sector((0x83, 2048, 65536), (0x82, 67584, 32768))})
DEBIAN_MBR = FakeDisk(
    SMALL,
    {0: mbr_sector((0x83, 2048, 65536), (0x05, 69630, 32770)), 69630: mbr_sector((0x82, 2, 32768))},
)


@pytest.mark.parametrize(
    ("disk", "moved", "result"),
    [
        (GPT_SWAP, 2, {1: (2048, END - 32768), 2: (END - 32768, END)}),
        (MBR_SWAP, 2, {1: (2048, LARGE - 32768), 2: (LARGE - 32768, LARGE)}),
        (DEBIAN_MBR, 5, {1: (2048, LARGE - 34816), 5: (LARGE - 32768, LARGE)}),
    ],
    ids=["gpt", "mbr", "as-debian-installs"],
)
def test_swap_behind_the_root_makes_room_for_it(disk: FakeDisk, moved: int, result: dict[int, tuple[int, int]]) -> None:
    larger = FakeDisk(LARGE, {0: bytes(disk.data)})
    table = _parse(larger)
    found = movable(table, root=1, disk_sectors=LARGE)
    assert found is not None and found.number == moved
    for write in plan_table(table, root=1, disk_sectors=LARGE, moved=moved):
        larger.write(write.sector * SECTOR, write.data)
    again = _parse(larger)
    assert {p.number: (p.start, p.end) for p in again.partitions} == result
    assert [p.kind for p in again.partitions] == [p.kind for p in table.partitions]
    assert movable(again, root=1, disk_sectors=LARGE) is None, "a second call has nothing to move"


@pytest.mark.parametrize(
    ("disk", "root"),
    [
        (gpt_disk({1: (2048, 67583), 2: (67584, 100351)}), 1),  # not swap
        (gpt_disk({1: (2048, 4095), 3: (4096, 8191), 2: (67584, 100351)}, kinds={2: SWAP}), 1),  # another in between
        (gpt_disk({1: (67584, 100351), 2: (2048, 67583)}, kinds={2: SWAP}), 1),  # before the root
        (LOGICAL, 6),
        (
            FakeDisk(
                SMALL,
                {
                    0: mbr_sector((0x05, 4096, 98304)),
                    4096: mbr_sector((0x83, 2048, 2048), (0x05, 8192, 20480)),
                    12288: mbr_sector((0x82, 2048, 18432)),
                },
            ),
            5,
        ),
    ],
)
def test_what_is_not_swap_right_behind_the_root_stays(disk: FakeDisk, root: int) -> None:
    table = _parse(FakeDisk(LARGE, {0: bytes(disk.data)}))
    assert movable(table, root=root, disk_sectors=LARGE) is None


@pytest.mark.parametrize(
    ("disk", "wanted", "says"),
    [
        (gpt_disk({1: (2048, 100351)}), swap(1), "uses it already"),
        (gpt_disk({1: (2048, 100351)}), swap(2, 100), "does not fit"),
        (gpt_disk({1: (2048, 100351)}), swap(129), "no entry 129"),
        (MBR, swap(6), "next logical partition has the number 5"),
        (LOGICAL, swap(2), "beside the extended"),
        (LATE_EXTENDED, swap(5), f"extended partition 2 starts at sector {LARGE - 24576}, behind"),
        (LATE_EXTENDED, swap(5, 12), "behind the place"),
    ],
)
def test_a_swap_partition_without_a_place_is_refused(disk: FakeDisk, wanted: NewPartition, says: str) -> None:
    with pytest.raises(TableError, match=says):
        grown(disk, root=1, swap=wanted)


def test_a_gpt_on_a_disk_of_its_own_size_is_left_alone() -> None:
    disk = gpt_disk({1: (2048, SMALL - 2049)})
    assert plan_table(_parse(disk), root=1, disk_sectors=SMALL, swap=None) == ()


def test_the_primary_header_is_written_after_the_backup() -> None:
    disk = FakeDisk(LARGE, {0: bytes(gpt_disk({1: (2048, 100351)}).data)})
    order = [w.sector for w in plan_table(_parse(disk), root=1, disk_sectors=LARGE, swap=None)]
    assert order == [LARGE - 33, LARGE - 1, 2, 1, 0, SMALL - 1]


def test_an_mbr_ends_at_2_tib() -> None:
    table = _parse(MBR)
    (write,) = plan_table(table, root=1, disk_sectors=1 << 34, swap=None)
    larger = FakeDisk(1 << 34, {0: write.data})
    assert _parse(larger).partitions[0].end == 1 << 32
