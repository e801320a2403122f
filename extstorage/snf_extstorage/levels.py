"""How full the place of the volumes is, told when it crosses a mark and not again.

Each node remembers the last level that it told in /run, so a node tells it once more after a boot. The order is: the
event, then the memory of it; who dies in between tells it twice.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from snf_extstorage.settings import Settings
from snf_extstorage.volume import NoSpace, Space, Volumes
from synnefo_light.errors import Error
from synnefo_light.files import locked, read_bounded, write_atomic
from synnefo_light.log import logger
from synnefo_light.units import human

if TYPE_CHECKING:
    from synnefo_light.events import EventType, StorageDetail

Level = Literal["ok", "warning", "critical"]

#: Percent above a mark at which it counts as crossed upwards, so that a level is not told again and again at its mark.
_SLACK: Final = 1
_ORDER: Final[tuple[Level, ...]] = ("ok", "warning", "critical")


def plan_level(space: Space, before: Level, settings: Settings) -> Level:
    """The level that free space is at, coming from `before`."""
    marks: dict[Level, int] = {"critical": settings.critical_percent, "warning": settings.warning_percent}
    for level, mark in marks.items():
        slack = _SLACK if _ORDER.index(before) >= _ORDER.index(level) else 0
        if space.free * 100 < space.total * (mark + slack):
            return level
    return "ok"


def has_reserve(space: Space, settings: Settings) -> bool:
    return space.free * 100 >= space.total * settings.reserve_percent


def require_reserve(space: Space, settings: Settings) -> None:
    """Before work that ends with the engine asking the same. Raises NoSpace."""
    if not has_reserve(space, settings):
        raise NoSpace(
            f"there are {human(space.free)} of {human(space.total)} free in {_place(settings)}, and "
            f"{settings.reserve_percent} % are reserved for what running instances write; make room"
        )


def watch_level(settings: Settings, volumes: Volumes) -> str | None:
    """Tell a level that was reached since the last call; the sentence, or None. Never fails what was done before."""
    memory = settings.run / "level"
    try:
        space = volumes.space()
        if plan_level(space, _remembered(memory), settings) == _remembered(memory):
            return None
        settings.run.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(settings.run / "level.lock", wait_s=5):
            before = _remembered(memory)
            level = plan_level(space, before, settings)
            if level == before:
                return None
            return _tell(memory, level, before, space, settings)
    except (Error, OSError) as e:
        logger.warning("the free space of volumes is not watched: %s", e)
        return None


def _tell(memory: Path, level: Level, before: Level, space: Space, settings: Settings) -> str:
    from synnefo_light.events import StorageLevelChanged

    place = _place(settings)
    drop_event(
        "storage-level-changed",
        StorageLevelChanged(place=place, level=level, before=before, free=space.free, total=space.total),
    )
    write_atomic(memory, level.encode(), mode=0o600, durable=False)
    text = f"free space is {level}, after {before}: {human(space.free)} of {human(space.total)} in {place}"
    logger.warning("%s", text)
    return text


def _place(settings: Settings) -> str:
    return str(settings.folder) if settings.engine == "directory" else f"pool {settings.ceph.pool}"


def drop_event(type_: EventType, detail: StorageDetail) -> None:
    """Tell whoever listens; a spool that takes nothing fails nobody's work."""
    from synnefo_light import events

    try:
        events.drop(events.storage_event(type_, detail), events.SPOOL)
    except (Error, OSError) as e:
        logger.warning("event=%s was not told: %s", type_, e)


def _remembered(memory: Path) -> Level:
    try:
        text = read_bounded(memory, limit=64).decode("ascii", "replace")
    except FileNotFoundError:
        return "ok"
    return next((level for level in _ORDER if level == text), "ok")
