"""What there is of volumes, past what is damaged: one that cannot be read is no reason to do nothing for the others.

The collector alone must read everything, since what it cannot read may need what it would remove. `snf-store fsck`
tells of all that is skipped here.
"""

from __future__ import annotations

from collections.abc import Iterator

from snf_extstorage.volume import Damaged, NotFound, VolumeFacts, Volumes
from synnefo_light.log import logger


def readable_facts(volumes: Volumes) -> Iterator[VolumeFacts]:
    """Of each volume that can be read. One that is being removed is left out; one that is damaged is logged by name."""
    for name in volumes.volumes():
        try:
            yield volumes.facts(name)
        except Damaged as e:
            logger.warning("volume=%s is left out: %s", name, e)
        except NotFound as e:
            if name in volumes.volumes():
                logger.warning("volume=%s is left out, it is not whole: %s", name, e)
