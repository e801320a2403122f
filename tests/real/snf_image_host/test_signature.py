"""Signed images, with real keys that are made here; gpg signs and gpgv checks."""

from __future__ import annotations

import base64
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from snf_image_host.settings import Settings
from snf_image_host.signature import checking_signature

from tests.real.snf_image_host.node import Fake
from tests.real.snf_image_host.test_create import OLD, compare
from tests.real.snf_image_host.web_server import serving

PASSIVE = '{"EXCLUDE_ALL_TASKS": "yes"}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """One who signs, with a key ring of his own."""

    home: Path

    def gpg(self, *words: str | Path, at: str | None = None) -> bytes:
        clock = ["--faked-system-time", f"{at}!"] if at else []
        command = ["gpg", "--homedir", str(self.home), "--batch", "--quiet", "--yes", "--passphrase", "", *clock]
        done = subprocess.run([*command, *map(str, words)], check=True, capture_output=True, timeout=60)
        return done.stdout

    def key(self, kind: str = "ed25519", *, at: str | None = None, expires: str = "never") -> Path:
        """A new key; the public half, as the keyring that is named in the configuration."""
        self.gpg("--quick-gen-key", "Images <images@example.org>", kind, "sign", expires, at=at)
        return self.publish()

    def publish(self) -> Path:
        keyring = self.home / "public.gpg"
        keyring.write_bytes(self.gpg("--export"))
        keyring.chmod(0o600)
        return keyring

    def sign(self, file: Path, *options: str, at: str | None = None) -> bytes:
        return self.gpg(*options, "--output", "-", *([] if "--sign" in options else ["--detach-sign"]), file, at=at)


@pytest.fixture
def signer(node: Fake) -> Iterator[Signer]:
    yield from _signer(node.folder / "gpg")


@pytest.fixture
def stranger(node: Fake) -> Iterator[Signer]:
    yield from _signer(node.folder / "other")


def _signer(home: Path) -> Iterator[Signer]:
    home.mkdir(mode=0o700)
    try:
        yield Signer(home=home)
    finally:
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False, timeout=20)


@pytest.fixture
def signed(node: Fake, signer: Signer) -> Fake:
    """A node that knows the signer's key; small.raw and its signature small.raw.sig are in the image folder."""
    node.configure(http_networks=["127.0.0.0/8"], signature_keyrings=[str(signer.key())], signature_required=True)
    image = node.image()
    (node.images / "small.raw.sig").write_bytes(signer.sign(image))
    return node


def inline(signature: bytes) -> str:
    return "base64:" + base64.encodebytes(signature).decode()


@pytest.mark.parametrize("where", ["local", "web", "inline", "armored"])
def test_an_image_with_a_good_signature_is_deployed(signed: Fake, signer: Signer, where: str) -> None:
    image, disk = signed.images / "small.raw", signed.disk(pattern=OLD)
    signature = (signed.images / "small.raw.sig").read_bytes()
    with serving({"a.sig": signature}) as base:
        given = {
            "local": "small.raw.sig",
            "web": f"{base}/a.sig?token=s3cret",
            "inline": inline(signature),
            "armored": inline(signer.sign(image, "--armor")),
        }
        done = signed.create(disk, img_signature=given[where])
    assert done.returncode == 0, done.output
    compare(image, disk)
    fingerprint = signer.gpg("--with-colons", "--list-keys").decode().partition("fpr:")[2].strip(":").split(":")[0]
    assert f"signature good key={fingerprint}" in done.output
    assert "s3cret" not in done.output + signed.log()


def test_the_signature_and_the_checksum_may_both_be_asked_for(signed: Fake) -> None:
    done = signed.create(signed.disk(), img_signature="small.raw.sig", img_checksum="sha256:" + "0" * 64)
    assert done.returncode == 4 and "the image's SHA-256 is" in done.sentence, done.output


@pytest.mark.parametrize("reinstall", ["0", "1"])
def test_one_changed_byte_wipes_the_disk_unless_an_old_system_is_on_it(signed: Fake, reinstall: str) -> None:
    with open(signed.images / "small.raw", "r+b") as file:
        file.seek(4 << 20)
        byte = file.read(1)
        file.seek(4 << 20)
        file.write(bytes((byte[0] ^ 1,)))
    disk = signed.disk(pattern=OLD)
    done = signed.create(disk, img_signature="small.raw.sig", INSTANCE_REINSTALL=reinstall)
    assert done.returncode == 4, done.output
    assert "signature (img_signature) is not good: the bytes are not those that were signed" in done.sentence
    if reinstall == "1":
        assert "its disk was not touched" in done.sentence and disk.read_bytes()[: len(OLD)] == OLD
        return
    assert "both ends of its disk were wiped" in done.sentence
    subprocess.run(["cmp", "--bytes=1048576", str(disk), "/dev/zero"], check=True, timeout=10)


def test_an_image_that_is_to_be_converted_is_checked_before_the_disk_is_touched(signed: Fake, signer: Signer) -> None:
    image = signed.image("x.qcow2")
    good = signer.sign(image)
    assert signed.create(signed.disk(), img_id="x.qcow2", img_signature=inline(good)).returncode == 0
    with serving({"x.qcow2": image.read_bytes(), "y.qcow2": image.read_bytes() + b"\0"}) as base:
        assert signed.create(signed.disk(), img_id=f"{base}/x.qcow2", img_signature=inline(good)).returncode == 0
        disk = signed.disk(pattern=OLD)
        more = {"img_signature": inline(good), "INSTANCE_REINSTALL": "1"}
        done = signed.create(disk, img_id=f"{base}/y.qcow2", **more)
    assert done.returncode == 4 and "its disk was not touched" in done.sentence, done.output
    assert disk.read_bytes()[: len(OLD)] == OLD


def test_a_strangers_signature_is_not_good(signed: Fake, stranger: Signer) -> None:
    stranger.key()
    signature = inline(stranger.sign(signed.images / "small.raw"))
    done = signed.create(signed.disk(), img_signature=signature)
    assert done.returncode == 4, done.output
    assert "not good: the key that made it is in none of the keyrings (signature_keyrings)" in done.sentence


def test_a_good_and_a_strangers_signature_together_are_not_good(signed: Fake, signer: Signer, stranger: Signer) -> None:
    stranger.key()
    image = signed.images / "small.raw"
    done = signed.create(signed.disk(), img_signature=inline(signer.sign(image) + stranger.sign(image)))
    assert done.returncode == 4 and "not good" in done.sentence, done.output


def test_a_second_keyring_counts_too(signed: Fake, signer: Signer, stranger: Signer) -> None:
    keyrings = [str(stranger.key()), str(signer.home / "public.gpg")]
    signed.configure(signature_keyrings=keyrings, signature_required=True)
    done = signed.create(signed.disk(), img_signature="small.raw.sig")
    assert done.returncode == 0, done.output


def test_a_key_that_has_expired_signs_no_more(node: Fake, signer: Signer) -> None:
    keyring = signer.key(at="20200101T000000", expires="30d")
    node.configure(signature_keyrings=[str(keyring)])
    signature = signer.sign(node.image(), at="20200102T000000")
    done = node.create(node.disk(), img_signature=inline(signature))
    assert done.returncode == 4 and "not good: the key that made it has expired" in done.sentence, done.output


def test_a_key_that_was_revoked_signs_no_more(node: Fake, signer: Signer) -> None:
    signer.key()
    signature = signer.sign(node.image())
    (revocation,) = (signer.home / "openpgp-revocs.d").iterdir()
    revocation.write_text(revocation.read_text().replace(":-----BEGIN", "-----BEGIN"))
    signer.gpg("--import", revocation)
    node.configure(signature_keyrings=[str(signer.publish())])
    done = node.create(node.disk(), img_signature=inline(signature))
    assert done.returncode == 4 and "not good: the key that made it was revoked" in done.sentence, done.output


def test_a_signature_by_sha1_is_not_good(node: Fake, signer: Signer) -> None:
    node.configure(signature_keyrings=[str(signer.key("rsa2048"))])
    image = node.image()
    assert node.create(node.disk(), img_signature=inline(signer.sign(image))).returncode == 0, "the same by SHA-512"
    weak = signer.sign(image, "--digest-algo", "SHA1", "--allow-weak-digest-algos")
    done = node.create(node.disk(), img_signature=inline(weak))
    assert done.returncode == 4 and "not good: it cannot be checked" in done.sentence, done.output


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda signer, image: b"\x00" * 100, ""),
        (lambda signer, image: b"hello", ""),
        (lambda signer, image: os.urandom(4096), ""),
        (lambda signer, image: signer.sign(image)[:-10], ""),
        (lambda signer, image: signer.gpg("--export"), ""),
    ],
)
def test_what_is_no_signature_is_not_good(signed: Fake, signer: Signer, make: object, why: str) -> None:
    content = make(signer, signed.images / "small.raw")  # type: ignore[operator]
    done = signed.create(signed.disk(), img_signature=inline(content))
    assert done.returncode == 4 and "the image's signature (img_signature) is not good: " in done.sentence, done.output


def test_a_signed_message_is_no_detached_signature(signed: Fake, signer: Signer, tmp_path: Path) -> None:
    """gpgv would find a good signature of another text in it, if it were not told which bytes count."""
    (tmp_path / "text").write_text("anything")
    done = signed.create(signed.disk(), img_signature=inline(signer.sign(tmp_path / "text", "--sign")))
    assert done.returncode == 4 and "is not good" in done.sentence, done.output


def test_a_keyring_that_is_not_there_is_the_nodes_fault(signed: Fake) -> None:
    signed.configure(signature_keyrings=["/nonexistent/keys.gpg"])
    done = signed.create(signed.disk(), img_signature="small.raw.sig")
    assert done.returncode == 3, done.output
    assert "the keyring /nonexistent/keys.gpg (signature_keyrings) cannot be read: No such file" in done.sentence


def test_an_armored_keyring_is_refused_by_its_name_and_found_by_the_doctor(signed: Fake, signer: Signer) -> None:
    armored = signed.folder / "armored.asc"
    armored.write_bytes(signer.gpg("--armor", "--export"))
    signed.configure(signature_keyrings=[str(armored)])
    done = signed.create(signed.disk(), img_signature="small.raw.sig")
    assert done.returncode == 3 and f"the keyring {armored} (signature_keyrings) is armored" in done.sentence
    assert "gpg --dearmor" in done.sentence
    assert f"{armored} (signature_keyrings) is armored" in signed.command("doctor").stdout


def test_without_a_signature_nothing_is_deployed_where_one_is_required(signed: Fake) -> None:
    for script in ("verify", "create"):
        done = signed.call(script, signed.disk())
        assert (
            done.returncode == 2 and "img_signature is missing: this node deploys signed images only" in done.sentence
        )
    assert signed.create(signed.disk(), img_id="null").returncode == 0, "nothing is copied"


def _child(name: str) -> psutil.Process:
    """The child of ours that has become `name`."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for process in psutil.Process().children(recursive=True):
            if process.name() == name:
                return process
        time.sleep(0.02)
    raise AssertionError(f"no {name}")


def test_gpgv_is_a_stranger_in_namespaces_of_its_own(signer: Signer, tmp_path: Path) -> None:
    settings = Settings(user="nobody", signature_keyrings=(str(signer.key()),))
    (tmp_path / "data").write_bytes(b"data")
    with checking_signature(signer.sign(tmp_path / "data"), settings) as check:
        check.update(memoryview(b"data"))
        process = _child("gpgv")
        status = Path(f"/proc/{process.pid}/status").read_text()
        fields = {line.partition(":")[0]: line.partition(":")[2].split() for line in status.splitlines()}
        assert fields["Uid"] == ["65534"] * 4 and fields["Groups"] == []
        assert fields["NoNewPrivs"] == ["1"] and fields["CapEff"] == ["0" * 16]
        for space in ("net", "ipc", "uts", "mnt"):
            ours, its = (Path(f"/proc/{pid}/ns/{space}").readlink() for pid in ("self", process.pid))
            assert ours != its
        check.check()
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
