"""Images that are not a raw disk, and what an admin can ask about a deployment afterwards."""

from __future__ import annotations

import gzip
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.instances import IMAGES, Cluster
from tests.disk_images import check_filesystem, filesystem_blocks, read_back


@pytest.fixture
def other_forms(cluster: Cluster, image: str) -> Iterator[dict[str, str]]:
    """The names of the small image as qcow2, and compressed."""
    folder = cluster.node.root / IMAGES
    raw = folder / image
    made = {"qcow2": folder / "other.qcow2", "gzip": folder / "other.raw.gz"}
    convert = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(made["qcow2"])]
    subprocess.run(convert, check=True, timeout=60)
    made["gzip"].write_bytes(gzip.compress(raw.read_bytes(), 1))
    yield {form: path.name for form, path in made.items()}
    for path in made.values():
        path.unlink()


@pytest.mark.parametrize("form", ["qcow2", "gzip"])
def test_an_image_of_another_form_is_converted_and_customised(
    cluster: Cluster, name: str, other_forms: dict[str, str], form: str
) -> None:
    added = cluster.add(name, img_id=other_forms[form])
    assert added.ok, added.output
    disk = cluster.disk(name)
    check_filesystem(disk)
    blocks, size = filesystem_blocks(disk)
    assert 90 << 20 < blocks * size <= 95 << 20, "the file system was grown to the 96 MiB disk"
    assert read_back(disk, "/etc/hostname") == name.encode() + b"\n"
    assert "convert" in cluster.gnt(f"snf-image watch {name}").text


def test_a_qcow2_that_is_called_raw_is_copied_as_it_is_and_refused_by_the_helper(
    cluster: Cluster, name: str, other_forms: dict[str, str]
) -> None:
    added = cluster.add(name, img_id=other_forms["qcow2"], img_source_format="raw")
    assert not added.ok
    assert "no partition of the image was recognised" in added.output, added.output


def test_a_report_tells_of_a_failed_deployment_without_its_secrets(
    cluster: Cluster, name: str, image: str, tmp_path: Path
) -> None:
    added = cluster.add(name, img_id=image, img_passwd="correct horse", img_properties='{"USERS": "nobody-there"}')
    assert not added.ok
    report = cluster.gnt(f"snf-image report {name}", ok=(0, 1)).text
    assert "nobody-there" in report and "password" in report, report
    assert "correct horse" not in report
    found = json.loads(cluster.gnt(f"snf-image report --json {name}", ok=(0, 1)).text)
    assert "correct horse" not in json.dumps(found)


def test_the_doctor_finds_nothing_wrong_with_a_node(cluster: Cluster) -> None:
    done = cluster.gnt("snf-image doctor", ok=tuple(range(256)))
    assert done.returncode == 0, done.text
