"""Defects that Archipelago's provider and its server had, one test each; those of its store are tested with ours."""

from __future__ import annotations

import os

import pytest

from synnefo_light.ganeti import VolumeName
from tests.real.snf_extstorage.places import Site, own_names, read, write

(VOLUME,) = own_names(1)


def test_a_volume_grows_to_its_new_size_and_not_to_the_old_one(site: Site) -> None:
    """`vlmc resize` raised NotImplementedError, and the script `grow` read VOL_SIZE, which is the size it has."""
    assert site.script("create", VOLUME, VOL_SIZE="16").returncode == 0
    device = site.script("attach", VOLUME).stdout.split("\n")[0]
    done = site.script("grow", VOLUME, VOL_SIZE="16", VOL_NEW_SIZE="48")
    assert done.returncode == 0, done.stderr
    assert site.place.disk("volumes", VolumeName(VOLUME)).stat().st_size == 48 << 20
    fd = os.open(device, os.O_RDONLY)
    try:
        assert os.lseek(fd, 0, os.SEEK_END) == 48 << 20
    finally:
        os.close(fd)
    assert site.script("detach", VOLUME).returncode == 0


def test_attaching_lets_nobody_write_and_what_is_noted_is_kept(site: Site) -> None:
    """`attach` ignored how a volume was to be opened; `setinfo` and `verify` did nothing."""
    assert site.script("create", VOLUME, VOL_SIZE="16").returncode == 0
    device = site.script("attach", VOLUME).stdout.split("\n")[0]
    assert not write(device, b"A" * 4096)
    assert site.script("open", VOLUME, VOL_OPEN_EXCLUSIVE="True").returncode == 0
    assert write(device, b"B" * 4096)
    assert read(device) == b"B" * 4096
    assert site.script("setinfo", VOLUME, VOL_METADATA="originstname+web1").returncode == 0
    assert site.node().facts(VolumeName(VOLUME)).info == "originstname+web1"
    assert site.script("detach", VOLUME).returncode == 0


@pytest.mark.parametrize(("given", "status"), [({"EXTP_ORIGIN": "debian"}, 0), ({"EXTP_COLOUR": "red"}, 2)])
def test_verify_looks_at_the_parameters(site: Site, given: dict[str, str], status: int) -> None:
    done = site.script("verify", VOLUME, **given)
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    if status:
        assert "'colour' is not known to provider archipelago" in done.stderr.splitlines()[-1]
