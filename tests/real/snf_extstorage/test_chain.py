"""A chain of snapshots travels to another store, change by change, and proves itself there."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from snf_extstorage.directory.place import init_place

from synnefo_light.units import MIB
from tests.real.snf_extstorage.places import Site, read, release, write
from tests.real.snf_extstorage.test_scripts import V, snf_store

CHAIN = ("debian", "monday", "tuesday")


@pytest.fixture
def there(site: Site, xfs: Path) -> Iterator[Site]:
    root = xfs / f"{site.place.root.name}-there"
    made = Site(place=init_place(root), hints=site.hints / "there")
    assert snf_store(made, "init").returncode == 0
    yield made
    release(root)
    shutil.rmtree(root)


def names(site: Site) -> list[str]:
    listed = snf_store(site, "image", "list").stdout.decode().splitlines()[1:]
    return sorted(line.split()[0] for line in listed)


def test_a_chain_of_snapshots_is_sent_change_by_change(site: Site, there: Site, tmp_path: Path) -> None:
    image = tmp_path / "image.raw"
    image.write_bytes(os.urandom(20 * MIB))
    assert snf_store(site, "init").returncode == 0
    assert snf_store(site, "image", "add", "debian", image).returncode == 0
    site.script("create", V, VOL_SIZE="24", EXTP_ORIGIN="debian")
    site.script("setinfo", V, VOL_METADATA="originstname+web1")
    site.script("open", V, VOL_OPEN_EXCLUSIVE="True")
    device = site.script("attach", V).stdout.split("\n")[0]
    for number, name in enumerate(CHAIN[1:]):
        assert write(device, os.urandom(4096), block=1024 * number)
        if name == "tuesday":  # and one of the blocks that monday changed
            assert write(device, os.urandom(4096), block=7)
        done = snf_store(site, "snapshot", "--commit", "web1", name)
        assert done.returncode == 0, done.stderr
    expected = read(device, 24 * MIB)

    whole = snf_store(site, "send", "debian").stdout
    changes = {new: snf_store(site, "send", "--since", old, new).stdout for old, new in itertools.pairwise(CHAIN)}
    assert [len(stream) // (4 * MIB) for stream in changes.values()] == [1, 2]
    assert snf_store(there, "recv", "debian", stdin=whole).returncode == 0
    # A name that is taken is refused before anything is read.
    taken = snf_store(there, "recv", "debian", stdin=b"no stream")
    assert (taken.returncode, b"there is an image debian already" in taken.stderr) == (2, True), taken.stderr
    # What builds on a map that is not the one it is given is refused, and so is each change of a byte.
    wrong = snf_store(there, "recv", "tuesday", "--since", "debian", stdin=changes["tuesday"])
    assert wrong.returncode != 0, wrong
    stream = changes["monday"]
    for at in (40, len(stream) // 2):
        torn = stream[:at] + bytes([stream[at] ^ 1]) + stream[at + 1 :]
        refused = snf_store(there, "recv", "monday", "--since", "debian", stdin=torn)
        assert refused.returncode in (2, 5), (at, refused)  # 2: it builds on another map
        assert b"Traceback" not in refused.stderr
    assert names(there) == ["debian"]
    for old, new in itertools.pairwise(CHAIN):
        done = snf_store(there, "recv", new, "--since", old, stdin=changes[new])
        assert done.returncode == 0, done.stderr
    assert names(there) == sorted(CHAIN)
    assert there.script("create", V, VOL_SIZE="24", EXTP_ORIGIN=CHAIN[-1]).returncode == 0
    assert read(there.script("attach", V).stdout.split("\n")[0], 24 * MIB) == expected
    assert snf_store(there, "fsck").returncode == 0
