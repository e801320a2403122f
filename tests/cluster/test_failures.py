"""create that fails: the instance stays, stopped and unable to boot, and the sentence says what to do."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.instances import IMAGES, Cluster
from tests.disk_images import Fifo, read_back

SERVER = """
import http.server, os, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = open('/var/lib/snf-image/small.raw', 'rb').read()
        name = self.path.strip('/')
        if name == 'missing':
            return self.send_error(404)
        if name == 'to-file':
            self.send_response(302); self.send_header('Location', 'file:///etc/passwd'); return self.end_headers()
        if name == 'loop':
            self.send_response(302); self.send_header('Location', '/loop'); return self.end_headers()
        self.send_response(200)
        if name != 'endless':
            self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        if name == 'truncated':
            body = body[:-4096]
        if name == 'slow':
            for n in range(0, len(body), 65536):
                self.wfile.write(body[n:n + 65536]); time.sleep(0.1)
            return
        self.wfile.write(body)
    def log_message(self, *words):
        pass
http.server.ThreadingHTTPServer(('10.78.1.1', 8099), Handler).serve_forever()
"""
URL = "http://10.78.1.1:8099"


CONFIGURATION = "/etc/synnefo-light/snf-image.toml"


@pytest.fixture(scope="module")
def server(cluster: Cluster, image: str) -> Iterator[str]:
    """An image server inside the node, on its address in the instances' network, from which images may come then."""
    cluster.node.write("/root/image_server.py", SERVER.encode())
    # A name of its own: the server of an earlier run may still be there, and serves as well.
    cluster.node.run(["systemd-run", "--unit=image-server", "python3", "/root/image_server.py"], ok=(0, 1))
    ask = f"import urllib.request as r; r.urlopen('{URL}/good').read()"
    cluster.wait_for(f'python3 -c "{ask}"', "the image server")
    former = cluster.node.read(CONFIGURATION) if cluster.node.exists(CONFIGURATION) else None
    kept = "" if former is None else re.sub(r"(?m)^http_networks\b.*\n", "", former.decode())
    cluster.node.write(CONFIGURATION, f'http_networks = ["10.78.1.0/24"]\n{kept}'.encode())
    try:
        yield URL
    finally:
        if former is None:
            cluster.node.run(["rm", "-f", CONFIGURATION])
        else:
            cluster.node.write(CONFIGURATION, former)


def assert_stopped_and_unbootable(cluster: Cluster, name: str, output: str, *reasons: str) -> None:
    for reason in reasons:
        assert reason in output, output
    assert f"gnt-instance reinstall {name}" in output and f"gnt-instance remove {name}" in output, output
    assert cluster.instances()[name] in ("ADMIN_down", "ERROR_down")
    with open(cluster.disk(name), "rb") as disk:
        assert disk.read(1 << 20) == bytes(1 << 20), "the first MiB is wiped"
        disk.seek(-(1 << 20), os.SEEK_END)
        assert disk.read() == bytes(1 << 20), "the last MiB is wiped"
    assert cluster.helper_processes() == []


@pytest.mark.parametrize(
    ("parameters", "size", "reasons"),
    [
        ({"img_id": "small.raw"}, "20m", ("20 MiB", "51 MiB")),
        ({"img_id": "no-such-image.raw"}, "96m", ("no-such-image.raw",)),
        ({"img_id": "small.raw", "img_checksum": "sha256:" + "0" * 64}, "96m", ("SHA-256",)),
        ({"img_id": "noise.raw"}, "96m", ("no partition of the image was recognised",)),
        ({"img_id": f"{URL}/missing"}, "96m", ("404",)),
        ({"img_id": f"{URL}/truncated"}, "96m", ("truncated",)),
        ({"img_id": f"{URL}/to-file"}, "96m", ("file:",)),
        ({"img_id": f"{URL}/loop"}, "96m", ("redirect",)),
        ({"img_id": f"{URL}/endless"}, "96m", ("Content-Length",)),
        ({"img_id": "http://10.78.1.1:9/refused"}, "96m", ("10.78.1.1",)),
        ({"img_id": "trap.raw"}, "96m", ("hostname", "/etc/hostname")),
    ],
    ids=lambda value: str(value.get("img_id")).rsplit("/", maxsplit=1)[-1] if isinstance(value, dict) else "",
)
def test_a_deployment_that_fails_says_why_and_cannot_boot(
    cluster: Cluster, server: str, name: str, parameters: dict[str, str], size: str, reasons: tuple[str, ...]
) -> None:
    folder = cluster.node.root / IMAGES
    (folder / "noise.raw").write_bytes(os.urandom(1 << 20) * 8)
    cluster.image("trap.raw", tree={"etc/hostname": Fifo()})
    added = cluster.add(name, size=size, **parameters)
    assert not added.ok
    assert_stopped_and_unbootable(cluster, name, added.output, *reasons)
    (folder / "noise.raw").unlink()
    (folder / "trap.raw").unlink()


def test_after_a_failure_reinstall_with_the_fault_mended_succeeds(cluster: Cluster, name: str) -> None:
    late = cluster.node.root / IMAGES / "late.raw"
    assert not cluster.add(name, img_id="late.raw").ok
    cluster.image("late.raw")
    try:
        cluster.gnt(f"gnt-instance reinstall -f {name}", timeout_s=600)
        assert read_back(cluster.disk(name), "/etc/hostname") == name.encode() + b"\n"
    finally:
        late.unlink()


def test_a_good_image_over_http_is_deployed(cluster: Cluster, server: str, name: str) -> None:
    added = cluster.add(name, img_id=f"{server}/good")
    assert added.ok, added.output
    assert read_back(cluster.disk(name), "/etc/hostname") == name.encode() + b"\n"


# The brackets keep the shell that runs the command from finding itself.
CREATE = "pgrep -f '[o]s/snf-image/create'"
KILL = f"kill -KILL $({CREATE})"


@pytest.mark.parametrize(
    ("url", "moment"),
    [
        ("slow", CREATE),
        ("slow", 'test "$(du -sk /srv/ganeti/file-storage/{name} | cut -f1)" -gt 300'),
        ("good", "pgrep -u snf-image qemu"),
        ("good", "sleep 1; pgrep -u snf-image qemu"),
        ("good", "sleep 2; pgrep -u snf-image qemu"),
    ],
    ids=["start", "copy", "helper-start", "helper-boot", "helper-tasks"],
)
def test_kill_9_of_create_leaves_nothing_and_a_retry_succeeds(
    cluster: Cluster, server: str, name: str, url: str, moment: str
) -> None:
    result: list[bool] = []
    adding = threading.Thread(target=lambda: result.append(cluster.add(name, img_id=f"{server}/{url}").ok))
    adding.start()
    try:
        cluster.wait_for(moment.format(name=name), moment)
        cluster.node.run(["sh", "-c", KILL])
    finally:
        adding.join()
    assert result == [False]
    cluster.wait_for("! pgrep -u snf-image", "the end of the helper VM", timeout_s=10)
    cluster.remove(name)
    assert name not in cluster.instances()
    retried = cluster.add(name, img_id=f"{server}/good")
    assert retried.ok, retried.output


def test_a_full_node_disk_fails_the_deployment_cleanly(cluster: Cluster, name: str, image: str) -> None:
    """File storage on a small tmpfs: the copy meets ENOSPC."""
    storage = Path("/srv/ganeti/file-storage") / name
    script = f"mkdir -p {storage} && mount -t tmpfs -o size=128k tmpfs {storage}"
    cluster.node.run(["sh", "-c", script])
    try:
        added = cluster.add(name, img_id=image)
        assert not added.ok
        assert "No space left on device" in added.output, added.output
        assert f"gnt-instance remove {name}" in added.output
    finally:
        cluster.node.run(["umount", str(storage)], ok=(0, 32))
