"""What a volume can begin as, and how an image of it is made: a base, a snapshot, a volume as it is now, any image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from snf_extstorage.rados import contents, snapshots
from snf_extstorage.rados.images import Images
from snf_extstorage.rados.kept import OF_VOLUME, Beat, Kept, base_image, clones_snapshot
from snf_extstorage.volume import FromBase, FromSnapshot, FromVolume, NotFound, Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What a volume is to begin as. `fill` makes an image of it, of its own size."""

    size: int
    map: str | None
    shown: str
    fill: Callable[[Beat], None]
    frozen: bool = True  # False: it may be larger than its record has it


def source_of(kept: Kept, origin: Origin, name: str) -> Source:
    """What `name` is to begin as. Raises NotFound."""
    images = kept.images
    match origin:
        case FromBase(map=map):
            base = kept.bases.get(map)
            if base is None or base.state != "ready":
                raise NotFound(f"there is no base of map {map} in pool {images.place}")
            image, at = base_image(map), contents.BASE_SNAPSHOT
            return Source(size=base.size, map=map, shown=f"map {map}", fill=lambda beat: images.clone(image, at, name))
        case FromSnapshot(snapshot=snapshot):
            image, at, frozen = snapshots.clone_source(kept, snapshot)

            def fill(beat: Beat) -> None:
                if frozen.group:
                    contents.copy(kept, frozen, name, beat)
                else:
                    images.clone(image, at, name)

            return Source(size=frozen.size, map=frozen.map, shown=f"snapshot {snapshot}", fill=fill)
        case FromVolume(volume=volume):
            record = kept.volume(volume)
            return Source(
                size=record.size,
                map=record.map,
                shown=f"{OF_VOLUME}{volume}",
                fill=lambda beat: _clone_volume(kept, volume, name),
                frozen=False,
            )


def foreign_source(images: Images, image: str, snapshot: str, name: str) -> Source:
    """A snapshot of an image that need not be ours. Raises NotFound."""
    shown = f"image {image}@{snapshot}"
    with images.opened(image) as found:
        number = images.user_snapshots(found).get(snapshot)
    if number is None:
        raise NotFound(f"there is no {shown} in pool {images.place}, which volume {name} is to begin as")
    with images.opened(image, number=number) as found:
        has = int(found.size())
    return Source(size=has, map=None, shown=shown, fill=lambda beat: images.clone(image, snapshot, name))


def _clone_volume(kept: Kept, volume: str, name: str) -> None:
    """Whoever throws the clone away, half made, drops the snapshot too; whole, it needs it no more."""
    at = clones_snapshot(name)
    with kept.images.opened(volume, read_only=False) as image:
        kept.images.drop_snapshot(image, at)
        kept.trace("clone snapshot")
        kept.images.take_snapshot(image, at)
    kept.trace("clone image")
    kept.images.clone(volume, at, name)
    kept.trace("clone forget")
    kept.drop_clones_snapshot(volume, name)
