"""What an engine does with volumes: the contract between providers, snf-store and the engines behind them.

A *volume* is a disk of an instance. A *base* is an image of the store in the engine's own form, composed once and never
written again. A *snapshot* is a frozen volume: clones come from it at once, and `commit` makes it a map of the store.

    store: map ──compose──► base ──clone──► volume ──snapshot──► snapshot ──commit──► store: map
                                               ▲                     │
                                               └───────clone─────────┘

Promises that every engine keeps:

- Each operation has one commit point, and may be called again after a crash to reach the same end; its docstring or
  module says what a crash leaves. The order is: data, then what refers to it, then its name, then the answer.
- A volume that exists is whole: nobody sees one half made. What it never wrote reads as its origin, or as zeros.
- At most one node writes: see `open`. `attach` alone never makes a node a writer.
- Clones outlive whatever they came from, and removing those never changes a clone.
- Nothing below the reserve: create, clone, adopt, snapshot, compose and commit are refused (NoSpace) before they would
  fill what running guests need. What writes data looks again while it does, and ends when others have taken the room.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NewType, Protocol

from synnefo_light.errors import EnvironmentFault, UserError
from synnefo_light.ganeti import VolumeName
from synnefo_light.units import Bytes

if TYPE_CHECKING:
    # Ganeti calls scripts often, and most need nothing of the store.
    from synnefo_light.store.commit import Commit
    from synnefo_light.store.identity import MapId
    from synnefo_light.store.maps import Map

#: The name of a snapshot: the alphabet of a VolumeName, a name space of its own.
SnapshotName = NewType("SnapshotName", str)

#: Called with the name of each step before it is taken, so that a test can die there or let another node act.
Trace = Callable[[str], None]


def no_trace(step: str) -> None:
    pass


#: As long as this is entered, nobody writes.
Still = AbstractContextManager[object]
#: Whoever writes goes on.
RUNNING: Still = nullcontext()

#: How many nodes may have a volume open: the two ends of a live migration.
SHARED_LIMIT = 2


class NotFound(UserError):
    """No volume, snapshot or base of that name."""


class Exists(UserError):
    """There is one of that name, and it is not what was asked for."""


class SizeRefused(UserError):
    """A clone smaller than its origin, or a volume that should shrink."""


class InUse(EnvironmentFault):
    """Somebody has the volume open: a process on this node, or another node that may write."""


class NoSpace(EnvironmentFault):
    """It would go below the reserve."""


class Damaged(EnvironmentFault):
    """What is written down of one volume, snapshot or base cannot be read; that of others may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FromBase:
    """An image of the store, which was composed before: `clone` raises NotFound when it was not."""

    map: MapId


@dataclass(frozen=True, slots=True, kw_only=True)
class FromSnapshot:
    snapshot: SnapshotName


@dataclass(frozen=True, slots=True, kw_only=True)
class FromVolume:
    """A volume as it is now: what was written and flushed is in the clone, as after a power cut."""

    volume: VolumeName


Origin = FromBase | FromSnapshot | FromVolume


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """A part of a volume, in bytes."""

    start: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """Of the whole file system or cluster, whoever uses it. Both 0: nobody counts."""

    total: Bytes
    free: Bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """Where a volume is to be found on this node; at least one of the two."""

    device: str | None  # a block device's path
    uris: tuple[str, ...] = ()  # "kvm:" and what QEMU opens; the same on every node

    def stdout(self) -> str:
        """What Ganeti reads of attach. A lone newline would count as attached, without a path and without a URI."""
        if self.device is None and not self.uris:
            raise ValueError("an attachment needs a device or a URI")
        return "\n".join([self.device or "", *self.uris])


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeFacts:
    """What an engine knows of one volume."""

    name: VolumeName
    uuid: str | None  # Ganeti's VOL_UUID at create
    size: Bytes
    origin: MapId | None  # the map whose content it began as, or that was copied onto it
    generation: int  # rises with each change of who may write
    info: str  # Ganeti's VOL_METADATA
    holders: tuple[str, ...]  # nodes that may write
    exclusive: bool  # one alone, until it closes
    stored: Bytes | None  # what it takes; shared with others or not. None: the engine cannot say
    extents: int | None  # the more, the slower a snapshot. None: does not apply
    cluster: str = ""  # Ganeti's, that it was made for; "": not known


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotFacts:
    name: SnapshotName
    volume: str  # what was frozen
    size: Bytes
    origin: MapId | None  # the map whose content the volume began as: what a commit compares with


class Volumes(Protocol):
    """An engine: the volumes, snapshots and bases of one place, as seen from this node."""

    #: Whether `snapshot` of several running volumes is one cut without their guest being stopped meanwhile.
    cuts_together: bool
    #: Whether `reset` costs no more than a clone; where not, whoever wants it copies.
    resets: bool

    def create(self, name: VolumeName, *, uuid: str | None, size: Bytes) -> None:
        """A volume of zeros. Succeeds if it is there already, with this uuid and size, no origin and never opened.

        Raises Exists, NoSpace.
        """
        ...

    def clone(self, origin: Origin, name: VolumeName, *, uuid: str | None, size: Bytes) -> None:
        """A volume that begins as its origin and goes on with zeros; copies no data where the engine can share.

        Succeeds as `create` does, if the origin is the same too. Raises NotFound, Exists, SizeRefused, NoSpace.
        """
        ...

    def adopt(self, source: VolumeName, name: VolumeName, *, uuid: str | None, size: Bytes) -> None:
        """Take over what the engine has under another name, `source`, as a volume.

        Raises NotFound, InUse, Exists, SizeRefused, and UserError for what is another disk's, or the engine's own.
        """
        ...

    def release(self, name: VolumeName) -> None:
        """It is no disk's any more, and may be adopted by another; its content stays. A second call does nothing more.

        Raises NotFound, and InUse while it is open or attached anywhere.
        """
        ...

    def set_cluster(self, name: VolumeName, cluster: str) -> None:
        """Write down the name of the Ganeti that it belongs to. Raises NotFound."""
        ...

    def snapshot(self, cut: Mapping[VolumeName, SnapshotName], *, still: Still = RUNNING) -> None:
        """Freeze these volumes under these names. Raises NotFound, Exists, NoSpace; then none of them is there.

        `still` is entered when all is prepared and left as soon as the cut is made: who writes stands still for no
        more than that. If leaving it raises, none of the snapshots is there.
        """
        ...

    def flush(self, names: Iterable[VolumeName]) -> None:
        """Write out what this node has cached of them, so that a snapshot has less to do. Raises NotFound."""
        ...

    def drop_snapshot(self, name: SnapshotName) -> None:
        """Succeeds when it is gone, clones or not."""
        ...

    def dirty(self, source: SnapshotName, since: MapId | None) -> Iterator[Extent]:
        """What may differ from a map, in order and not touching; all that may hold data if `since` is None.

        A part left out is certainly the same (or zeros, if None). Without the means to know, everything is dirty.
        Raises NotFound.
        """
        ...

    def commit(self, source: SnapshotName, into: Commit, since: MapId | None) -> MapId:
        """Put what differs from `since` into the store and finish; the map is what the snapshot reads as, durably.

        The caller has opened `into` with the snapshot's size and with `since`, the parent, kept by a pin (or None: all
        of it), and publishes the map under `into.held` afterwards. Doing it all again ends with the same map. An
        engine that can share makes the base of the map as well; then the snapshot is needed no more.
        Raises NotFound, NoSpace.
        """
        ...

    def claim(self, source: SnapshotName, *, wait_s: float) -> AbstractContextManager[None]:
        """Nobody else, on any node, claims this snapshot meanwhile. Raises InUse after that long.

        Who dies holds it for a few minutes at most. Two that commit the same end with the same map; this only spares
        the second his work.
        """
        ...

    def compose(self, content: Map) -> None:
        """Make the base of a map, durably; one that is there stays. Raises NoSpace.

        The caller keeps the map by a pin for as long as there is a base: it is the parent that commits refer to.
        """
        ...

    def register(self, source: int, size: Bytes, into: Commit) -> MapId:
        """Make a map of an open file's bytes and the base of that map at once, durably. Raises NoSpace.

        The caller has opened `into` with this size and no parent, then keeps and publishes the map as with `compose`
        and `commit`. Bytes beyond the file's end are zeros.
        """
        ...

    def age_s(self, kind: Literal["snapshots", "bases"], name: str) -> float:
        """Seconds since it was made, by the clock of this node. Raises NotFound."""
        ...

    def drop_base(self, map: MapId) -> None:
        """Succeeds when it is gone. Only the collector calls this."""
        ...

    def grow(self, name: VolumeName, new: Bytes) -> None:
        """The volume and, where it is attached on this node, its device. Raises NotFound, SizeRefused.

        Succeeds if it has that size already. What is new reads as zeros.
        """
        ...

    def attach(self, name: VolumeName) -> Attachment:
        """Make it usable on this node; the same answer when it is so already. Takes no lock. Raises NotFound."""
        ...

    def detach(self, name: VolumeName) -> None:
        """Undo attach, and close. Succeeds when not attached or gone. Raises InUse if a process holds the device."""
        ...

    def open(self, name: VolumeName, *, exclusive: bool) -> None:
        """Make this node a writer. Succeeds when it is one; changes between the two ways in place. Raises NotFound.

        Shared, up to SHARED_LIMIT nodes may have it, and InUse is raised while another has it exclusively. Exclusively
        it takes the volume from whoever has it: Ganeti asks for that when the other node closed, or is dead. So
        the other is fenced first: whatever it still writes reaches nobody. Raises an Error if that cannot be done.
        """
        ...

    def close(self, name: VolumeName) -> None:
        """This node is no writer any more. Succeeds when it was none, or the volume is gone."""
        ...

    def remove(self, name: VolumeName, *, deserted: bool = False) -> None:
        """Succeeds when it is gone. Raises InUse while it is attached anywhere or another node has it open.

        An adopted one that was opened at most once gets its old name back instead, as no disk's; raises Exists when
        that is taken. `deserted`: another node that is written down as a writer is dead, or what it writes is of no
        use; only who is seen to have it open stops this.
        """
        ...

    def set_info(self, name: VolumeName, text: str) -> None:
        """Ganeti's note on the volume. Raises NotFound."""
        ...

    def set_origin(self, name: VolumeName, map: MapId | None) -> None:
        """What it holds by now, as `VolumeFacts.origin` says it: somebody copied that onto it. None: nobody knows.

        Raises NotFound.
        """
        ...

    def facts(self, name: VolumeName) -> VolumeFacts:
        """Raises NotFound."""
        ...

    def find(self, uuid: str) -> VolumeName | None:
        """The volume that Ganeti made with this VOL_UUID; no volume is opened for that."""
        ...

    def changed(self, name: VolumeName, origin: Origin) -> int | None:
        """Bytes of a volume that may differ from an origin that goes on with zeros. 0: certainly the same, whoever may
        have had it open since, and no shorter. None: the engine cannot say, or not soon. Raises NotFound.
        """
        ...

    def reset(self, name: VolumeName, origin: Origin) -> None:
        """Make a volume read as an origin that goes on with zeros, sharing what it can, while it stays attached here.

        Only where `resets`, on a node that is the only writer. A crash leaves a mixture, which `changed` tells and the
        same call mends. Raises HalfDone when that may be so; NotFound, InUse, SizeRefused, NoSpace and any other error
        that a person can mend come before a byte of the volume is touched.
        """
        ...

    def snapshot_facts(self, name: SnapshotName) -> SnapshotFacts:
        """Raises NotFound."""
        ...

    def volumes(self) -> Iterable[VolumeName]: ...

    def snapshots(self) -> Iterable[SnapshotName]: ...

    def bases(self) -> Iterable[MapId]: ...

    def has_base(self, map: MapId) -> bool:
        """Whether there is one to clone; one of `bases` that was lost is none."""
        ...

    def space(self) -> Space: ...

    def sweep(self) -> list[str]:
        """Remove what processes left that died an hour ago or more. Returns what went, for people."""
        ...

    def check(self) -> Iterator[str]:
        """A sentence for each thing that is not as it should be; mends nothing."""
        ...
