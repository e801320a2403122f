"""Images that the helper VM is to convert, dumps of one file system, and what else is fetched.

The QEMU is the fake one: it copies the source as it is, so what arrives can be compared.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from snf_image_host.journal import CopyDone, CopyProgressed, Finished, HelperStarted

from tests.real.snf_image_host.node import Fake
from tests.real.snf_image_host.test_create import OLD, compare
from tests.real.snf_image_host.web_server import serving

MIB = 1 << 20
PASSIVE = '{"EXCLUDE_ALL_TASKS": "yes"}'


@pytest.fixture
def node_here(node: Fake) -> Fake:
    """A node that may fetch from loopback, where the servers are."""
    node.configure(http_networks=["127.0.0.0/8"])
    return node


def said(node: Fake, key: str) -> dict[str, object]:
    """What the fake helper said on its console."""
    for line in node.log().splitlines():
        if line.startswith("console: {") and key in line:
            found: dict[str, object] = json.loads(line.removeprefix("console: "))
            return found
    raise AssertionError(node.log())


def test_a_local_image_is_shown_to_the_vm_read_only_and_not_copied(node: Fake) -> None:
    image = node.image("small.qcow2")
    done = node.create(node.disk(pattern=OLD), img_id="small.qcow2")
    assert done.returncode == 0, done.output
    compare(image, node.folder / "disk")
    assert said(node, "source") == {
        "source": {"compression": "none", "format": "qcow2", "size": 8 * MIB},
        "readonly": True,
    }
    (copied,) = [r for r in node.records() if isinstance(r, CopyDone)]
    assert copied.written == 0
    assert not (node.folder / "staging").exists(), "nothing was staged"


def test_nothing_of_what_the_disk_held_before_a_conversion_is_left(node: Fake) -> None:
    (node.images / "tiny.vdi").write_bytes(b"x" * 4096)
    disk = node.disk(16, pattern=OLD)
    done = node.create(disk, img_id="tiny.vdi", img_properties=PASSIVE, INSTANCE_REINSTALL="1")
    assert done.returncode == 0, done.output
    assert subprocess.run(["grep", "-c", "former tenant", str(disk)], capture_output=True, check=False).stdout == b"0\n"
    assert disk.read_bytes() == (b"x" * 4096).ljust(16 * MIB, b"\0")


def test_an_image_of_an_odd_size_keeps_its_exact_size(node: Fake) -> None:
    (node.images / "odd.raw.gz").write_bytes(os.urandom(MIB + 7))
    assert node.create(node.disk(), img_id="odd.raw.gz").returncode == 0
    assert said(node, "source")["source"] == {"compression": "gzip", "format": "raw", "size": MIB + 7}


def test_an_image_from_the_web_is_staged_without_a_name_and_converted(node_here: Fake) -> None:
    body = os.urandom(8 * MIB)
    node_here.behave("hang-in:convert")
    with serving({"x.qcow2": body}) as base:
        disk = node_here.disk(pattern=OLD)
        process = node_here.start("create", node_here.environment("create", disk, img_id=f"{base}/x.qcow2"))
        deadline = time.monotonic() + 20
        while not (node_here.folder / "run/web1.jsonl").exists() or '"task":"convert"' not in "".join(
            (node_here.folder / "run/web1.jsonl").read_text()
        ):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert list((node_here.folder / "staging").iterdir()) == [], "what is staged has no name"
        process.kill()
        process.communicate(timeout=20)
        node_here.wait_dead()
        node_here.behave("good")
        done = node_here.create(
            disk, img_id=f"{base}/x.qcow2", img_checksum=f"sha256:{hashlib.sha256(body).hexdigest()}"
        )
    assert done.returncode == 0, done.output
    (node_here.images / "expected").write_bytes(body)
    compare(node_here.images / "expected", disk)
    assert list((node_here.folder / "staging").iterdir()) == []
    records = node_here.records()
    progress = [r for r in records if isinstance(r, CopyProgressed)]
    assert (progress[-1].done, progress[-1].total) == (8 * MIB, 8 * MIB)
    assert isinstance(records[-1], Finished) and records[-1].helper_ms > 0
    assert said(node_here, "source")["readonly"] is True


@pytest.mark.parametrize("where", ["local", "web"])
def test_a_wrong_checksum_ends_it_before_the_vm_starts_and_the_disk_is_touched(node_here: Fake, where: str) -> None:
    image = node_here.image("x.qcow2")
    disk = node_here.disk(pattern=OLD)
    before = hashlib.sha256(disk.read_bytes()).digest()
    with serving({"x.qcow2": image.read_bytes()}) as base:
        img_id = f"{base}/x.qcow2" if where == "web" else "x.qcow2"
        done = node_here.create(disk, img_id=img_id, img_checksum="sha256:" + "0" * 64, INSTANCE_REINSTALL="1")
    assert done.returncode == 4 and "the image's SHA-256 is" in done.sentence, done.output
    assert "its disk was not touched" in done.sentence
    assert hashlib.sha256(disk.read_bytes()).digest() == before
    assert not [r for r in node_here.records() if isinstance(r, HelperStarted)]


def test_a_new_instance_whose_image_is_wrong_cannot_boot_what_its_volume_held(node: Fake) -> None:
    node.image("x.qcow2")
    disk = node.disk(pattern=OLD)
    done = node.create(disk, img_id="x.qcow2", img_checksum="sha256:" + "0" * 64)
    assert done.returncode == 4 and "both ends of its disk were wiped" in done.sentence, done.output


def test_what_may_be_staged_is_limited(node_here: Fake) -> None:
    node_here.configure(http_networks=["127.0.0.0/8"], staging_limit_mib=2)
    with serving({"x.raw.xz": bytes(2 * MIB + 1)}) as base:
        done = node_here.create(node_here.disk(), img_id=f"{base}/x.raw.xz")
    assert done.returncode == 2, done.output
    assert f"the image {base}/x.raw.xz has 2097153 bytes and is to be converted" in done.sentence
    assert "staging_limit_mib" in done.sentence


def test_a_full_staging_folder_says_so(node_here: Fake) -> None:
    staging = node_here.folder / "staging"
    staging.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(staging)], check=True, timeout=10)
    try:
        with serving({"x.raw.xz": os.urandom(4 * MIB)}) as base:
            done = node_here.create(node_here.disk(), img_id=f"{base}/x.raw.xz")
    finally:
        subprocess.run(["umount", str(staging)], check=True, timeout=10)
    assert done.returncode == 3 and f"staging the image in {staging} at byte" in done.sentence, done.output
    assert "No space left on device" in done.sentence


def test_an_image_larger_than_the_disk_may_be_smaller_once_converted_and_the_other_way_round(node: Fake) -> None:
    """How large it becomes is for the VM to find out: the host does not even look."""
    (node.images / "large.qcow2").touch()
    os.truncate(node.images / "large.qcow2", 32 * MIB)
    node.behave("fails-at:convert")
    done = node.create(node.disk(16), img_id="large.qcow2")
    assert done.returncode == 4 and "convert" in done.sentence, done.output
    (node.images / "empty.qcow2").touch()
    done = node.create(node.disk(16), img_id="empty.qcow2")
    assert done.returncode == 2 and "the image empty.qcow2 is empty" in done.sentence


def test_a_conversion_may_take_longer_but_not_for_ever(node: Fake) -> None:
    node.configure(tcg_limit_s=2, convert_limit_s=6)
    node.image("x.qcow2")
    node.behave("slow:4")
    done = node.create(node.disk(), img_id="x.qcow2")
    assert done.returncode == 0, done.output
    node.behave("hang-in:convert")
    done = node.create(node.disk(), img_id="x.qcow2")
    assert done.returncode == 4, done.output
    assert "did not end within 8 s (in the task convert) and was killed; convert_limit_s in the" in done.sentence
    node.behave("slow:4")
    node.image()
    done = node.create(node.disk())
    assert done.returncode == 4 and "did not end within 2 s and was killed; tcg_limit_s in the" in done.sentence


def sfdisk(disk: Path) -> dict[str, object]:
    shown = subprocess.run(["sfdisk", "--json", str(disk)], capture_output=True, check=True, timeout=10)
    table: dict[str, object] = json.loads(shown.stdout)["partitiontable"]
    return table


@pytest.mark.parametrize(("image_format", "kind"), [("extdump", "83"), ("ntfsdump", "7")])
def test_one_file_system_gets_a_partition_table(node: Fake, image_format: str, kind: str) -> None:
    image = node.image("fs.img", size_mib=9)
    os.truncate(image, 9 * MIB - 1536)
    disk = node.disk(16, pattern=OLD)
    done = node.create(disk, img_id="fs.img", img_format=image_format, img_properties=PASSIVE)
    assert done.returncode == 0, done.output
    table = sfdisk(disk)
    assert table["label"] == "dos" and table["sectorsize"] == 512
    assert table["partitions"] == [
        {"node": f"{disk}1", "start": 2048, "size": 9 * 2048, "type": kind, "bootable": True}
    ]
    subprocess.run(
        ["cmp", "--ignore-initial=0:1048576", f"--bytes={9 * MIB - 1536}", str(image), str(disk)], check=True
    )
    assert subprocess.run(["grep", "-c", "former tenant", str(disk)], capture_output=True, check=False).stdout == b"0\n"


def test_the_file_system_behind_our_table_is_whole(node: Fake) -> None:
    image = node.images / "root.ext4"
    subprocess.run(["mkfs.ext4", "-q", "-d", "/usr/share/doc/gpgv", str(image), "8M"], check=True, timeout=30)
    disk = node.disk(16)
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    done = node.create(
        disk, img_id="root.ext4", img_format="extdump", img_properties=PASSIVE, img_checksum=f"sha256:{digest}"
    )
    assert done.returncode == 0, done.output
    subprocess.run(["e2fsck", "-fn", f"{disk}?offset=1048576"], check=True, capture_output=True, timeout=30)
    code = Path("/usr/lib/syslinux/mbr/mbr.bin")
    with open(disk, "rb") as file:
        assert file.read(440) == (code.read_bytes() if code.exists() else b"").ljust(440, b"\0")
    assert ("boot-code=" in done.output) is not code.exists()


def test_the_table_needs_room_too(node: Fake) -> None:
    node.image("fs.img", size_mib=16)
    done = node.create(node.disk(16), img_id="fs.img", img_format="extdump")
    assert done.returncode == 2 and "the image fs.img needs 17 MiB" in done.sentence, done.output


def test_a_disk_without_room_for_a_whole_mib_has_a_smaller_partition(node: Fake) -> None:
    image = node.image("fs.img", size_mib=15)
    os.truncate(image, 14 * MIB + 512)
    disk = node.disk(16)
    os.truncate(disk, 15 * MIB + 512)
    env = node.environment("create", disk, img_id="fs.img", img_format="extdump", img_properties=PASSIVE)
    process = node.start("create", env | {"DISK_0_SIZE": "15"})
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 2, "Ganeti's size is what counts"
    os.truncate(image, 14 * MIB)
    process = node.start("create", env | {"DISK_0_SIZE": "15"})
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, out.decode()
    assert sfdisk(disk)["partitions"][0]["size"] == 14 * 2048  # type: ignore[index]


@pytest.fixture
def config() -> Iterator[dict[str, object]]:
    yield {"img_id": "other.raw", "img_passwd": "correct horse", "img_properties": {"USERS": "root"}}


@pytest.mark.parametrize("where", ["local", "web"])
def test_a_configuration_overwrites_parameters_and_stays_secret(
    node_here: Fake, config: dict[str, object], where: str
) -> None:
    image = node_here.image("other.raw")
    raw = json.dumps(config).encode()
    (node_here.images / "config.json").write_bytes(raw)
    disk = node_here.disk()
    with serving({"config.json": raw}) as base:
        url = f"{base}/config.json?token=s3cret" if where == "web" else "config.json"
        given = {"config_url": url, "img_id": "absent.raw", "DEBUG_LEVEL": "1"}
        verified = node_here.call("verify", disk, **given)
        done = node_here.create(disk, **given)
    assert (verified.returncode, verified.output) == (0, ""), "nothing is fetched to verify"
    assert done.returncode == 0, done.output
    compare(image, disk)
    for told in (done.output, node_here.log(), repr(node_here.events()), repr(node_here.records())):
        assert "correct horse" not in told and "s3cret" not in told


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b'{"img_color": "correct horse"}', "'img_color' is not a parameter that it may give"),
        (b'{"config_url": "x"}', "'config_url' is not a parameter that it may give"),
        (b'{"img_passwd": ["correct horse"]}', "the value of img_passwd is not text"),
        (b'{"img_passwd": "a", "img_passwd": "correct horse"}', "the key 'img_passwd' stands twice"),
        (b'["correct horse"]', "it is not a JSON object"),
        (b"correct horse", "the document is not JSON"),
        (b"", "the document is not JSON"),
        (b" " * (8 * MIB + 1), "config_url: config.json has 8388609 bytes, at most 8388608 are accepted"),
    ],
)
def test_a_bad_configuration_is_refused_before_a_byte_is_written(node: Fake, content: bytes, sentence: str) -> None:
    (node.images / "config.json").write_bytes(content)
    done = node.create(node.disk(), config_url="config.json")
    assert done.returncode == 2 and sentence in done.sentence, done.output
    assert "its disk was not touched" in done.sentence and "correct horse" not in done.output


def test_a_configuration_may_hold_all_that_is_required(node: Fake) -> None:
    node.image()
    (node.images / "config.json").write_text('{"img_id": "small.raw", "img_format": "diskdump"}')
    given = {"img_id": "-", "img_format": "-", "config_url": "config.json"}
    assert node.call("verify", node.disk(), **given).returncode == 0
    assert node.create(node.disk(), **given).returncode == 0
    bad = node.call("verify", node.disk(), **given, img_checksum="md5:0")
    assert bad.returncode == 2 and bad.output.startswith("snf-image: img_checksum: 'md5:0' is neither")


def test_a_password_in_an_address_is_refused_and_told_to_nobody(node: Fake) -> None:
    given = {"img_id": "http://me:s3cret@images.example/x?token=s3cret", "DEBUG_LEVEL": "1"}
    done = node.create(node.disk(), **given)
    assert done.returncode == 2 and "the address carries a user or password" in done.sentence, done.output
    assert node.events() and node.records()
    for told in (done.output, node.log(), repr(node.events()), repr(node.records())):
        assert "s3cret" not in told


def test_configurations_do_not_come_from_the_node_itself(node: Fake) -> None:
    with serving({"config.json": b"{}"}) as base:
        done = node.create(node.disk(), config_url=f"{base}/config.json")
    assert done.returncode == 2 and "has the address 127.0.0.1, where images may not come from" in done.sentence


@pytest.mark.parametrize("where", ["local", "web", "file"])
def test_an_answer_file_is_fetched_and_handed_over(node_here: Fake, where: str) -> None:
    node_here.image()
    (node_here.images / "answers.xml").write_bytes(b"<unattend/>")
    with serving({"answers.xml": b"<unattend/>"}) as base:
        url = {"web": f"{base}/answers.xml", "local": "answers.xml"}.get(
            where, f"file://{node_here.images}/answers.xml"
        )
        done = node_here.create(node_here.disk(), os_answer_file=url)
    assert done.returncode == 0, done.output
    assert said(node_here, "answer_file") == {"answer_file": "PHVuYXR0ZW5kLz4="}


def test_an_answer_file_comes_from_the_image_folder_only(node: Fake) -> None:
    node.image()
    done = node.create(node.disk(), os_answer_file="file:///etc/passwd", INSTANCE_REINSTALL="1")
    assert done.returncode == 2 and "is not below the image folder" in done.sentence, done.output
    assert "its disk was not touched" in done.sentence


def test_a_configuration_may_hold_what_no_variable_can(node: Fake) -> None:
    """Linux gives a script at most 128 KiB a variable (MAX_ARG_STRLEN); the helper gets three MiB here."""
    node.image()
    files = [{"path": "/etc/large", "contents": base64.b64encode(b"x" * 3 * MIB).decode()}]
    with pytest.raises(OSError, match="Argument list too long"):
        node.create(node.disk(), img_personality=json.dumps(files))
    (node.images / "config.json").write_text(json.dumps({"img_personality": files}))
    done = node.create(node.disk(), config_url="config.json")
    assert done.returncode == 0, done.output
    files[0]["path"] = "/etc/../large"
    (node.images / "config.json").write_text(json.dumps({"img_personality": files}))
    assert "must not contain '..'" in node.create(node.disk(), config_url="config.json").sentence, "it is really read"
