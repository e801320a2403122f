"""Images of the store, which another room keeps: asked by the program `snf-store`, never by its files.

    show       is there such an image, how large is it, what are its properties          StoredImage
    compare    is disk 0 still a clone of it? Then nothing is copied                     Comparison, plan_way
    reset      make it one again, for a reinstall, where the storage can                 reset
    export     its data, each block compared with its hash over there                    open_stored
    origin     what it is to know of a copy: before one, nothing; after it, the image    note_copy

Once `show` has told the image's map, the others name that: a name that is removed and given again in between cannot put
other content onto the disk.

Disk 0 is known over there by DISK_0_UUID, which Ganeti told the provider when the disk was made. How that was does not
matter, but whether it reads as the image now; on Ceph, whether it is an untouched clone of it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, NoReturn, TypeVar

from snf_image_host.settings import Settings
from snf_image_host.sources import CHUNK, StoreImage
from synnefo_light import rooms
from synnefo_light.errors import PeerError, ToolError, ToolLate
from synnefo_light.log import escape, logger
from synnefo_light.records import RecordError, parse_json
from synnefo_light.run import Reading, Runner, read_from, run
from synnefo_light.units import human

PACKAGE: Final = "snf-extstorage"
ANSWER_LIMIT: Final = 1 << 20
#: More than the longest that Ceph is waited for over there.
ASK_S: Final = 300.0
#: A record is all that is written; who deploys onto other storage is not to wait for a Ceph that is down.
NOTE_S: Final = 60.0
_MAP: Final = re.compile(r"[0-9a-f]{64}")
_RANGE: Final = re.compile(rb"([0-9]{1,19}) ([0-9]{1,19})\n")

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """What `snf-store image show --json` says. Sizes in bytes; `data` None: it is not in the store yet."""

    name: str
    kind: Literal["image", "snapshot", "object"]
    size: int
    data: int | None
    map: str | None
    object_hash: str | None
    parent: str | None
    origin: str
    created_ms: int
    generation: int
    properties: Mapping[str, str]

    def __post_init__(self) -> None:
        if not 0 < self.size < 1 << 60:
            raise ValueError(f"size {self.size} is none that a disk has")
        if self.map is not None and not _MAP.fullmatch(self.map):
            raise ValueError(f"map {self.map!r} is none")

    @property
    def content(self) -> str:
        """What it is asked for by: its map, whatever becomes of the name. A snapshot without one has only the name."""
        return f"map:{self.map}" if self.map is not None else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What `snf-store volume compare --json` says. `volume` None: there is none; `changed` None: it cannot be said."""

    image: str
    volume: str | None
    changed: int | None
    resets: bool  # whether the volume can become the image again, without a copy


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How the image gets onto disk 0: a copy, or none, since it is a clone, `volume`, or becomes one again."""

    volume: str | None
    why: str  # a sentence for people
    reset: bool = False


def find_stored(image: StoreImage, settings: Settings, *, runner: Runner = run) -> StoredImage:
    """Raises UserError when there is no such image, EnvironmentFault without a store on this node."""
    words = [settings.snf_store, "image", "show", "--json", "--", image.reference]
    done = rooms.ask(words, package=PACKAGE, timeout_s=ASK_S, runner=runner)
    return _parsed(done.stdout, StoredImage, image.reference)


def compare(image: StoredImage, uuid: str, settings: Settings, *, runner: Runner = run) -> Comparison:
    """How the volume that Ganeti knows as `uuid` differs from the image; late, it cannot be told. Raises Error."""
    words = [settings.snf_store, "volume", "compare", "--json", "--", uuid, image.content]
    try:
        done = rooms.ask(words, package=PACKAGE, timeout_s=ASK_S, ok=(0, 1), runner=runner)
    except ToolLate as e:
        logger.warning("%s", e)
        return Comparison(image=image.name, volume=uuid, changed=None, resets=False)
    return _parsed(done.stdout, Comparison, image.name)


def reset(image: StoredImage, volume: str, settings: Settings, *, runner: Runner = run) -> None:
    """Make the volume a clone of the image again: what it holds is gone.

    Raises UserError and EnvironmentFault when that was refused and nothing touched, else another Error; then it may be
    a mixture.
    """
    words = [settings.snf_store, "volume", "reset", "--", volume, image.content]
    rooms.ask(words, package=PACKAGE, timeout_s=ASK_S, runner=runner)


def note_copy(uuid: str, image: StoredImage | None, settings: Settings, *, runner: Runner = run) -> None:
    """Tell the store what is copied onto the disk that Ganeti knows as `uuid`; None: nothing that the store knows.

    A snapshot of a volume has the properties of the image that the store takes it for. Raises Error.
    """
    words = [settings.snf_store, "volume", "origin", "--", uuid, *([image.content] if image else [])]
    rooms.ask(words, package=PACKAGE, timeout_s=NOTE_S, ok=(0, 1), runner=runner)


def plan_way(image: StoredImage, found: Comparison | None, *, reinstall: bool) -> Way:
    """Whether anything is to be copied onto disk 0; `found` None: Ganeti passed no UUID of it."""
    if found is None or found.volume is None:
        why = (
            f"disk 0 is no volume of the store, so the image is copied; a disk that is made with "
            f"provider=archipelago,origin={image.name} is a clone, and nothing is copied"
        )
        return Way(volume=None, why=why)
    if found.changed == 0:
        return Way(
            volume=found.volume, why=f"disk 0 is a clone of {image.name} that nobody wrote to: nothing is copied"
        )
    if found.changed is None:
        why = f"whether disk 0 is still what {image.name} is cannot be told, so the image is copied"
    elif reinstall and found.resets:
        why = f"disk 0 was written to and becomes a clone of {image.name} again: nothing is copied"
        return Way(volume=found.volume, why=why, reset=True)
    elif reinstall:
        why = f"disk 0 was written to ({human(found.changed)} may differ from {image.name}), so the image is copied"
    else:
        why = (
            f"disk 0 is no clone of {image.name}, or was written to since ({human(found.changed)} may differ), so the "
            f"image is copied; of a disk that is made with origin={image.name} nothing is"
        )
    return Way(volume=None, why=why)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenStored:
    """An image as `snf-store image export --ranges` gives it; its holes do not come."""

    name: str
    size: int
    reading: Reading

    def chunks(self) -> Iterator[tuple[int, memoryview]]:
        buffer = memoryview(bytearray(CHUNK))
        while (found := self._range()) is not None:
            offset, length = found
            while length:
                count = self.reading.fill(buffer[: min(CHUNK, length)])
                if count == 0:
                    self._ended()
                yield offset, buffer[:count]
                offset, length = offset + count, length - count
        rooms.check(self.reading.finish())

    def _range(self) -> tuple[int, int] | None:
        line = self.reading.line(limit=64)
        match = _RANGE.fullmatch(line)
        if match is None:
            self._ended()
        offset, length = int(match[1]), int(match[2])
        if length:
            return offset, length
        if offset != self.size:
            raise PeerError(
                f"the image {self.name} has {offset} bytes by now, not {self.size}; it was replaced meanwhile"
            )
        return None

    def _ended(self) -> NoReturn:
        rooms.check(self.reading.finish())
        raise PeerError(f"snf-store gave not all of the image {self.name}")


@contextlib.contextmanager
def open_stored(image: StoredImage, settings: Settings) -> Iterator[OpenStored]:
    """The image ready to be read, as long as the context is. Raises Error."""
    words = [settings.snf_store, "image", "export", "--ranges", "--", image.content, "-"]
    try:
        with read_from(words, timeout_s=float(settings.http_limit_s)) as reading:
            yield OpenStored(name=image.name, size=image.size, reading=reading)
    except ToolError as e:
        raise rooms.absent(e, PACKAGE) from e


def _parsed(raw: bytes, into: type[T], image: str) -> T:
    try:
        return parse_json(raw, into, limit=ANSWER_LIMIT)
    except RecordError as e:
        raise PeerError(f"what snf-store says of {escape(image, limit=200)} cannot be used: {e}") from None
