"""The VM that the tests of this folder share: what one deployment leaves behind, no other one meets."""

from __future__ import annotations

from pathlib import Path

import pytest

from synnefo_light.manifest import encode
from tests.real.snf_image_helper.standing_machine import StandingMachine
from tests.real.snf_image_helper.test_virtual_machine import disk_of
from tests.real.snf_image_helper.virtual_machine import argument, image, manifest

pytestmark = pytest.mark.vm

#: What a deployment with one disk does is in order, what one with two does is not. The root and the manifest count too.
LEAVING = """
        Path("/tmp/left").touch()
        from snf_image_helper.modules import load
        assert "vfat" not in modules(), "the last deployment's module is still there"
        load("vfat")
        assert "vfat" in modules()
        if disks() > 3:
            from snf_image_helper.syscalls import mount
            os.mkdir("/dev/left")
            mount("tmpfs", "/dev/left", "tmpfs", flags=0)
            if os.fork() == 0:
                os.execv("/usr/bin/python3.11", ["python3.11", "-ISBc", "import time; time.sleep(600)"])
"""


def test_a_vm_in_which_something_was_left_serves_nobody_else(tmp_path: Path) -> None:
    disk, given, more = disk_of(tmp_path), tmp_path / "manifest", tmp_path / "more"
    given.write_bytes(encode(manifest([disk], {})))
    more.write_bytes(bytes(1 << 20))
    disks = {"snf-disk0": (disk, False), "snf-manifest": (given, True)}
    machine = StandingMachine(image(), cpu=argument("-cpu"), append=argument("-append"), before=LEAVING.strip())
    try:
        done = machine.deploy(disks)
        assert (done.end, done.left) == ("clean", ("/tmp/left",)), done
        assert b'"finished"' in done.messages
        done = machine.deploy({**disks, "more": (more, False)})
        assert b'"finished"' in done.messages
        assert done.end == "dirty", done
        assert set(done.left) > {"process python3.11", "/dev/left", "/tmp/left"}, done
        assert [name for name in done.left if name.startswith("mount tmpfs /dev/left ")], done
    finally:
        machine.close()
