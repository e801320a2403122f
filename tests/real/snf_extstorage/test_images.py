"""Images in and out of the store by the command, looked at with sha256sum, cmp and du."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
from snf_extstorage.commandline import parse
from snf_extstorage.directory import contents, sharing
from snf_extstorage.settings import load_settings
from snf_extstorage.volume import Extent, FromBase, FromSnapshot, SnapshotName

from synnefo_light.errors import Error
from synnefo_light.ganeti import VolumeName
from synnefo_light.units import MIB, Bytes
from tests.real.snf_extstorage.places import Site, write
from tests.real.snf_extstorage.test_scripts import snf_store as outside

V = f"{uuid4()}.ext.disk0"
UUID = "efa8d6e0-c062-4b14-b829-467e6499f266"
HOLE = 24 * MIB


@pytest.fixture
def image(site: Site, tmp_path: Path) -> Path:
    """Data, a hole, and data at an odd end; registered as `debian`."""
    path = tmp_path / "image.raw"
    with open(path, "wb") as file:
        file.write(os.urandom(MIB))
        file.seek(HOLE)
        file.write(os.urandom(512))
    assert snf_store(site, "init").returncode == 0
    done = snf_store(
        site, "image", "add", "--property", "osfamily=linux", "--property", "USERS=root me", "debian", path
    )
    assert done.returncode == 0, done.sentence
    return path


@dataclass(frozen=True, slots=True)
class Done:
    returncode: int
    stdout: str
    sentence: str


def snf_store(site: Site, *words: str | Path) -> Done:
    """The command, without a Python of its own: the door to it is tested with the scripts."""
    chosen, arguments = parse(["--config", str(site.config()), *map(str, words)])
    said: list[str] = []
    try:
        code = chosen.run(load_settings(arguments.config), arguments, said.append)
    except Error as e:
        return Done(e.exit_code, "\n".join(said), str(e))
    return Done(code, "\n".join(said), "")


def compared(site: Site, volume: str, image: str) -> object:
    done = snf_store(site, "volume", "compare", "--json", volume, image)
    assert done.returncode in (0, 1), done.sentence
    found = json.loads(done.stdout)
    assert found["image"] == image
    assert done.returncode == (0 if found["changed"] == 0 else 1)
    return found["changed"] if found["volume"] else "none"


def test_an_image_comes_out_as_it_went_in_and_takes_no_space_for_its_holes(
    site: Site, image: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.raw"
    done = snf_store(site, "image", "export", "debian", out)
    assert done.returncode == 0, done.sentence
    assert subprocess.run(["cmp", image, out], check=False).returncode == 0
    assert out.stat().st_blocks * 512 <= 2 * MIB
    assert out.stat().st_mode & 0o777 == 0o600
    again = snf_store(site, "image", "export", "debian", out)
    assert (again.returncode, "that is there already" in again.sentence) == (2, True)
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix != ".toml") == ["image.raw", "out.raw", "run"]


def test_ranges_are_the_data_with_their_places_and_the_size_ends_them(site: Site, image: Path) -> None:
    stream = outside(site, "image", "export", "--ranges", "debian", "-").stdout
    found = bytearray(image.stat().st_size)
    while True:
        head, _, stream = stream.partition(b"\n")
        offset, length = map(int, head.split())
        if length == 0:
            break
        found[offset : offset + length], stream = stream[:length], stream[length:]
    assert (offset, stream) == (image.stat().st_size, b"")
    assert hashlib.sha256(found).digest() == hashlib.sha256(image.read_bytes()).digest()


def test_a_damaged_block_ends_an_export_and_nothing_is_left_of_the_file(
    site: Site, image: Path, tmp_path: Path
) -> None:
    block = max(site.place.root.glob("store/blocks/**/*"), key=lambda p: p.stat().st_size if p.is_file() else -1)
    block.chmod(0o600)
    with open(block, "r+b") as file:
        file.write(b"damage")
    done = snf_store(site, "image", "export", "debian", tmp_path / "out.raw")
    assert (done.returncode, "has other bytes than its name says" in done.sentence) == (3, True)
    assert not list(tmp_path.glob("*out.raw*"))


def test_show_and_list_say_size_data_and_properties_for_people_and_programs(site: Site, image: Path) -> None:
    shown = json.loads(snf_store(site, "image", "show", "--json", "debian").stdout)
    assert json.loads(snf_store(site, "image", "list", "--json").stdout) == shown
    assert shown["properties"] == {"OSFAMILY": "linux", "USERS": "root me"}
    assert (shown["size"], shown["data"]) == (HOLE + 512, 4 * MIB + 512)
    by_map = snf_store(site, "image", "show", "--json", f"map:{shown['map']}")
    assert json.loads(by_map.stdout) == shown
    text = snf_store(site, "image", "show", "debian").stdout
    assert "property: USERS=root me" in text
    (row,) = snf_store(site, "image", "list").stdout.splitlines()[1:]
    assert "USERS=root me" in row


def test_a_volume_is_told_from_its_image_once_it_was_written(site: Site, image: Path) -> None:
    assert compared(site, UUID, "debian") == "none"
    site.script("create", V, VOL_SIZE="64", EXTP_ORIGIN="debian")
    site.script("setinfo", V, VOL_METADATA="originstname+web1")
    site.script("open", V, VOL_OPEN_EXCLUSIVE="True")
    device = site.script("attach", V).stdout.split("\n")[0]
    assert [compared(site, name, "debian") for name in (UUID, V)] == [0, 0]
    assert site.script("grow", V, VOL_SIZE="64", VOL_NEW_SIZE="65").returncode == 0
    assert compared(site, UUID, "debian") == 0
    assert write(device, b"A" * 4096, block=8 * 256)  # in the hole
    changed = compared(site, UUID, "debian")
    assert isinstance(changed, int)
    assert 4096 <= changed <= MIB
    # What was written is another image, and the volume is still that one when its snapshot has become a map.
    assert snf_store(site, "snapshot", "--no-commit", "web1", "golden").returncode == 0
    assert compared(site, UUID, "golden") == 0
    shown = json.loads(snf_store(site, "image", "show", "--json", "golden").stdout)
    assert shown["properties"] == {"OSFAMILY": "linux", "USERS": "root me"}
    assert (shown["map"], shown["data"]) == (None, None)
    assert snf_store(site, "commit", "golden").returncode == 0
    assert compared(site, UUID, "golden") == 0
    assert write(device, bytes(4096))  # zeros over data
    assert compared(site, UUID, "golden") != 0


def test_what_a_volume_holds_can_be_written_down_and_forgotten(site: Site, image: Path) -> None:
    (base,) = site.node().bases()
    absent = snf_store(site, "volume", "origin", UUID, "debian")
    assert (absent.returncode, absent.stdout) == (1, f"there is no volume {UUID}")
    site.script("create", V, VOL_SIZE="64")
    for words, origin in ((("debian",), base), ((), None), (("debian",), base)):
        assert snf_store(site, "volume", "origin", UUID, *words).returncode == 0
        assert site.node().facts(VolumeName(V)).origin == origin
    assert compared(site, UUID, "debian") != 0  # nobody believes it
    unknown = snf_store(site, "volume", "origin", V, "none")
    assert (unknown.returncode, site.node().facts(VolumeName(V)).origin) == (2, base)


def test_a_disk_of_zeros_is_no_clone(site: Site, image: Path) -> None:
    site.script("create", V, VOL_SIZE="64")
    changed = compared(site, UUID, "debian")
    assert isinstance(changed, int)
    assert changed >= MIB


def unsupported(fd: int) -> Iterator[sharing.Mapped]:
    raise OSError(errno.EOPNOTSUPP, "no FIEMAP here")


def test_a_volume_that_is_shorter_than_the_image_is_not_it(site: Site, image: Path) -> None:
    node, name, longer = site.node(), VolumeName(V), VolumeName(f"{uuid4()}.ext.disk0")
    (base,) = node.bases()
    for volume, size in ((name, 64 * MIB), (longer, 96 * MIB)):
        node.clone(FromBase(map=base), volume, uuid=None, size=Bytes(size))
    node.snapshot({longer: SnapshotName("all")})
    found = [node.changed(volume, FromSnapshot(snapshot=SnapshotName("all"))) for volume in (longer, name)]
    assert found == [0, 64 * MIB]


@pytest.mark.parametrize(
    ("differs", "limit_mib", "found_mib", "looked"),
    [(0, 256, 16, 1), (3, 256, 4, 4), (None, 256, 0, 4), (None, 16, 0, 4), (1, 8, 12, 2), (2, 8, None, 2)],
)
def test_a_comparison_ends_at_the_first_difference_or_at_its_limit(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    differs: int | None,
    limit_mib: int,
    found_mib: int | None,
    looked: int,
) -> None:
    read: list[Extent] = []

    def differ(fd: int, base: int, part: Extent) -> bool:
        read.append(part)
        return look(fd, base, part)

    look = contents._differ
    monkeypatch.setattr(sharing, "extents", unsupported)
    monkeypatch.setattr(contents, "_differ", differ)
    content = bytearray(os.urandom(4096) * 4096)
    (tmp_path / "base").write_bytes(content)
    if differs is not None:
        content[differs * 4 * MIB + 1] ^= 1
    (tmp_path / "disk").write_bytes(content)
    found = contents.changed(tmp_path / "disk", tmp_path / "base", size=16 * MIB, limit=limit_mib * MIB)
    assert found == (None if found_mib is None else found_mib * MIB)
    assert len(read) == looked


def test_without_fiemap_both_are_read(site: Site, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node, name = site.node(), VolumeName(V)
    site.script("create", V, VOL_SIZE="64", EXTP_ORIGIN="debian")
    site.script("open", V, VOL_OPEN_EXCLUSIVE="True")
    (base,) = node.bases()
    monkeypatch.setattr(sharing, "extents", unsupported)
    assert node.changed(name, FromBase(map=base)) == 0
    assert write(site.script("attach", V).stdout.split("\n")[0], b"A" * 4096, block=8 * 1024)
    assert node.changed(name, FromBase(map=base)) == 4 * MIB


REFUSED = (
    ("image show none", "there is no image, snapshot or object none"),
    ("image show map:" + "0" * 64, "no image, snapshot or object has the map"),
    ("image add a/b IMAGE", "is not 1 to 200 letters"),
    ("image add debian IMAGE", "there is an image debian already"),
    ("image add x /nonexistent", "cannot be read: No such file"),
    ("image add --max-size 1K x IMAGE", "more than the 1024 of --max-size"),
    ("image add --property X x IMAGE", "the property 'X' is not KEY=VALUE"),
    ("image export --ranges debian /tmp/x", "--ranges goes to standard output"),
    (f"volume compare {V} none", "there is no image, snapshot or object none"),
)


def test_what_cannot_be_is_refused_in_a_sentence(site: Site, image: Path) -> None:
    for words, sentence in REFUSED:
        done = snf_store(site, *(str(image) if word == "IMAGE" else word for word in words.split()))
        assert (done.returncode, sentence in done.sentence) == (2, True), done
    assert len(snf_store(site, "image", "list").stdout.splitlines()) == 2
