"""The engine's three tables, and the images behind them: how a thing is made, is read, and goes.

    making ──► ready ──► removing ──► no record            each arrow is one swap of the record

Making: 1 record (making), 2 the image, 3 record (ready): the commit point. Removing: 1 record (removing): the commit
point, 2 the image, 3 no record. Died in between: the record says what was going on, and whoever calls the same again
throws away what is half there, or goes on removing. What has no record is not ours and is never touched. Whoever takes
long to make something says now and then that it lives (`Beat`), so that `upkeep.py` does not take it for dead. Who
fails throws away what he made only while the record is still his: by its name the image may be another's by then.

An image that is removed while clones or snapshots need it gets the name `gone.` and its own id, as no image of others
is called: with snapshots of ours it stays under that name until the last is dropped, otherwise it goes to RBD's trash,
from where it is purged once no clone needs it any more. Died between the two, or while Ceph takes somebody who died for
alive: `upkeep.py` moves it there.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, Generic, TypeVar

from snf_extstorage.rados.images import Client, Images
from snf_extstorage.rados.record import (
    PLACES,
    BaseRecord,
    ClaimRecord,
    PlaceRecord,
    SnapshotRecord,
    Table,
    VolumeRecord,
)
from snf_extstorage.refusals import is_lent, refuse_other
from snf_extstorage.volume import Exists, InUse, NotFound, Trace
from synnefo_light.ceph import CephFault
from synnefo_light.errors import Error
from synnefo_light.store.rados_objects import Objects

GONE: Final = "gone."
#: How the origin of a volume begins that had another name before, and of one that is a clone of a volume.
ADOPTED: Final = "adopted from "
OF_VOLUME: Final = "volume "
#: The origin of one that was adopted and given back.
RETURNED: Final = "given back"
ATTEMPTS: Final = 20
#: Much less than what `upkeep.py` takes for dead.
BEAT_S: Final = 300.0

#: Called by what fills an image after each of its steps, none of which takes long.
Beat = Callable[[], None]
R = TypeVar("R", VolumeRecord, BaseRecord)


class _Making(Generic[R]):
    """A thing that is being made, by us."""

    def __init__(self, table: Table[R], name: str, record: R, trace: Trace) -> None:
        self._trace = trace
        self._table: Table[R] = table
        self._name = name
        self._record: R = record

    def beat(self) -> None:
        """Raises InUse when it was taken from us."""
        self._trace("fill")
        now = int(time.time())
        if now - self._record.made_s >= BEAT_S:
            self._swap(replace(self._record, made_s=now))

    def publish(self) -> None:
        """The commit point. Its age begins now. Raises InUse when it was taken from us."""
        self._swap(replace(self._record, state="ready", attempt="", made_s=int(time.time())))

    def give_up(self, throw_away: Callable[[], None] | None) -> None:
        """Raises InUse when it was taken from us, and throws nothing away then. Died in between, it is `removing`."""
        if throw_away is not None:
            self._swap(replace(self._record, state="removing"))
            throw_away()
        self._table.swap(self._name, self._record, None)

    def _swap(self, new: R) -> None:
        if not self._table.swap(self._name, self._record, new):
            raise InUse(f"{self._name} was made or removed by another process meanwhile; try again later")
        self._record = new


class Kept:
    """What is in one pool, for one engine."""

    def __init__(self, images: Images, *, trace: Trace, patience_s: float = 0.0) -> None:
        self.images = images
        self.trace = trace
        self._patience_s = patience_s
        objects = Objects(images.cluster, pool=images.pool, namespace=images.namespace)
        self.volumes = Table(objects, "snf.volumes", VolumeRecord)
        self.snapshots = Table(objects, "snf.snapshots", SnapshotRecord)
        self.bases = Table(objects, "snf.bases", BaseRecord)
        self.places = Table(objects, PLACES, PlaceRecord)

    @property
    def claims(self) -> Table[ClaimRecord]:
        """A new one each time: after an error in mid-write nothing more is written through the same."""
        images = self.images
        apart = Objects(images.cluster, pool=images.pool, namespace=images.namespace)
        return Table(apart, "snf.claims", ClaimRecord)

    # --- reading

    def volume(self, name: str) -> VolumeRecord:
        """Raises NotFound; also for one that is being made or removed."""
        found = self.volumes.get(name)
        if found is None or found.state != "ready":
            raise NotFound(f"there is no volume {name} in pool {self.images.place}")
        return found

    def snapshot(self, name: str) -> SnapshotRecord:
        """Raises NotFound."""
        found = self.snapshots.get(name)
        if found is None or found.state != "ready":
            raise NotFound(f"there is no snapshot {name} in pool {self.images.place}")
        return found

    def change_volume(self, name: str, change: Callable[[VolumeRecord], VolumeRecord]) -> VolumeRecord:
        """Swap a record for what `change` makes of it, again if somebody else was faster. Raises NotFound, InUse."""
        for _ in range(ATTEMPTS):
            found = self.volume(name)
            new = change(found)
            if new == found or self.volumes.swap(name, found, new):
                return new
        raise InUse(f"the record of volume {name} was changed by others {ATTEMPTS} times in a row; try again later")

    def free_volume(self, name: str, was: VolumeRecord) -> None:
        """It is no disk's any more. Raises InUse for any other record than the one that `was` looked at."""
        free = replace(was, uuid=None, holders=(), exclusive=False, opened=True, info="", formerly="", cluster="")
        if not self.volumes.swap(name, was, free):
            raise InUse(
                f"volume {name} is to be released, but another process opened, changed or removed it at the same "
                "time; try again"
            )

    # --- making

    def make_volume(
        self, name: str, wanted: VolumeRecord, fill: Callable[[Beat], None], *, looked: Callable[[], bool] | None = None
    ) -> None:
        """`fill` makes the image `name`. One as wanted that was never opened stays. Raises Exists, InUse.

        `looked`: what `Images.look_for` answers, of who has asked already. Much may be done since then, so it is asked
        again together with the record that says that the image is ours: died after that, it would be thrown away.
        """
        record = replace(wanted, state="making", attempt=secrets.token_hex(8), made_s=int(time.time()))
        there = looked() if looked is not None else self.images.is_there(name)
        self.trace("create record")
        again = self.images.look_for(name) if looked is not None else lambda: False
        found = None
        # Mostly there is no record, so nobody asks first.
        is_new = not there and self.volumes.swap(name, None, record)
        if not is_new:
            found = self.volumes.get(name)
            if found is not None and found.state == "removing":
                self.finish_removing(name, found)
                found = None
            if found is not None and found.state == "ready":
                refuse_other(name, found, wanted)
                return
            if found is None:
                self._require_no_image(name)
            elif found.origin.startswith(ADOPTED) and found.origin != wanted.origin:
                raise Exists(f"volume {name} is to be made, but it was being {found.origin}; finish that, or remove it")
            if not self.volumes.swap(name, found, record):
                raise InUse(f"volume {name} is being made by another process; try again later")
        making = _Making(self.volumes, name, record, self.trace)
        if is_new and again():
            if self.volumes.swap(name, record, None):
                raise self._not_ours(name)
            raise InUse(f"volume {name} is being made by another process; try again later")
        if found is not None:
            self._throw_away_half(name, found)
        self.trace("create image")
        try:
            fill(making.beat)
        except Error as e:
            # What was adopted is not ours to throw away.
            adopted = record.origin.startswith(ADOPTED)
            throw_away = None if adopted else lambda: self._throw_away(name, record)
            self._give_up(making, throw_away, e, anew=adopted or found is None)
            raise
        self.trace("create publish")
        making.publish()
        self.trace("create done")

    def make_base(self, key: str, size: int, fill: Callable[[str, Beat], None]) -> None:
        """`fill` makes the image it is given the name of, with its snapshot. One that is ready stays.

        One whose image is gone is made anew. Raises InUse while another process composes it.
        """
        name = base_image(key)
        found = self.bases.get(key)
        if found is not None and found.state == "making":
            what = f"the base of map {key} is to be made, but {{}} composes it already; try again later"
            self.wait_for_clients(name, what)
            found = self.bases.get(key)
        if found is not None and found.state == "ready" and self.images.is_there(name):
            return
        if found is None:
            self._require_no_image(name)
        record = BaseRecord(state="making", size=size, attempt=secrets.token_hex(8), made_s=int(time.time()))
        self.trace("compose record")
        if not self.bases.swap(key, found, record):
            raise InUse(f"the base of map {key} is being made or removed by another process; try again later")
        making = _Making(self.bases, key, record, self.trace)
        if found is not None:
            self.dispose(name)
        self.trace("compose image")
        try:
            fill(name, making.beat)
        except Error as e:
            self._give_up(making, lambda: self.dispose(name), e, anew=found is None)
            raise
        self.trace("compose publish")
        making.publish()
        self.trace("compose done")

    def _give_up(self, making: _Making[R], throw_away: Callable[[], None] | None, why: Error, *, anew: bool) -> None:
        """Leave nothing half made, unless Ceph does not answer, or the image is somebody else's.

        Who took something over (not `anew`) and finds an image there met the one who made it before, and who lives:
        the record stays `making`, without which nobody would take that image for ours.
        """
        theirs = isinstance(why, Exists)
        if isinstance(why, CephFault) or (theirs and not anew):
            return
        with contextlib.suppress(Error):
            making.give_up(None if theirs else throw_away)

    def has_base(self, key: str) -> bool:
        """Whether it is ready, and its image there."""
        found = self.bases.get(key)
        return found is not None and found.state == "ready" and self.images.is_there(base_image(key))

    def wait_for_clients(self, name: str, what: str, *, counts: Callable[[Client], bool] = lambda _: True) -> None:
        """Until none that `counts` has the image open; for a while, for Ceph takes who was killed for alive.

        Raises InUse: `what`, with the client's address for {}.
        """
        deadline = time.monotonic() + self._patience_s
        with contextlib.suppress(NotFound):
            while found := [client for client in self.images.clients(name, holding=False) if counts(client)]:
                if time.monotonic() > deadline:
                    raise InUse(what.replace("{}", found[0].address))
                time.sleep(1)

    def refuse_users(self, name: str, record: VolumeRecord | None, *, node: str, wanted: str = "removed") -> None:
        """Raises InUse while another node is written down as a writer, or anybody has the image open.

        `wanted`: what the volume is to be, for people.
        """
        others = [holder for holder in (record.holders if record else ()) if holder != node]
        if others:
            raise InUse(f"volume {name} is to be {wanted}, but {others[0]} has it open; close it there first")
        self.wait_for_clients(name, f"volume {name} is to be {wanted}, but {{}} has it open; stop who uses it")

    def _throw_away_half(self, name: str, record: VolumeRecord) -> None:
        """What was adopted is not ours to throw away."""
        if not record.origin.startswith(ADOPTED):
            self._throw_away(name, record)

    def _throw_away(self, name: str, record: VolumeRecord) -> None:
        """The image, and what was made for it in the volume that it is a clone of."""
        self.dispose(name)
        if record.origin.startswith(OF_VOLUME):
            self.drop_clones_snapshot(record.origin.removeprefix(OF_VOLUME), name)

    def drop_clones_snapshot(self, volume: str, name: str) -> None:
        """The clone `name` keeps what it needs of it. Succeeds when it, or the volume, is gone."""
        with contextlib.suppress(NotFound), self.images.opened(volume, read_only=False) as image:
            self.images.drop_snapshot(image, clones_snapshot(name))

    def _require_no_image(self, name: str) -> None:
        if self.images.is_there(name):
            raise self._not_ours(name)

    def _not_ours(self, name: str) -> Exists:
        return Exists(
            f"{name} is to be made, but pool {self.images.place} has an image of that name that is not ours; "
            "remove it, or adopt it"
        )

    # --- removing

    def remove_volume(self, name: str, found: VolumeRecord) -> None:
        if found.state != "removing":
            self.trace("remove record")
            gone = replace(found, state="removing")
            if not self.volumes.swap(name, found, gone):
                raise InUse(f"volume {name} was changed by another process while it was to be removed; try again")
            found = gone
        self.finish_removing(name, found)

    def finish_removing(self, name: str, found: VolumeRecord) -> None:
        self.trace("remove image")
        if self.volumes.get(name) == found:
            if is_lent(name, found):
                self._give_back(name, found)
            else:
                self._throw_away(name, found)
        self.trace("remove done")
        self.volumes.swap(name, found, None)
        self.images.empty_trash(prefix=GONE)

    def _give_back(self, name: str, found: VolumeRecord) -> None:
        """What was adopted and not used gets its old name and a record of its own, as no disk's."""
        source = found.formerly
        with contextlib.suppress(NotFound):  # renamed already, by who died; or never, if the adoption did
            self.images.rename(name, source)
        self.trace("return record")
        free = VolumeRecord(
            state="ready", uuid=None, size=found.size, origin=RETURNED, map=found.map, opened=True, made_s=found.made_s
        )
        if self.images.is_there(source) and self.volumes.get(source) is None:
            self.volumes.swap(source, None, free)

    def remove_base(self, key: str) -> None:
        found = self.bases.get(key)
        if found is None:
            return
        gone = replace(found, state="removing")
        self.trace("remove record")
        if found.state != "removing" and not self.bases.swap(key, found, gone):
            raise InUse(f"the base of map {key} was changed by another process while it was to be removed; try again")
        self.trace("remove image")
        if self.bases.get(key) == gone:
            self.dispose(base_image(key))
        self.trace("remove done")
        self.bases.swap(key, gone, None)

    def dispose(self, name: str) -> None:
        """Give the image's name free: it is removed, or kept apart for who still needs it. Absent is fine."""
        try:
            with self.images.opened(name, read_only=False) as image:
                identity = str(image.id())
                needed = self.snapshots_of(identity)
                self._drop_unneeded(image, needed)
        except NotFound:
            # Ceph itself makes an image in several steps; a name without an image is what a maker leaves in between.
            with contextlib.suppress(NotFound):
                self.images.remove(name)
            return
        with contextlib.suppress(NotFound):
            # Ceph takes a client that was killed for alive for half a minute, and does not remove what it has open.
            with contextlib.suppress(InUse):
                if not needed and self.images.remove(name):
                    return
            kept = f"{GONE}{identity}"
            if name != kept:
                self.images.rename(name, kept)
            self.trace("dispose renamed")
            with contextlib.suppress(InUse):
                if not needed:
                    self.images.discard(kept)

    def snapshots_of(self, identity: str) -> set[str]:
        """Names of our snapshots of an image, also of those that are being made, and all that cannot be read."""
        found = {name for name, record in self.snapshots.items() if record.image == identity}
        return found | {name for name, _ in self.snapshots.damaged()}

    def _drop_unneeded(self, image: Any, needed: set[str]) -> None:
        for snapshot in self.images.user_snapshots(image):
            if snapshot not in needed:
                self.images.drop_snapshot(image, snapshot)


def base_image(key: str) -> str:
    return f"base.{key}"


def clones_snapshot(name: str) -> str:
    """What a volume is frozen as for a moment, to clone it as `name`."""
    return f"clone.{name}"
