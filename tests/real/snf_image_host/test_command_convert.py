"""`snf-image convert`, with a helper VM that is not one (it copies the source as it is) and with the real one."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.disk_images import make_disk
from tests.real.snf_image_host.node import Fake
from tests.real.snf_image_host.web_server import serving

MIB = 1 << 20


@pytest.fixture
def image(node: Fake) -> Path:
    return node.image(size_mib=8)


def convert(node: Fake, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return node.command("convert", *map(str, words))


def test_a_raw_image_comes_as_it_is_when_it_sums_up(node: Fake, image: Path) -> None:
    out = node.folder / "out"
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    done = convert(node, "--checksum", f"sha256:{digest}", image, out)
    assert done.returncode == 0, done.stderr
    assert subprocess.run(["cmp", image, out], check=False).returncode == 0
    assert out.stat().st_blocks * 512 < MIB
    out.unlink()
    wrong = convert(node, "--checksum", f"sha256:{'0' * 64}", image, out)
    assert (wrong.returncode, "but --checksum asks for" in wrong.stderr.splitlines()[-1]) == (4, True), wrong.stderr
    assert not out.exists()


def test_an_address_is_guarded_as_a_deployments_is(node: Fake, image: Path) -> None:
    out = node.folder / "out"
    with serving({"small.raw": image.read_bytes()}) as address:
        refused = convert(node, f"{address}/small.raw", out)
        assert (refused.returncode, "http_networks" in refused.stderr) == (2, True), refused.stderr
        node.configure(http_networks=["127.0.0.0/8"])
        done = convert(node, f"{address}/small.raw", out)
        assert done.returncode == 0, done.stderr
        assert out.read_bytes() == image.read_bytes()
        taken = convert(node, f"{address}/small.raw", out)
        assert (taken.returncode, "is there and not an empty file" in taken.stderr) == (2, True)
        assert out.read_bytes() == image.read_bytes()


def test_the_disk_is_cut_to_what_the_helper_says_that_it_is(node: Fake, image: Path) -> None:
    out = node.folder / "out"
    out.touch()
    done = convert(node, "--format", "qcow2", image, out)
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == image.read_bytes()
    out.write_bytes(b"")
    node.behave("fails-at:convert")
    failed = convert(node, "--format", "qcow2", image, out)
    assert (failed.returncode, "the task convert failed" in failed.stderr) == (4, True)
    assert out.stat().st_size == 0


def test_what_is_larger_than_it_may_be_is_refused_with_the_option_that_says_so(node: Fake, image: Path) -> None:
    done = convert(node, "--max-size", "4M", image, node.folder / "out")
    assert done.returncode == 2
    assert "the disk may have 4 MiB, but the image small.raw needs 8 MiB; ask for --max-size 8M or more" in done.stderr
    assert not (node.folder / "out").exists()


@pytest.mark.vm
def test_a_qcow2_becomes_the_disk_that_was_in_it(real_node: Fake) -> None:
    node = real_node
    raw, packed, out = (node.folder / name for name in ("raw", "x.qcow2", "out"))
    make_disk(raw)
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, packed], check=True, timeout=60)
    done = convert(node, packed, out)
    assert done.returncode == 0, done.stderr
    assert subprocess.run(["cmp", raw, out], check=False).returncode == 0
    table = subprocess.run(["sfdisk", "--json", out], check=True, capture_output=True, timeout=60).stdout
    assert json.loads(table)["partitiontable"]["label"] == "gpt"
    assert os.stat(out).st_blocks <= os.stat(raw).st_blocks + 2048
