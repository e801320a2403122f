"""Images from FTP servers, good and bad."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.real.snf_image_host.ftp_server import answering, certificate, serving
from tests.real.snf_image_host.node import Fake
from tests.real.snf_image_host.test_create import OLD, compare

MIB = 1 << 20
PASSIVE = '{"EXCLUDE_ALL_TASKS": "yes"}'


@pytest.fixture
def node_here(node: Fake) -> Fake:
    """A node that may fetch from loopback, where the servers are."""
    node.configure(http_networks=["127.0.0.0/8"], http_timeout_s=2, http_limit_s=20)
    return node


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A folder with pub/an image.raw of 4 MiB and a bit."""
    (tmp_path / "pub").mkdir()
    (tmp_path / "pub" / "an image.raw").write_bytes(os.urandom(4 * MIB + 512))
    return tmp_path


def test_an_image_of_an_ftp_server_is_deployed(node_here: Fake, published: Path) -> None:
    image, disk = published / "pub" / "an image.raw", node_here.disk(pattern=OLD)
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    with serving(published) as port:
        done = node_here.create(
            disk, img_id=f"ftp://127.0.0.1:{port}/pub/an%20image.raw", img_checksum=f"sha256:{digest}"
        )
    assert done.returncode == 0, done.output
    compare(image, disk)


@pytest.mark.parametrize(("name", "trusted"), [("IP:127.0.0.1", True), ("IP:127.0.0.1", False), ("DNS:other", True)])
def test_ftps_is_taken_from_whom_a_certificate_names(
    node_here: Fake, published: Path, tmp_path: Path, name: str, *, trusted: bool
) -> None:
    image, disk = published / "pub" / "an image.raw", node_here.disk()
    both = certificate(tmp_path, name=name)
    with serving(published, certificate=both) as port:
        env = node_here.environment("create", disk, img_id=f"ftps://127.0.0.1:{port}/pub/an%20image.raw")
        process = node_here.start("create", env | ({"SSL_CERT_FILE": str(tmp_path / "cert.pem")} if trusted else {}))
        out, _ = process.communicate(timeout=60)
    if trusted and name.startswith("IP"):
        assert process.returncode == 0, out.decode()
        compare(image, disk)
    else:
        assert process.returncode == 4, out.decode()
        assert f"ftps://127.0.0.1:{port}/pub/an%20image.raw does not prove who it is" in out.decode().splitlines()[-1]


def test_a_server_that_wants_tls_is_not_spoken_to_without(node_here: Fake, published: Path, tmp_path: Path) -> None:
    with serving(published, certificate=certificate(tmp_path, name="IP:127.0.0.1")) as port:
        done = node_here.create(node_here.disk(), img_id=f"ftp://127.0.0.1:{port}/pub/an%20image.raw")
    assert done.returncode == 4 and "cannot be fetched: 550 SSL/TLS required" in done.sentence, done.output


def test_a_file_that_is_not_there(node_here: Fake, published: Path) -> None:
    with serving(published) as port:
        done = node_here.create(node_here.disk(), img_id=f"ftp://127.0.0.1:{port}/absent.raw")
    assert done.returncode == 4 and "cannot be fetched: 550" in done.sentence, done.output


def test_loopback_is_refused_unless_the_configuration_names_it(node: Fake, published: Path) -> None:
    with serving(published) as port:
        done = node.create(node.disk(), img_id=f"ftp://127.0.0.1:{port}/pub/an%20image.raw")
    assert done.returncode == 2, done.output
    assert "has the address 127.0.0.1, where images may not come from" in done.sentence


def test_the_address_that_pasv_names_is_ignored(node_here: Fake) -> None:
    """A server that would have the node connect to another machine, here to an address that nobody has."""
    body = os.urandom(MIB)
    disk = node_here.disk()
    with answering({"PASV": "227 here (192,0,2,1,{port})"}, data=body) as (port, asked):
        started = time.monotonic()
        done = node_here.create(disk, img_id=f"ftp://127.0.0.1:{port}/x.raw", img_properties=PASSIVE)
    assert done.returncode == 0, done.output
    assert "RETR x.raw" in asked and time.monotonic() - started < 10
    assert disk.read_bytes()[:MIB] == body


@pytest.mark.parametrize(
    ("answers", "data", "sentence"),
    [
        ({"": "421 go away"}, b"", "cannot be fetched: 421 go away"),
        ({"": "nonsense"}, b"", "cannot be fetched: nonsense"),
        ({"": "220 \x1b[2J"}, b"", "the image ftp://127.0.0.1"),
        ({"USER": "530 who?"}, b"", "cannot be fetched: 530 who?"),
        ({"SIZE": "213 many"}, b"x", "cannot be fetched: "),
        ({"SIZE": "213 -5"}, b"x", "does not declare its size (SIZE)"),
        ({"SIZE": "200 what"}, b"x", "does not declare its size (SIZE)"),
        ({"SIZE": "500 no"}, b"x", "cannot be fetched: 500 no"),
        ({"SIZE": "213 " + "9" * 30}, b"x", "needs"),
        ({"SIZE": "213 100"}, b"x" * 101, "sent more than the 100 bytes that it had declared"),
        ({"SIZE": "213 102"}, b"x" * 101, "sent only 101 of 102 bytes"),
        ({"PASV": "227 ()"}, b"x", "cannot be fetched: 227"),
        ({"PASV": "227 (127,0,0,1,0,1)"}, b"x", "cannot be fetched: [Errno 111] Connection refused"),
        ({"RETR": "550 gone"}, b"x", "cannot be fetched: 550 gone"),
        ({"": "220-" + "x" * 10000}, b"", "cannot be fetched: got more than 8192 bytes"),
        ({"": "\r\n".join(["220-hello"] * 1100)}, b"", "cannot be fetched: more than 1000 lines of answers"),
        ({"": "220-\xff\xfe"}, b"", "cannot be fetched: "),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_bad_server_fails_the_deployment_with_its_reason(
    node_here: Fake, answers: dict[str, str], data: bytes, sentence: str
) -> None:
    disk = node_here.disk(pattern=OLD)
    with answering(answers, data=data) as (port, _):
        done = node_here.create(disk, img_id=f"ftp://127.0.0.1:{port}/x.raw")
    assert done.returncode in (2, 4), done.output
    assert sentence in done.sentence, done.output
    assert "\x1b" not in done.output and "Traceback" not in done.output


def test_a_server_that_stops_sending_is_given_up(node_here: Fake) -> None:
    with answering({"SIZE": "213 1000"}, data=b"x" * 10, hold=True) as (port, _):
        done = node_here.create(node_here.disk(), img_id=f"ftp://127.0.0.1:{port}/x.raw")
    assert done.returncode == 4 and "stopped sending after 10 of 1000 bytes" in done.sentence, done.output


def test_the_time_limit_holds_for_all_of_it(node: Fake) -> None:
    """A server that greets a line every now and then, for ever: no timeout of a read ends that."""
    node.configure(http_networks=["127.0.0.0/8"], http_timeout_s=5, http_limit_s=2)
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    trickle = "import socket,sys,time\nc,_=socket.socket(fileno=int(sys.argv[1])).accept()\n"
    trickle += "for _ in range(100): c.sendall(b'220-x\\r\\n'); time.sleep(0.3)\n"
    words = ["python3", "-c", trickle, str(listening.fileno())]
    with subprocess.Popen(words, pass_fds=[listening.fileno()], stderr=subprocess.DEVNULL) as server:
        try:
            started = time.monotonic()
            done = node.create(node.disk(), img_id=f"ftp://127.0.0.1:{port}/x.raw")
            assert time.monotonic() - started < 10
        finally:
            server.kill()
            listening.close()
    assert done.returncode == 4 and "within the time limit (http_limit_s)" in done.sentence, done.output


def test_a_signature_and_a_configuration_may_come_by_ftp_too(node_here: Fake, published: Path) -> None:
    image = node_here.image()
    (published / "config.json").write_text('{"img_id": "small.raw"}')
    disk = node_here.disk()
    with serving(published) as port:
        done = node_here.create(disk, img_id="absent.raw", config_url=f"ftp://127.0.0.1:{port}/config.json")
    assert done.returncode == 0, done.output
    compare(image, disk)
