"""gnt-* on a node of the lab, and what lies on the disks that it makes."""

from __future__ import annotations

import json
import re
import shlex
import time
from dataclasses import dataclass
from pathlib import Path

from snf_lab.node import Node

from synnefo_light.run import Completed
from tests.disk_images import Tree, make_disk

IMAGES = "var/lib/snf-image"
DISKS = "srv/ganeti/file-storage"


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """What `gnt-instance add` came to."""

    name: str
    ok: bool
    output: str


class Cluster:
    """gnt-* on node 1, and what lies on its disks."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def gnt(self, command: str, *, ok: tuple[int, ...] = (0,), timeout_s: float = 300) -> Completed:
        return self.node.run(shlex.split(command), ok=ok, timeout_s=timeout_s)

    def image(self, name: str, *, tree: Tree | None = None, filesystem_mib: int = 48) -> Path:
        """A small image with a Debian-like tree in the node's image folder."""
        return make_disk(self.node.root / IMAGES / name, tree=tree, filesystem_mib=filesystem_mib)

    def add(self, name: str, *, size: str = "96m", **parameters: str) -> Added:
        """An instance that is not started, from OS parameters; Ganeti's word on it, whatever it is."""
        words = ["gnt-instance", "add", "-t", "file", "--disk", f"0:size={size}", "-o", "snf-image+default"]
        words += ["--no-start", "--no-name-check", "--no-ip-check", "--no-wait-for-sync", "-B", "memory=128m"]
        # Named, because the allocator looks at the memory of a machine that the tests share with others.
        words += ["-n", self.node.name]
        # One -O: of several the last alone counts.
        given = {"img_format": "diskdump", **parameters}
        words += ["-O", ",".join(f"{key}={quoted(value)}" for key, value in given.items())]
        done = self.node.run([*words, name], ok=range(256), timeout_s=600)
        return Added(name=name, ok=done.returncode == 0, output=(done.stdout + done.stderr).decode("utf-8", "replace"))

    def remove(self, name: str) -> None:
        self.gnt(f"gnt-instance remove -f --shutdown-timeout=0 {name}")

    def instances(self) -> dict[str, str]:
        """Instance names and their status."""
        listed = self.gnt("gnt-instance list --no-headers --separator=| -o name,status").text
        return dict(line.split("|") for line in listed.splitlines() if line)

    def disk(self, name: str) -> Path:
        """The disk file of an instance, as the host sees it."""
        (disk,) = (self.node.root / DISKS / name).glob("*.disk0")
        return disk

    def helper_processes(self) -> list[str]:
        """Command lines of helper VMs alive in the node."""
        shown = self.node.run(["pgrep", "-a", "-u", "snf-image"], ok=(0, 1)).text
        return shown.splitlines()

    def wait_for(self, what: str, seen: object, *, timeout_s: float = 60) -> None:
        """Until the shell condition `what` holds in the node."""
        deadline = time.monotonic() + timeout_s
        while self.node.run(["sh", "-c", what], ok=range(256)).returncode != 0:
            assert time.monotonic() < deadline, f"{seen} was not seen within {timeout_s} s"
            time.sleep(0.1)

    def events(self) -> list[dict[str, object]]:
        """All events in the node's spool, oldest first."""
        raw = self.node.run(["sh", "-c", "cat /var/spool/synnefo-light/events/[0-9]* 2>/dev/null || true"]).text
        return [json.loads(line) for line in raw.splitlines()]


def quoted(value: str) -> str:
    """A value for -O, in which Ganeti takes a bare comma as the end (ganeti(7), "values with commas")."""
    return re.sub(r"([,\\])", r"\\\1", value)
