"""An image of the store becomes instances without a copy, by the words that snf-image(7) gives."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.instances import quoted
from tests.cluster.volumes.site import Site
from tests.disk_images import check_filesystem, list_back, make_disk, read_back

IMAGE = "small-debian"
#: What a reinstall says, by engine.
AGAIN = {"directory": "cloned", "rados": "so the image is copied"}


@pytest.fixture(scope="module")
def image(site: Site) -> Iterator[str]:
    path = make_disk(site.lab.state.images / f"{IMAGE}.raw")
    given = f"/srv/synnefo-light-images/{path.name}"
    properties = ["--property", "OSFAMILY=linux", "--property", "ROOT_PARTITION=1", "--property", "USERS=root user"]
    site.master.run(["snf-store", "image", "add", *properties, IMAGE, given], timeout_s=300)
    yield IMAGE
    site.master.run(["snf-store", "image", "rm", IMAGE])
    path.unlink()


def copied(site: Site, name: str, folder: Path) -> Path:
    """A copy of the instance's disk."""
    path = folder / "disk"
    path.write_bytes(site.content(name))
    return path


def deploy(site: Site, name: str, more: str = "", **options: str) -> str:
    """What the OS script logged."""
    parameters = shlex.quote(f"img_id=store://{IMAGE},img_passwd=secret{more}")
    words = f"{site.add_words(1, os='snf-image+default')} -O {parameters} --disk 0:{site.disk(size='96m', **options)}"
    site.gnt(f"{words} {name}", timeout_s=600)
    return site.master.run(["sh", "-c", f"cat /var/log/ganeti/os/add-*-{name}-*.log"]).text


def written(site: Site, name: str) -> int:
    """Bytes of the disk that are not the image's any more, or never were."""
    told = site.master.run(["snf-store", "volume", "compare", "--json", site.volume(name).name, IMAGE], ok=(0, 1)).text
    return int(json.loads(told)["changed"])


def test_a_disk_that_is_a_clone_of_its_image_is_customised_and_not_copied(
    site: Site, name: str, image: str, tmp_path: Path
) -> None:
    log = deploy(site, name, origin=image)
    assert "WARNING" not in log, log
    disk = copied(site, name, tmp_path)
    check_filesystem(disk)
    assert read_back(disk, "/etc/hostname") == name.encode() + b"\n"
    shadow = dict(line.split(b":", 1) for line in read_back(disk, "/etc/shadow").splitlines())
    assert shadow[b"root"].startswith(b"$") and shadow[b"user"].startswith(b"$"), "the image's USERS were used"
    assert 0 < written(site, name) < 40 << 20


def test_without_an_origin_the_image_is_copied_and_the_log_says_so(
    site: Site, name: str, image: str, tmp_path: Path
) -> None:
    log = deploy(site, name)
    assert "WARNING" in log and "copied" in log, log
    disk = copied(site, name, tmp_path)
    assert read_back(disk, "/etc/hostname") == name.encode() + b"\n"


def test_a_reinstall_begins_from_the_image_again(site: Site, name: str, image: str, tmp_path: Path) -> None:
    asked = '[{"path": "/etc/mark", "contents": "aGk=", "owner": "root", "group": "root", "mode": 416}]'
    deploy(site, name, f",img_personality={quoted(asked)}", origin=image)
    assert read_back(copied(site, name, tmp_path), "/etc/mark") == b"hi"
    site.gnt(f"gnt-instance modify -O img_id=store://{IMAGE},img_personality=[] {name}")
    site.gnt(f"gnt-instance reinstall -f {name}", timeout_s=600)
    log = site.master.run(["sh", "-c", f"cat $(ls -t /var/log/ganeti/os/*-{name}-*.log | head -1)"]).text
    assert AGAIN[site.storage] in log, log
    disk = copied(site, name, tmp_path)
    check_filesystem(disk)
    assert read_back(disk, "/etc/hostname") == name.encode() + b"\n"
    assert "mark" not in list_back(disk, "/etc"), "the system before the reinstall is still there"


def test_an_image_that_is_not_in_the_store_is_refused_before_anything_is_made(site: Site, name: str) -> None:
    before = site.volumes()
    words = f"{site.add_words(1, os='snf-image+default')} -O img_id=store://nowhere,img_passwd=x"
    told = site.gnt(f"{words} --disk 0:{site.disk()} {name}", ok=(0, 1))
    assert told.returncode == 1 and "nowhere" in told.stderr.decode()
    assert (site.volumes(), name in site.instances()) == (before, False)
