"""One pool of the tests' Ceph, as several nodes see it, each with a connection of its own that can be shut out."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

from snf_extstorage.rados.engine import RadosVolumes
from snf_extstorage.rados.images import Client, Images
from snf_extstorage.volume import Trace, no_trace
from snf_lab.ceph import CLIENT, POOLS, Ceph

from synnefo_light.ceph import Access, Cluster
from synnefo_light.store.formats import Format
from synnefo_light.store.rados import make_rados
from synnefo_light.store.store import Store, open_store

POOL, DATA_POOL, STORE_POOL = POOLS
MIB = 1 << 20


@dataclass
class RadosSite:
    ceph: Ceph
    clusters: list[Cluster] = field(default_factory=list)
    #: Clients that live on the node that takes over: all addresses are those of this machine, so they are named.
    ours: set[str] = field(default_factory=set)

    def connect(self, *, timeout_s: int = 20) -> Cluster:
        access = Access(
            conf=self.ceph.client_conf, user=CLIENT, connect_timeout_s=timeout_s, request_timeout_s=timeout_s
        )
        cluster = Cluster(access)
        self.clusters.append(cluster)
        return cluster

    def images(
        self,
        *,
        limit_s: float = 60.0,
        timeout_s: int = 20,
        pool: str = POOL,
        namespace: str = "",
        object_size: int | None = None,
    ) -> Images:
        cluster = self.connect(timeout_s=timeout_s)
        return Images(cluster, pool=pool, namespace=namespace, object_size=object_size, limit_s=limit_s)

    def node(
        self,
        name: str = "node1",
        *,
        images: Images | None = None,
        patience_s: float = 0,
        trace: Trace = no_trace,
    ) -> RadosVolumes:
        def spare(client: Client) -> bool:
            return client.address in self.ours

        return RadosVolumes(images or self.images(), node=name, patience_s=patience_s, spare=spare, trace=trace)

    def store(self) -> Store:
        form = Format(uuid=UUID("6f6a2cb0-4d0d-4f0c-8a53-2d2d5c8d9a10"), grace_s=3600)
        return open_store(make_rados(self.connect(), form, pool=STORE_POOL, namespace=f"store-{uuid4()}"))

    def close(self) -> None:
        for cluster in self.clusters:
            cluster.close()

    # --- the same images through other programs

    def qemu_uri(self, name: str) -> str:
        return f"rbd:{POOL}/{name}:id={CLIENT}:conf={self.ceph.client_conf}"

    def read(self, name: str, *, at: int = 0, count: int = 4096) -> bytes:
        """As the tool `rbd` exports it; of a snapshot too: NAME@SNAPSHOT."""
        with tempfile.TemporaryDirectory() as folder:
            exported = Path(folder) / "exported"
            self.ceph.run(["rbd", "export", "--no-progress", f"{POOL}/{name}", exported], timeout_s=60)
            with open(exported, "rb") as file:
                file.seek(at)
                return file.read(count)

    def write(self, name: str, letter: str, *, at: int = 0, count: int = 4096) -> bool:
        """Whether QEMU could write `count` times this byte, and flush it."""
        command = f"write -P {ord(letter)} {at} {count}"
        words = ["qemu-io", "-f", "raw", "-c", command, "-c", "flush", self.qemu_uri(name)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode == 0 and "wrote" in done.stdout

    def discard(self, name: str, *, at: int, count: int) -> None:
        words = ["qemu-io", "-f", "raw", "-d", "unmap", "-c", f"discard {at} {count}", self.qemu_uri(name)]
        subprocess.run(words, capture_output=True, timeout=60, check=True)

    @contextlib.contextmanager
    def writer(self, name: str) -> Iterator[subprocess.Popen[str]]:
        """A QEMU that has the image open and its lock; takes commands of qemu-io on stdin."""
        words = ["qemu-io", "-f", "raw", self.qemu_uri(name)]
        with subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    @staticmethod
    def tell(process: subprocess.Popen[str], command: str) -> str:
        """Give a qemu-io a command and return the first line that it says of it: "wrote ...", or an error."""
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{command}\n")
        process.stdin.flush()
        while True:
            line = process.stdout.readline()
            if not line or " ops; " not in line:
                return line.replace("qemu-io> ", "")

    def images_there(self) -> set[str]:
        return set(self.ceph.run(["rbd", "ls", POOL]).text.split())
