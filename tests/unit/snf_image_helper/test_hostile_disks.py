"""Disks drawn: sectors of noise, and good tables with some bytes changed. Parsers refuse with their own error alone,
read a bounded number of times, and what they accept can be changed without touching what it must not."""

from __future__ import annotations

import struct
import zlib
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from snf_image_helper.filesystems import look
from snf_image_helper.image import ImageError, RootPath
from snf_image_helper.layout import plan_table
from snf_image_helper.partitions import GPT_HEADER, SECTOR, Table, TableError, parse_table
from snf_image_helper.tasks.network import plan as plan_network
from snf_image_helper.tasks.password import plan as plan_password

from synnefo_light.errors import Error
from tests.hostile_text import FIXED, shaken
from tests.unit.snf_image_helper.fake_image import FakeDisk, fake_image, manifest, mbr_sector

SECTORS = 4096
READS = 200
LINUX = bytes.fromhex("af3dc60f838472478e793d69d8477de4")
NUMBERS = st.sampled_from([0, 1, 2, 33, 34, 2048, SECTORS - 34, SECTORS, (1 << 32) - 1]) | st.integers(0, SECTORS)
RECORDS = st.tuples(st.sampled_from([0, 0x83, 0x82, 0x05, 0x0F, 0xEE, 7]), NUMBERS, NUMBERS)


def a_gpt(*, entries: bytes = b"", fields: dict[int, int] | None = None) -> dict[int, bytes]:
    """Sectors of a table with right checksums; `fields` replaces values of the header, by their order in it."""
    table = entries.ljust(128 * 128, b"\0")
    values = [b"EFI PART", b"\0\0\1\0", 92, 0, 0, 1, SECTORS - 1, 34, SECTORS - 34, b"G" * 16, 2, 128, 128, 0]
    for index, value in (fields or {}).items():
        values[index] = value
    values[13] = zlib.crc32(table)
    values[3] = zlib.crc32(GPT_HEADER.pack(*values))
    return {0: mbr_sector((0xEE, 1, SECTORS - 1)), 1: GPT_HEADER.pack(*values), 2: table}


def entry(first: int, last: int) -> bytes:
    return struct.pack("<16s16sQQQ72s", LINUX, b"U" * 16, first, last, 0, b"")


GPTS = st.builds(
    lambda pairs, fields: a_gpt(entries=b"".join(entry(*pair) for pair in pairs), fields=fields),
    st.lists(st.tuples(NUMBERS, NUMBERS), max_size=4),
    st.dictionaries(st.sampled_from([5, 6, 7, 8, 10]), NUMBERS, max_size=1),
)
MBRS = st.lists(st.lists(RECORDS, max_size=4), min_size=1, max_size=6).map(
    lambda sectors: {[0, 64, 128, 2048, 2112, 100][n]: mbr_sector(*records) for n, records in enumerate(sectors)}
)


def parsed(content: dict[int, bytes]) -> Table | None:
    disk = FakeDisk(SECTORS, content)
    try:
        return parse_table(disk.read, disk_sectors=SECTORS)
    except TableError as e:
        assert len(str(e)) > 20
        return None
    finally:
        assert disk.reads <= READS, "a table makes the parser read without end"


@FIXED
@given(MBRS | GPTS | st.binary(max_size=2048).map(lambda raw: {0: raw}))
def test_any_table_is_refused_or_lies_on_the_disk_without_overlap(content: dict[int, bytes]) -> None:
    table = parsed(content)
    if table is None:
        return
    ordered = sorted(table.partitions, key=lambda p: p.start)
    assert all(p.start > 0 and p.end <= SECTORS and p.sectors > 0 for p in ordered)
    assert all(a.end <= b.start for a, b in pairwise(ordered))


@FIXED
@given(MBRS | GPTS, st.integers(0, 3))
def test_a_table_that_was_accepted_can_be_grown_and_is_still_one(content: dict[int, bytes], which: int) -> None:
    table = parsed(content)
    if table is None or not table.partitions:
        return
    before = {p.number: (p.start, p.sectors) for p in table.partitions}
    root = list(before)[which % len(before)]
    disk = FakeDisk(2 * SECTORS, content)
    try:
        writes = plan_table(table, root=root, disk_sectors=2 * SECTORS, swap=None)
    except TableError:
        return
    for write in writes:
        disk.write(write.sector * SECTOR, write.data)
    after = parse_table(disk.read, disk_sectors=2 * SECTORS)
    assert after is not None
    grown = {p.number: (p.start, p.sectors) for p in after.partitions}
    assert {n: at for n, at in grown.items() if n != root} == {n: at for n, at in before.items() if n != root}
    assert grown[root][0] == before[root][0] and grown[root][1] >= before[root][1]


@FIXED
@given(st.binary(max_size=4096), st.binary(max_size=4096), st.integers(0, 1 << 40))
def test_any_start_of_a_file_system_is_known_or_not_and_fits(head: bytes, later: bytes, size: int) -> None:
    disk = FakeDisk(512, {0: head, 128: later})
    found = look(disk.read, start=0, size=size)
    filesystem = getattr(found, "filesystem", found)
    if filesystem is not None and hasattr(filesystem, "size"):
        assert 0 < filesystem.size <= size


PASSWD = b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n"
SHADOW = b"root:*:19000:0:99999:7:::\nuser:!:19000:1:90:7:3:4:\n"
SSHD = b"AuthorizedKeysFile .ssh/authorized_keys\nInclude /etc/ssh/sshd_config.d/*.conf\n"


@FIXED
@given(shaken(PASSWD), shaken(SHADOW), shaken(SSHD))
def test_any_passwd_shadow_and_sshd_config_are_changed_or_refused(passwd: bytes, shadow: bytes, sshd: bytes) -> None:
    tree = {"etc/passwd": passwd, "etc/shadow": shadow, "etc/ssh/sshd_config": sshd}
    orders = manifest(passwords=[{"user": "root", "hashed": "$6$s$h"}], authorized_keys="ssh-ed25519 AAAA me")
    try:
        actions = plan_password(fake_image(tree), orders)
    except (Error, ImageError):
        return
    paths = [action.path for action in actions if hasattr(action, "path")]
    assert paths and all(isinstance(path, RootPath) and ".." not in path.split("/") for path in paths)


NIC = {"mac": "aa:00:00:00:00:01", "ipv4": "static", "ipv4_address": "10.0.0.5/24"}


@FIXED
@given(st.sampled_from(["etc/os-release", "etc/network/interfaces", "etc/netplan/a.yaml"]), st.binary(max_size=200))
def test_any_system_description_is_planned_for_or_refused(path: str, content: bytes) -> None:
    tree: dict[str, bytes | str] = {"etc/network/interfaces": "auto lo\n", "usr/sbin/ifup": "", path: content}
    try:
        assert list(plan_network(fake_image(tree), manifest(nics=[NIC])))
    except Error:
        return
