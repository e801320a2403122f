"""What the store takes disk 0 for, told before and after a copy: snapshots get the properties of that image.

    before the first byte    nobody knows what it holds
    after the last sync      the image, if it is one of the store

Died in between, nobody knows. A clone, or a disk that became one again, the store knows itself.
"""

from __future__ import annotations

import shutil

from snf_image_host.params import Parameters
from snf_image_host.reporter import Reporter
from snf_image_host.settings import Settings
from snf_image_host.sources import NoImage
from snf_image_host.sources.store import Way, note_copy
from synnefo_light.errors import Error
from synnefo_light.ganeti import OsEnv, is_uuid
from synnefo_light.log import logger
from synnefo_light.run import PATH


def forget(way: Way | None, env: OsEnv, parameters: Parameters, settings: Settings) -> None:
    """Raises Error for an image of the store; whoever copies another one need not have a store that works."""
    uuid = _copied_onto(way, env, parameters)
    if uuid is None or shutil.which(settings.snf_store, path=PATH) is None:
        return
    try:
        note_copy(uuid, None, settings)
    except Error as e:
        if parameters.stored is not None:
            raise
        # Hardly ever more than a node that has the package and no store: a store that is down has no disks that work.
        logger.info("instance=%s the store was not told that disk 0 is copied onto: %s", env.instance, e)


def remember(way: Way | None, env: OsEnv, parameters: Parameters, settings: Settings, reporter: Reporter) -> None:
    """The disk is complete, so nothing is raised."""
    uuid = _copied_onto(way, env, parameters)
    if uuid is not None and parameters.stored is not None:
        try:
            note_copy(uuid, parameters.stored, settings)
        except Error as e:
            reporter.warned(None, f"snapshots of disk 0 will have no properties of the image: {e}")


def _copied_onto(way: Way | None, env: OsEnv, parameters: Parameters) -> str | None:
    """The UUID of disk 0, where something is copied onto it and Ganeti says it."""
    cloned = way is not None and way.volume is not None
    uuid = env.disks[0].uuid
    return uuid if is_uuid(uuid) and not cloned and not isinstance(parameters.source, NoImage) else None
