"""A pool of RBD images in memory: what the engine's tables need of it, and no more."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from snf_extstorage.rados.images import Client
from snf_extstorage.volume import Exists, NotFound


class EntriesInMemory:
    """As `Objects`: the omaps that the tables are in."""

    def __init__(self) -> None:
        self.lines: dict[tuple[str, str], str] = {}

    def read_entry(self, name: str, key: str) -> str:
        return self.lines.get((name, key), "")

    def entries(self, name: str) -> Iterator[list[tuple[str, str]]]:
        yield [(key, line) for (table, key), line in list(self.lines.items()) if table == name]

    def swap_entry(self, name: str, key: str, new: str, *, value: str) -> bool:
        if self.read_entry(name, key) != value:
            return False
        self.lines[name, key] = new
        return True

    def remove_entry(self, name: str, key: str, *, value: str) -> bool:
        if not value or self.read_entry(name, key) != value:
            return False
        del self.lines[name, key]
        return True


@dataclass
class _Image:
    identity: str

    def id(self) -> str:
        return self.identity


@dataclass
class PoolInMemory:
    """As `Images`. `there`: each image's id by its name; `using`: who has one open."""

    there: dict[str, str] = field(default_factory=dict)
    using: dict[str, list[str]] = field(default_factory=dict)
    made: int = 0
    cluster: object = None
    pool: str = "volumes"
    namespace: str = ""
    place: str = "volumes"

    def create(self, name: str) -> None:
        if name in self.there:
            raise Exists(f"there is an image {name}")
        self.made += 1
        self.there[name] = f"id{self.made}"

    def is_there(self, name: str) -> bool:
        return name in self.there

    def look_for(self, name: str) -> Callable[[], bool]:
        there = name in self.there
        return lambda: there

    def names(self) -> list[str]:
        return list(self.there)

    def identities(self) -> dict[str, str]:
        return dict(self.there)

    def remove(self, name: str) -> bool:
        if name not in self.there:
            raise NotFound(f"there is no image {name}")
        del self.there[name]
        return True

    @contextlib.contextmanager
    def opened(self, name: str, *, read_only: bool = True) -> Iterator[_Image]:
        if name not in self.there:
            raise NotFound(f"there is no image {name}")
        yield _Image(self.there[name])

    def user_snapshots(self, image: _Image) -> dict[str, int]:
        return {}

    def empty_trash(self, *, prefix: str) -> int:
        return 0

    def clients(self, name: str, *, holding: bool = True) -> tuple[Client, ...]:
        with self.opened(name):
            return tuple(Client(address=address) for address in self.using.get(name, []))
