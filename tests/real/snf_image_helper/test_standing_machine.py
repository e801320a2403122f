"""The VM that the tests of this folder share: what one deployment leaves behind, no other one meets."""

from __future__ import annotations

from pathlib import Path

import pytest

from synnefo_light.manifest import encode
from tests.real.snf_image_helper.standing_machine import StandingMachine
from tests.real.snf_image_helper.test_virtual_machine import disk_of
from tests.real.snf_image_helper.virtual_machine import argument, image, manifest

pytestmark = pytest.mark.vm

#: What the first deployment does is in order, what the second does is not.
LEAVING = """
        from snf_image_helper.syscalls import mount
        if os.path.exists("/dev/shm"):
            mount("tmpfs", "/mnt", "tmpfs", flags=0)
        os.mkdir("/dev/shm")
"""


def test_a_vm_in_which_something_was_left_serves_nobody_else(tmp_path: Path) -> None:
    disk, given = disk_of(tmp_path), tmp_path / "manifest"
    given.write_bytes(encode(manifest([disk], {})))
    disks = {"snf-disk0": (disk, False), "snf-manifest": (given, True)}
    machine = StandingMachine(image(), cpu=argument("-cpu"), append=argument("-append"), before=LEAVING.strip())
    try:
        said, _, usable = machine.deploy(disks)
        assert usable, said
        assert b'"finished"' in said
        said, _, usable = machine.deploy(disks)
        assert not usable
    finally:
        machine.close()
