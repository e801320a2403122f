"""Images from a real web server on 127.0.0.1, good and bad; the server is Python's own."""

from __future__ import annotations

import hashlib
import http.server
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from snf_image_host.journal import CopyProgressed, Finished

from tests.real.snf_image_host.node import Fake

MIB = 1 << 20
REMEDY = "run `gnt-instance reinstall web1`, or give up with `gnt-instance remove web1`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    url: str
    body: bytes
    asked: list[dict[str, str]]


def _handler(body: bytes, asked: list[dict[str, str]]) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked.append(dict(self.headers) | {"path": self.path})
            name = self.path.strip("/").partition("/")
            getattr(self, f"send_{name[0].replace('-', '_')}", self.send_missing)(name[2])

        def head(self, code: int = 200, **headers: object) -> None:
            self.send_response(code)
            for key, value in headers.items():
                self.send_header(key.replace("_", "-"), str(value))
            self.end_headers()

        def send_good(self, rest: str) -> None:
            self.head(Content_Length=len(body))
            self.wfile.write(body)

        def send_missing(self, rest: str) -> None:
            self.send_error(404)

        def send_truncated(self, rest: str) -> None:
            self.head(Content_Length=len(body))
            self.wfile.write(body[:-4096])
            self.close_connection = True

        def send_longer(self, rest: str) -> None:
            self.head(Content_Length=len(body) // 2, Connection="close")
            self.wfile.write(body)
            self.close_connection = True

        def send_chunked(self, rest: str) -> None:
            self.head(Transfer_Encoding="chunked")
            self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))

        def send_endless(self, rest: str) -> None:
            self.head(Connection="close")
            self.wfile.write(body)
            self.close_connection = True

        def send_gzip(self, rest: str) -> None:
            self.head(Content_Length=len(body), Content_Encoding="gzip")
            self.wfile.write(body)

        def send_stall(self, rest: str) -> None:
            self.head(Content_Length=len(body))
            self.wfile.write(body[: MIB + 4096])
            self.wfile.flush()
            threading.Event().wait(5)
            self.close_connection = True

        def send_trickle(self, rest: str) -> None:
            """A byte every 0.2 s: of the body, or of the head, or before it."""
            if rest != "head":
                self.head(Content_Length=len(body))
            try:
                for _ in range(100):
                    self.wfile.write(b"x")
                    threading.Event().wait(0.2)
            except OSError:
                pass
            self.close_connection = True

        def send_huge(self, rest: str) -> None:
            self.head(Content_Length=1 << 60)

        def send_to(self, rest: str) -> None:
            self.head(302, Location=rest.replace("//", "/").replace(":/", "://", 1), Content_Length=0)

        def send_to_ipv6_loopback(self, rest: str) -> None:
            self.head(302, Location="http://[::1]:1/", Content_Length=0)

        def send_loop(self, rest: str) -> None:
            self.head(302, Location="/loop", Content_Length=0)

        def send_hops(self, rest: str) -> None:
            left = int(rest)
            self.head(302, Location=f"/hops/{left - 1}" if left > 1 else "/good", Content_Length=0)

        def log_message(self, *words: object) -> None:
            pass

    return Handler


@pytest.fixture
def server() -> Iterator[Server]:
    body, asked = os.urandom(4 * MIB) + bytes(2 * MIB) + os.urandom(2 * MIB + 512), list[dict[str, str]]()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(body, asked)) as listening:
        listening.daemon_threads = True
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        try:
            yield Server(url=f"http://127.0.0.1:{listening.server_port}", body=body, asked=asked)
        finally:
            listening.shutdown()
            thread.join()


@pytest.fixture
def node_here(node: Fake) -> Fake:
    """A node that may fetch from loopback, where the server is."""
    node.configure(http_networks=["127.0.0.0/8"], http_timeout_s=2)
    return node


def test_a_good_image_is_deployed_and_zeros_are_not_written(node_here: Fake, server: Server) -> None:
    disk = node_here.disk(pattern=b"old ")
    digest = hashlib.sha256(server.body).hexdigest()
    done = node_here.create(
        disk,
        img_id=f"{server.url}/good",
        img_checksum=f"sha256:{digest}",
        img_properties='{"EXCLUDE_ALL_TASKS": "yes"}',
    )
    assert done.returncode == 0, done.output
    image = node_here.images / "expected"
    image.write_bytes(server.body)
    subprocess.run(["cmp", f"--bytes={len(server.body)}", str(image), str(disk)], check=True, timeout=20)
    last = node_here.records()[-1]
    assert isinstance(last, Finished) and last.copied == 6 * MIB + 512
    assert last.host_peak_rss <= 64 * MIB, "the memory of a deployment over http"
    assert server.asked[0]["Accept-Encoding"] == "identity"
    assert not {"Authorization", "Cookie", "Proxy-Authorization"} & set(server.asked[0])


def test_up_to_five_redirects_are_followed(node_here: Fake, server: Server) -> None:
    done = node_here.create(node_here.disk(), img_id=f"{server.url}/hops/5")
    assert done.returncode == 0, done.output
    assert len(server.asked) == 6


@pytest.mark.parametrize(
    ("path", "code", "sentence", "touched"),
    [
        ("missing", 4, "answered 404 Not Found, not what was asked for", False),
        ("truncated", 4, "sent only ", True),
        ("stall", 4, "stopped sending after 1048576 of 8389120 bytes", True),
        ("chunked", 4, "does not declare its size (Content-Length)", False),
        ("endless", 4, "does not declare its size (Content-Length)", False),
        ("gzip", 4, "answers with a Content-Encoding", False),
        ("loop", 4, "leads to more than 5 redirects", False),
        ("hops/6", 4, "leads to more than 5 redirects", False),
        ("huge", 2, "needs 1099511627776 MiB", False),
        ("to/file:///etc/passwd", 4, "file: is not a scheme to fetch this with", False),
        ("to/ftp://x/y", 4, "ftp: is not a scheme to fetch this with", False),
        ("to/http://user:pw@127.0.0.1/", 4, "the address carries a user or password", False),
        (
            "to/http://169.254.169.254/latest",
            2,
            "has the address 169.254.169.254, where images may not come from",
            False,
        ),
        ("to-ipv6-loopback", 2, "has the address ::1, where images may not come", False),
    ],
)
def test_a_bad_answer_fails_the_deployment(
    node_here: Fake, server: Server, path: str, code: int, sentence: str, *, touched: bool
) -> None:
    disk = node_here.disk(pattern=b"old ")
    done = node_here.create(disk, img_id=f"{server.url}/{path}", INSTANCE_REINSTALL="1")
    assert done.returncode == code, done.output
    assert sentence in done.sentence and done.sentence.endswith(REMEDY), done.output
    assert ("were wiped" in done.sentence) is touched
    assert (disk.read_bytes()[:MIB] == bytes(MIB)) is touched
    assert "Traceback" not in done.output


@pytest.mark.parametrize(("part", "wiped"), [("body", True), ("head", False)])
def test_a_server_that_trickles_is_given_up_at_the_time_limit(
    node_here: Fake, server: Server, part: str, *, wiped: bool
) -> None:
    node_here.configure(http_networks=["127.0.0.0/8"], http_timeout_s=30, http_limit_s=2)
    begun = time.monotonic()
    done = node_here.create(node_here.disk(), img_id=f"{server.url}/trickle/{part}", INSTANCE_REINSTALL="1")
    assert 2 <= time.monotonic() - begun < 6
    assert done.returncode == 4 and "within the time limit (http_limit_s)" in done.sentence, done.output
    assert ("were wiped" in done.sentence) is wiped


def test_more_bytes_than_declared_are_not_taken(node_here: Fake, server: Server) -> None:
    """HTTP ends the body at its declared length; what follows is no part of it, and a checksum tells."""
    digest = hashlib.sha256(server.body).hexdigest()
    done = node_here.create(node_here.disk(), img_id=f"{server.url}/longer", img_checksum=f"sha256:{digest}")
    assert done.returncode == 4 and "the image's SHA-256 is" in done.sentence, done.output


def test_loopback_is_refused_by_default_before_anything_is_sent(node: Fake, server: Server) -> None:
    disk = node.disk()
    done = node.create(disk, img_id=f"{server.url}/good")
    assert done.returncode == 2, done.output
    assert "has the address 127.0.0.1, where images may not come from" in done.sentence
    assert "http_networks" in done.sentence
    assert server.asked == []


@pytest.mark.parametrize("host", ["localhost", "127.1", "0x7f000001", "2130706433", "0"])
def test_no_spelling_of_loopback_is_accepted(node: Fake, server: Server, host: str) -> None:
    port = server.url.rpartition(":")[2]
    done = node.create(node.disk(), img_id=f"http://{host}:{port}/good")
    assert done.returncode in (2, 4), done.output
    assert server.asked == []


def test_a_redirect_to_loopback_is_refused_at_connect(node_here: Fake, server: Server) -> None:
    """The rule is asked for each connection: here the first host is allowed and the second is not."""
    node_here.configure(http_networks=["127.0.0.1/32"], http_timeout_s=2)
    port = server.url.rpartition(":")[2]
    done = node_here.create(node_here.disk(), img_id=f"{server.url}/to/http://127.0.0.2:{port}/good")
    assert done.returncode == 2 and "has the address 127.0.0.2" in done.sentence, done.output
    assert len(server.asked) == 1


def test_a_server_that_is_not_there_is_named_with_the_reason(node_here: Fake) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        done = node_here.create(node_here.disk(), img_id=f"http://127.0.0.1:{port}/x")
    assert done.returncode == 4
    assert f"http://127.0.0.1:{port}/x cannot be fetched: [Errno 111] Connection refused" in done.sentence


def test_a_name_that_does_not_resolve_is_said(node: Fake) -> None:
    done = node.create(node.disk(), img_id="http://no-such-host.invalid/x")
    assert done.returncode == 4 and "http://no-such-host.invalid/x cannot be fetched" in done.sentence


def test_progress_is_told_while_a_slow_server_sends(node_here: Fake, server: Server, tmp_path: Path) -> None:
    done = node_here.create(node_here.disk(), img_id=f"{server.url}/stall")
    assert done.returncode == 4
    assert next(r.done for r in node_here.records() if isinstance(r, CopyProgressed)) == 0
