"""The fence of the engine `directory`, looked at between its steps."""

from __future__ import annotations

import pytest
from snf_extstorage.directory.kept import load

from synnefo_light.units import MIB, Bytes
from tests.real.snf_extstorage.places import Site, own_names, write

(V,) = own_names(1)
UUID = "efa8d6e0-c062-4b14-b829-467e6499f266"
SIZE = Bytes(32 * MIB)
B = b"B" * 4096


def test_a_node_that_attaches_while_it_is_fenced_may_not_write_the_file_that_is_left(site: Site) -> None:
    fenced = site.node("node2")
    fenced.create(V, uuid=UUID, size=SIZE)
    fenced.open(V, exclusive=True)
    seen: dict[str, bool] = {}

    def look(step: str) -> None:
        if step.startswith("open"):
            device = fenced.attach(V).device
            assert device is not None
            inode = site.place.disk("volumes", V).stat().st_ino
            seen[step] = write(device, B) and inode != before

    before = site.place.disk("volumes", V).stat().st_ino
    site.node("node1", trace=look).open(V, exclusive=True)
    assert "open record" in seen
    assert not any(seen.values()), seen
    assert site.node("node1").facts(V).holders == ("node1",)
    fenced.detach(V)


def test_a_fence_that_died_before_the_file_was_moved_is_still_owed(site: Site) -> None:
    class Died(Exception):
        pass

    def die(step: str) -> None:
        if step == "open fence-publish":
            raise Died

    fenced = site.node("node2")
    fenced.create(V, uuid=UUID, size=SIZE)
    fenced.open(V, exclusive=True)
    before = site.place.disk("volumes", V).stat().st_ino
    with pytest.raises(Died):
        site.node("node1", trace=die).open(V, exclusive=True)
    assert site.place.disk("volumes", V).stat().st_ino == before
    assert load(site.place, V).owed == ("node2",)
    site.node("node1").open(V, exclusive=True)
    assert site.place.disk("volumes", V).stat().st_ino != before
    assert (load(site.place, V).holders, load(site.place, V).owed) == (("node1",), ())
