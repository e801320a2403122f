"""/etc/synnefo-light/snf-store.toml: where volumes and the store are, and which engine keeps them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from synnefo_light import config

FILE: Final = config.FOLDER / "snf-store.toml"
#: Another file; Ganeti passes no such variable, tests do.
VARIABLE: Final = "SNF_STORE_CONFIG"


@dataclass(frozen=True, slots=True, kw_only=True)
class CephSettings:
    """For the engine `rados`: the table [ceph]."""

    conf: Path = Path("/etc/ceph/ceph.conf")
    #: client.USER, whose keyring the configuration names.
    user: str = "ganeti"
    pool: str = "volumes"
    namespace: str = ""
    #: Another pool for the images' data, as an erasure-coded one. Empty: the same.
    data_pool: str = ""
    #: Of a volume's objects: what the first write into a fresh clone copies.
    object_kib: int = 1024
    #: The store of images: objects in this pool and namespace.
    store_pool: str = "store"
    store_namespace: str = "snf-store"
    #: Attach through the kernel's driver, as a device, instead of telling QEMU a URI.
    krbd: bool = False
    #: Whether Ganeti reads `:id=USER` in a URI; without it, QEMU is client.admin, and `user` must be admin.
    #: As a rule 3.0 does, 3.1 does not.
    user_in_uri: Literal["auto", "always", "never"] = "auto"

    def __post_init__(self) -> None:
        if self.object_kib not in (2**n for n in range(2, 16)):
            raise ValueError(f"object_kib is {self.object_kib}, which is not a power of two from 4 to 32768")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    engine: Literal["directory", "rados"] = "directory"
    folder: Path = Path("/srv/snf-store")
    #: Percent of the file system that only guests' writes may use.
    reserve_percent: int = 5
    #: Percent of free space below which an event says so.
    warning_percent: int = 20
    critical_percent: int = 10
    #: How much of a shared extent becomes the volume's own at its first write.
    cow_extent_kib: int = 1024
    #: Where this node remembers its loop devices; must be empty after a boot.
    run: Path = Path("/run/snf-extstorage")
    #: The node's name in records: who may write. Empty: the host's.
    node: str = ""
    #: The program that brings and converts images.
    snf_image: str = "snf-image"
    ceph: CephSettings = CephSettings()

    def __post_init__(self) -> None:
        if not self.folder.is_absolute():
            raise ValueError(f"folder is {str(self.folder)!r}, which is not an absolute path")
        if not 0 <= self.reserve_percent <= 50:
            raise ValueError(f"reserve_percent is {self.reserve_percent}, which is not from 0 to 50")
        if not 0 <= self.critical_percent <= self.warning_percent <= 90:
            raise ValueError(
                f"critical_percent is {self.critical_percent} and warning_percent {self.warning_percent}, which are "
                "not from 0 to 90 in this order"
            )
        if not 4 <= self.cow_extent_kib <= 65536:
            raise ValueError(f"cow_extent_kib is {self.cow_extent_kib}, which is not from 4 to 65536")

    @property
    def node_name(self) -> str:
        return self.node or os.uname().nodename


def settings_file() -> Path:
    return Path(os.environ.get(VARIABLE) or FILE)


def load_settings(file: Path | None = None) -> Settings:
    """Raises ConfigError naming the file and the key."""
    return config.load(file or settings_file(), Settings)
