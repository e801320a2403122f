"""RBD images of one pool and namespace: each act with a time limit, each error as the engine says it.

librbd waits for whoever holds an image's lock, and a node that died holds one for half a minute; so nothing here is
called without a limit, and what did not end within it is left behind in its thread (see `synnefo_light.ceph.bounded`).
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from snf_extstorage.volume import Exists, InUse, NoSpace, NotFound, Trace
from synnefo_light import ceph

LIMIT_S: Final = 90.0
#: RBD's own: what another client may need to answer, or to be given up.
_SNAPSHOT_OF_USER: Final = 0
#: What diff_iterate leaves out or tells wrong when these are set: RBD_FLAG_OBJECT_MAP_INVALID, _FAST_DIFF_INVALID.
_MAP_INVALID: Final = 1 | 2

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Who has an image open, or its lock: an address like 10.0.0.1:0/123456."""

    address: str

    @property
    def host(self) -> str:
        return re.sub(r"^v[12]:", "", self.address).rpartition("/")[0].rpartition(":")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    image: str  # its id
    name: str
    snapshot: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    """A snapshot as it was taken."""

    number: int  # RBD's
    size: int


#: What was asked of Ceph and nobody has waited for. The bindings call back into Python from a thread of librados; where
#: Python is ending, that ends the process by SIGABRT.
_ASKED: Final[set[Any]] = set()


@atexit.register
def _wait_for_callbacks() -> None:
    """Each ends by the time limit of what is asked of OSDs."""
    for one in _ASKED:
        one.wait_for_complete_and_cb()


class Images:
    def __init__(
        self,
        cluster: ceph.Cluster,
        *,
        pool: str,
        namespace: str = "",
        data_pool: str | None = None,
        object_size: int | None = None,
        features: int | None = None,
        limit_s: float = LIMIT_S,
    ) -> None:
        self.cluster = cluster
        self.pool = ceph.check_word(pool, what="pool")
        self.namespace = ceph.check_word(namespace, what="namespace") if namespace else ""
        self._data_pool = ceph.check_word(data_pool, what="data pool") if data_pool else None
        self._order = object_size.bit_length() - 1 if object_size else None
        self._features = features
        self._limit_s = limit_s
        self._rbd: Any = ceph.load("rbd")
        self._rados: Any = ceph.load("rados")
        self._opened: Any = None

    @property
    def place(self) -> str:
        return f"{self.pool}/{self.namespace}" if self.namespace else self.pool

    @property
    def io(self) -> Any:
        if self._opened is None:
            self._opened = self.cluster.open_pool(self.pool, self.namespace)
        return self._opened

    def ask(self, asked: str, act: Callable[[], T], *, limit_s: float | None = None) -> T:
        """Do it, within the time limit. Raises NotFound, Exists, InUse, NoSpace, CephFault."""
        limit_s = limit_s or self._limit_s
        io = self.io  # connecting has a limit of its own
        assert io is not None
        try:
            return ceph.bounded(act, f"{asked} in pool {self.place}", timeout_s=limit_s)
        except self._rbd.Error as e:
            raise self._said(e, asked) from e

    def _said(self, error: Exception, asked: str) -> Exception:
        number, told = ceph.error_number(error), f"asked to {asked} in pool {self.place}, Ceph answered: {error}"
        kinds: dict[int, Callable[[str], Exception]] = {
            errno.ENOENT: NotFound,
            errno.EEXIST: Exists,
            errno.EBUSY: InUse,
            errno.ENOSPC: NoSpace,
            errno.EDQUOT: NoSpace,
        }
        return kinds[number](told) if number in kinds else ceph.explain(error, asked, self.cluster.access)

    # --- images by name

    def create(self, name: str, size: int) -> None:
        kept = {"order": self._order, "features": self._features, "data_pool": self._data_pool}
        self.ask(f"create the image {name}", lambda: self._rbd.RBD().create(self.io, name, size, **kept))

    def clone(self, parent: str, snapshot: str, name: str) -> None:
        """Clone v2 (set for the connection): the parent's snapshot needs no protection and may go before the clone."""
        kept = {"order": self._order, "features": self._features, "data_pool": self._data_pool}
        if self._order:
            # Else the parent's stripe unit, which a smaller object cannot hold.
            kept |= {"stripe_unit": 1 << self._order, "stripe_count": 1}
        self.ask(
            f"clone {parent}@{snapshot} as {name}",
            lambda: self._rbd.RBD().clone(self.io, parent, snapshot, self.io, name, **kept),
        )

    def rename(self, name: str, new: str) -> None:
        self.ask(f"rename the image {name} to {new}", lambda: self._rbd.RBD().rename(self.io, name, new))

    def remove(self, name: str) -> bool:
        """False when it has snapshots, which clones may still read. Raises NotFound, and InUse for one that is open."""

        def act() -> bool:
            try:
                self._rbd.RBD().remove(self.io, name)
            except self._rbd.ImageHasSnapshots:
                return False
            return True

        return self.ask(f"remove the image {name}", act)

    def names(self) -> list[str]:
        return list(self.identities())

    def identities(self) -> dict[str, str]:
        """Each image's id by its name; "" for one of RBD's first format, which has none."""

        def act() -> dict[str, str]:
            return {str(one["name"]): str(one["id"]) for one in self._rbd.RBD().list2(self.io)}

        return self.ask("list the images", act)

    def is_there(self, name: str) -> bool:
        return self.look_for(name)()

    def look_for(self, name: str) -> Callable[[], bool]:
        """Ask whether there is an image of that name, and go on; the answer is waited for when it is called for.

        By the object that gives a name its image (RBD's two formats): opening one that is there takes far longer.
        """
        with self._explained(f"look for the image {name}"):
            asked = [self.io.aio_stat(key, lambda *_: None) for key in (f"rbd_id.{name}", f"{name}.rbd")]
        _ASKED.update(asked)

        def answer() -> bool:
            with self._explained(f"look for the image {name}"):
                for one in asked:
                    one.wait_for_complete_and_cb()
                _ASKED.difference_update(asked)
                numbers = {one.get_return_value() for one in asked}
                for failed in numbers - {0, -errno.ENOENT}:
                    raise self._rados.OSError("the object cannot be looked at", errno=-failed)
            return 0 in numbers

        return answer

    @contextlib.contextmanager
    def _explained(self, asked: str) -> Iterator[None]:
        """For what is asked of monitors and OSDs without librbd, which have a time limit of their own."""
        try:
            yield
        except self._rados.Error as e:
            raise ceph.explain(e, asked, self.cluster.access) from e

    @contextlib.contextmanager
    def opened(
        self, name: str | None = None, *, image: str | None = None, number: int | None = None, read_only: bool = True
    ) -> Iterator[Any]:
        """A `rbd.Image`, by its name or its id, at the snapshot with this number. Raises NotFound."""
        shown = name or f"with the id {image}"

        def act() -> Any:
            found = self._rbd.Image(self.io, name=name, image_id=image, read_only=read_only)
            if number is not None:
                found.set_snap_by_id(number)
            return found

        found = self.ask(f"open the image {shown}", act)
        try:
            yield found
        finally:
            with contextlib.suppress(ceph.CephFault):
                self.ask(f"close the image {shown}", found.close)

    # --- the trash: images whose clones still need them

    def discard(self, name: str) -> None:
        """Move an image to the trash at once, where `empty_trash` finds it when no clone needs it any more."""
        self.ask(f"move the image {name} to the trash", lambda: self._rbd.RBD().trash_move(self.io, name, 0))

    def empty_trash(self, *, prefix: str, at_most: int = 20) -> int:
        """Remove images in the trash that no clone needs, those alone whose name was this and their id; how many."""

        def act() -> int:
            gone = 0
            listed = self._rbd.RBD().trash_list(self.io)
            for entry in [one for one in listed if one["name"] == f"{prefix}{one['id']}"][:at_most]:
                with contextlib.suppress(
                    self._rbd.ImageHasSnapshots,
                    self._rbd.ImageBusy,
                    self._rbd.ImageNotFound,
                    self._rbd.PermissionError,
                ):
                    self._rbd.RBD().trash_remove(self.io, entry["id"])
                    gone += 1
            return gone

        return self.ask("empty the trash", act)

    def resize(self, name: str, size: int) -> None:
        """Also while somebody has it open, who is told. Does nothing when it has that size."""
        with self.opened(name, read_only=False) as image:
            if image.size() != size:
                self.ask(f"grow {name}", lambda: image.resize(size))

    def space(self) -> tuple[int, int]:
        """Bytes of the cluster in all and free; zero both when it has no manager daemon, which counts them."""
        with self._explained("say how much space there is"):
            stats = self.cluster.connect().get_cluster_stats()
        return stats["kb"] * 1024, stats["kb_avail"] * 1024

    # --- snapshots of an open image

    def user_snapshots(self, image: Any) -> dict[str, int]:
        """Those with a name that somebody gave, with their numbers; not those that exist only for clones or groups."""
        return self.ask(
            "list the snapshots",
            lambda: {s["name"]: s["id"] for s in image.list_snaps() if s["namespace"] == _SNAPSHOT_OF_USER},
        )

    def any_snapshots(self, image: Any) -> dict[str, int]:
        """All, with those that are kept for clones alone, under the names that clones know them by."""
        return self.ask("list the snapshots", lambda: {s["name"]: s["id"] for s in image.list_snaps()})

    def take_snapshot(self, image: Any, name: str) -> Frozen:
        """Raises Exists."""

        def act() -> list[Frozen]:
            image.create_snap(name)
            return [
                Frozen(number=s["id"], size=s["size"])
                for s in image.list_snaps()
                if s["name"] == name and s["namespace"] == _SNAPSHOT_OF_USER
            ]

        found = self.ask(f"take the snapshot {name}", act)
        if not found:
            raise InUse(f"the snapshot {name} was dropped by another process while it was made")
        return found[0]

    def drop_snapshot(self, image: Any, name: str) -> None:
        """Succeeds when it is gone. What clones need of it stays, out of sight."""
        with contextlib.suppress(NotFound):
            self.ask(f"drop the snapshot {name}", lambda: image.remove_snap(name))

    # --- several images in one cut

    def cut(self, group: str, names: list[str], trace: Trace) -> dict[str, Frozen]:
        """Snapshots of all of them with no write in between. The group keeps them together."""
        rbd = self._rbd

        def act() -> None:
            rbd.RBD().group_create(self.io, group)
            together = rbd.Group(self.io, group)
            trace("cut group")
            for name in names:
                together.add_image(self.io, name)
                trace("cut joined")
            together.create_snap(group)
            trace("cut taken")
            # An image is in one group at most; the snapshots stay with this one.
            for name in names:
                together.remove_image(self.io, name)

        try:
            self.ask(f"cut {len(names)} images together", act)
        except BaseException:
            with contextlib.suppress(NotFound):
                self.drop_cut(group)
            raise
        return {name: self._of_group(name, group) for name in names}

    def group_of(self, image: Any) -> str:
        """Name of the group that an open image is in; "": none."""
        return self.ask("tell the group", lambda: str(image.group()["name"]))

    def leave_group(self, group: str, name: str) -> None:
        with contextlib.suppress(NotFound):
            self.ask(
                f"take {name} out of the group {group}",
                lambda: self._rbd.Group(self.io, group).remove_image(self.io, name),
            )

    def drop_cut(self, group: str) -> None:
        """Succeeds when it is gone."""
        rbd = self._rbd

        def act() -> None:
            together = rbd.Group(self.io, group)
            with contextlib.suppress(rbd.ObjectNotFound, rbd.ImageNotFound):
                together.remove_snap(group)
            rbd.RBD().group_remove(self.io, group)

        with contextlib.suppress(NotFound):
            self.ask(f"drop the cut {group}", act)

    def _of_group(self, name: str, group: str) -> Frozen:
        with self.opened(name) as image:

            def act() -> list[Frozen]:
                found = [s for s in image.list_snaps() if s.get("group", {}).get("name") == group]
                return [Frozen(number=s["id"], size=s["size"]) for s in found]

            frozen = self.ask("find the snapshot of the cut", act)
        if not frozen:
            raise InUse(f"volume {name} was to be cut, but another process cuts it at the same time; try again")
        return frozen[-1]

    # --- what changed

    def parent(self, image: Any) -> Parent | None:
        def act() -> Parent | None:
            try:
                _, name, snapshot = image.parent_info()
                return Parent(image=image.parent_id(), name=name, snapshot=snapshot)
            except self._rbd.ImageNotFound:
                return None

        return self.ask("read the parent", act)

    def changed(self, image: Any, *, since: str | None, with_parents: bool) -> list[tuple[int, int]] | None:
        """Parts (start, length) that an image, or its snapshot, wrote since an earlier snapshot or since it was cloned.

        By whole objects, from the object map, without reading data. None: there is no object map to be trusted, and
        without one what a clone discarded would be left out.
        """

        def act() -> list[tuple[int, int]] | None:
            wanted = self._rbd.RBD_FEATURE_OBJECT_MAP | self._rbd.RBD_FEATURE_FAST_DIFF
            if image.features() & wanted != wanted or image.flags() & _MAP_INVALID:
                return None
            parts: list[tuple[int, int]] = []
            image.diff_iterate(
                0, image.size(), since, lambda start, length, there: parts.append((start, length)), with_parents, True
            )
            return parts

        return self.ask("tell what changed", act)

    # --- who uses an image

    def clients(self, name: str, *, holding: bool = True) -> tuple[Client, ...]:
        """All that have it open, without ourselves; `holding`: and who holds its lock, dead or alive. Raises NotFound.

        Who died is taken for one that has it open for half a minute, and for the lock's holder until it is broken.
        """
        with self.opened(name) as image:

            def act() -> set[str]:
                lockers = (image.list_lockers() or {}) if holding else {}
                found = {address for _, _, address in lockers.get("lockers", ())}
                return found | {watcher["addr"] for watcher in image.watchers_list()}

            addresses = self.ask(f"list who uses {name}", act)
        return tuple(Client(address=address) for address in sorted(addresses - {self.own_address()}))

    def own_address(self) -> str:
        return str(self.cluster.connect().get_addrs())
