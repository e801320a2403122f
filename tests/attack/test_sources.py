"""Addresses of images that are meant for the node, not for an image (threat A12): files of the host, other schemes, its
own and private services, redirects to them, and a name whose address changes between question and answer.

Real servers on 127.0.0.1, which the node may ask, and on 127.0.0.2, which it may not. Positive control: curl(1) and a
plain client follow the same addresses and bring the secret back.
"""

from __future__ import annotations

import contextlib
import http.server
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from snf_image_host.sources import HttpImage
from snf_image_host.sources.guard import AddressRefused, Rules, connect
from snf_image_host.sources.http import open_http

from tests.attack.host import watched
from tests.attack.trace import Allowed, trace
from tests.deployments import SCRIPTS
from tests.real.snf_image_host.node import Fake, fake_node

CANARY = b"canary of the host: " + b"s3cr3t" * 200
MIB = 1 << 20


@contextmanager
def served(address: str, asked: list[str], *, leads_to: str = "") -> Iterator[int]:
    """Answers everything with the canary, or with a redirect."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(302 if leads_to else 200)
            self.send_header("Location", leads_to) if leads_to else None
            self.send_header("Content-Length", str(0 if leads_to else len(CANARY)))
            self.end_headers()
            if not leads_to:
                self.wfile.write(CANARY)

        def log_message(self, *words: object) -> None:
            pass

    with http.server.ThreadingHTTPServer((address, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def node() -> Iterator[Fake]:
    with fake_node() as made:
        made.configure(http_networks=["127.0.0.1/32"], http_timeout_s=2)
        (made.folder / "canary").write_bytes(CANARY)
        yield made


#: `{canary}`: a file of the host; `{private}`: a server that the node may not ask.
ADDRESSES = (
    *("file://{canary}", "FILE://{canary}", "file:{canary}", "file://localhost{canary}", "local://{canary}"),
    *("{canary}", "local://../canary", "../canary", "local://%2e%2e/canary", "file:///proc/self/environ"),
    *("http://{private}/", "http://user@{private}/", "http://0x7f000002:{port}/", "http://127.2:{port}/"),
    *("http://[::ffff:127.0.0.2]:{port}/", "http://2130706434:{port}/", "http://127.0.0.1#@{private}/"),
    *("http://169.254.169.254/latest/meta-data/", "http://[fd00:ec2::254]/", "http://0.0.0.0:{port}/"),
    *("ftp://{private}/x", "gopher://{private}/x", "dict://{private}/x", "jar:http://{private}/x", "netdoc:{canary}"),
)
TARGETS = (
    *(
        "file://{canary}",
        "FILE:{canary}",
        "//{private}/",
        "http://{private}/",
        "ftp://{private}/x",
        "gopher://{private}",
    ),
    *("http://169.254.169.254/", "http://127.2:{port}/", "http://[::ffff:127.0.0.2]:{port}/", "data:text/plain,x"),
    *("http://user:word@{private}/", "\\\\{private}\\x", "local://{canary}", "javascript:0"),
)


def refused(node: Fake, img_id: str, private: list[str]) -> None:
    """The deployment fails in a sentence; the canary is nowhere, and nobody asked the private server for it."""
    disk = node.disk(16)
    env = node.environment("create", disk, img_id=img_id)
    allowed = Allowed(
        disk=disk,
        readable=(node.images, node.folder / "helper", node.folder / "variants", node.folder / "snf-image.toml"),
        writable=tuple(node.folder / name for name in ("run", "log", "spool")),
    )
    seen, done = trace([str(SCRIPTS / "create")], env=env, allowed=allowed, log=node.folder / "trace", timeout_s=60)
    output = done.stdout.decode("utf-8", "replace")
    assert done.returncode in (2, 4), output
    assert "was not deployed: " in output and "Traceback" not in output and "snf-image itself" not in output, output
    assert CANARY not in disk.read_bytes() and b"s3cr3t" not in done.stdout
    assert private == [], f"{img_id} made the node ask {private}"
    assert [v for v in seen.violations() if "/etc/" not in v] == []
    assert seen.executed, "nothing was seen at all"


@pytest.mark.parametrize("address", ADDRESSES)
def test_no_address_reads_a_file_or_a_service_of_the_host(node: Fake, address: str) -> None:
    private: list[str] = []
    with served("127.0.0.2", private) as port:
        places = {"canary": node.folder / "canary", "private": f"127.0.0.2:{port}", "port": port}
        refused(node, address.format(**places), private)


@pytest.mark.parametrize("target", TARGETS)
def test_no_redirect_reads_a_file_or_a_service_of_the_host(node: Fake, target: str) -> None:
    private: list[str] = []
    asked: list[str] = []
    with served("127.0.0.2", private) as port:
        places = {"canary": node.folder / "canary", "private": f"127.0.0.2:{port}", "port": port}
        with served("127.0.0.1", asked, leads_to=target.format(**places)) as first:
            refused(node, f"http://127.0.0.1:{first}/image", private)
    assert asked[:1] == ["/image"], "the first server was not asked: the test shows nothing"


def test_a_plain_client_is_led_to_the_private_server_and_to_the_file(node: Fake) -> None:
    """The positive control."""
    private: list[str] = []
    asked: list[str] = []
    with served("127.0.0.2", private) as port, served("127.0.0.1", asked, leads_to=f"http://127.2:{port}/") as first:
        assert fetched(f"http://127.0.0.1:{first}/image") == CANARY and private == ["/"]
    done = subprocess.run(["curl", "-s", f"file://{node.folder}/canary"], capture_output=True, timeout=20, check=True)
    assert done.stdout == CANARY


def fetched(url: str) -> bytes:
    """By a plain client, which follows redirects and looks names up itself."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        content: bytes = answer.read()
    return content


class Resolver:
    """Says a public address first, and the private one ever after."""

    def __init__(self, public: str, private: str) -> None:
        self.answers = [public]
        self.private = private
        self.asked = 0

    def __call__(self, host: Any, port: Any, *rest: Any, **more: Any) -> list[Any]:
        self.asked += 1
        address = self.answers.pop() if self.answers else self.private
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, int(port)))]


@pytest.mark.parametrize("networks", [(), ("127.0.0.1/32",)], ids=["by-default", "with-a-list"])
def test_a_name_whose_address_changes_is_judged_by_the_address_that_is_connected_to(
    monkeypatch: pytest.MonkeyPatch, networks: tuple[str, ...]
) -> None:
    """The first answer is connected to, not asked for again; the second one is refused."""
    private: list[str] = []
    first = "127.0.0.1" if networks else "192.0.2.1"
    connected: list[str] = []

    def recorded(sock: socket.socket, where: Any) -> None:
        connected.append(where[0])
        raise ConnectionRefusedError("nobody is there")

    with served("127.0.0.2", private) as port:
        resolver = Resolver(first, "127.0.0.2")
        monkeypatch.setattr(socket, "getaddrinfo", resolver)
        monkeypatch.setattr(socket.socket, "connect", recorded)
        with pytest.raises(ConnectionRefusedError):
            connect("rebind.example", port, networks=networks, timeout_s=2)
        assert connected == [first] and resolver.asked == 1
        with pytest.raises(AddressRefused, match=r"127\.0\.0\.2"):
            connect("rebind.example", port, networks=networks, timeout_s=2)
        assert connected == [first], "the private address was connected to"
    assert private == []


def test_a_server_whose_name_moves_between_a_redirect_and_the_next_request_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    private: list[str] = []
    asked: list[str] = []
    rules = Rules(networks=("127.0.0.1/32",), timeout_s=2, limit_s=10)
    with contextlib.ExitStack() as servers:
        port = servers.enter_context(served("127.0.0.2", private))
        first = servers.enter_context(served("127.0.0.1", asked, leads_to=f"http://rebind.example:{port}/again"))
        monkeypatch.setattr(socket, "getaddrinfo", Resolver("127.0.0.1", "127.0.0.2"))
        with pytest.raises(AddressRefused), open_http(HttpImage(url=f"http://rebind.example:{first}/image"), rules):
            pass
    assert asked == ["/image"] and private == []


def test_a_check_before_a_plain_connection_is_got_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """The positive control: to look first and to connect then asks twice, and reaches the private server."""
    private: list[str] = []
    with served("127.0.0.2", private) as port:
        monkeypatch.setattr(socket, "getaddrinfo", Resolver("127.0.0.1", "127.0.0.2"))
        looked = socket.getaddrinfo("rebind.example", port)[0][4][0]
        assert fetched(f"http://rebind.example:{port}/secret") == CANARY
    assert looked == "127.0.0.1" and private == ["/secret"]


LIES = (
    *("success-at-once", "success-twice", "wrong-nonce", "hello-twice", "gap", "garbage", "flood-console"),
    *(
        "flood-channel",
        "flood-lines",
        "exit-3",
        "dies-at:mount",
        "fails-at:hostname",
        "wrong-version",
        "leaves-a-child",
    ),
)


@pytest.mark.parametrize("lie", LIES)
def test_a_helper_that_lies_makes_the_host_do_nothing_that_is_not_on_the_list(node: Fake, lie: str) -> None:
    """Threats A9 and A10, traced: QEMU's place is taken by a program that says what a captured helper would."""
    node.behave(lie)
    node.configure(tcg_limit_s=20)
    node.image()
    disk = node.disk(16)
    env = node.environment("create", disk)
    allowed = Allowed(
        disk=disk, readable=(node.folder,), writable=tuple(node.folder / name for name in ("run", "log", "spool"))
    )
    with watched([Path("/etc"), node.images]) as changes:
        seen, done = trace(
            [str(SCRIPTS / "create")], env=env, allowed=allowed, log=node.folder / "trace", timeout_s=120
        )
    output = done.stdout.decode("utf-8", "replace")
    assert done.returncode in (4, 5), output
    assert "Traceback" not in output and "\x1b" not in output, output
    assert [v for v in seen.violations() if not v.startswith("qemu ")] == []
    assert str(node.images) not in changes.folders
    assert node.alive() == []
    with open(disk, "rb") as file:
        assert file.read(MIB) == bytes(MIB), "the disk of a failure may boot"
