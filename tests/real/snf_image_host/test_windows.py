"""An NTFS image and an order for Windows through the whole of `create`, with the real helper VM. A fixture."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest

from tests.deployments import SCRIPTS
from tests.filesystem_images import cut_out
from tests.real.snf_image_host.node import fake_node, real_helper
from tests.windows_images import clusters, make_ntfs, read_ntfs, windows

MIB = 1 << 20
ORDER = {
    "img_id": "windows.ntfs",
    "img_format": "ntfsdump",
    "img_passwd": "correct horse",
    "os_product_key": "AAAAA-BBBBB-CCCCC-DDDDD-EEEEE",
    "img_properties": '{"OFFLINE_NTFSRESIZE": "yes"}',
}


@pytest.mark.vm
def test_an_ntfsdump_becomes_a_windows_on_a_partition_of_its_own(tmp_path: Path) -> None:
    helper = real_helper()
    if helper is None:
        pytest.skip("there is no helper VM image")
    with fake_node(helper=helper) as node:
        node.configure(qemu=None, accel="tcg", tcg_limit_s=180)
        make_ntfs(node.images / "windows.ntfs", mib=40, tree=windows())
        disk = node.disk(96)
        env = node.environment("create", disk, instance="win1", NIC_0_IP="10.0.0.5", **ORDER)
        done = subprocess.run([SCRIPTS / "create"], env=env, capture_output=True, text=True, timeout=280, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "correct horse" not in done.stdout + done.stderr
        after = cut_out(disk, tmp_path / "after", first_mib=1)
        table = subprocess.run(["sfdisk", "-d", disk], capture_output=True, text=True, check=True).stdout
    count, size = clusters(after)
    assert count * size > 94 * MIB
    assert "type=7, bootable" in table
    answers = (read_ntfs(after, "Windows/Panther/unattend.xml") or b"").decode()
    assert "<ComputerName>win1</ComputerName>" in answers and "AAAAA-BBBBB-CCCCC-DDDDD-EEEEE" in answers
    assert base64.b64encode("correct horseAdministratorPassword".encode("utf-16-le")).decode() in answers
