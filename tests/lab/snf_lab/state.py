"""Where a lab keeps things, and what the running one was asked to be.

    STATE/lock                     held by the one command that changes the lab
    STATE/cache/roots/NAME/        a Debian root per release; NAME ends in the hash of its recipe
    STATE/cache/packages/HASH/     our .debs, by the hash of the tree they were built from
    STATE/cache/closure/HASH/      the .debs that ours depend on, by root and dependencies
    STATE/cache/images/            disk images; every node sees them, read-only
    STATE/run/lab.json             what this lab is: release, number of nodes, developer option
    STATE/run/netns/{switch,nodeN} network namespaces, bind-mounted onto files
    STATE/run/nodes/N/             root (the mounted overlay), upper and work (its writes), console.log
    STATE/run/shared/ repo/ log/   the nodes' shared directory, their package repository, logs
    STATE/run/volumes/             volumes and the store, where all nodes see them (volumes.py)
    STATE/run/ceph/                the Ceph of a lab with --storage rados

`cache/` survives `down`; things in it are made under a temporary name and renamed, so what has its name is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from synnefo_light import files
from synnefo_light.errors import EnvironmentFault, UserError

TREE = Path(__file__).resolve().parents[3]
DEFAULT = Path("/var/lib/synnefo-light-lab")
VARIABLE = "SNF_LAB_STATE"
MAX_NODES = 4
#: Where volumes lie: files on the nodes, or besides these a Ceph that all nodes reach.
STORAGES = ("directory", "rados")


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A Debian release that nodes can run, and the Ganeti it carries."""

    codename: str
    debian: int
    ganeti: str
    needs_cgroup_v2: bool  # its systemd refuses cgroup v1 unless told otherwise


RELEASES = {
    "bookworm": Release(codename="bookworm", debian=12, ganeti="3.0", needs_cgroup_v2=False),
    "trixie": Release(codename="trixie", debian=13, ganeti="3.1", needs_cgroup_v2=True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LabConfig:
    """What a lab was asked to be; written first, so that `up` after an interruption knows what to finish."""

    release: str
    nodes: int
    dev: bool
    root: str = ""  # the name of the cached root that its nodes lie on
    storage: str = "directory"

    def __post_init__(self) -> None:
        if self.release not in RELEASES:
            raise UserError(f"release {self.release!r} is unknown; known are {', '.join(RELEASES)}")
        if not 1 <= self.nodes <= MAX_NODES:
            raise UserError(f"a lab has 1 to {MAX_NODES} nodes, not {self.nodes}")
        if self.storage not in STORAGES:
            raise UserError(f"storage {self.storage!r} is unknown; known are {', '.join(STORAGES)}")


@dataclass(frozen=True, slots=True)
class State:
    """The paths of one lab. Two labs with two state directories do not meet."""

    path: Path

    @classmethod
    def from_environment(cls) -> State:
        return cls(Path(os.environ.get(VARIABLE) or DEFAULT).resolve())

    @property
    def name(self) -> str:
        """A name for what cannot lie in the state directory (cgroups): the same for the same directory."""
        if self.path == DEFAULT:
            return "snf-lab"
        return "snf-lab-" + hashlib.sha256(os.fsencode(self.path)).hexdigest()[:8]

    @property
    def cache(self) -> Path:
        return self.path / "cache"

    @property
    def images(self) -> Path:
        return self.cache / "images"

    @property
    def run(self) -> Path:
        return self.path / "run"

    @property
    def log(self) -> Path:
        return self.run / "log"

    @property
    def shared(self) -> Path:
        return self.run / "shared"

    @property
    def repo(self) -> Path:
        return self.run / "repo"

    @property
    def netns(self) -> Path:
        return self.run / "netns"

    @property
    def volumes(self) -> Path:
        return self.run / "volumes"

    @property
    def ceph(self) -> Path:
        return self.run / "ceph"

    def node(self, number: int) -> Path:
        return self.run / "nodes" / str(number)

    def make_folders(self) -> None:
        for folder in (self.images, self.log, self.shared, self.repo, self.netns):
            folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lab alone; raises EnvironmentFault when another command is changing it."""
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            with files.locked(self.path / "lock"):
                yield
        except EnvironmentFault as e:
            if "is locked" not in str(e):
                raise
            raise EnvironmentFault(
                f"another ./lab command is changing the lab in {self.path}; wait for it, or set {VARIABLE} "
                "to another directory for a second lab"
            ) from None

    def read_config(self) -> LabConfig | None:
        """What the lab in `run/` was asked to be; None when there is none."""
        try:
            content = files.read_bounded(self.run / "lab.json", limit=64 << 10)
        except FileNotFoundError:
            return None
        try:
            return LabConfig(**json.loads(content))
        except (ValueError, TypeError) as e:
            raise EnvironmentFault(f"{self.run}/lab.json is not readable ({e}); run ./lab down") from e

    def write_config(self, config: LabConfig) -> None:
        files.write_atomic(self.run / "lab.json", json.dumps(asdict(config)).encode() + b"\n")


def content_hash(*parts: str | bytes) -> str:
    """16 hex digits that differ when any part differs; parts cannot run into each other."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        digest.update(len(raw).to_bytes(8, "little") + raw)
    return digest.hexdigest()[:16]
