"""snf-image on a disk that is a clone on a real Ceph and has only an address: not a byte is written by the host."""

from __future__ import annotations

import json
import os
from pathlib import Path
from uuid import uuid4

from snf_image_host.journal import Cloned, CopyDone

from synnefo_light.ganeti import VolumeName
from tests.real.snf_extstorage.rados_site import MIB, RadosSite
from tests.real.snf_extstorage.test_rados_scripts import COMMAND, Site, scripts
from tests.real.snf_image_host.node import Fake, fake_node

__all__ = ["scripts"]
SIZE_MIB = 32


def deploy(node: Fake, rados: RadosSite, volume: str, uuid: str) -> str:
    properties = {"img_properties": '{"EXCLUDE_ALL_TASKS": "yes"}', "img_id": "store://debian", "img_format": "-"}
    env = node.environment("create", node.disk(SIZE_MIB), DISK_0_UUID=uuid, **properties)
    del env["DISK_0_PATH"]
    process = node.start("create", env | {"DISK_0_URI": rados.qemu_uri(volume)})
    out, _ = process.communicate(timeout=100)
    assert process.returncode == 0, out.decode()
    return out.decode()


def test_a_clone_on_ceph_is_not_copied_onto_and_a_plain_disk_is(
    rados: RadosSite, scripts: Site, name: VolumeName, other: VolumeName, tmp_path: Path
) -> None:
    content = os.urandom(5 * MIB) + bytes(8 * MIB) + os.urandom(MIB)
    (tmp_path / "image.raw").write_bytes(content)
    assert scripts.command("init").returncode == 0
    assert scripts.command("image", "add", "debian", tmp_path / "image.raw").returncode == 0
    clone, plain = str(uuid4()), str(uuid4())
    for volume, uuid, more in ((name, clone, {"EXTP_ORIGIN": "debian"}), (other, plain, {})):
        for step, given in (("create", {"VOL_SIZE": str(SIZE_MIB), **more}), ("open", {"VOL_OPEN_EXCLUSIVE": "True"})):
            done = scripts.script("archipelago", step, volume, VOL_UUID=uuid, **given)
            assert done.returncode == 0, done.stderr
    with fake_node() as node:
        program = node.folder / "snf-store"
        program.write_text(f'#!/bin/sh\nSNF_STORE_CONFIG={scripts.config} exec {COMMAND} "$@"\n')
        program.chmod(0o755)
        node.configure(snf_store=str(program))
        assert "nothing is copied" in deploy(node, rados, name, clone)
        assert Cloned(volume=name) in node.records()
        compared = json.loads(scripts.command("volume", "compare", "--json", clone, "debian").stdout)
        assert compared == {"image": "debian", "volume": name, "changed": 0, "resets": False}
        refused = scripts.command("volume", "reset", name, "debian")
        assert (refused.returncode, "which cannot begin anew" in refused.stderr) == (2, True)
        assert "WARNING" in deploy(node, rados, other, plain)
        (copied,) = (r for r in node.records() if isinstance(r, CopyDone))
        assert copied.written == 6 * MIB
        # What was copied onto it is known, and still makes it no clone.
        held = [json.loads(scripts.command("volume", "show", "--json", v).stdout)["origin"] for v in (name, other)]
        assert held[0] is not None
        assert held[0] == held[1]
        compared = json.loads(scripts.command("volume", "compare", "--json", plain, "debian").stdout)
        assert compared["changed"] == SIZE_MIB * MIB
    for volume in (name, other):
        assert rados.read(volume, count=SIZE_MIB * MIB) == content.ljust(SIZE_MIB * MIB, b"\0")
