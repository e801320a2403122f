"""A cluster of three nodes whose disks are volumes, and what lies in them, asked of others than our scripts."""

from __future__ import annotations

import ast
import json
import shlex
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snf_lab.lab import Lab
from snf_lab.node import Node

from synnefo_light.run import Completed
from tests.cluster.volumes.counting_guest import Row, boot_sector, read_row
from tests.cluster.volumes.quiet_linux import INITRD, READY

CONTROL = "/var/run/ganeti/kvm-hypervisor/ctrl"
SIZE_MIB = 32
IMAGE = "counting-guest"
IMAGES = "/srv/synnefo-light-images"
KERNEL = "/usr/lib/snf-image-helper/vmlinux"

#: A forgery, made with the means of the engine `directory`.
FORGET = """
import dataclasses, sys
from snf_extstorage.directory.kept import held, save
from snf_extstorage.directory.place import Place
from snf_extstorage.settings import load_settings
place, name = Place(load_settings().folder), sys.argv[1]
with held(place, name) as record:
    save(place, name, dataclasses.replace(record, holders=(), exclusive=False, owed=()))
"""


@dataclass(frozen=True, slots=True)
class Volume:
    name: str
    size: int
    holders: tuple[str, ...]
    origin: str | None


class Site:
    """Instances on volumes of one engine."""

    def __init__(self, lab: Lab, storage: str) -> None:
        self.lab = lab
        self.storage = storage
        self.master = lab.master

    @property
    def release(self) -> str:
        assert self.lab.config is not None
        return self.lab.config.release

    @property
    def opens_files(self) -> bool:
        """Whether Ganeti hands QEMU what a disk with access=userspace is: a file not since 3.1, which adds devices."""
        return self.storage == "rados" or self.release == "bookworm"

    # --- Ganeti

    def gnt(self, command: str, *, ok: tuple[int, ...] = (0,), timeout_s: float = 300) -> Completed:
        done = self.master.run(shlex.split(command), ok=range(256), timeout_s=timeout_s)
        assert done.returncode in ok, f"{command}: {done.returncode}: {done.stdout.decode()}{done.stderr.decode()}"
        return done

    def disk(self, **options: str) -> str:
        """What follows `--disk N:` for a disk that both Ganeti and QEMU can use here."""
        given = {"size": f"{SIZE_MIB}m", "provider": "archipelago", **options}
        if self.storage == "rados":
            given.setdefault("access", "userspace")
        if not self.opens_files:
            given.pop("access", None)
        return ",".join(f"{key}={value}" for key, value in given.items())

    def add(self, name: str, *, node: int = 1, start: bool = True, os: str = "noop", **options: str) -> None:
        """An instance whose only disk is a clone of the counting guest, unless the options say otherwise."""
        disk = self.disk(**{"origin": IMAGE, **options})
        self.gnt(f"{self.add_words(node, start=start, os=os)} --disk 0:{disk} {name}")

    def add_linux(self, name: str, *, node: int) -> None:
        """An instance that runs a kernel, which lets go of a disk when it is asked to."""
        initrd = f"{IMAGES}/{INITRD}"
        words = self.add_words(node, start=True, memory="256m")
        parameters = f"kvm:kernel_path={KERNEL},initrd_path={initrd},kernel_args=console=ttyS0"
        self.gnt(f"{words} -H {parameters} --disk 0:{self.disk(access='userspace')} {name}")
        look = f"socat -u UNIX-CONNECT:{CONTROL}/{name}.serial - | grep -q -m1 '{READY}'"
        self.lab.node(node).run(["timeout", "120", "sh", "-c", look], timeout_s=130)

    def add_words(self, node: int, *, start: bool = False, os: str = "noop", memory: str = "64m") -> str:
        begin = "" if start else " --no-start"
        return (
            f"gnt-instance add -t ext -o {os} -n {self.lab.node(node).name} -B memory={memory} "
            f"--no-name-check --no-ip-check --no-wait-for-sync{begin}"
        )

    def primary(self, name: str) -> int:
        node = self.gnt(f"gnt-instance list --no-headers -o pnode {name}").text.strip()
        return next(n.number for n in self.lab.nodes if n.name == node)

    def remove(self, name: str) -> None:
        self.gnt(f"gnt-instance remove -f --shutdown-timeout=0 {name}")

    def instances(self) -> list[str]:
        return self.gnt("gnt-instance list --no-headers -o name").text.split()

    @contextmanager
    def dead_to_ganeti(self, number: int) -> Iterator[None]:
        """The node is dead for the master, and lives on: its node daemon is frozen. Its guests die at the end."""
        node = self.lab.node(number)
        node.run(["pkill", "-STOP", "-f", "ganeti-noded"])
        self.gnt(f"gnt-node modify --offline=yes -f {node.name}", timeout_s=400)
        try:
            yield
        finally:
            node.run(["pkill", "-KILL", "-f", "qemu-system.*-name"], ok=(0, 1))
            node.run(["pkill", "-CONT", "-f", "ganeti-noded"])
            self.gnt(f"gnt-node modify --offline=no -f {node.name}")

    def guests(self, number: int) -> str:
        """Command lines of the guests that a node runs, whatever Ganeti thinks."""
        return self.lab.node(number).run(["pgrep", "-a", "-f", "qemu-system.*-name"], ok=(0, 1)).text

    # --- volumes

    def lose(self, name: str) -> None:
        """Remove an instance's first volume behind Ganeti's back."""
        self.script(1, "remove", self.volume(name).name)

    def forget_writers(self, name: str) -> None:
        """Have a volume's record say that no node writes and that none is to be fenced."""
        self.master.run(["python3", "-c", FORGET, self.volume(name).name])

    def script(self, number: int, script: str, volume: str, **more: str) -> None:
        """Call a script of the provider on a node, as Ganeti does."""
        env = {"VOL_NAME": volume, "VOL_UUID": str(uuid.uuid4()), "VOL_CNAME": "none", "EXTP_PROVIDER": "archipelago"}
        words = [f"/usr/share/ganeti/extstorage/archipelago/{script}"]
        self.lab.node(number).run(words, env={**env, **more}, timeout_s=120)

    def volume(self, name: str, number: int = 0) -> Volume:
        uuids = self.gnt(f"gnt-instance list --no-headers -o disk.uuids {name}").text.strip()
        shown = self.master.run(["snf-store", "volume", "show", "--json", ast.literal_eval(uuids)[number]]).text
        facts = json.loads(shown)
        return Volume(facts["name"], facts["size"], tuple(facts["holders"]), facts.get("origin"))

    def volumes(self) -> set[str]:
        lines = self.master.run(["snf-store", "volume", "list"]).text.splitlines()
        return {line.split()[0] for line in lines[1:]}

    def content(self, name: str) -> bytes:
        """What is in an instance's first disk, read past everything of ours."""
        volume = self.volume(name).name
        if self.storage == "rados":
            copy = self.lab.state.run / "volume"
            copy.unlink(missing_ok=True)
            self.lab.ceph.run(["rbd", "export", "--no-progress", f"volumes/{volume}", copy])
            return copy.read_bytes()
        return (self.lab.state.volumes / "volumes" / volume / "disk").read_bytes()

    def row(self, name: str) -> Row:
        """What the counting guest has written. Raises AssertionError when a write was lost or another one writes."""
        return read_row(self.content(name))

    def wait_for_writes(self, name: str, more_than: Row | None = None, *, count: int = 10, life: int = 1) -> Row:
        """Until the guest has written so many sectors more, and this life of it some."""
        before = more_than.written if more_than else 0
        deadline = time.monotonic() + 120
        while (row := self.row(name)).written < before + count or row.lives < life:
            assert time.monotonic() < deadline, f"{name} has {row}, not {count} over {before} in life {life}"
            time.sleep(0.3)
        return row

    # --- QEMU

    def query(self, name: str, command: str) -> Any:
        """The answer of a guest's QEMU on its node, by QMP."""
        words = f"{json.dumps({'execute': 'qmp_capabilities'})}\n{json.dumps({'execute': command})}\n"
        node = self.lab.node(self.primary(name))
        socket = f"{CONTROL}/{name}.qmp"
        told = node.run(["socat", "-t5", "-", f"UNIX-CONNECT:{socket}"], stdin=words.encode(), timeout_s=30).text
        answers = [json.loads(line) for line in told.splitlines()]
        return [answer["return"] for answer in answers if "return" in answer][1]

    def sizes_seen(self, name: str) -> list[int]:
        """Bytes of each disk as the guest has it, in the order of QEMU's devices."""
        return [b["inserted"]["image"]["virtual-size"] for b in self.query(name, "query-block") if "inserted" in b]


def counting_image(folder: Path) -> Path:
    path = folder / f"{IMAGE}.raw"
    path.write_bytes(boot_sector().ljust(SIZE_MIB << 20, b"\0"))
    return path


def register(node: Node, image: Path) -> None:
    """Give the store the counting guest's image, once."""
    listed = node.run(["snf-store", "image", "list"]).text
    if IMAGE not in listed.split():
        node.run(["snf-store", "image", "add", IMAGE, f"{IMAGES}/{image.name}"], timeout_s=120)
